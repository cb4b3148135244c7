//! The members of a strategy that has several producers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::layer::addressed;
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// A producer and what it is called in errors, events and the status.
#[derive(Clone)]
pub struct Member {
    /// Its id, or the type of its provider with its number.
    pub name: Arc<str>,
    /// The producer.
    pub producer: Arc<dyn Producer>,
    /// The longest a send to it may take, where that is less than what its caller has.
    pub deadline: Option<Duration>,
}

impl Member {
    /// One that has as long as its caller.
    pub fn new(name: impl Into<Arc<str>>, producer: Arc<dyn Producer>) -> Member {
        Member { name: name.into(), producer, deadline: None }
    }

    /// Sends through it.
    pub(super) fn send<'a>(
        &'a self,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>> {
        match self.deadline {
            None => self.producer.send(ctx, message),
            Some(most) => Box::pin(async move {
                let ctx = ctx.clone().at_most(most);
                self.producer.send(&ctx, message).await
            }),
        }
    }
}

/// What all of them can do.
pub(super) fn capability(members: &[Member]) -> Capability {
    let mut all: Option<Capability> = None;
    for member in members {
        let one = member.producer.capability();
        all = Some(match all {
            None => one,
            Some(all) => Capability {
                // The coarsest: what every member honours.
                delay_unit: all.delay_unit.zip(one.delay_unit).map(|(a, b)| a.max(b)),
                binary_body: all.binary_body && one.binary_body,
                ordered: false,
                message_id: all.message_id && one.message_id,
                ack: all.ack && one.ack,
                nack: all.nack && one.nack,
                attempt: all.attempt && one.attempt,
                redelivery: all.redelivery && one.redelivery,
                max_body: match (all.max_body, one.max_body) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                },
            },
        });
    }
    all.unwrap_or_default()
}

/// Flushes those that belong to the group, all at once.
pub(super) async fn flush(members: &[Member], ctx: &Context) -> Result<()> {
    let ended = futures_util::future::join_all(members.iter().map(|member| member.producer.flush(ctx))).await;
    ended.into_iter().collect()
}

/// Closes those that belong to the group, all at once.
pub(super) async fn close(members: &[Member], ctx: &Context) -> Result<()> {
    let ended = futures_util::future::join_all(members.iter().map(|member| member.producer.close(ctx))).await;
    ended.into_iter().collect()
}

/// The status of each, with its name.
pub(super) fn status(members: &[Member]) -> Value {
    members
        .iter()
        .map(|member| {
            let mut status = match member.producer.status() {
                Value::Object(status) => status,
                _ => Map::new(),
            };
            status.insert("member".into(), json!(&*member.name));
            status.insert("provider".into(), json!(member.producer.provider()));
            Value::Object(status)
        })
        .collect()
}

/// The place of the member that a command names by its name or its number from 0.
///
/// # Errors
/// `invalid_argument`, naming the members.
pub(super) fn named(members: &[Member], value: Option<&Value>) -> Result<usize> {
    let found = match value {
        Some(Value::String(name)) => members.iter().position(|member| *member.name == **name),
        Some(Value::Number(number)) => {
            number.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|n| *n < members.len())
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
        let what = if value.is_none() { "`current` is missing" } else { "no such member" };
        let text = format!("{what}: give a number from 0 or one of {}", names.join(", "));
        Error::new(Kind::InvalidArgument, text)
    })
}

/// Passes a command on to the first member that has a strategy of that name.
///
/// # Errors
/// What that member says; `not_found` when none has one.
pub(super) fn control(members: &[Member], command: &Value) -> Result<Value> {
    // Refuses what is no command before the members are asked.
    addressed(command, "")?;
    for member in members {
        match member.producer.control(command) {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unsupported) => {}
            other => return other,
        }
    }
    Err(Error::new(Kind::NotFound, "nothing of that name takes commands here: `status` shows the strategies"))
}
