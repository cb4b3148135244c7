//! The DPMQ wire, and the paths of both.

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::{Seen, has_odd_zero, last_integer, last_text};
use crate::error::Kind;
use crate::wire::json::mended;
use crate::wire::{dpmq, kapokmq};

/// A pushed frame.
pub(crate) fn dpmq_push(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let push = dpmq::decode_push(&frame);
    match Seen::of(data) {
        Seen::Bad => assert!(push.is_err(), "what is no object was taken"),
        Seen::Members(members) if !has_odd_zero(&members) => {
            let texts =
                ["MessageCode", "MessageData", "Topic", "CreateTime"].map(|name| last_text(&members, name));
            let status = last_integer(&members, "Status");
            let named =
                texts[0].as_ref().is_ok_and(|code| code.as_ref().is_some_and(|code| !code.is_empty()));
            let right = named && texts.iter().all(Result::is_ok) && status.is_ok();
            assert_eq!(push.is_ok(), right, "{:?}", push.as_ref().err());
            if let Ok(push) = &push {
                let [code, body, topic, time] = texts.map(|text| text.ok().flatten().unwrap_or_default());
                assert_eq!((&*push.code, &push.body[..]), (&*code, body.as_bytes()));
                assert_eq!((&push.topic[..], &push.create_time[..]), (topic.as_bytes(), time.as_bytes()));
                assert_eq!(push.status, status.ok().flatten().unwrap_or(0));
            }
        }
        _ => {}
    }
    let Ok(push) = push else { return };
    let text = |bytes| std::str::from_utf8(bytes).expect("these are texts");
    let line = dpmq::PushText {
        code: &push.code,
        body: text(&push.body),
        topic: text(&push.topic),
        create_time: text(&push.create_time),
        status: push.status,
    };
    let mut out = Vec::new();
    dpmq::encode_push_line(&mut out, &line);
    assert_eq!(dpmq::decode_push(&Bytes::from(out)).expect("our own frame"), push);
}

/// The answer to a message, and to a question for the settings.
pub(crate) fn dpmq_reply(data: &[u8]) {
    let reply = dpmq::decode_reply(data);
    let settings = dpmq::is_settings(data);
    match Seen::of(data) {
        Seen::Bad => assert!(reply.is_err() && !settings, "what is no object was taken"),
        // Here a later `null` takes back what was said.
        Seen::Members(members)
            if !has_odd_zero(&members) && !members.iter().any(|(_, value)| value.is_null()) =>
        {
            let expected = match (last_integer(&members, "code"), last_text(&members, "msg")) {
                (Ok(Some(0)), Ok(Some(text))) if !text.is_empty() => Some(dpmq::Reply::Taken(text.into())),
                (Ok(Some(0)), _) => None,
                (Ok(Some(_)), Ok(text)) => Some(dpmq::Reply::Refused(text.unwrap_or_default().into())),
                _ => None,
            };
            assert_eq!(reply.as_ref().ok(), expected.as_ref());
        }
        _ => {}
    }
    match &reply {
        Ok(dpmq::Reply::Taken(text)) => {
            assert_eq!(dpmq::decode_reply(&dpmq::encode_reply(Ok(text))).ok(), reply.ok());
        }
        Ok(dpmq::Reply::Refused(text)) => {
            assert_eq!(dpmq::decode_reply(&dpmq::encode_reply(Err(text))).ok(), reply.ok());
        }
        Err(error) => assert_eq!(error.kind(), Kind::Protocol),
    }
}

/// The paths of a topic and a client: what goes in comes out of each segment, and nothing adds a segment.
pub(crate) fn wire_paths(data: &[u8]) {
    let text = mended(data);
    let (topic, id) = text.split_once('\n').unwrap_or((&text, "c"));
    let paths = [
        (kapokmq::producer_path(topic, id), "/Producers/Conn/"),
        (kapokmq::consumer_path(topic, id), "/Consumers/Conn/"),
        (dpmq::consumer_path(topic, id), "/ConsumersConn/"),
    ];
    for (path, prefix) in paths {
        match path {
            Ok(path) => {
                let rest = path.strip_prefix(prefix).expect("the path of this wire");
                assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte)));
                let decoded: Vec<_> =
                    rest.split('/').map(|part| percent_decode_str(part).decode_utf8()).collect();
                let decoded: Vec<_> = decoded.iter().map(|part| part.as_deref().expect("UTF-8")).collect();
                assert_eq!(decoded, [topic, id]);
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::InvalidConfig);
                assert!(
                    topic.is_empty()
                        || id.is_empty()
                        || topic.contains(['/', '|'])
                        || id.contains(['/', '|'])
                );
            }
        }
    }
}
