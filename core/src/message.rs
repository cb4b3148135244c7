//! What is sent, what a finished send returns, and what a consumer gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::{Error, Kind, Part, Result};

/// A message to send. Cloning copies no body.
#[derive(Debug, Clone, Default)]
pub struct Message {
    body: Bytes,
    delay: Duration,
    // Most messages have a body and perhaps a delay: the rest is boxed so that those stay small.
    fields: Option<Box<Fields>>,
    number: Number,
    rest: bool,
}

/// What all attempts of a message have in common: made when it is first asked for, and kept by clones made after that.
#[derive(Debug, Default)]
struct Number(AtomicU64);

impl Clone for Number {
    fn clone(&self) -> Number {
        Number(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// The fields that few messages have. A provider that cannot honour one that is set refuses the message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// Key for order and de-duplication.
    pub key: Option<String>,
    /// Tag for filters.
    pub tag: Option<String>,
    /// Topic, where it differs from the client's.
    pub topic: Option<String>,
    /// Template name or id.
    pub template: Option<String>,
    /// Arguments of the template.
    pub args: Option<serde_json::Value>,
    /// Addresses, numbers or user ids.
    pub recipients: Vec<String>,
    /// Free attributes.
    pub attributes: BTreeMap<String, String>,
    /// Files that go along.
    pub attachments: Vec<Attachment>,
}

impl Fields {
    /// The names of the fields that are set, in the order of the struct.
    pub fn set_names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut note = |set: bool, name| {
            if set {
                names.push(name);
            }
        };
        note(self.content_type.is_some(), "content_type");
        note(self.key.is_some(), "key");
        note(self.tag.is_some(), "tag");
        note(self.topic.is_some(), "topic");
        note(self.template.is_some(), "template");
        note(self.args.is_some(), "args");
        note(!self.recipients.is_empty(), "recipients");
        note(!self.attributes.is_empty(), "attributes");
        note(!self.attachments.is_empty(), "attachments");
        names
    }
}

/// A file that goes along with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// File name as the recipient sees it.
    pub name: String,
    /// MIME type.
    pub content_type: String,
    /// Content.
    pub body: Bytes,
}

impl Message {
    /// A message with this body, no delay and no other field.
    pub fn new(body: impl Into<Bytes>) -> Message {
        Message { body: body.into(), ..Message::default() }
    }

    /// The same with a delay, counted from when the message is accepted.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Message {
        self.delay = delay;
        self
    }

    /// The same after a change of its further fields.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Fields)) -> Message {
        change(self.fields_mut());
        self
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.body = body.into();
    }

    /// The delay; zero for none.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Sets the delay.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// The further fields, where any was touched.
    pub fn fields(&self) -> Option<&Fields> {
        self.fields.as_deref()
    }

    /// The further fields, to change.
    pub fn fields_mut(&mut self) -> &mut Fields {
        self.fields.get_or_insert_with(Box::default)
    }

    /// A number that is the same in all attempts of this message and, most likely, of no other. Never 0.
    pub fn number(&self) -> u64 {
        let number = crate::random::fresh().max(1);
        match self.number.0.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => number,
            Err(known) => known,
        }
    }

    /// Gives it the number that an earlier attempt had; 0 for none.
    pub fn set_number(&mut self, number: u64) {
        self.number.0.store(number, Ordering::Relaxed);
    }

    /// Ends what [`Message::number`] began: the message was sent, and sending it again is another sending.
    pub fn forget_number(&self) {
        self.number.0.store(0, Ordering::Relaxed);
    }

    /// Whether its recipients are what is left of an earlier attempt. Copies that are not among them have been sent.
    pub fn is_rest(&self) -> bool {
        self.rest
    }

    /// Says that its recipients are what is left of an earlier attempt.
    pub fn set_rest(&mut self) {
        self.rest = true;
    }

    /// Refuses a message that sets a field not listed: `unsupported`, naming the field.
    ///
    /// `topic` passes when it equals `own_topic`.
    pub fn allow_only(
        &self,
        provider: &'static str,
        allowed: &[&'static str],
        own_topic: Option<&str>,
    ) -> Result<()> {
        let Some(fields) = self.fields() else { return Ok(()) };
        for name in fields.set_names() {
            if name == "topic" && fields.topic.as_deref() == own_topic {
                continue;
            }
            if !allowed.contains(&name) {
                let detail = match (name, own_topic) {
                    ("topic", Some(own)) => {
                        format!(
                            "a message to another topic than the connection's `{own}` cannot be sent by {provider}"
                        )
                    }
                    _ => format!("the message field `{name}` cannot be sent by {provider}"),
                };
                return Err(Error::new(Kind::Unsupported, detail).by(provider));
            }
        }
        Ok(())
    }
}

/// How a finished send ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The other side has the message.
    Sent,
    /// The outbox has the message and will send it.
    Stored,
}

/// What a finished send returns.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The other side's id of the message, where its wire gives one.
    pub message_id: Option<Arc<str>>,
    /// What a consumer of the same queue takes the message back by, with an ack, before it was ever received: where the
    /// other side gives one, as MNS does for a delayed message. It holds until somebody receives the message.
    pub code: Option<Arc<str>>,
    /// The provider that sent it.
    pub provider: &'static str,
    /// Attempts made, at least 1.
    pub attempts: u32,
    /// Sent or stored.
    pub disposition: Disposition,
    /// What the caller should know though the send succeeded.
    pub warning: Option<Arc<str>>,
    /// How each recipient or member ended, where there were several.
    pub parts: Option<Arc<[Part]>>,
}

impl Receipt {
    /// As JSON: `provider`, `attempts`, `stored`, and where there is one `message_id`, `code`, `warning` and `parts`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::json!({
            "provider": self.provider,
            "attempts": self.attempts,
            "stored": self.disposition == Disposition::Stored,
        });
        if let Some(object) = value.as_object_mut() {
            let texts = [("message_id", &self.message_id), ("code", &self.code), ("warning", &self.warning)];
            for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?))) {
                object.insert(key.into(), text.into());
            }
            if let Some(parts) = self.parts.as_deref().filter(|parts| !parts.is_empty()) {
                object.insert("parts".into(), parts.iter().map(Part::to_json).collect());
            }
        }
        value
    }

    /// A receipt of a message sent at the first attempt, without an id.
    pub fn sent(provider: &'static str) -> Receipt {
        Receipt {
            message_id: None,
            code: None,
            provider,
            attempts: 1,
            disposition: Disposition::Sent,
            warning: None,
            parts: None,
        }
    }
}

/// What a consumer gets.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The topic or queue it came from.
    pub topic: Arc<str>,
    /// The code that `ack` and `nack` take.
    pub code: Arc<str>,
    /// When the other side accepted it, where the wire tells.
    pub created: Option<SystemTime>,
    /// How often it was delivered, from 1, where the wire tells.
    pub attempt: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_fields_that_are_not_allowed_are_named() {
        let message = Message::new("x").with(|fields| fields.recipients.push("a".into()));
        let error = message.allow_only("kapokmq", &["key"], Some("t")).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains("recipients"));
    }

    #[test]
    fn attempts_have_one_number_and_another_sending_another() {
        let message = Message::new("x");
        let first = message.number();
        assert_eq!((message.number(), message.clone().number()), (first, first));
        assert_ne!(Message::new("x").number(), first);
        message.forget_number();
        assert_ne!(message.number(), first);
    }

    #[test]
    fn the_own_topic_passes_and_another_does_not() {
        let own = Message::new("x").with(|fields| fields.topic = Some("t".into()));
        own.allow_only("kapokmq", &[], Some("t")).unwrap();
        own.allow_only("kapokmq", &[], Some("u")).unwrap_err();
    }
}
