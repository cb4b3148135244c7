//! Messages: as they are sent, what is said of those that were, and as they are received.

use std::borrow::Cow;

use super::xml::{self, Malformed, Node, Writer};
use super::{missing, root};

/// The elements that may stand in `MessageAttributes`: each holds JSON for one way to push.
pub const ATTRIBUTES: [&str; 5] = ["DirectMail", "DirectSMS", "WebSocket", "Push", "Dayu"];

/// A value that a sender gave a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Property<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value; of type `BINARY` in Base64.
    pub value: Cow<'a, str>,
    /// `STRING`, `NUMBER`, `BOOLEAN` or `BINARY`.
    pub kind: Cow<'a, str>,
}

/// A message to a queue or a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The body, as it is on the wire.
    pub body: Cow<'a, str>,
    /// Seconds until it can be received; to queues only.
    pub delay_seconds: Option<u32>,
    /// Its priority; to queues only.
    pub priority: Option<u32>,
    /// What subscriptions filter by; to topics only.
    pub tag: Option<Cow<'a, str>>,
    /// Messages of a group keep their order.
    pub group: Option<Cow<'a, str>>,
    /// How it is pushed on: a name of [`ATTRIBUTES`] and JSON; to topics only.
    pub attributes: Vec<(&'static str, Cow<'a, str>)>,
    /// Values of the sender's own.
    pub properties: Vec<Property<'a>>,
    /// Values that the service has a meaning for.
    pub system_properties: Vec<Property<'a>>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn write(&self, into: &mut Writer) {
        into.open("Message");
        into.leaf("MessageBody", &self.body);
        into.number("DelaySeconds", self.delay_seconds);
        into.number("Priority", self.priority);
        into.some("MessageTag", self.tag.as_deref());
        into.some("MessageGroupId", self.group.as_deref());
        if !self.attributes.is_empty() {
            into.open("MessageAttributes");
            for (name, json) in &self.attributes {
                into.leaf(name, json);
            }
            into.close("MessageAttributes");
        }
        write_properties(into, &self.properties, &self.system_properties);
        into.close("Message");
    }

    /// How long its XML is, about.
    pub(super) fn room(&self) -> usize {
        self.body.len() + self.body.len() / 8 + 160
    }

    pub(super) fn read(mut node: Node<'a>) -> Result<Outgoing<'a>, Malformed> {
        let mut attributes = Vec::new();
        if let Some(all) = node.children.iter_mut().find(|child| child.name == "MessageAttributes") {
            for child in &mut all.children {
                if let Some(name) = ATTRIBUTES.into_iter().find(|name| *name == child.name) {
                    attributes.push((name, std::mem::take(&mut child.text)));
                }
            }
        }
        Ok(Outgoing {
            body: missing(node.take("MessageBody"))?,
            delay_seconds: node.asked("DelaySeconds")?,
            priority: node.asked("Priority")?,
            tag: node.take_filled("MessageTag"),
            group: node.take_filled("MessageGroupId"),
            attributes,
            properties: read_properties(&mut node, "UserProperties", "PropertyValue")?,
            system_properties: read_properties(&mut node, "SystemProperties", "SystemPropertyValue")?,
        })
    }
}

fn write_properties(into: &mut Writer, own: &[Property<'_>], system: &[Property<'_>]) {
    for (all, one, properties) in
        [("UserProperties", "PropertyValue", own), ("SystemProperties", "SystemPropertyValue", system)]
    {
        if properties.is_empty() {
            continue;
        }
        into.open(all);
        for property in properties {
            into.open(one);
            into.leaf("Name", &property.name);
            into.leaf("Value", &property.value);
            into.leaf("Type", &property.kind);
            into.close(one);
        }
        into.close(all);
    }
}

fn read_properties<'a>(node: &mut Node<'a>, all: &str, one: &str) -> Result<Vec<Property<'a>>, Malformed> {
    let Some(all) = node.children.iter_mut().find(|child| child.name == all) else { return Ok(Vec::new()) };
    let each = all.children.iter_mut().filter(|child| child.name == one);
    each.map(|child| {
        Ok(Property {
            name: missing(child.take_filled("Name"))?,
            value: missing(child.take("Value"))?,
            kind: child.take_filled("Type").unwrap_or(Cow::Borrowed("STRING")),
        })
    })
    .collect()
}

/// What is said of a message that was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub message_id: String,
    /// The digest of its body.
    pub body_md5: String,
    /// What a delayed message can be deleted by.
    pub receipt_handle: Option<String>,
    /// Its group.
    pub group: Option<String>,
}

impl Sent {
    fn write(&self, into: &mut Writer) {
        into.leaf("MessageId", &self.message_id);
        into.leaf("MessageBodyMD5", &self.body_md5);
        into.some("ReceiptHandle", self.receipt_handle.as_deref());
        into.some("MessageGroupId", self.group.as_deref());
    }

    fn read(node: &mut Node<'_>) -> Result<Sent, Malformed> {
        Ok(Sent {
            message_id: missing(node.take_filled("MessageId"))?.into_owned(),
            body_md5: missing(node.take("MessageBodyMD5"))?.into_owned(),
            receipt_handle: node.take_filled("ReceiptHandle").map(Cow::into_owned),
            group: node.take_filled("MessageGroupId").map(Cow::into_owned),
        })
    }

    /// The answer to one message.
    pub fn encode(&self) -> String {
        let mut into = Writer::answer("Message", 300);
        self.write(&mut into);
        into.finish("Message")
    }

    /// Reads the answer to one message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(document: &[u8]) -> Result<Sent, Malformed> {
        Sent::read(&mut root(document, "Message")?)
    }
}

/// How one message of a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It was taken.
    Sent(Sent),
    /// It was not.
    Refused {
        /// The code.
        code: String,
        /// The reason.
        text: String,
    },
}

/// The answer to a batch, in the order of its messages. Where one was refused its status is that of a failure.
pub fn encode_batch(entries: &[Entry]) -> String {
    let mut into = Writer::answer("Messages", 120 + entries.len() * 200);
    for entry in entries {
        into.open("Message");
        match entry {
            Entry::Sent(sent) => sent.write(&mut into),
            Entry::Refused { code, text } => {
                into.leaf("ErrorCode", code);
                into.leaf("ErrorMessage", text);
            }
        }
        into.close("Message");
    }
    into.finish("Messages")
}

/// Reads the answer to a batch.
///
/// # Errors
/// What is wrong with it.
pub fn decode_batch(document: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let root = root(document, "Messages")?;
    let each = root.children.into_iter().filter(|child| child.name == "Message");
    each.map(|mut child| match child.take_filled("ErrorCode") {
        Some(code) => Ok(Entry::Refused {
            code: code.into_owned(),
            text: child.take("ErrorMessage").unwrap_or_default().into_owned(),
        }),
        None => Sent::read(&mut child).map(Entry::Sent),
    })
    .collect()
}

/// A message as it is received or looked at. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its id.
    pub message_id: Cow<'a, str>,
    /// What it is deleted by, and hidden longer; none where it was only looked at.
    pub receipt_handle: Option<Cow<'a, str>>,
    /// The digest of its body.
    pub body_md5: Cow<'a, str>,
    /// The body, as it is on the wire.
    pub body: Cow<'a, str>,
    /// When it was sent.
    pub enqueue_time: u64,
    /// When others can receive it; none where it was only looked at.
    pub next_visible_time: Option<u64>,
    /// When it was first received; before that when it was sent.
    pub first_dequeue_time: u64,
    /// How often it was received.
    pub dequeue_count: u32,
    /// Its priority.
    pub priority: u32,
    /// Its group.
    pub group: Option<Cow<'a, str>>,
    /// Values of the sender's own.
    pub properties: Vec<Property<'a>>,
    /// Values that the service has a meaning for.
    pub system_properties: Vec<Property<'a>>,
}

impl<'a> Received<'a> {
    fn write(&self, into: &mut Writer) {
        into.leaf("MessageId", &self.message_id);
        into.some("ReceiptHandle", self.receipt_handle.as_deref());
        into.leaf("MessageBodyMD5", &self.body_md5);
        into.leaf("MessageBody", &self.body);
        into.number("EnqueueTime", Some(self.enqueue_time));
        into.number("NextVisibleTime", self.next_visible_time);
        into.number("FirstDequeueTime", Some(self.first_dequeue_time));
        into.number("DequeueCount", Some(self.dequeue_count));
        into.number("Priority", Some(self.priority));
        into.some("MessageGroupId", self.group.as_deref());
        write_properties(into, &self.properties, &self.system_properties);
    }

    fn read(mut node: Node<'a>) -> Result<Received<'a>, Malformed> {
        Ok(Received {
            message_id: missing(node.take_filled("MessageId"))?,
            receipt_handle: node.take_filled("ReceiptHandle"),
            body_md5: node.take("MessageBodyMD5").unwrap_or_default(),
            body: missing(node.take("MessageBody"))?,
            enqueue_time: node.number("EnqueueTime")?.unwrap_or_default(),
            next_visible_time: node.number("NextVisibleTime")?,
            first_dequeue_time: node.number("FirstDequeueTime")?.unwrap_or_default(),
            dequeue_count: node.short("DequeueCount")?.unwrap_or_default(),
            priority: node.short("Priority")?.unwrap_or(super::DEFAULT_PRIORITY),
            group: node.take_filled("MessageGroupId"),
            properties: read_properties(&mut node, "UserProperties", "PropertyValue")?,
            system_properties: read_properties(&mut node, "SystemProperties", "SystemPropertyValue")?,
        })
    }

    fn room(&self) -> usize {
        self.body.len() + self.body.len() / 8 + 600
    }
}

/// The answer with one message.
pub fn encode_received(message: &Received<'_>) -> String {
    let mut into = Writer::answer("Message", message.room());
    message.write(&mut into);
    into.finish("Message")
}

/// Reads the answer with one message.
///
/// # Errors
/// What is wrong with it.
pub fn decode_received(document: &[u8]) -> Result<Received<'_>, Malformed> {
    Received::read(root(document, "Message")?)
}

/// The answer with several messages.
pub fn encode_received_batch(messages: &[Received<'_>]) -> String {
    let mut into = Writer::answer("Messages", 120 + messages.iter().map(Received::room).sum::<usize>());
    for message in messages {
        into.open("Message");
        message.write(&mut into);
        into.close("Message");
    }
    into.finish("Messages")
}

/// Reads the answer with several messages.
///
/// # Errors
/// What is wrong with it.
pub fn decode_received_batch(document: &[u8]) -> Result<Vec<Received<'_>>, Malformed> {
    let root = root(document, "Messages")?;
    root.children.into_iter().filter(|child| child.name == "Message").map(Received::read).collect()
}

/// A message of a batch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its id, as far as it can be read.
    pub message_id: String,
    /// What is wrong with it.
    pub why: Malformed,
}

/// Reads the answer with several messages, each for itself: one that cannot be read keeps no other back.
///
/// # Errors
/// What is wrong with the answer as a whole.
pub fn decode_each_received(document: &[u8]) -> Result<Vec<Result<Received<'_>, Unread>>, Malformed> {
    let root = xml::read_each(document)?;
    if root.name != "Messages" {
        return Err(Malformed("the root is another element"));
    }
    let each = root.children.into_iter().filter(|child| child.name == "Message");
    Ok(each.map(read_one).collect())
}

fn read_one(message: Node<'_>) -> Result<Received<'_>, Unread> {
    let id = message.child("MessageId").filter(|id| id.is_sound());
    let message_id = id.map(|id| id.text.clone().into_owned()).unwrap_or_default();
    match message.is_sound() {
        true => Received::read(message).map_err(|why| Unread { message_id, why }),
        false => Err(Unread { message_id, why: Malformed("a character is none that XML has") }),
    }
}

/// What is said of a message whose time was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Its receipt handle from now on.
    pub receipt_handle: String,
    /// When others can receive it, in milliseconds since 1970.
    pub next_visible_time: u64,
}

impl Visibility {
    /// The answer.
    pub fn encode(&self) -> String {
        let mut into = Writer::answer("ChangeVisibility", 300);
        into.leaf("ReceiptHandle", &self.receipt_handle);
        into.number("NextVisibleTime", Some(self.next_visible_time));
        into.finish("ChangeVisibility")
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(document: &[u8]) -> Result<Visibility, Malformed> {
        let mut node = root(document, "ChangeVisibility")?;
        Ok(Visibility {
            receipt_handle: missing(node.take_filled("ReceiptHandle"))?.into_owned(),
            next_visible_time: missing(node.number("NextVisibleTime")?)?,
        })
    }
}
