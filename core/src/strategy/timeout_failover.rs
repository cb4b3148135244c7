//! Moves on to the next member after several timeouts in a row, and back to the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::accepted::Accepted;
use super::current::{Current, Seen, Streak};
use super::layer::{addressed, stacked};
use super::member::{self, Member};
use super::{OnUnknown, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

const TYPE: &str = "timeout_failover";

/// A strategy with `"type": "timeout_failover"`, beside its `members`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Timeouts in a row that move on, at least 1.
    after: u32,
    /// When to go back to the first member; never unless set.
    #[serde(default)]
    return_after: Option<Span>,
    /// How often one message is tried at the first member, to go back when that goes well; never unless set.
    #[serde(default)]
    probe_every: Option<Span>,
    /// Whether a message whose probe ended unknown is sent again.
    #[serde(default)]
    on_unknown: OnUnknown,
}

fn parse(section: Map<String, Value>) -> Result<Config> {
    let config: Config = from_value(Value::Object(section))?;
    let wrong = |text: &str| Err(Error::new(Kind::InvalidConfig, text));
    if config.after == 0 {
        return wrong("`after` is the number of timeouts in a row that move on: at least 1");
    }
    for (name, span) in [("return_after", config.return_after), ("probe_every", config.probe_every)] {
        if span.is_some_and(|span| span.0.is_zero()) {
            return wrong(&format!("`{name}` must be longer than 0"));
        }
    }
    Ok(config)
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
    Ok(Arc::new(TimeoutFailover {
        id: setup.id.clone(),
        name: setup.name.clone(),
        config,
        current: Current::new(members.len()),
        members,
        streak: Streak::new(),
        opened: Instant::now(),
        moved_ms: AtomicU64::new(0),
        probed_ms: AtomicU64::new(0),
        switches: AtomicU64::new(0),
        probes: AtomicU64::new(0),
    }))
}

struct TimeoutFailover {
    id: Arc<str>,
    name: Arc<str>,
    config: Config,
    members: Vec<Member>,
    current: Current,
    streak: Streak,
    opened: Instant,
    // When the member changed and when the first one was last tried, in milliseconds since the opening.
    moved_ms: AtomicU64,
    probed_ms: AtomicU64,
    switches: AtomicU64,
    probes: AtomicU64,
}

impl TimeoutFailover {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn name_of(&self, place: usize) -> Arc<str> {
        self.members.get(place).map_or_else(|| "".into(), |member| member.name.clone())
    }

    fn moved(&self, from: usize, to: usize, why: &str) {
        let now = self.now_ms();
        self.moved_ms.store(now, Ordering::Release);
        self.probed_ms.store(now, Ordering::Release);
        self.switches.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.name_of(from), self.name_of(to));
        tracing::warn!(id = %self.id, strategy = TYPE, %from, %to, why, "switches");
    }

    // Back to the first when its time has come.
    fn see(&self) -> Seen {
        let seen = self.current.see();
        if seen.place() != 0
            && let Some(after) = self.config.return_after
            && self.now_ms().saturating_sub(self.moved_ms.load(Ordering::Acquire)) >= millis(after.0)
            && self.current.move_to(seen, 0)
        {
            self.moved(seen.place(), 0, "return_after");
        }
        self.current.see()
    }

    // One send in each period may try the first member.
    fn may_probe(&self, seen: Seen) -> bool {
        let Some(every) = self.config.probe_every.filter(|_| seen.place() != 0) else { return false };
        let (now, last) = (self.now_ms(), self.probed_ms.load(Ordering::Acquire));
        now.saturating_sub(last) >= millis(every.0)
            && self.probed_ms.compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    async fn probe(&self, ctx: &Context, message: Arc<Message>, seen: Seen) -> Option<Result<Receipt>> {
        let first = self.members.first()?;
        self.probes.fetch_add(1, Ordering::Relaxed);
        match first.producer.send(ctx, message).await {
            Ok(receipt) => {
                if self.current.move_to(seen, 0) {
                    self.moved(seen.place(), 0, "probe");
                }
                Some(Ok(receipt))
            }
            Err(error) => {
                tracing::debug!(id = %self.id, strategy = TYPE, %error, "the probe failed");
                let over = ctx.check().is_err() || error.kind() == Kind::Cancelled;
                let stop = error.outcome() == Outcome::Unknown && self.config.on_unknown == OnUnknown::Stop;
                (over || stop).then_some(Err(error))
            }
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Producer for TimeoutFailover {
    fn provider(&self) -> &'static str {
        TYPE
    }

    fn capability(&self) -> Capability {
        member::capability(&self.members)
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let accepted = Accepted::new(message);
            let seen = self.see();
            if self.may_probe(seen)
                && let Some(result) = self.probe(ctx, accepted.now(), seen).await
            {
                return result;
            }
            let Some(member) = self.members.get(seen.place()) else {
                return Err(Error::new(Kind::Internal, "the current member is none of the members").by(TYPE));
            };
            let result = member.producer.send(ctx, accepted.now()).await;
            match &result {
                Ok(_) => self.streak.reset(seen),
                Err(error) if error.kind() == Kind::Timeout => {
                    let count = self.streak.add(seen, &self.current);
                    if count >= u64::from(self.config.after) && self.current.move_on(seen) {
                        self.moved(seen.place(), self.current.see().place(), "timeouts");
                    }
                }
                Err(_) => {}
            }
            result
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
            "timeouts_in_a_row": self.streak.count(),
            "switches": self.switches.load(Ordering::Relaxed),
            "probes": self.probes.load(Ordering::Relaxed),
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
