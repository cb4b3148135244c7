//! Sends to every member at once, with a result for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Setup;
use super::layer::{addressed, stacked};
use super::member::{self, Member};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::from_value;
use crate::error::{Error, Kind, Outcome, Part, Result, Whole};
use crate::message::{Message, Receipt};

const TYPE: &str = "fan_out";

/// A strategy with `"type": "fan_out"`, beside its `members`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    from_value::<Config>(Value::Object(section)).map(drop)
}

pub(super) fn group(
    setup: &Setup,
    section: Map<String, Value>,
    members: Vec<Member>,
) -> Result<Arc<dyn Producer>> {
    check(section)?;
    let (id, name) = (setup.id.clone(), setup.name.clone());
    Ok(Arc::new(FanOut { id, name, members, partly: AtomicU64::new(0), all_failed: AtomicU64::new(0) }))
}

struct FanOut {
    id: Arc<str>,
    name: Arc<str>,
    members: Vec<Member>,
    partly: AtomicU64,
    all_failed: AtomicU64,
}

impl FanOut {
    fn sum_up(&self, results: Vec<Result<Receipt>>) -> Result<Receipt> {
        let (mut attempts, mut partly, mut unknown, mut retryable) = (0_u32, false, false, false);
        let mut parts = Vec::with_capacity(results.len());
        let mut texts = Vec::new();
        for (member, result) in self.members.iter().zip(results) {
            parts.push(match result {
                Ok(receipt) => {
                    partly = true;
                    attempts = attempts.saturating_add(receipt.attempts);
                    Part::sent(Whole::Member, member.name.clone(), receipt.message_id)
                }
                Err(error) => {
                    attempts = attempts.saturating_add(error.attempts().max(1));
                    unknown |= error.outcome() == Outcome::Unknown;
                    retryable |= error.retryable();
                    partly |= error.kind() == Kind::Partial;
                    texts.push(format!("{}: {error}", member.name));
                    Part::failed(Whole::Member, member.name.clone(), error)
                }
            });
        }
        if texts.is_empty() {
            return Ok(Receipt { attempts, parts: Some(parts.into()), ..Receipt::sent(TYPE) });
        }
        let text = format!("{} of {} members failed: {}", texts.len(), parts.len(), texts.join("; "));
        tracing::debug!(id = %self.id, strategy = TYPE, failed = texts.len(), "some members failed");
        let error = if !partly {
            self.all_failed.fetch_add(1, Ordering::Relaxed);
            Error::new(Kind::AllFailed, text).retryable_is(retryable)
        } else {
            self.partly.fetch_add(1, Ordering::Relaxed);
            // A retry would send to those again that have it: retries belong into the members.
            Error::new(Kind::Partial, text).retryable_is(false)
        };
        let error = error.by(TYPE).tried(attempts).made_of(parts);
        Err(if unknown || partly { error.outcome_is(Outcome::Unknown) } else { error })
    }
}

impl Producer for FanOut {
    fn provider(&self) -> &'static str {
        TYPE
    }

    fn capability(&self) -> Capability {
        Capability { message_id: false, ..member::capability(&self.members) }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let sends = self.members.iter().map(|member| member.send(ctx, message.clone()));
            self.sum_up(join_all(sends).await)
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::flush(&self.members, ctx))
    }

    fn status(&self) -> Value {
        let state = json!({
            "partly_failed": self.partly.load(Ordering::Relaxed),
            "all_failed": self.all_failed.load(Ordering::Relaxed),
            "members": member::status(&self.members),
        });
        stacked(TYPE, &self.name, state, json!({"state": "open"}))
    }

    fn control(&self, command: &Value) -> Result<Value> {
        match addressed(command, &self.name)? {
            Some(_) => Err(Error::new(Kind::Unsupported, "a fan_out takes no control commands")),
            None => member::control(&self.members, command),
        }
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::close(&self.members, ctx))
    }
}
