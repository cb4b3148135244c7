//! The frame that a server pushes to a consumer.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::wire::escape::push_quoted;
use crate::wire::json::{Scanner, bad, names, view};

/// A pushed message as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The code to acknowledge it by.
    pub code: Arc<str>,
    /// The body, valid UTF-8: a view into the frame when nothing in it was escaped.
    pub body: Bytes,
    /// The topic, a view into the frame where possible; [`Push::topic_is`] compares without a copy.
    pub topic: Bytes,
    /// When the server accepted it, in seconds since 1970.
    pub create_time: i64,
    /// When it was acknowledged, 0 before.
    pub consumed_time: i64,
    /// The delay in seconds; when it is pushed again, its age at that time.
    pub delay_time: i64,
    /// [`WAITING`](super::WAITING), [`DELAYED`](super::DELAYED) or [`CONSUMED`](super::CONSUMED).
    pub status: i64,
    /// How often it was pushed, from 1; only the extension has it.
    pub attempt: Option<u32>,
    /// The key that it was sent with; only the extension has it.
    pub key: Option<String>,
}

impl Push {
    /// Whether the topic is this one.
    pub fn topic_is(&self, topic: &str) -> bool {
        self.topic == topic.as_bytes()
    }
}

/// A message as a server writes it.
#[derive(Debug, Clone, Copy)]
pub struct PushText<'a> {
    /// The code to acknowledge it by.
    pub code: &'a str,
    /// The body.
    pub body: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// When the server accepted it, in seconds since 1970.
    pub create_time: i64,
    /// When it was acknowledged, 0 before.
    pub consumed_time: i64,
    /// The delay in seconds, or the age at a further push.
    pub delay_time: i64,
    /// [`WAITING`](super::WAITING), [`DELAYED`](super::DELAYED) or [`CONSUMED`](super::CONSUMED).
    pub status: i64,
}

/// Appends the message as an object, with the original's order of fields and escapes.
pub fn encode_push(out: &mut Vec<u8>, message: &PushText<'_>) {
    out.extend_from_slice(br#"{"MessageCode":"#);
    push_quoted(out, message.code);
    out.extend_from_slice(br#","MessageData":"#);
    push_quoted(out, message.body);
    out.extend_from_slice(br#","Topic":"#);
    push_quoted(out, message.topic);
    for (name, value) in [
        (&br#","CreateTime":"#[..], message.create_time),
        (br#","ConsumedTime":"#, message.consumed_time),
        (br#","DelayTime":"#, message.delay_time),
        (br#","Status":"#, message.status),
    ] {
        out.extend_from_slice(name);
        push_integer(out, value);
    }
    out.push(b'}');
}

/// Appends a whole push frame: the object and a line feed.
pub fn encode_push_line(out: &mut Vec<u8>, message: &PushText<'_>) {
    encode_push(out, message);
    out.push(b'\n');
}

/// Appends a whole push frame of the extension: the original's fields, the attempt, and the key where there is
/// one.
pub fn encode_extended_push_line(out: &mut Vec<u8>, message: &PushText<'_>, attempt: u32, key: Option<&str>) {
    encode_push(out, message);
    out.pop();
    out.extend_from_slice(br#","Attempt":"#);
    push_integer(out, i64::from(attempt));
    if let Some(key) = key {
        out.extend_from_slice(br#","Key":"#);
        push_quoted(out, key);
    }
    out.extend_from_slice(b"}\n");
}

fn push_integer(out: &mut Vec<u8>, value: i64) {
    match value {
        0 => out.push(b'0'),
        -1 => out.extend_from_slice(b"-1"),
        // Writing to a vector does not fail.
        other => drop(write!(out, "{other}")),
    }
}

/// Decodes a push frame.
///
/// # Errors
/// `protocol` when it is no such frame, or has no code to acknowledge it by.
pub fn decode_push(frame: &Bytes) -> Result<Push> {
    let push = match exact(frame) {
        Some(push) => push,
        None => any_order(frame)?,
    };
    if push.code.is_empty() {
        return Err(bad("a pushed message without a code"));
    }
    Ok(push)
}

/// The shape that servers write; `None` for any other, good or bad.
fn exact(frame: &Bytes) -> Option<Push> {
    let mut scanner = Scanner::new(frame);
    let mut string = |name: &[u8]| {
        if scanner.skip(name) { scanner.string_rest().ok() } else { None }
    };
    let code = string(br#"{"MessageCode":""#)?;
    let body = string(br#","MessageData":""#)?;
    let topic = string(br#","Topic":""#)?;
    let mut integer = |name: &[u8]| -> Option<i64> {
        if scanner.skip(name) { scanner.number().ok()?.parse().ok() } else { None }
    };
    let create_time = integer(br#","CreateTime":"#)?;
    let consumed_time = integer(br#","ConsumedTime":"#)?;
    let delay_time = integer(br#","DelayTime":"#)?;
    let status = integer(br#","Status":"#)?;
    let attempt = match scanner.skip(br#","Attempt":"#) {
        true => Some(scanner.number().ok()?.parse().ok()?),
        false => None,
    };
    let key = match scanner.skip(br#","Key":""#) {
        true => Some(scanner.string_rest().ok()?.into_owned()),
        false => None,
    };
    if !scanner.skip(b"}") || scanner.end().is_err() {
        return None;
    }
    let (code, body, topic) = (Arc::from(code), view(frame, body), view(frame, topic));
    Some(Push { code, body, topic, create_time, consumed_time, delay_time, status, attempt, key })
}

fn any_order(frame: &Bytes) -> Result<Push> {
    let mut push = Push {
        code: Arc::from(""),
        body: Bytes::new(),
        topic: Bytes::new(),
        create_time: 0,
        consumed_time: 0,
        delay_time: 0,
        status: 0,
        attempt: None,
        key: None,
    };
    let mut scanner = Scanner::new(frame);
    scanner.object(|key, scanner| {
        if names(key, "MessageCode") {
            if let Some(code) = scanner.optional_string()? {
                push.code = Arc::from(code);
            }
        } else if names(key, "MessageData") {
            if let Some(body) = scanner.optional_string()? {
                push.body = view(frame, body);
            }
        } else if names(key, "Topic") {
            if let Some(topic) = scanner.optional_string()? {
                push.topic = view(frame, topic);
            }
        } else if names(key, "Attempt") {
            push.attempt = scanner.integer()?.and_then(|attempt| u32::try_from(attempt).ok());
        } else if names(key, "Key") {
            push.key = scanner.optional_string()?.map(Cow::into_owned);
        } else {
            let number = if names(key, "CreateTime") {
                &mut push.create_time
            } else if names(key, "ConsumedTime") {
                &mut push.consumed_time
            } else if names(key, "DelayTime") {
                &mut push.delay_time
            } else if names(key, "Status") {
                &mut push.status
            } else {
                return scanner.value();
            };
            *number = scanner.integer()?.unwrap_or(*number);
        }
        Ok(())
    })?;
    scanner.end()?;
    Ok(push)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn text<'a>(body: &'a str, topic: &'a str) -> PushText<'a> {
        PushText {
            code: "6f31966c0b5e6f3163737b30c1955396",
            body,
            topic,
            create_time: 1_795_250_913,
            consumed_time: 0,
            delay_time: 0,
            status: -1,
        }
    }

    #[test]
    fn the_frame_is_byte_for_byte_the_original_s() {
        let mut out = Vec::new();
        encode_push_line(&mut out, &text("hello <b>", "t1"));
        let expected = concat!(
            r#"{"MessageCode":"6f31966c0b5e6f3163737b30c1955396","MessageData":"hello \u003cb\u003e","Topic":"t1","#,
            r#""CreateTime":1795250913,"ConsumedTime":0,"DelayTime":0,"Status":-1}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_extension_s_fields_come_last() {
        let mut out = Vec::new();
        encode_extended_push_line(&mut out, &text("x", "t"), 3, Some("k<1"));
        let line = String::from_utf8(out.clone()).unwrap();
        assert!(
            line.ends_with("\"DelayTime\":0,\"Status\":-1,\"Attempt\":3,\"Key\":\"k\\u003c1\"}\n"),
            "{line}"
        );
        let push = decode_push(&Bytes::from(out)).unwrap();
        assert_eq!((push.attempt, push.key.as_deref()), (Some(3), Some("k<1")));
        let mut out = Vec::new();
        encode_extended_push_line(&mut out, &text("x", "t"), 1, None);
        let push = decode_push(&Bytes::from(out)).unwrap();
        assert_eq!((push.attempt, push.key), (Some(1), None));
        let other = Bytes::from_static(br#"{"Key":"k","Attempt":2,"MessageCode":"c"}"#);
        let push = decode_push(&other).unwrap();
        assert_eq!((push.attempt, push.key.as_deref()), (Some(2), Some("k")));
    }

    #[test]
    fn decoding_gives_back_what_was_encoded() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..3_000 {
            let body: String = (0..random.random_range(0..120))
                .map(|_| {
                    if random.random() { random.random() } else { char::from(random.random_range(0..128u8)) }
                })
                .collect();
            let mut message = text(&body, "a<b木");
            message.delay_time = random.random();
            message.consumed_time = random.random();
            let mut out = Vec::new();
            encode_push_line(&mut out, &message);
            let push = decode_push(&Bytes::from(out)).unwrap();
            assert_eq!(push.body, body.as_bytes());
            assert!(push.topic_is(message.topic));
            assert_eq!(&*push.code, message.code);
            assert_eq!((push.delay_time, push.consumed_time), (message.delay_time, message.consumed_time));
            assert_eq!((push.create_time, push.status), (1_795_250_913, -1));
        }
    }

    #[test]
    fn a_plain_body_is_a_view_of_the_frame() {
        let mut out = Vec::new();
        encode_push_line(&mut out, &text("plain", "t"));
        let frame = Bytes::from(out);
        let push = decode_push(&frame).unwrap();
        let range = frame.as_ptr_range();
        assert!(range.contains(&push.body.as_ptr()));
    }

    #[test]
    fn other_orders_are_read_and_bad_frames_refused() {
        let frame =
            Bytes::from_static(br#"{ "status":1, "messagedata":"x","MESSAGECODE":"c","Extra":[{}] }"#);
        let push = decode_push(&frame).unwrap();
        assert_eq!((&*push.code, &push.body[..], push.status), ("c", &b"x"[..], 1));
        for bad in ["", "ok", "[]", "{}", r#"{"MessageCode":""}"#, r#"{"MessageCode":"c","Status":"1"}"#] {
            assert!(decode_push(&Bytes::from(bad)).is_err(), "{bad}");
        }
    }
}
