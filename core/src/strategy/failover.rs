//! Sends through the last good member, and through the others in turn when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::accepted::{Accepted, Recipients};
use super::current::{Current, Seen};
use super::layer::{addressed, stacked};
use super::member::{self, Member};
use super::{OnUnknown, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::from_value;
use crate::error::{Error, Kind, Outcome, Part, Result, Whole};
use crate::message::{Message, Receipt};

const TYPE: &str = "failover";

/// A strategy with `"type": "failover"`, beside its `members`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What follows when it is unknown whether a member sent the message.
    #[serde(default)]
    on_unknown: OnUnknown,
}

fn parse(section: Map<String, Value>) -> Result<Config> {
    from_value(Value::Object(section))
}

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

pub(super) fn group(
    setup: &Setup,
    section: Map<String, Value>,
    members: Vec<Member>,
) -> Result<Arc<dyn Producer>> {
    let config = parse(section)?;
    Ok(Arc::new(Failover {
        id: setup.id.clone(),
        name: setup.name.clone(),
        on_unknown: config.on_unknown,
        current: Current::new(members.len()),
        members,
        switches: AtomicU64::new(0),
        all_failed: AtomicU64::new(0),
    }))
}

struct Failover {
    id: Arc<str>,
    name: Arc<str>,
    on_unknown: OnUnknown,
    members: Vec<Member>,
    current: Current,
    switches: AtomicU64,
    all_failed: AtomicU64,
}

impl Failover {
    fn name_of(&self, place: usize) -> Arc<str> {
        self.members.get(place).map_or_else(|| "".into(), |member| member.name.clone())
    }

    fn moved(&self, from: usize, to: usize, why: &str) {
        self.switches.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.name_of(from), self.name_of(to));
        tracing::warn!(id = %self.id, strategy = TYPE, %from, %to, why, "switches");
    }

    // A fault of the message is no fault of the member: the others may take it, but it stays the current one.
    fn moves(error: &Error) -> bool {
        !matches!(error.kind(), Kind::InvalidArgument | Kind::Unsupported | Kind::TooLarge | Kind::Partial)
    }

    async fn others(
        &self,
        ctx: &Context,
        mut accepted: Accepted,
        mut seen: Seen,
        first: Error,
    ) -> Result<Receipt> {
        let start = seen.place();
        let count = self.members.len();
        let mut parts = Vec::with_capacity(count);
        let mut recipients = Recipients::default();
        let (mut attempts, mut unknown) = (0_u32, false);
        let mut error = first;
        for step in 0..count {
            let place = (start + step) % count;
            if step > 0 {
                let Some(member) = self.members.get(place) else { continue };
                seen = self.current.see();
                error = match member.producer.send(ctx, accepted.now()).await {
                    Ok(mut receipt) => {
                        receipt.attempts = receipt.attempts.saturating_add(attempts);
                        if !recipients.is_empty() {
                            recipients.rest_sent(receipt.parts.as_deref());
                            receipt.parts = Some(recipients.into_parts().into());
                        }
                        return Ok(receipt);
                    }
                    Err(error) => error,
                };
            }
            attempts = attempts.saturating_add(error.attempts().max(1));
            unknown |= error.outcome() == Outcome::Unknown;
            recipients.add(error.parts());
            parts.push(Part::failed(Whole::Member, self.name_of(place), error.clone()));
            // The caller's end is no fault of a member, and no other one could do better.
            let over = ctx.check().is_err() || error.kind() == Kind::Cancelled;
            if over || (error.outcome() == Outcome::Unknown && self.on_unknown == OnUnknown::Stop) {
                break;
            }
            if error.kind() == Kind::Partial {
                accepted.keep_failed(error.parts());
            }
            if Failover::moves(&error) && seen.place() == place && self.current.move_on(seen) {
                self.moved(place, (place + 1) % count, error.kind().name());
            }
        }
        Err(self.failed(parts, recipients, attempts, unknown, error))
    }

    fn failed(
        &self,
        parts: Vec<Part>,
        recipients: Recipients,
        attempts: u32,
        unknown: bool,
        last: Error,
    ) -> Error {
        if self.members.len() == 1 || parts.len() < self.members.len() {
            // Stopped before all were tried: the error of the last one says why.
            let last = last.clone().tried(attempts);
            return if unknown { last.outcome_is(Outcome::Unknown) } else { last };
        }
        self.all_failed.fetch_add(1, Ordering::Relaxed);
        let named: Vec<String> = parts
            .iter()
            .filter_map(|part| part.error.as_ref().map(|error| format!("{}: {error}", part.name)))
            .collect();
        let retryable = parts.iter().filter_map(|part| part.error.as_ref()).any(Error::retryable);
        let waits = parts.iter().filter_map(|part| part.error.as_ref());
        let wait = waits.map(|error| error.retry_after()).min().flatten();
        let kind = if recipients.any_sent() { Kind::Partial } else { Kind::AllFailed };
        let text = format!("all {} members failed: {}", parts.len(), named.join("; "));
        let mut error = Error::new(kind, text).by(TYPE).tried(attempts).retryable_is(retryable);
        if unknown {
            error = error.outcome_is(Outcome::Unknown);
        }
        if let Some(wait) = wait {
            error = error.after(wait);
        }
        let mut parts = parts;
        parts.extend(recipients.into_parts());
        error.made_of(parts)
    }
}

impl Producer for Failover {
    fn provider(&self) -> &'static str {
        TYPE
    }

    fn capability(&self) -> Capability {
        member::capability(&self.members)
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let seen = self.current.see();
            let Some(member) = self.members.get(seen.place()) else {
                return Err(Error::new(Kind::Internal, "the current member is none of the members").by(TYPE));
            };
            let accepted = Accepted::new(message);
            match member.producer.send(ctx, accepted.now()).await {
                Ok(receipt) => Ok(receipt),
                // What few messages need is apart, so that the future of each stays small.
                Err(error) => Box::pin(self.others(ctx, accepted, seen, error)).await,
            }
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::flush(&self.members, ctx))
    }

    fn status(&self) -> Value {
        let current = self.current.see().place();
        let state = json!({
            "current": current,
            "current_member": &*self.name_of(current),
            "switches": self.switches.load(Ordering::Relaxed),
            "all_failed": self.all_failed.load(Ordering::Relaxed),
            "members": member::status(&self.members),
        });
        stacked(TYPE, &self.name, state, json!({"state": "open"}))
    }

    fn control(&self, command: &Value) -> Result<Value> {
        let Some(command) = addressed(command, &self.name)? else {
            return member::control(&self.members, command);
        };
        let place = member::named(&self.members, command.get("current"))?;
        let before = self.current.see().place();
        if self.current.set(place) {
            self.moved(before, place, "control");
        }
        Ok(json!({"current": place, "current_member": &*self.name_of(place)}))
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::close(&self.members, ctx))
    }
}
