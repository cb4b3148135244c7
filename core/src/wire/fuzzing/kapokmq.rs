//! The frames of the KapokMQ wire.

use bytes::Bytes;

use super::{Seen, has_odd_zero, last_integer, last_text};
use crate::error::{Error, Kind};
use crate::wire::kapokmq::{
    Answer, MAX_DELAY, MAX_KEY, PushText, decode_answer, decode_extended_send, decode_nack, decode_nodes,
    decode_push, decode_send, encode_extended_push_line, encode_keyed_send, encode_nack, encode_nodes,
    encode_push_line, encode_send, push_accepted, push_refused,
};

/// A producer's frame.
pub(crate) fn kapokmq_send(data: &[u8]) {
    let (plain, extended) = (decode_send(data), decode_extended_send(data));
    match Seen::of(data) {
        Seen::Bad => assert!(plain.is_err() && extended.is_err(), "what is no object was taken"),
        Seen::Members(members) if !has_odd_zero(&members) => {
            let fields = (last_text(&members, "MessageData"), last_integer(&members, "DelayTime"));
            let expected = match fields {
                (Ok(body), Ok(delay)) => Some((body.unwrap_or_default(), delay.unwrap_or(0))),
                _ => None,
            };
            let expected = expected.filter(|(_, delay)| *delay <= MAX_DELAY);
            let found = plain.as_ref().ok().map(|frame| (frame.body.clone().into_owned(), frame.delay));
            assert_eq!(found, expected);
            let key = last_text(&members, "Key").ok().map(Option::unwrap_or_default);
            let key = key.filter(|key| key.len() <= MAX_KEY);
            let found = extended.as_ref().ok().map(|frame| frame.key.clone().into_owned());
            assert_eq!(found, expected.and(key));
        }
        _ => {}
    }
    let mut out = Vec::new();
    if let Ok(frame) = &plain {
        assert!(frame.key.is_empty() && frame.delay <= MAX_DELAY);
        let delay = u64::try_from(frame.delay).unwrap_or(0);
        encode_send(&mut out, &frame.body, delay);
        let again = decode_send(&out).expect("our own frame");
        assert_eq!((again.body, again.delay.unsigned_abs()), (frame.body.clone(), delay));
    }
    if let Ok(frame) = &extended {
        assert_eq!(
            plain.ok().map(|frame| (frame.body, frame.delay)),
            Some((frame.body.clone(), frame.delay))
        );
        let delay = u64::try_from(frame.delay).unwrap_or(0);
        out.clear();
        encode_keyed_send(&mut out, &frame.body, delay, &frame.key);
        let again = decode_extended_send(&out).expect("our own frame");
        assert_eq!((again.body, again.key), (frame.body.clone(), frame.key.clone()));
    }
}

/// A pushed frame.
pub(crate) fn kapokmq_push(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let push = decode_push(&frame);
    match Seen::of(data) {
        Seen::Bad => assert!(push.is_err(), "what is no object was taken"),
        Seen::Members(members) if !has_odd_zero(&members) => {
            let texts = ["MessageCode", "MessageData", "Topic"].map(|name| last_text(&members, name));
            let numbers = ["CreateTime", "ConsumedTime", "DelayTime", "Status"]
                .map(|name| last_integer(&members, name));
            let of_extension =
                last_integer(&members, "Attempt").map(drop).and(last_text(&members, "Key").map(drop));
            let right = texts.iter().all(Result::is_ok)
                && numbers.iter().all(Result::is_ok)
                && of_extension.is_ok()
                && texts[0].as_ref().is_ok_and(|code| code.as_ref().is_some_and(|code| !code.is_empty()));
            assert_eq!(push.is_ok(), right, "{:?}", push.as_ref().err());
            if let Ok(push) = &push {
                let [code, body, topic] = texts.map(|text| text.ok().flatten().unwrap_or_default());
                assert_eq!(
                    (&*push.code, &push.body[..], &push.topic[..]),
                    (&*code, body.as_bytes(), topic.as_bytes())
                );
                let expected = numbers.map(|number| number.ok().flatten().unwrap_or(0));
                assert_eq!([push.create_time, push.consumed_time, push.delay_time, push.status], expected);
            }
        }
        _ => {}
    }
    let Ok(push) = push else { return };
    let text = PushText {
        code: &push.code,
        body: std::str::from_utf8(&push.body).expect("a body is text"),
        topic: std::str::from_utf8(&push.topic).expect("a topic is text"),
        create_time: push.create_time,
        consumed_time: push.consumed_time,
        delay_time: push.delay_time,
        status: push.status,
    };
    let mut out = Vec::new();
    encode_push_line(&mut out, &text);
    let again = decode_push(&Bytes::from(out)).expect("our own frame");
    let mut expected = push.clone();
    (expected.attempt, expected.key) = (None, None);
    assert_eq!(again, expected);
    let mut out = Vec::new();
    encode_extended_push_line(&mut out, &text, push.attempt.unwrap_or(1), push.key.as_deref());
    let again = decode_push(&Bytes::from(out)).expect("our own frame");
    expected = push;
    expected.attempt = expected.attempt.or(Some(1));
    assert_eq!(again, expected);
}

/// A server's answer, and what a consumer says.
pub(crate) fn kapokmq_answer(data: &[u8]) {
    match decode_answer(data) {
        Ok(Answer::Accepted(code)) => {
            let mut out = String::new();
            push_accepted(&mut out, code);
            assert_eq!(out.as_bytes(), data);
        }
        Ok(Answer::Refused { kind, text }) => {
            assert!(text.chars().count() <= 200);
            let mut out = String::new();
            push_refused(&mut out, &Error::new(kind, text.to_owned()));
            let again = decode_answer(out.as_bytes()).expect("our own answer");
            assert_eq!(again, Answer::Refused { kind, text });
        }
        Err(error) => assert_eq!(error.kind(), Kind::Protocol),
    }
    if let Some((code, delay)) = decode_nack(data) {
        assert!(!code.contains(&b' '));
        if let Ok(code) = std::str::from_utf8(code) {
            let again = encode_nack(code, delay);
            assert_eq!(decode_nack(again.as_bytes()), Some((code.as_bytes(), delay)));
        }
    }
}

/// The list of nodes that a registry tells.
pub(crate) fn kapokmq_nodes(data: &[u8]) {
    let nodes = match decode_nodes(data) {
        Ok(nodes) => nodes,
        Err(error) => {
            assert!(matches!(error.kind(), Kind::Protocol | Kind::Authentication));
            return;
        }
    };
    assert_ne!(super::is_json(data), Some(false), "what is no JSON was taken");
    // Each takes an address and a port.
    assert!(nodes.len() <= data.len() / 16);
    assert!(nodes.iter().all(|node| !node.addr.is_empty() && !node.port.is_empty()));
    assert_eq!(decode_nodes(&encode_nodes(&nodes)).expect("our own list"), nodes);
}
