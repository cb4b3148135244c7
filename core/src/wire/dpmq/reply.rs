//! What a server answers by HTTP: `{"code":0,"msg":"<MessageCode>"}`, or `{"code":-1,"msg":"<reason>"}`.

use std::sync::Arc;

use crate::error::Result;
use crate::wire::escape::push_quoted;
use crate::wire::json::{Scanner, bad, names};

/// The reply to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was taken; its code.
    Taken(Arc<str>),
    /// It was not; why.
    Refused(Arc<str>),
}

/// A reply as a server writes it.
pub fn encode_reply(reply: Result<&str, &str>) -> Vec<u8> {
    let (code, text) = match reply {
        Ok(code) => (&br#"{"code":0,"msg":"#[..], code),
        Err(reason) => (&br#"{"code":-1,"msg":"#[..], reason),
    };
    let mut out = code.to_vec();
    push_quoted(&mut out, text);
    out.push(b'}');
    out
}

/// Decodes the reply to a message.
///
/// # Errors
/// `protocol` when it is none.
pub fn decode_reply(body: &[u8]) -> Result<Reply> {
    let (mut code, mut text) = (None, None);
    let mut scanner = Scanner::new(body);
    scanner.object(|key, scanner| {
        if names(key, "code") {
            code = scanner.integer()?;
            Ok(())
        } else if names(key, "msg") {
            text = scanner.optional_string()?;
            Ok(())
        } else {
            scanner.value()
        }
    })?;
    scanner.end()?;
    let text = text.unwrap_or_default();
    match code {
        Some(0) if text.is_empty() => Err(bad("a message was taken without a code")),
        Some(0) => Ok(Reply::Taken(text.into())),
        Some(_) => Ok(Reply::Refused(text.into())),
        None => Err(bad("a reply without `code`")),
    }
}

/// Whether this is a server's answer to a request for its settings.
pub fn is_settings(body: &[u8]) -> bool {
    let (mut code, mut data) = (None, false);
    let mut scanner = Scanner::new(body);
    let read = scanner.object(|key, scanner| {
        if names(key, "code") {
            code = scanner.integer()?;
            return Ok(());
        }
        data |= names(key, "data") && scanner.peek() == Some(b'{');
        scanner.value()
    });
    read.and_then(|()| scanner.end()).is_ok() && code == Some(0) && data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let taken = encode_reply(Ok("d9a6"));
        assert_eq!(taken, br#"{"code":0,"msg":"d9a6"}"#);
        assert_eq!(decode_reply(&taken).unwrap(), Reply::Taken("d9a6".into()));
        let refused = encode_reply(Err(super::super::BAD_TOPIC));
        assert_eq!(refused, r#"{"code":-1,"msg":"topic不能包含字符“|”"}"#.as_bytes());
        assert_eq!(decode_reply(&refused).unwrap(), Reply::Refused(super::super::BAD_TOPIC.into()));
        assert_eq!(
            decode_reply(b" {\"msg\":null,\"x\":[1],\"code\":-7} ").unwrap(),
            Reply::Refused("".into())
        );
        for none in ["", "ok", "{}", "[]", r#"{"code":0}"#, r#"{"code":"0","msg":"a"}"#, r#"{"msg":"a"}"#] {
            assert!(decode_reply(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn settings_are_told_from_other_answers() {
        assert!(is_settings(br#"{"code":0,"data":{"messageChanBuffer":100}}"#));
        for other in ["", "{}", r#"{"code":-1,"data":{}}"#, r#"{"code":0,"data":null}"#, "404 page not found"]
        {
            assert!(!is_settings(other.as_bytes()), "{other}");
        }
    }
}
