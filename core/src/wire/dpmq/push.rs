//! The frame that a server pushes to a consumer.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::wire::escape::push_quoted;
use crate::wire::json::{Scanner, bad, names, view};

/// A pushed message as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The code that the producer got too.
    pub code: Arc<str>,
    /// The body, valid UTF-8: a view into the frame when nothing in it was escaped.
    pub body: Bytes,
    /// The topic, a view into the frame where possible.
    pub topic: Bytes,
    /// When the server took it, as it writes it: `2006-01-02 15:04:05` in its own time zone.
    pub create_time: Bytes,
    /// 0; the original also writes 1 when another consumer got it first.
    pub status: i64,
}

/// A message as a server writes it.
#[derive(Debug, Clone, Copy)]
pub struct PushText<'a> {
    /// The code.
    pub code: &'a str,
    /// The body.
    pub body: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// Local date and time: `2006-01-02 15:04:05`.
    pub create_time: &'a str,
    /// [`PUSHED`](super::PUSHED).
    pub status: i64,
}

/// Appends a whole push frame: the object with the original's order of fields and escapes, and a line feed.
pub fn encode_push_line(out: &mut Vec<u8>, message: &PushText<'_>) {
    for (name, value) in [
        (&br#"{"MessageCode":"#[..], message.code),
        (br#","MessageData":"#, message.body),
        (br#","Topic":"#, message.topic),
        (br#","CreateTime":"#, message.create_time),
    ] {
        out.extend_from_slice(name);
        push_quoted(out, value);
    }
    out.extend_from_slice(br#","Status":"#);
    out.extend_from_slice(message.status.to_string().as_bytes());
    out.extend_from_slice(b"}\n");
}

/// Decodes a push frame.
///
/// # Errors
/// `protocol` when it is no such frame, or names no message.
pub fn decode_push(frame: &Bytes) -> Result<Push> {
    let mut push = Push {
        code: Arc::from(""),
        body: Bytes::new(),
        topic: Bytes::new(),
        create_time: Bytes::new(),
        status: 0,
    };
    let mut scanner = Scanner::new(frame);
    scanner.object(|key, scanner| {
        if names(key, "MessageCode") {
            if let Some(code) = scanner.optional_string()? {
                push.code = Arc::from(code);
            }
            return Ok(());
        }
        let part = if names(key, "MessageData") {
            &mut push.body
        } else if names(key, "Topic") {
            &mut push.topic
        } else if names(key, "CreateTime") {
            &mut push.create_time
        } else if names(key, "Status") {
            push.status = scanner.integer()?.unwrap_or(push.status);
            return Ok(());
        } else {
            return scanner.value();
        };
        if let Some(text) = scanner.optional_string()? {
            *part = view(frame, text);
        }
        Ok(())
    })?;
    scanner.end()?;
    if push.code.is_empty() {
        return Err(bad("a pushed message without a code"));
    }
    Ok(push)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const CODE: &str = "0e1c1d30a6950cb14c9e79c66fa4e21b6b016082";
    const TIME: &str = "2026-11-21 09:12:34";

    fn line(body: &str, topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode_push_line(&mut out, &PushText { code: CODE, body, topic, create_time: TIME, status: 0 });
        out
    }

    #[test]
    fn the_frame_is_byte_for_byte_the_original_s() {
        let expected = concat!(
            r#"{"MessageCode":"0e1c1d30a6950cb14c9e79c66fa4e21b6b016082","MessageData":"early \u003cb\u003e","#,
            r#""Topic":"t","CreateTime":"2026-11-21 09:12:34","Status":0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line("early <b>", "t")).unwrap(), expected);
    }

    #[test]
    fn decoding_gives_back_what_was_encoded() {
        let mut random = StdRng::seed_from_u64(5);
        for _ in 0..2_000 {
            let body: String = (0..random.random_range(0..120)).map(|_| random.random::<char>()).collect();
            let push = decode_push(&Bytes::from(line(&body, "a<b木"))).unwrap();
            assert_eq!((&push.body[..], &push.topic[..]), (body.as_bytes(), "a<b木".as_bytes()));
            assert_eq!((&*push.code, &push.create_time[..], push.status), (CODE, TIME.as_bytes(), 0));
        }
    }

    #[test]
    fn other_orders_are_read_and_bad_frames_refused() {
        let push = decode_push(&Bytes::from_static(
            br#"{"status":1,"messagedata":"x","MESSAGECODE":"c","More":[]}"#,
        ));
        let push = push.unwrap();
        assert_eq!((&*push.code, &push.body[..], push.status), ("c", &b"x"[..], 1));
        for bad in ["", "ok", "[]", "{}", r#"{"MessageCode":""}"#, r#"{"MessageCode":"c","CreateTime":5}"#] {
            assert!(decode_push(&Bytes::from(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_input_panics() {
        let mut random = StdRng::seed_from_u64(12);
        let seed = line("a\u{1f333}\n\"", "t");
        for _ in 0..20_000 {
            let mut bytes = seed.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            let _ = decode_push(&Bytes::from(bytes));
        }
    }
}
