//! Moves on to the next member after several timeouts in a row, and back to the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::accepted::{Accepted, Again};
use super::bounded;
use super::current::{Seen, Streak};
use super::layer::{addressed, stacked};
use super::member::{self, Member};
use super::timed::{Timed, Turn};
use super::tried::Tried;
use super::{OnUnknown, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Outcome, Result, Whole};
use crate::message::{Message, Receipt};

const TYPE: &str = "timeout_failover";

/// The longest a probe takes, however much time its caller has.
const LONGEST_PROBE: Duration = Duration::from_secs(30);

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
        timed: Timed::new(members.len()),
        members,
        streak: Streak::new(),
        opened: Instant::now(),
        switches: AtomicU64::new(0),
        probes: AtomicU64::new(0),
        probes_failed: AtomicU64::new(0),
    }))
}

struct TimeoutFailover {
    id: Arc<str>,
    name: Arc<str>,
    config: Config,
    members: Vec<Member>,
    timed: Timed,
    streak: Streak,
    opened: Instant,
    switches: AtomicU64,
    probes: AtomicU64,
    probes_failed: AtomicU64,
}

/// A turn to probe. One that is dropped before its end is known is given back: its message told nothing.
struct Probing<'a> {
    strategy: &'a TimeoutFailover,
    turn: Option<Turn>,
}

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            self.strategy.timed.give_back(turn);
        }
    }
}

impl TimeoutFailover {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn name_of(&self, place: usize) -> Arc<str> {
        self.members.get(place).map_or_else(|| "".into(), |member| member.name.clone())
    }

    fn moved(&self, from: usize, to: usize, why: &str) {
        self.switches.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.name_of(from), self.name_of(to));
        tracing::warn!(id = %self.id, strategy = TYPE, %from, %to, why, "switches");
    }

    // Back to the first when its time has come.
    fn see(&self) -> Seen {
        let after = self.config.return_after.map(|after| millis(after.0));
        let (seen, left) = self.timed.see(|| self.now_ms(), after);
        if let Some(left) = left {
            self.moved(left, 0, "return_after");
        }
        seen
    }

    // One send in each period may try the first member.
    fn may_probe(&self, seen: Seen) -> Option<Probing<'_>> {
        let every = self.config.probe_every.filter(|_| seen.place() != 0)?;
        let turn = self.timed.turn(seen, self.now_ms(), millis(every.0))?;
        Some(Probing { strategy: self, turn: Some(turn) })
    }

    /// Tries the message at the first member, and where that fails at the current one.
    async fn probe(
        &self,
        ctx: &Context,
        accepted: Accepted,
        seen: Seen,
        mut probing: Probing<'_>,
    ) -> Result<Receipt> {
        let Some(first) = self.members.first() else { return Err(self.nobody()) };
        self.probes.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(id = %self.id, strategy = TYPE, member = %first.name, "probes");
        // What is left is for the current member, should the first still hang.
        let left = ctx.remaining().unwrap_or(LONGEST_PROBE * 2);
        let most = first.deadline.map_or(left / 2, |deadline| deadline.min(left / 2));
        let until = || Instant::now() + most.min(LONGEST_PROBE);
        let error = match bounded::send(&first.producer, ctx, until, accepted.now(), |_| {}).await {
            Ok(receipt) => {
                probing.turn = None;
                if self.timed.back(seen, self.now_ms()) {
                    self.moved(seen.place(), 0, "probe");
                }
                return Ok(receipt);
            }
            Err(error) => error,
        };
        // Only the caller's own cancellation says nothing of the member.
        if error.kind() != Kind::Cancelled {
            probing.turn = None;
            self.probes_failed.fetch_add(1, Ordering::Relaxed);
        }
        drop(probing);
        tracing::debug!(id = %self.id, strategy = TYPE, %error, "the probe failed");
        let mut tried = Tried::new(accepted);
        tried.failed(Whole::Member, first.name.clone(), &error);
        let unknown = error.outcome() == Outcome::Unknown && self.config.on_unknown == OnUnknown::Stop;
        if ctx.check().is_err() || error.kind() == Kind::Cancelled || unknown {
            return Err(error);
        }
        if tried.go_on(&error, Again::Any).is_err() {
            return Err(error);
        }
        let place = seen.place();
        match self.through(ctx, tried.now(), seen).await {
            Ok(receipt) => tried.sent(receipt),
            Err(last) => {
                tried.failed(Whole::Member, self.name_of(place), &last);
                let text = format!("{} (before it, the probe of {}: {error})", last.message(), first.name);
                let whole = tried.into_error(last.kind(), text, &last);
                Err(match last.retry_after() {
                    Some(wait) => whole.after(wait),
                    None => whole,
                })
            }
        }
    }

    async fn through(&self, ctx: &Context, message: Arc<Message>, seen: Seen) -> Result<Receipt> {
        let Some(member) = self.members.get(seen.place()) else { return Err(self.nobody()) };
        let result = member.send(ctx, message).await;
        match &result {
            Ok(_) => self.streak.reset(seen),
            Err(error) if error.kind() == Kind::Timeout => {
                let count = self.streak.add(seen, self.timed.current());
                if count >= u64::from(self.config.after)
                    && let Some(next) = self.timed.move_on(seen, self.now_ms())
                {
                    self.moved(seen.place(), next, "timeouts");
                }
            }
            Err(_) => {}
        }
        result
    }

    fn nobody(&self) -> Error {
        Error::new(Kind::Internal, "the current member is none of the members").by(TYPE)
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
            let seen = self.see();
            match self.may_probe(seen) {
                None => self.through(ctx, message, seen).await,
                // What few messages need is apart, so that the future of each stays small.
                Some(probing) => Box::pin(self.probe(ctx, Accepted::new(message), seen, probing)).await,
            }
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::flush(&self.members, ctx))
    }

    fn status(&self) -> Value {
        let current = self.timed.current().see().place();
        let state = json!({
            "current": current,
            "current_member": &*self.name_of(current),
            "timeouts_in_a_row": self.streak.count(),
            "switches": self.switches.load(Ordering::Relaxed),
            "probes": self.probes.load(Ordering::Relaxed),
            "probes_failed": self.probes_failed.load(Ordering::Relaxed),
            "members": member::status(&self.members),
        });
        stacked(TYPE, &self.name, state, json!({"state": "open"}))
    }

    fn control(&self, command: &Value) -> Result<Value> {
        let Some(command) = addressed(command, &self.name)? else {
            return member::control(&self.members, command);
        };
        let place = member::named(&self.members, command.get("current"))?;
        if let Some(before) = self.timed.set(place, self.now_ms()) {
            self.moved(before, place, "control");
        }
        Ok(json!({"current": place, "current_member": &*self.name_of(place)}))
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(member::close(&self.members, ctx))
    }
}
