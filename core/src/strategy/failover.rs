//! Sends through the last good member, and through the others in turn when it fails.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::accepted::{Accepted, Again};
use super::current::{Current, Seen};
use super::layer::{addressed, stacked};
use super::member::{self, Member};
use super::or_else::OrElse;
use super::tried::Tried;
use super::{OnUnknown, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::from_value;
use crate::error::{Error, Kind, Outcome, Result, Whole};
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
        attempts: AtomicU64::new(0),
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
    attempts: AtomicU64,
    switches: AtomicU64,
    all_failed: AtomicU64,
}

impl Failover {
    fn name_of(&self, place: usize) -> &str {
        self.members.get(place).map_or("", |member| &member.name)
    }

    fn moved(&self, from: usize, to: usize, why: &str) {
        self.switches.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.name_of(from), self.name_of(to));
        tracing::warn!(id = %self.id, strategy = TYPE, from, to, why, "switches");
    }

    // A fault of the message is no fault of the member: the others may take it, but it stays the current one.
    fn moves(error: &Error) -> bool {
        !matches!(error.kind(), Kind::InvalidArgument | Kind::Unsupported | Kind::TooLarge | Kind::Partial)
    }

    async fn others(
        &self,
        ctx: &Context,
        accepted: Accepted,
        mut seen: Seen,
        first: Error,
    ) -> Result<Receipt> {
        let start = seen.place();
        let count = self.members.len();
        let mut tried = Tried::new(accepted);
        let mut error = first;
        for step in 0..count {
            let place = (start + step) % count;
            if step > 0 {
                let Some(member) = self.members.get(place) else { continue };
                seen = self.current.see();
                self.attempts.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(id = %self.id, strategy = TYPE, member = %member.name, after = %error, "tries");
                error = match member.send(ctx, tried.now()).await {
                    Ok(receipt) => return tried.sent(receipt),
                    Err(error) => error,
                };
            }
            if let Some(member) = self.members.get(place) {
                tried.failed(Whole::Member, member.name.clone(), &error);
            }
            // No other member could do better when the caller's time is over.
            let over = match ctx.check() {
                Err(over) => Some(over),
                Ok(()) if error.kind() == Kind::Cancelled => Some(error.clone()),
                Ok(()) => None,
            };
            // One that let the whole time pass is at fault: the next message begins elsewhere.
            let moves =
                Failover::moves(&error) && over.as_ref().is_none_or(|_| error.kind() == Kind::Timeout);
            if moves && seen.place() == place && self.current.move_on(seen) {
                self.moved(place, (place + 1) % count, error.kind().name());
            }
            if let Some(over) = over {
                return Err(self.stopped(tried, over.kind(), &error, over.message().to_owned()));
            }
            if error.outcome() == Outcome::Unknown && self.on_unknown == OnUnknown::Stop {
                let why = "whether it was sent is unknown, and `on_unknown` says stop";
                return Err(self.stopped(tried, error.kind(), &error, why));
            }
            if step + 1 < count
                && let Err(why) = tried.go_on(&error, Again::Any)
            {
                return Err(self.stopped(tried, error.kind(), &error, why));
            }
        }
        Err(self.all_failed(tried, error))
    }

    fn stopped(&self, tried: Tried, kind: Kind, last: &Error, why: impl Into<Cow<'static, str>>) -> Error {
        let why = why.into();
        tracing::debug!(id = %self.id, strategy = TYPE, members = tried.count(), %why, "stops");
        if last.kind() == kind && tried.is_only(last) {
            return last.clone();
        }
        tried.into_members_error(kind, self.members.len(), why, last)
    }

    fn all_failed(&self, tried: Tried, last: Error) -> Error {
        if self.members.len() == 1 {
            return last;
        }
        self.all_failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(id = %self.id, strategy = TYPE, members = tried.count(), "all failed");
        // Before the first of those that may do better can, another try is in vain.
        let waits = tried.errors().filter(|(_, error)| error.retryable());
        let wait = waits.map(|(_, error)| error.retry_after().unwrap_or_default()).min();
        let retryable = wait.is_some();
        let all = tried.count();
        let error =
            tried.into_members_error(Kind::AllFailed, all, "", &last).by(TYPE).retryable_is(retryable);
        match wait.filter(|wait| !wait.is_zero()) {
            Some(wait) => error.after(wait),
            None => error,
        }
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
        let seen = self.current.see();
        let Some(member) = self.members.get(seen.place()) else {
            let error = Error::new(Kind::Internal, "the current member is none of the members").by(TYPE);
            return Box::pin(std::future::ready(Err(error)));
        };
        let first = move |message| {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(id = %self.id, strategy = TYPE, member = %member.name, "tries");
            member.send(ctx, message)
        };
        let then = move |accepted, error| -> BoxFuture<'a, Result<Receipt>> {
            Box::pin(self.others(ctx, accepted, seen, error))
        };
        Box::pin(OrElse::new(message, first, then))
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::flush(&self.members, ctx))
    }

    fn status(&self) -> Value {
        let current = self.current.see().place();
        let state = json!({
            "current": current,
            "current_member": self.name_of(current),
            "attempts": self.attempts.load(Ordering::Relaxed),
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
        Ok(json!({"current": place, "current_member": self.name_of(place)}))
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::close(&self.members, ctx))
    }
}
