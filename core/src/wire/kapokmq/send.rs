//! The frame of a producer: `{"MessageData":"…","DelayTime":0}`.

use std::borrow::Cow;
use std::time::Duration;

use crate::error::Result;
use crate::wire::escape::push_minimal;
use crate::wire::json::{Scanner, bad, names};

/// The longest delay in seconds that can be added to a time of day without overflow until the year 9999.
pub const MAX_DELAY: i64 = i64::MAX - 253_402_300_799;

/// The longest key of a message in bytes.
pub const MAX_KEY: usize = 1024;

/// A producer's frame, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendFrame<'a> {
    /// The body: borrowed from the frame when nothing in it was escaped.
    pub body: Cow<'a, str>,
    /// The delay in seconds as it stands in the frame; zero and less mean at once.
    pub delay: i64,
    /// The key for de-duplication, empty for none; only the extension has it.
    pub key: Cow<'a, str>,
}

/// Whole seconds that are not less than the delay.
pub fn delay_seconds(delay: Duration) -> u64 {
    delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0))
}

/// Appends the frame of one message.
pub fn encode_send(out: &mut Vec<u8>, body: &str, delay_seconds: u64) {
    out.extend_from_slice(br#"{"MessageData":"#);
    push_minimal(out, body);
    out.extend_from_slice(br#","DelayTime":"#);
    if delay_seconds == 0 {
        out.extend_from_slice(b"0}");
        return;
    }
    out.extend_from_slice(delay_seconds.to_string().as_bytes());
    out.push(b'}');
}

/// Appends the frame of a message with a key, which the extension has.
pub fn encode_keyed_send(out: &mut Vec<u8>, body: &str, delay_seconds: u64, key: &str) {
    encode_send(out, body, delay_seconds);
    out.pop();
    out.extend_from_slice(br#","Key":"#);
    push_minimal(out, key);
    out.push(b'}');
}

/// Decodes a producer's frame, text or binary. A key is none of it: the original ignores it too.
///
/// # Errors
/// `protocol` when the original server would drop the connection, and when the delay overflows.
pub fn decode_send(frame: &[u8]) -> Result<SendFrame<'_>> {
    decode(frame, false)
}

/// Decodes a producer's frame as the extension has it: there may be a `Key`, a string.
///
/// # Errors
/// As [`decode_send`]; `protocol` for a key that is longer than [`MAX_KEY`] or no string.
pub fn decode_extended_send(frame: &[u8]) -> Result<SendFrame<'_>> {
    let decoded = decode(frame, true)?;
    if decoded.key.len() > MAX_KEY {
        return Err(bad("the key is too long"));
    }
    Ok(decoded)
}

fn decode(frame: &[u8], extended: bool) -> Result<SendFrame<'_>> {
    let decoded = match exact(frame, extended) {
        Some(decoded) => decoded,
        None => any_order(frame, extended)?,
    };
    if decoded.delay > MAX_DELAY {
        return Err(bad("the delay overflows"));
    }
    Ok(decoded)
}

/// The shape that clients write; `None` for any other, good or bad.
fn exact(frame: &[u8], extended: bool) -> Option<SendFrame<'_>> {
    let mut scanner = Scanner::new(frame);
    if !scanner.skip(br#"{"MessageData":""#) {
        return None;
    }
    let body = scanner.string_rest().ok()?;
    if !scanner.skip(br#","DelayTime":"#) {
        return None;
    }
    let delay = scanner.number().ok()?.parse().ok()?;
    let mut key = Cow::Borrowed("");
    if extended && scanner.skip(br#","Key":""#) {
        key = scanner.string_rest().ok()?;
    }
    (scanner.skip(b"}") && scanner.end().is_ok()).then_some(SendFrame { body, delay, key })
}

fn any_order(frame: &[u8], extended: bool) -> Result<SendFrame<'_>> {
    let mut decoded = SendFrame { body: Cow::Borrowed(""), delay: 0, key: Cow::Borrowed("") };
    let mut scanner = Scanner::new(frame);
    scanner.object(|key, scanner| {
        if names(key, "MessageData") {
            if let Some(body) = scanner.optional_string()? {
                decoded.body = body;
            }
        } else if names(key, "DelayTime") {
            if let Some(delay) = scanner.integer()? {
                decoded.delay = delay;
            }
        } else if extended && names(key, "Key") {
            if let Some(key) = scanner.optional_string()? {
                decoded.key = key;
            }
        } else {
            scanner.value()?;
        }
        Ok(())
    })?;
    scanner.end()?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn frame(body: &str, delay: i64) -> SendFrame<'_> {
        SendFrame { body: Cow::Borrowed(body), delay, key: Cow::Borrowed("") }
    }

    #[test]
    fn keys_are_of_the_extension_alone() {
        let mut out = Vec::new();
        encode_keyed_send(&mut out, "b\n", 3, "k\"1");
        assert_eq!(std::str::from_utf8(&out).unwrap(), r#"{"MessageData":"b\n","DelayTime":3,"Key":"k\"1"}"#);
        let keyed = SendFrame { key: Cow::Borrowed("k\"1"), ..frame("b\n", 3) };
        assert_eq!(decode_extended_send(&out).unwrap(), keyed);
        assert_eq!(decode_send(&out).unwrap(), frame("b\n", 3));
        for (text, key) in [
            (r#"{"key":"k","MessageData":"b\n","DelayTime":3}"#, "k"),
            (r#"{"MessageData":"b\n","DelayTime":3,"Key":null}"#, ""),
            (r#"{"MessageData":"b\n","DelayTime":3}"#, ""),
        ] {
            assert_eq!(decode_extended_send(text.as_bytes()).unwrap().key, key, "{text}");
        }
        let number = br#"{"MessageData":"x","DelayTime":0,"Key":5}"#;
        assert!(decode_extended_send(number).is_err());
        assert_eq!(decode_send(number).unwrap(), frame("x", 0));
        let long = format!(r#"{{"MessageData":"x","DelayTime":0,"Key":"{}"}}"#, "k".repeat(MAX_KEY + 1));
        assert!(decode_extended_send(long.as_bytes()).is_err());
        assert_eq!(decode_send(long.as_bytes()).unwrap(), frame("x", 0));
    }

    #[test]
    fn good_frames() {
        for (text, body, delay) in [
            (r#"{"MessageData":"hello","DelayTime":0}"#, "hello", 0),
            (r#"{"DelayTime":7,"MessageData":"hello"}"#, "hello", 7),
            (" {\n\"MessageData\" : \"a\" ,\t\"DelayTime\" : 1 } \r\n", "a", 1),
            (r#"{"MessageData":"x"}"#, "x", 0),
            (r#"{"MessageData":"x","DelayTime":null}"#, "x", 0),
            (r#"{"MessageData":"x","DelayTime":-5}"#, "x", -5),
            (r#"{"MessageData":"x","DelayTime":-0}"#, "x", 0),
            (r#"{"DelayTime":-9223372036854775808}"#, "", i64::MIN),
            ("{}", "", 0),
            ("null", "", 0),
            (r#"{"MessageData":null,"DelayTime":0}"#, "", 0),
            (r#"{"MessageData":"a","MessageData":null}"#, "a", 0),
            (r#"{"MessageData":"x","More":{"a":[1,2.5,null,{"b":"c"}]},"":true}"#, "x", 0),
            (r#"{"messagedata":"x","DELAYTIME":2}"#, "x", 2),
            ("{\"meſſagedata\":\"x\"}", "x", 0),
            (r#"{"MessageData":"1","messageData":"2"}"#, "2", 0),
            (r#"{"\u004dessageData":"x"}"#, "x", 0),
            (r#"{"MessageData":"a\ud800b","DelayTime":0}"#, "a\u{fffd}b", 0),
            (r#"{"MessageData":"\ud83d\ud83d\ude00","DelayTime":0}"#, "\u{fffd}😀", 0),
            (r#"{"MessageData":"\ud800\u0041\udc00","DelayTime":0}"#, "\u{fffd}A\u{fffd}", 0),
            (r#"{"MessageData":"\"\\\/\b\f\n\r\t","DelayTime":0}"#, "\"\\/\u{8}\u{c}\n\r\t", 0),
        ] {
            assert_eq!(decode_send(text.as_bytes()).unwrap(), frame(body, delay), "{text}");
        }
        let binary = b"{\"MessageData\":\"a\xffb\",\"DelayTime\":0}";
        assert_eq!(decode_send(binary).unwrap(), frame("a\u{fffd}b", 0));
    }

    #[test]
    fn bad_frames() {
        for text in [
            "",
            "  ",
            "hello",
            "[]",
            "5",
            "true",
            "\"x\"",
            r#"{"MessageData":"x","DelayTime":1.5}"#,
            r#"{"MessageData":"x","DelayTime":1e0}"#,
            r#"{"MessageData":"x","DelayTime":"1"}"#,
            r#"{"MessageData":"x","DelayTime":true}"#,
            r#"{"MessageData":"x","DelayTime":[1]}"#,
            r#"{"MessageData":"x","DelayTime":01}"#,
            r#"{"MessageData":"x","DelayTime":9223372036854775808}"#,
            r#"{"MessageData":"x","DelayTime":9223372036854775807}"#,
            r#"{"MessageData":"x","DelayTime":-9223372036854775809}"#,
            r#"{"MessageData":{"a":1}}"#,
            r#"{"MessageData":5}"#,
            r#"{"MessageData":"x""#,
            r#"{"MessageData":"x",}"#,
            r#"{"MessageData":"x","DelayTime":0}x"#,
            r#"{"MessageData":"x","DelayTime":0}{}"#,
            "\u{feff}{}",
            "{\"MessageData\":\"a\nb\",\"DelayTime\":0}",
        ] {
            assert!(decode_send(text.as_bytes()).is_err(), "{text}");
        }
        assert!(decode_send(&vec![b'['; 1 << 20]).is_err());
    }

    #[test]
    fn delays_round_up() {
        assert_eq!(delay_seconds(Duration::ZERO), 0);
        assert_eq!(delay_seconds(Duration::from_nanos(1)), 1);
        assert_eq!(delay_seconds(Duration::from_secs(3)), 3);
        assert_eq!(delay_seconds(Duration::from_millis(3001)), 4);
        assert_eq!(delay_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_body_without_escapes_is_not_copied() {
        let decoded = decode_send(br#"{"MessageData":"plain","DelayTime":3}"#).unwrap();
        assert!(matches!(decoded.body, Cow::Borrowed(_)));
    }

    #[test]
    fn decoding_gives_back_what_was_encoded() {
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..5_000 {
            let length = random.random_range(0..200);
            let body: String = (0..length)
                .map(|_| match random.random_range(0..4) {
                    0 => char::from(random.random_range(0..128u8)),
                    1 => random.random(),
                    2 => ['"', '\\', '<', '\u{2028}'][random.random_range(0..4)],
                    _ => 'x',
                })
                .collect();
            let delay = random.random_range(0..1u64 << (round % 62));
            let mut out = Vec::new();
            encode_send(&mut out, &body, delay);
            assert_eq!(decode_send(&out).unwrap(), frame(&body, delay as i64));
            // Any other reader of JSON sees the same.
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["MessageData"], body);
        }
    }

    #[test]
    fn no_input_panics() {
        let mut random = StdRng::seed_from_u64(11);
        let seed = br#"{"MessageData":"a\ud83d\ude00\n","DelayTime":12,"x":[1,{"y":null}]}"#;
        for _ in 0..50_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            let _ = decode_send(&bytes);
        }
    }
}
