//! A message as a store keeps it, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::row::{Millis, StoredMessage};
use crate::error::{Error, Kind, Part, Result, Whole};
use crate::message::{Attachment, Fields, Message};

/// The fields, and what else an attempt must know.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Held>,
    // Its recipients are what is left of an earlier attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rest: bool,
    // Recipients that no attempt can help, with the reason of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
}

/// An attachment; its body stands behind that of the message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    name: String,
    content_type: String,
    length: usize,
}

/// A recipient that no attempt can help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lost {
    pub(super) recipient: String,
    pub(super) why: String,
}

impl Lost {
    pub(super) fn of(part: &Part) -> Option<Lost> {
        let error = part.error.as_ref().filter(|_| part.of == Whole::Recipient)?;
        Some(Lost { recipient: part.name.to_string(), why: super::verdict::shortened(&error.text()) })
    }
}

/// The message as a store keeps it.
pub(super) fn store(message: &Message, lost: &[Lost]) -> Result<StoredMessage> {
    let delay = Millis::try_from(message.delay().as_nanos().div_ceil(1_000_000)).unwrap_or(Millis::MAX);
    let number = message.number();
    let fields = message.fields().filter(|fields| **fields != Fields::default());
    let Some(fields) = fields else {
        if !message.is_rest() && lost.is_empty() {
            return Ok(StoredMessage { head: None, body: message.body().clone(), number, delay });
        }
        return with_head(message, Fields::default(), lost, number, delay);
    };
    with_head(message, fields.clone(), lost, number, delay)
}

fn with_head(
    message: &Message,
    fields: Fields,
    lost: &[Lost],
    number: u64,
    delay: Millis,
) -> Result<StoredMessage> {
    let mut body = message.body().clone();
    if !fields.attachments.is_empty() {
        let more: usize = fields.attachments.iter().map(|attachment| attachment.body.len()).sum();
        let mut all = BytesMut::with_capacity(body.len() + more);
        all.extend_from_slice(&body);
        for attachment in &fields.attachments {
            all.extend_from_slice(&attachment.body);
        }
        body = all.freeze();
    }
    let held = |attachment: Attachment| Held {
        length: attachment.body.len(),
        name: attachment.name,
        content_type: attachment.content_type,
    };
    let head = Head {
        content_type: fields.content_type,
        key: fields.key,
        tag: fields.tag,
        topic: fields.topic,
        template: fields.template,
        args: fields.args,
        recipients: fields.recipients,
        attributes: fields.attributes,
        attachments: fields.attachments.into_iter().map(held).collect(),
        rest: message.is_rest(),
        lost: lost.to_vec(),
    };
    let head = serde_json::to_string(&head).map_err(|error| {
        Error::new(Kind::InvalidArgument, "the message cannot be written into the outbox").caused_by(error)
    })?;
    Ok(StoredMessage { head: Some(head), body, number, delay })
}

/// How long the body itself is; damaged fields have no attachments.
pub(super) fn own_length(stored: &StoredMessage) -> usize {
    #[derive(Default, Deserialize)]
    struct Behind {
        #[serde(default)]
        attachments: Vec<Held>,
    }
    // Most have none, and need no second reading.
    let head = stored.head.as_deref().filter(|head| head.contains("\"attachments\""));
    let behind: Behind = head.and_then(|head| serde_json::from_str(head).ok()).unwrap_or_default();
    let sum = behind.attachments.iter().fold(0_usize, |sum, held| sum.saturating_add(held.length));
    stored.body.len().saturating_sub(sum)
}

/// The message with its whole delay, and the recipients that no attempt can help.
///
/// # Errors
/// `storage` for a row that this build cannot read.
pub(super) fn load(stored: &StoredMessage) -> Result<(Message, Vec<Lost>)> {
    let unreadable =
        |why: &str| Error::new(Kind::Storage, format!("the stored message cannot be read: {why}"));
    let delay = Duration::from_millis(u64::try_from(stored.delay).unwrap_or_default());
    let Some(head) = &stored.head else {
        let mut message = Message::new(stored.body.clone()).with_delay(delay);
        message.set_number(stored.number);
        return Ok((message, Vec::new()));
    };
    let head: Head =
        serde_json::from_str(head).map_err(|error| unreadable("its fields are damaged").caused_by(error))?;
    let behind = head.attachments.iter().try_fold(0_usize, |sum, held| sum.checked_add(held.length));
    let own = behind.and_then(|behind| stored.body.len().checked_sub(behind));
    let mut rest = stored.body.clone();
    let body = own.map(|own| rest.split_to(own)).ok_or_else(|| unreadable("it is too short"))?;
    let mut taken = |held: Held| {
        let body: Bytes = rest.split_to(held.length.min(rest.len()));
        Attachment { name: held.name, content_type: held.content_type, body }
    };
    let fields = Fields {
        content_type: head.content_type,
        key: head.key,
        tag: head.tag,
        topic: head.topic,
        template: head.template,
        args: head.args,
        recipients: head.recipients,
        attributes: head.attributes,
        attachments: head.attachments.into_iter().map(&mut taken).collect(),
    };
    let mut message = Message::new(body).with_delay(delay);
    if fields != Fields::default() {
        *message.fields_mut() = fields;
    }
    if head.rest {
        message.set_rest();
    }
    message.set_number(stored.number);
    Ok((message, head.lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back() {
        let attachment = |name: &str, body: &'static [u8]| Attachment {
            name: name.into(),
            content_type: "text/plain".into(),
            body: Bytes::from_static(body),
        };
        let mut message =
            Message::new(&b"\x00body\xff"[..]).with_delay(Duration::from_micros(1500)).with(|fields| {
                fields.content_type = Some("application/json".into());
                fields.key = Some("k".into());
                fields.tag = Some("t".into());
                fields.topic = Some("topic".into());
                fields.template = Some("welcome".into());
                fields.args = Some(serde_json::json!({"a": [1, null]}));
                fields.recipients = vec!["one".into(), "two".into()];
                fields.attributes.insert("x".into(), "y".into());
                fields.attachments =
                    vec![attachment("a", b"first"), attachment("b", b""), attachment("c", b"last")];
            });
        message.set_rest();
        let lost = [Lost { recipient: "three".into(), why: "no such number".into() }];
        let stored = store(&message, &lost).unwrap();
        assert_eq!(stored.delay, 2, "rounded up");
        let (back, lost_back) = load(&stored).unwrap();
        assert_eq!((back.fields(), back.body()), (message.fields(), message.body()));
        assert!(back.is_rest());
        assert_eq!((back.number(), back.delay()), (message.number(), Duration::from_millis(2)));
        assert_eq!(lost_back, lost);
    }

    #[test]
    fn a_body_alone_has_no_head() {
        let stored = store(&Message::new("text"), &[]).unwrap();
        assert_eq!(stored.head, None);
        let (back, _) = load(&stored).unwrap();
        assert_eq!((&back.body()[..], back.fields()), (&b"text"[..], None));
        assert_eq!(back.number(), stored.number);
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        for head in [
            "{",
            r#"{"unheard": 1}"#,
            r#"{"attachments": [{"name": "", "content_type": "", "length": 9}]}"#,
            r#"{"attachments": [{"name": "", "content_type": "", "length": 18446744073709551615},
                                {"name": "", "content_type": "", "length": 5}]}"#,
        ] {
            let stored = StoredMessage {
                head: Some(head.into()),
                body: Bytes::from_static(b"1234"),
                number: 1,
                delay: 0,
            };
            assert_eq!(load(&stored).unwrap_err().kind(), Kind::Storage, "{head}");
        }
    }
}
