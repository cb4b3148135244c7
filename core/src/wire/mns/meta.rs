//! Queues, topics and subscriptions: what is asked for when they are made, and what is told of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::xml::{Malformed, Node, Writer};
use super::{missing, root};

/// The attributes of a queue; what is left out has the service's default, or stays as it is. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueAttributes {
    /// Time before a message can be received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u32>,
    /// The longest body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_message_size: Option<u32>,
    /// Time after which a message is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_retention_period: Option<u32>,
    /// Time for which a received message is hidden from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility_timeout: Option<u32>,
    /// Time that a receive waits which names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polling_wait_seconds: Option<u32>,
    /// Whether the service keeps a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging_enabled: Option<bool>,
}

/// What is told of a queue. Times since 1970 are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QueueMeta {
    /// Its name.
    pub name: String,
    /// Its attributes.
    #[serde(flatten)]
    pub attributes: QueueAttributes,
    /// Messages that can be received.
    pub active_messages: u64,
    /// Messages that were received and are hidden.
    pub inactive_messages: u64,
    /// Messages whose delay has not passed.
    pub delay_messages: u64,
    /// When it was made.
    pub create_time: u64,
    /// When its attributes were changed.
    pub last_modify_time: u64,
}

/// The attributes of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicAttributes {
    /// The longest body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_message_size: Option<u32>,
    /// Whether the service keeps a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging_enabled: Option<bool>,
}

/// What is told of a topic. Times since 1970 are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicMeta {
    /// Its name.
    pub name: String,
    /// Its attributes.
    #[serde(flatten)]
    pub attributes: TopicAttributes,
    /// Time after which a message is gone, in seconds.
    pub message_retention_period: u64,
    /// Messages not yet pushed to all.
    pub message_count: u64,
    /// When it was made.
    pub create_time: u64,
    /// When its attributes were changed.
    pub last_modify_time: u64,
}

/// The attributes of a subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionAttributes {
    /// Where messages are pushed to: `http://…`, `acs:mns:{region}:{account}:queues/{queue}` or
    /// `mail:directmail:{address}`. Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The tag of the messages that are pushed; all without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_tag: Option<String>,
    /// How often what failed is pushed again: `BACKOFF_RETRY` or `EXPONENTIAL_DECAY_RETRY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_strategy: Option<String>,
    /// How messages are written: `XML`, `SIMPLIFIED` or `JSON`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_content_format: Option<String>,
}

/// What is told of a subscription. Times since 1970 are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionMeta {
    /// Its name.
    pub name: String,
    /// The account of its topic.
    pub topic_owner: String,
    /// Its topic.
    pub topic: String,
    /// The account that subscribed.
    pub subscriber: String,
    /// Its attributes.
    #[serde(flatten)]
    pub attributes: SubscriptionAttributes,
    /// When it was made.
    pub create_time: u64,
    /// When its attributes were changed.
    pub last_modify_time: u64,
}

fn text(node: &mut Node<'_>, name: &str) -> String {
    node.take(name).map(Cow::into_owned).unwrap_or_default()
}

fn filled(node: &mut Node<'_>, name: &str) -> Option<String> {
    node.take_filled(name).map(Cow::into_owned)
}

fn switch(into: &mut Writer, name: &str, value: Option<bool>, capitals: bool) {
    let word = match (value, capitals) {
        (None, _) => return,
        (Some(true), false) => "true",
        (Some(false), false) => "false",
        (Some(true), true) => "True",
        (Some(false), true) => "False",
    };
    into.leaf(name, word);
}

impl QueueAttributes {
    // Answers begin truths with a capital.
    pub(super) fn write(&self, into: &mut Writer, answer: bool) {
        into.number("DelaySeconds", self.delay_seconds);
        into.number("MaximumMessageSize", self.maximum_message_size);
        into.number("MessageRetentionPeriod", self.message_retention_period);
        into.number("VisibilityTimeout", self.visibility_timeout);
        into.number("PollingWaitSeconds", self.polling_wait_seconds);
        switch(into, "LoggingEnabled", self.logging_enabled, answer);
    }

    pub(super) fn read(node: &Node<'_>) -> Result<QueueAttributes, Malformed> {
        Ok(QueueAttributes {
            delay_seconds: node.asked("DelaySeconds")?,
            maximum_message_size: node.asked("MaximumMessageSize")?,
            message_retention_period: node.asked("MessageRetentionPeriod")?,
            visibility_timeout: node.asked("VisibilityTimeout")?,
            polling_wait_seconds: node.asked("PollingWaitSeconds")?,
            logging_enabled: node.switch("LoggingEnabled")?,
        })
    }
}

impl TopicAttributes {
    pub(super) fn write(&self, into: &mut Writer, answer: bool) {
        into.number("MaximumMessageSize", self.maximum_message_size);
        switch(into, "LoggingEnabled", self.logging_enabled, answer);
    }

    pub(super) fn read(node: &Node<'_>) -> Result<TopicAttributes, Malformed> {
        Ok(TopicAttributes {
            maximum_message_size: node.asked("MaximumMessageSize")?,
            logging_enabled: node.switch("LoggingEnabled")?,
        })
    }
}

impl SubscriptionAttributes {
    pub(super) fn write(&self, into: &mut Writer) {
        into.some("Endpoint", self.endpoint.as_deref());
        into.some("FilterTag", self.filter_tag.as_deref());
        into.some("NotifyStrategy", self.notify_strategy.as_deref());
        into.some("NotifyContentFormat", self.notify_content_format.as_deref());
    }

    pub(super) fn read(node: &mut Node<'_>) -> SubscriptionAttributes {
        SubscriptionAttributes {
            endpoint: filled(node, "Endpoint"),
            filter_tag: filled(node, "FilterTag"),
            notify_strategy: filled(node, "NotifyStrategy"),
            notify_content_format: filled(node, "NotifyContentFormat"),
        }
    }
}

/// What answers and lists tell: queues, topics and subscriptions.
pub trait Named: Sized {
    /// The element of one, and of a list of them.
    const ELEMENTS: (&'static str, &'static str);
    /// The element of an address in a list.
    const URL: &'static str;

    #[doc(hidden)]
    fn write(&self, into: &mut Sheet);

    #[doc(hidden)]
    fn read(from: Leaf<'_>) -> Result<Self, Malformed>;

    /// The answer with one.
    fn encode(&self) -> String {
        let (one, _) = Self::ELEMENTS;
        let mut into = Sheet(Writer::answer(one, 600));
        self.write(&mut into);
        into.0.finish(one)
    }

    /// Reads the answer with one.
    ///
    /// # Errors
    /// What is wrong with it.
    fn decode(document: &[u8]) -> Result<Self, Malformed> {
        let (one, _) = Self::ELEMENTS;
        Self::read(Leaf(root(document, one)?))
    }
}

/// What a [`Named`] writes to.
pub struct Sheet(Writer);

/// What a [`Named`] is read from.
pub struct Leaf<'a>(Node<'a>);

impl Named for QueueMeta {
    const ELEMENTS: (&'static str, &'static str) = ("Queue", "Queues");
    const URL: &'static str = "QueueURL";

    fn write(&self, Sheet(into): &mut Sheet) {
        into.leaf("QueueName", &self.name);
        self.attributes.write(into, true);
        into.number("ActiveMessages", Some(self.active_messages));
        into.number("InactiveMessages", Some(self.inactive_messages));
        into.number("DelayMessages", Some(self.delay_messages));
        into.number("CreateTime", Some(self.create_time));
        into.number("LastModifyTime", Some(self.last_modify_time));
    }

    fn read(Leaf(mut node): Leaf<'_>) -> Result<QueueMeta, Malformed> {
        Ok(QueueMeta {
            name: missing(filled(&mut node, "QueueName"))?,
            attributes: QueueAttributes::read(&node)?,
            active_messages: node.number("ActiveMessages")?.unwrap_or_default(),
            inactive_messages: node.number("InactiveMessages")?.unwrap_or_default(),
            delay_messages: node.number("DelayMessages")?.unwrap_or_default(),
            create_time: node.number("CreateTime")?.unwrap_or_default(),
            last_modify_time: node.number("LastModifyTime")?.unwrap_or_default(),
        })
    }
}

impl Named for TopicMeta {
    const ELEMENTS: (&'static str, &'static str) = ("Topic", "Topics");
    const URL: &'static str = "TopicURL";

    fn write(&self, Sheet(into): &mut Sheet) {
        into.leaf("TopicName", &self.name);
        self.attributes.write(into, true);
        into.number("MessageRetentionPeriod", Some(self.message_retention_period));
        into.number("MessageCount", Some(self.message_count));
        into.number("CreateTime", Some(self.create_time));
        into.number("LastModifyTime", Some(self.last_modify_time));
    }

    fn read(Leaf(mut node): Leaf<'_>) -> Result<TopicMeta, Malformed> {
        Ok(TopicMeta {
            name: missing(filled(&mut node, "TopicName"))?,
            attributes: TopicAttributes::read(&node)?,
            message_retention_period: node.number("MessageRetentionPeriod")?.unwrap_or_default(),
            message_count: node.number("MessageCount")?.unwrap_or_default(),
            create_time: node.number("CreateTime")?.unwrap_or_default(),
            last_modify_time: node.number("LastModifyTime")?.unwrap_or_default(),
        })
    }
}

impl Named for SubscriptionMeta {
    const ELEMENTS: (&'static str, &'static str) = ("Subscription", "Subscriptions");
    const URL: &'static str = "SubscriptionURL";

    fn write(&self, Sheet(into): &mut Sheet) {
        into.leaf("SubscriptionName", &self.name);
        into.leaf("Subscriber", &self.subscriber);
        into.leaf("TopicOwner", &self.topic_owner);
        into.leaf("TopicName", &self.topic);
        self.attributes.write(into);
        into.number("CreateTime", Some(self.create_time));
        into.number("LastModifyTime", Some(self.last_modify_time));
    }

    fn read(Leaf(mut node): Leaf<'_>) -> Result<SubscriptionMeta, Malformed> {
        Ok(SubscriptionMeta {
            name: missing(filled(&mut node, "SubscriptionName"))?,
            topic_owner: text(&mut node, "TopicOwner"),
            topic: text(&mut node, "TopicName"),
            subscriber: text(&mut node, "Subscriber"),
            attributes: SubscriptionAttributes::read(&mut node),
            create_time: node.number("CreateTime")?.unwrap_or_default(),
            last_modify_time: node.number("LastModifyTime")?.unwrap_or_default(),
        })
    }
}

/// One of a list: its address, and where the listing asked for it what is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listed<M> {
    /// Its address.
    pub url: String,
    /// What is told of it.
    pub meta: Option<M>,
}

impl<M> Listed<M> {
    /// Its name: the end of its address.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }
}

/// The answer to a listing. `next` is where the next one goes on; none at the end.
pub fn encode_list<M: Named>(listed: &[Listed<M>], next: Option<&str>) -> String {
    let (one, all) = M::ELEMENTS;
    let mut into = Sheet(Writer::answer(all, 200 + listed.len() * 200));
    for item in listed {
        into.0.open(one);
        into.0.leaf(M::URL, &item.url);
        if let Some(meta) = &item.meta {
            meta.write(&mut into);
        }
        into.0.close(one);
    }
    into.0.some("NextMarker", next);
    into.0.finish(all)
}

/// Reads the answer to a listing: what it names, and where the next one goes on. `with_meta` says what it asked for.
///
/// # Errors
/// What is wrong with it.
pub fn decode_list<M: Named>(
    document: &[u8],
    with_meta: bool,
) -> Result<(Vec<Listed<M>>, Option<String>), Malformed> {
    let (one, all) = M::ELEMENTS;
    let mut root = root(document, all)?;
    let next = filled(&mut root, "NextMarker");
    let each = root.children.into_iter().filter(|child| child.name == one);
    let listed = each.map(|mut child| {
        let url = text(&mut child, M::URL);
        let meta = if with_meta { Some(M::read(Leaf(child))?) } else { None };
        Ok(Listed { url, meta })
    });
    Ok((listed.collect::<Result<_, Malformed>>()?, next))
}
