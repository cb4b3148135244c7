//! What the wire carries of a message, and what a delivery has of it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::time::Instant;

use super::PROVIDER;
use super::section::{BodyEncoding, Place};
use super::service::Asked;
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::wire::mns::{
    DEFAULT_PRIORITY, MAX_DELAY, Operation, Outgoing, PRIORITIES, Property, Received, is_body_md5, is_text,
};

/// The attributes of a message to a topic that say how it is pushed on: JSON each.
const PUSHED: [(&str, &str); 5] = [
    ("mail", "DirectMail"),
    ("sms", "DirectSMS"),
    ("websocket", "WebSocket"),
    ("push", "Push"),
    ("dayu", "Dayu"),
];
/// The attribute that is a message's priority.
const PRIORITY: &str = "priority";

/// An operation with messages whose delays count from when they were accepted.
pub(super) struct Delayed<'a> {
    pub(super) operation: Operation<'a>,
    since: Instant,
    // One for each message; empty where none is delayed.
    delays: Vec<Duration>,
}

impl<'a> Delayed<'a> {
    /// The messages of an operation, with their delays. They were accepted at `since`.
    pub(super) fn new(
        operation: Operation<'a>,
        since: Instant,
        delays: impl Iterator<Item = Duration> + Clone,
    ) -> Delayed<'a> {
        let any = delays.clone().any(|delay| !delay.is_zero());
        Delayed { operation, since, delays: if any { delays.collect() } else { Vec::new() } }
    }
}

impl Asked for Delayed<'_> {
    fn operation(&self) -> &Operation<'_> {
        &self.operation
    }

    fn changed(&mut self) -> bool {
        let messages = match &mut self.operation {
            Operation::Send { message, .. } => std::slice::from_mut(message),
            Operation::SendBatch { messages, .. } => messages.as_mut_slice(),
            _ => return false,
        };
        let (waited, mut changed) = (self.since.elapsed(), false);
        for (message, delay) in messages.iter_mut().zip(&self.delays) {
            // What was allowed before is allowed still.
            let left = seconds(delay.saturating_sub(waited)).unwrap_or(message.delay_seconds);
            changed |= left != message.delay_seconds;
            message.delay_seconds = left;
        }
        changed
    }
}

/// What all messages of a producer have in common.
pub(super) struct Shape {
    pub(super) place: Place,
    pub(super) encoding: BodyEncoding,
    pub(super) max_body: usize,
    pub(super) priority: Option<u32>,
}

fn refuse(kind: Kind, text: impl Into<String>) -> Error {
    Error::new(kind, text).by(PROVIDER)
}

impl Shape {
    /// A message as it goes on the wire.
    ///
    /// # Errors
    /// `unsupported` for what the wire does not carry, `too_large`, `invalid_argument`.
    pub(super) fn outgoing<'a>(&self, message: &'a Message) -> Result<Outgoing<'a>> {
        let topic = matches!(self.place, Place::Topic(_));
        let allowed: &[&str] = if topic { &["key", "tag", "attributes"] } else { &["key", "attributes"] };
        message.allow_only(PROVIDER, allowed, Some(self.place.name()))?;
        let body = match self.encoding {
            BodyEncoding::Base64 => Cow::Owned(STANDARD.encode(message.body())),
            BodyEncoding::Raw => Cow::Borrowed(raw(message.body())?),
        };
        if body.len() > self.max_body {
            let text = format!(
                "a body of {} bytes on the wire is longer than `max_body`, {}",
                body.len(),
                self.max_body
            );
            return Err(refuse(Kind::TooLarge, text));
        }
        let delay = message.delay();
        if topic && !delay.is_zero() {
            return Err(refuse(Kind::Unsupported, "a delay cannot be sent to an MNS topic"));
        }
        let mut outgoing = Outgoing {
            body,
            delay_seconds: seconds(delay)?.filter(|seconds| *seconds > 0),
            priority: self.priority,
            ..Outgoing::default()
        };
        let Some(fields) = message.fields() else { return Ok(outgoing) };
        outgoing.tag = fields.tag.as_deref().map(|tag| text("tag", tag)).transpose()?;
        outgoing.group = fields.key.as_deref().map(|key| text("key", key)).transpose()?;
        for (name, value) in &fields.attributes {
            let value = text(name, value)?;
            if name == PRIORITY && !topic {
                let number = value.parse().ok().filter(|number| PRIORITIES.contains(number));
                let wrong = || refuse(Kind::InvalidArgument, "the attribute `priority` must be from 1 to 16");
                outgoing.priority = Some(number.ok_or_else(wrong)?);
            } else if let Some((_, element)) = PUSHED.iter().find(|(known, _)| topic && known == name) {
                if serde_json::from_str::<serde::de::IgnoredAny>(&value).is_err() {
                    let text = format!("the attribute `{name}` must be JSON");
                    return Err(refuse(Kind::InvalidArgument, text));
                }
                outgoing.attributes.push((*element, value));
            } else {
                if name.is_empty() {
                    return Err(refuse(Kind::InvalidArgument, "an attribute's name is empty"));
                }
                let kind = Cow::Borrowed("STRING");
                outgoing.properties.push(Property { name: text("attributes", name)?, value, kind });
            }
        }
        Ok(outgoing)
    }

    /// How long a body is that is received again, at most.
    pub(super) fn longest_body(&self) -> u64 {
        let longest = match self.encoding {
            BodyEncoding::Raw => self.max_body,
            BodyEncoding::Base64 => self.max_body / 4 * 3,
        };
        longest as u64
    }
}

fn raw(body: &Bytes) -> Result<&str> {
    let text = std::str::from_utf8(body).ok().filter(|text| is_text(text));
    text.ok_or_else(|| {
        let text = "the body is not text that XML can carry: set `body_encoding` to `base64`";
        refuse(Kind::Unsupported, text)
    })
}

// Receivers would see another one in its place.
fn text<'a>(name: &str, value: &'a str) -> Result<Cow<'a, str>> {
    if is_text(value) {
        return Ok(Cow::Borrowed(value));
    }
    let text = format!("`{name}` has a character that XML cannot carry");
    Err(refuse(Kind::InvalidArgument, text))
}

/// Whole seconds, rounded up; none for no time.
pub(super) fn seconds(time: Duration) -> Result<Option<u32>> {
    if time.is_zero() {
        return Ok(None);
    }
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    match u32::try_from(whole).ok().filter(|whole| *whole <= MAX_DELAY) {
        Some(whole) => Ok(Some(whole)),
        None => {
            let text = format!("a delay of {whole} s is longer than {MAX_DELAY} s");
            Err(refuse(Kind::InvalidArgument, text))
        }
    }
}

/// The message of a delivery.
///
/// # Errors
/// `protocol` where its body is not the one that was sent, or not in Base64 where it should be.
pub(super) fn incoming(received: &Received<'_>, encoding: BodyEncoding) -> Result<Message> {
    if !is_body_md5(received.body.as_bytes(), &received.body_md5) {
        let text = "the body of a message is not the one whose digest came with it";
        return Err(refuse(Kind::Protocol, text));
    }
    let body = match encoding {
        BodyEncoding::Raw => Bytes::copy_from_slice(received.body.as_bytes()),
        BodyEncoding::Base64 => {
            let decoded = STANDARD.decode(received.body.trim_ascii());
            let text = "the body of a message is not Base64: `body_encoding` is not that of its sender";
            decoded.map_err(|_| refuse(Kind::Protocol, text))?.into()
        }
    };
    let mut message = Message::new(body);
    if received.group.is_some() || !received.properties.is_empty() || received.priority != DEFAULT_PRIORITY {
        let fields = message.fields_mut();
        fields.key = received.group.clone().map(Cow::into_owned);
        for property in &received.properties {
            fields.attributes.insert(property.name.clone().into_owned(), property.value.clone().into_owned());
        }
        if received.priority != DEFAULT_PRIORITY {
            fields.attributes.entry(PRIORITY.to_owned()).or_insert_with(|| received.priority.to_string());
        }
    }
    Ok(message)
}

/// A time of the wire.
pub(super) fn time(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).filter(|_| millis > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mns::body_md5;

    fn shape(place: Place, encoding: BodyEncoding) -> Shape {
        Shape { place, encoding, max_body: 100, priority: Some(3) }
    }

    fn queue() -> Shape {
        shape(Place::Queue("q".into()), BodyEncoding::Raw)
    }

    fn topic() -> Shape {
        shape(Place::Topic("t".into()), BodyEncoding::Raw)
    }

    #[test]
    fn what_a_queue_and_a_topic_carry() {
        let message = Message::new("x").with_delay(Duration::from_millis(1001)).with(|fields| {
            fields.key = Some("k".into());
            fields.topic = Some("q".into());
            fields.attributes.insert("priority".into(), "16".into());
            fields.attributes.insert("mail".into(), "m".into());
        });
        let made = queue().outgoing(&message).unwrap();
        assert_eq!(
            (made.delay_seconds, made.priority, made.group.as_deref()),
            (Some(2), Some(16), Some("k"))
        );
        assert_eq!(made.properties.len(), 1, "a queue pushes nothing: the name means nothing to it");
        let message = Message::new("x").with(|fields| {
            fields.tag = Some("t".into());
            fields.attributes.insert("mail".into(), "{\"Subject\":\"s\"}".into());
            fields.attributes.insert("sms".into(), "{}".into());
            fields.attributes.insert("a".into(), "b".into());
        });
        let made = topic().outgoing(&message).unwrap();
        assert_eq!(made.tag.as_deref(), Some("t"));
        assert_eq!(
            made.attributes.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["DirectMail", "DirectSMS"]
        );
        assert_eq!((&*made.properties[0].name, &*made.properties[0].value), ("a", "b"));
    }

    #[test]
    fn what_is_not_carried_is_refused() {
        let with = |change: fn(&mut crate::message::Fields)| Message::new("x").with(change);
        let day = Duration::from_secs(86_400);
        for (shape, message, kind) in [
            (queue(), Message::new(vec![0xff]), Kind::Unsupported),
            (queue(), Message::new("\u{1}"), Kind::Unsupported),
            (queue(), Message::new(vec![b'x'; 101]), Kind::TooLarge),
            (
                shape(Place::Queue("q".into()), BodyEncoding::Base64),
                Message::new(vec![0; 76]),
                Kind::TooLarge,
            ),
            (queue(), Message::new("x").with_delay(day * 8), Kind::InvalidArgument),
            (topic(), Message::new("x").with_delay(day), Kind::Unsupported),
            (queue(), with(|fields| fields.tag = Some("t".into())), Kind::Unsupported),
            (queue(), with(|fields| fields.topic = Some("other".into())), Kind::Unsupported),
            (queue(), with(|fields| fields.recipients.push("a".into())), Kind::Unsupported),
            (
                queue(),
                with(|fields| drop(fields.attributes.insert("priority".into(), "0".into()))),
                Kind::InvalidArgument,
            ),
            (
                queue(),
                with(|fields| drop(fields.attributes.insert(String::new(), "0".into()))),
                Kind::InvalidArgument,
            ),
            (
                queue(),
                with(|fields| drop(fields.attributes.insert("a".into(), "\0".into()))),
                Kind::InvalidArgument,
            ),
            (queue(), with(|fields| fields.key = Some("\0".into())), Kind::InvalidArgument),
            (
                topic(),
                with(|fields| drop(fields.attributes.insert("mail".into(), "{".into()))),
                Kind::InvalidArgument,
            ),
        ] {
            let error = shape.outgoing(&message).unwrap_err();
            assert_eq!((error.kind(), error.provider()), (kind, Some(PROVIDER)), "{message:?}");
        }
        let longest = shape(Place::Queue("q".into()), BodyEncoding::Base64);
        let message = Message::new(vec![0; usize::try_from(longest.longest_body()).unwrap()]);
        longest.outgoing(&message).unwrap();
    }

    #[test]
    fn a_delivery_has_what_was_sent_or_is_refused() {
        let mut received = Received {
            body: "aGk=".into(),
            body_md5: body_md5(b"aGk=").into(),
            group: Some("k".into()),
            priority: 3,
            properties: vec![Property { name: "a".into(), value: "b".into(), kind: "STRING".into() }],
            ..Received::default()
        };
        assert_eq!(&incoming(&received, BodyEncoding::Raw).unwrap().body()[..], b"aGk=");
        let message = incoming(&received, BodyEncoding::Base64).unwrap();
        assert_eq!(&message.body()[..], b"hi");
        let fields = message.fields().unwrap();
        assert_eq!(
            (fields.key.as_deref(), &*fields.attributes["a"], &*fields.attributes["priority"]),
            (Some("k"), "b", "3")
        );
        received.body = "aGj=".into();
        assert_eq!(incoming(&received, BodyEncoding::Raw).unwrap_err().kind(), Kind::Protocol);
        received.body_md5 = body_md5(b"aGj=").into();
        incoming(&received, BodyEncoding::Raw).unwrap();
        assert_eq!(incoming(&received, BodyEncoding::Base64).unwrap_err().kind(), Kind::Protocol);
    }
}
