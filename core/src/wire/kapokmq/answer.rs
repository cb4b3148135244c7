//! The texts of the extension: what a server answers to a message, and how a consumer gives one back.

use crate::error::{Error, Kind, Result};
use crate::wire::json::bad;

/// The most of a refusal's text that is read.
const MAX_TEXT: usize = 200;

/// What a server says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It has it, under this code.
    Accepted(&'a str),
    /// It did not take it.
    Refused {
        /// What stood in its way.
        kind: Kind,
        /// The same for people.
        text: &'a str,
    },
}

/// Appends the answer to an accepted message.
pub fn push_accepted(out: &mut String, code: &str) {
    out.push_str("ok ");
    out.push_str(code);
}

/// Appends the answer to a message that was not taken.
pub fn push_refused(out: &mut String, error: &Error) {
    out.push_str("no ");
    out.push_str(error.kind().name());
    out.push(' ');
    out.push_str(&error.text());
}

/// Decodes a server's answer.
///
/// # Errors
/// `protocol` when it is none.
pub fn decode_answer(frame: &[u8]) -> Result<Answer<'_>> {
    let text = std::str::from_utf8(frame).map_err(|_| bad("an answer that is no text"))?;
    if let Some(code) = text.strip_prefix("ok ").filter(|code| is_code(code)) {
        return Ok(Answer::Accepted(code));
    }
    let refusal = text.strip_prefix("no ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
    let Some((name, text)) = refusal else { return Err(bad("an answer that is neither yes nor no")) };
    // A kind that this version does not know is one all the same.
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Kind::Unavailable);
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(end, _)| end);
    Ok(Answer::Refused { kind, text: text.get(..end).unwrap_or_default() })
}

/// The frame that gives a delivery back, to come again after this many milliseconds.
pub fn encode_nack(code: &str, delay_ms: u64) -> String {
    format!("nack {code} {delay_ms}")
}

/// The code and the milliseconds of such a frame; `None` for any other.
pub fn decode_nack(frame: &[u8]) -> Option<(&[u8], u64)> {
    let rest = frame.strip_prefix(b"nack ")?;
    let at = rest.iter().position(|&byte| byte == b' ')?;
    let (code, delay) = (rest.get(..at)?, rest.get(at + 1..)?);
    let digits = !delay.is_empty() && delay.iter().all(u8::is_ascii_digit);
    let delay = std::str::from_utf8(delay).ok().filter(|_| digits)?;
    // More digits than fit are a longer time than any.
    Some((code, delay.parse().unwrap_or(u64::MAX)))
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.len() <= 1024 && code.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let mut out = String::new();
        push_accepted(&mut out, "6f31");
        assert_eq!(out, "ok 6f31");
        assert_eq!(decode_answer(out.as_bytes()).unwrap(), Answer::Accepted("6f31"));
        let mut out = String::new();
        push_refused(&mut out, &Error::new(Kind::QueueFull, "the topic is full"));
        assert_eq!(out, "no queue_full the topic is full");
        let full = Answer::Refused { kind: Kind::QueueFull, text: "the topic is full" };
        assert_eq!(decode_answer(out.as_bytes()).unwrap(), full);
        let short = Answer::Refused { kind: Kind::Storage, text: "" };
        assert_eq!(decode_answer(b"no storage").unwrap(), short);
        let strange = decode_answer(b"no tomorrow maybe").unwrap();
        assert_eq!(strange, Answer::Refused { kind: Kind::Unavailable, text: "maybe" });
        let long = format!("no storage {}", "\u{6728}".repeat(10_000));
        assert!(
            matches!(decode_answer(long.as_bytes()).unwrap(), Answer::Refused { text, .. } if text.len() == 600)
        );
        for bad in [&b""[..], b"ok", b"ok ", b"ok  x", b"ok a b", b"okay", b"no", b"OK x", b"ok \xff"] {
            assert_eq!(decode_answer(bad).unwrap_err().kind(), Kind::Protocol, "{bad:?}");
        }
    }

    #[test]
    fn what_gives_back() {
        assert_eq!(decode_nack(encode_nack("6f31", 1500).as_bytes()), Some((&b"6f31"[..], 1500)));
        assert_eq!(decode_nack(b"nack c 99999999999999999999999"), Some((&b"c"[..], u64::MAX)));
        for bad in [
            "",
            "nack",
            "nack ",
            "nack c",
            "nack c ",
            "nack c -1",
            "nack c 1 ",
            "nack c +1",
            "nack c 1x",
            "6f31",
        ] {
            assert_eq!(decode_nack(bad.as_bytes()), None, "{bad}");
        }
    }
}
