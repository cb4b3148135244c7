//! The administration of an MNS account: one call, whose command and answer are JSON, so that each language has all of
//! it. Every call opens what it needs and closes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Context;
use crate::config::{ClientConfig, from_value};
use crate::error::{Error, Kind, Result};
use crate::provider::Setup;
use crate::provider::mns::{
    Admin, BodyEncoding, Created, Listed, Listing, Page, Peeked, QueueAttributes, SubscriptionAttributes,
    TopicAttributes,
};

/// How long a call may take that names no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The commands, as the key of a command's object.
pub const COMMANDS: [&str; 17] = [
    "create_queue",
    "set_queue",
    "get_queue",
    "delete_queue",
    "list_queues",
    "peek",
    "create_topic",
    "set_topic",
    "get_topic",
    "delete_topic",
    "list_topics",
    "subscribe",
    "set_subscription",
    "get_subscription",
    "unsubscribe",
    "list_subscriptions",
    "purge_queue",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithQueue {
    queue: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueAnd {
    queue: String,
    #[serde(default)]
    attributes: QueueAttributes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Look {
    queue: String,
    #[serde(default = "one")]
    limit: usize,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithTopic {
    topic: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicAnd {
    topic: String,
    #[serde(default)]
    attributes: TopicAttributes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithSubscription {
    topic: String,
    subscription: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionAnd {
    topic: String,
    subscription: String,
    attributes: SubscriptionAttributes,
}

/// Which part of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    prefix: Option<String>,
    after: Option<String>,
    #[serde(default = "hundred")]
    limit: u32,
}

fn hundred() -> u32 {
    100
}

impl Part {
    fn listing(&self) -> Listing<'_> {
        Listing {
            prefix: self.prefix.as_deref().map(Into::into),
            marker: self.after.as_deref().map(Into::into),
            number: Some(self.limit),
            with_meta: true,
        }
    }
}

/// Those of one topic.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartOfTopic {
    topic: String,
    prefix: Option<String>,
    after: Option<String>,
    #[serde(default = "hundred")]
    limit: u32,
}

/// Carries out a command on the account of a config, that of a client; a queue or topic that it names is of no
/// importance.
///
/// A command is an object with one key. Names are those of queues, topics and subscriptions:
///
/// | command | answer |
/// | --- | --- |
/// | `{"create_queue": {"queue", "attributes"}}` | `{"created": true}`, `false` where there is the same already |
/// | `{"set_queue": {"queue", "attributes"}}` | `{}`; attributes left out stay |
/// | `{"get_queue": {"queue"}}` | `name`, the attributes, `active_messages`, `inactive_messages`, `delay_messages`, `create_time`, `last_modify_time` |
/// | `{"delete_queue": {"queue"}}` | `{}`; its messages are gone with it |
/// | `{"list_queues": {"prefix", "after", "limit"}}` | `{"queues": [as above, …], "next"}`; `next` is the `after` of the next page, or null |
/// | `{"peek": {"queue", "limit"}}` | `{"messages": [{"message_id", "body", "enqueued_ms", "dequeue_count", "priority"}, …]}`; a body that is no text is in `body_base64` |
/// | `create_topic`, `set_topic`, `get_topic`, `delete_topic`, `list_topics` | as of queues, with `topic` |
/// | `{"subscribe": {"topic", "subscription", "attributes"}}` | `{"created": true}` |
/// | `set_subscription`, `get_subscription`, `unsubscribe` with `topic` and `subscription`; `list_subscriptions` with `topic` | as of queues |
///
/// Attributes are those of [`QueueAttributes`], [`TopicAttributes`] and [`SubscriptionAttributes`]. `limit` is up to 1000
/// names, 100 unless set, and up to 16 messages, 1 unless set. MNS has no way to empty a queue: `purge_queue` says so.
///
/// # Errors
/// `invalid_config`; `invalid_argument` for a command that is none, for values that may not be, and for something that
/// exists with other attributes; `not_found`, `authentication`, `permission`, `unavailable`, `timeout`, `unsupported`.
pub async fn admin(config: &ClientConfig, command: Value, timeout: Option<Duration>) -> Result<Value> {
    let (name, arguments) = named(command)?;
    let mut section = config.provider.clone();
    match section.remove("type") {
        Some(Value::String(of)) if of == "mns" => {}
        _ => {
            return Err(Error::new(
                Kind::InvalidConfig,
                "`provider.type` must be `mns`: no other is administered",
            ));
        }
    }
    if !config.strategies.is_empty() {
        let text = "`strategies` are those of a producer: the administration has none";
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    let setup = Setup::from_config("mns-admin", config);
    let ctx = Context::within(timeout.unwrap_or(PATIENCE));
    Desk { admin: Admin::open(&setup, section).await?, ctx }.done(&name, arguments).await
}

/// The one key of a command, and what it holds.
fn named(command: Value) -> Result<(String, Value)> {
    let wrong = |text: String| Error::new(Kind::InvalidArgument, text);
    let Value::Object(command) = command else {
        return Err(wrong(
            "a command is an object with one key, such as {\"get_queue\": {\"queue\": \"q\"}}".into(),
        ));
    };
    let keys: Vec<&String> = command.keys().collect();
    let [name] = keys[..] else {
        return Err(wrong(format!("a command has one key, and this one has {}", keys.len())));
    };
    if !COMMANDS.contains(&name.as_str()) {
        let near = crate::config::nearest(name, &COMMANDS);
        let near = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        return Err(wrong(format!("there is no command `{name}`{near}")));
    }
    let mut command = command.into_iter();
    command.next().ok_or_else(|| Error::new(Kind::Internal, "a command's key is gone"))
}

fn read<T: DeserializeOwned>(name: &str, arguments: Value) -> Result<T> {
    let arguments = if arguments.is_null() { Value::Object(Map::new()) } else { arguments };
    from_value(arguments).map_err(|error| {
        let text = error.message();
        Error::new(Kind::InvalidArgument, format!("`{name}`: {text}"))
    })
}

struct Desk {
    admin: Admin,
    ctx: Context,
}

impl Desk {
    async fn done(&self, name: &str, arguments: Value) -> Result<Value> {
        let (admin, ctx) = (&self.admin, &self.ctx);
        match name {
            "create_queue" => {
                let QueueAnd { queue, attributes } = read(name, arguments)?;
                Ok(made(admin.create_queue(ctx, &queue, attributes).await?))
            }
            "set_queue" => {
                let QueueAnd { queue, attributes } = read(name, arguments)?;
                nothing(admin.set_queue(ctx, &queue, attributes).await)
            }
            "get_queue" => {
                let WithQueue { queue } = read(name, arguments)?;
                told(&admin.queue(ctx, &queue).await?)
            }
            "delete_queue" => {
                let WithQueue { queue } = read(name, arguments)?;
                nothing(admin.delete_queue(ctx, &queue).await)
            }
            "list_queues" => {
                let part: Part = read(name, arguments)?;
                page("queues", admin.queues(ctx, part.listing()).await?)
            }
            "peek" => {
                let Look { queue, limit } = read(name, arguments)?;
                if !(1..=16).contains(&limit) {
                    return Err(Error::new(Kind::InvalidArgument, "`peek`: `limit` must be from 1 to 16"));
                }
                let seen = admin.peek(ctx, &queue, limit).await?;
                Ok(json!({"messages": seen.iter().map(|one| self.shown(one)).collect::<Vec<_>>()}))
            }
            "purge_queue" => {
                let WithQueue { queue } = read(name, arguments)?;
                let text = format!("MNS cannot empty the queue `{queue}`: delete it and create it again");
                Err(Error::new(Kind::Unsupported, text))
            }
            _ => self.done_of_topics(name, arguments).await,
        }
    }

    async fn done_of_topics(&self, name: &str, arguments: Value) -> Result<Value> {
        let (admin, ctx) = (&self.admin, &self.ctx);
        match name {
            "create_topic" => {
                let TopicAnd { topic, attributes } = read(name, arguments)?;
                Ok(made(admin.create_topic(ctx, &topic, attributes).await?))
            }
            "set_topic" => {
                let TopicAnd { topic, attributes } = read(name, arguments)?;
                nothing(admin.set_topic(ctx, &topic, attributes).await)
            }
            "get_topic" => {
                let WithTopic { topic } = read(name, arguments)?;
                told(&admin.topic(ctx, &topic).await?)
            }
            "delete_topic" => {
                let WithTopic { topic } = read(name, arguments)?;
                nothing(admin.delete_topic(ctx, &topic).await)
            }
            "list_topics" => {
                let part: Part = read(name, arguments)?;
                page("topics", admin.topics(ctx, part.listing()).await?)
            }
            "subscribe" => {
                let SubscriptionAnd { topic, subscription, attributes } = read(name, arguments)?;
                Ok(made(admin.subscribe(ctx, &topic, &subscription, attributes).await?))
            }
            "set_subscription" => {
                let SubscriptionAnd { topic, subscription, attributes } = read(name, arguments)?;
                nothing(admin.set_subscription(ctx, &topic, &subscription, attributes).await)
            }
            "get_subscription" => {
                let WithSubscription { topic, subscription } = read(name, arguments)?;
                told(&admin.subscription(ctx, &topic, &subscription).await?)
            }
            "unsubscribe" => {
                let WithSubscription { topic, subscription } = read(name, arguments)?;
                nothing(admin.unsubscribe(ctx, &topic, &subscription).await)
            }
            "list_subscriptions" => {
                let PartOfTopic { topic, prefix, after, limit } = read(name, arguments)?;
                let part = Part { prefix, after, limit };
                page("subscriptions", admin.subscriptions(ctx, &topic, part.listing()).await?)
            }
            other => Err(Error::new(Kind::Internal, format!("nobody carries out `{other}`"))),
        }
    }

    fn shown(&self, message: &Peeked) -> Value {
        let bytes = match self.admin.encoding() {
            BodyEncoding::Raw => None,
            // What is none stays as it is.
            BodyEncoding::Base64 => STANDARD.decode(&message.body).ok(),
        };
        let (key, body) = match bytes.map(String::from_utf8) {
            None => ("body", message.body.clone()),
            Some(Ok(text)) => ("body", text),
            Some(Err(_)) => ("body_base64", message.body.clone()),
        };
        json!({
            "message_id": message.message_id,
            key: body,
            "enqueued_ms": message.enqueued.map(millis),
            "dequeue_count": message.dequeue_count,
            "priority": message.priority,
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn made(created: Created) -> Value {
    json!({"created": created == Created::New})
}

fn nothing(done: Result<()>) -> Result<Value> {
    done.map(|()| json!({}))
}

fn told(meta: &impl Serialize) -> Result<Value> {
    serde_json::to_value(meta).map_err(|_| Error::new(Kind::Internal, "what was told cannot be written"))
}

fn page<M: Serialize>(what: &str, (listed, next): Page<M>) -> Result<Value> {
    let each = listed.iter().map(|one: &Listed<M>| match &one.meta {
        Some(meta) => told(meta),
        None => Ok(json!({"name": one.name()})),
    });
    Ok(json!({what: each.collect::<Result<Vec<_>>>()?, "next": next}))
}
