//! The limiters that count by time, and the way past them within one process.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fixed_window::FixedWindow;
use super::leaky_bucket::LeakyBucket;
use super::refusal;
use super::sliding_window::SlidingWindow;
use super::token_bucket::TokenBucket;
use super::turnstile::{InLine, Turnstile};
use crate::client::Context;
use crate::error::{Error, Kind, Result};

/// One of them. Times are nanoseconds since the opening.
#[derive(Debug)]
pub(super) enum Pace {
    SlidingWindow(SlidingWindow),
    FixedWindow(FixedWindow),
    TokenBucket(TokenBucket),
    LeakyBucket(LeakyBucket),
}

impl Pace {
    /// Takes, or says from when on that is possible.
    #[inline(always)]
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        match self {
            Pace::SlidingWindow(window) => window.take(now),
            Pace::FixedWindow(window) => window.take(now),
            Pace::TokenBucket(bucket) => bucket.take(now),
            Pace::LeakyBucket(bucket) => bucket.take(now),
        }
    }

    /// When the one can take that has `ahead` others before it.
    pub(super) fn ready(&self, now: u64, ahead: u64) -> u64 {
        match self {
            Pace::SlidingWindow(window) => window.ready(now, ahead),
            Pace::FixedWindow(window) => window.ready(now, ahead),
            Pace::TokenBucket(bucket) => bucket.ready(now, ahead),
            Pace::LeakyBucket(bucket) => bucket.ready(now, ahead),
        }
    }

    fn seen(&self, now: u64) -> (&'static str, Value) {
        match self {
            Pace::SlidingWindow(window) => ("used", json!(window.used(now))),
            Pace::FixedWindow(window) => ("used", json!(window.used(now))),
            Pace::TokenBucket(bucket) => ("tokens", json!(bucket.left(now))),
            Pace::LeakyBucket(bucket) => {
                ("next_in_ms", json!(bucket.ready(now, 0).saturating_sub(now).div_ceil(1_000_000)))
            }
        }
    }
}

/// A pace that many sends keep.
#[derive(Debug)]
pub(super) struct Paced {
    started: Instant,
    state: Mutex<State>,
    line: Turnstile,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    // Clocks are read before the lock is taken: the order of the lock counts.
    latest: u64,
    granted: u64,
    limited: u64,
}

/// A span as nanoseconds.
#[inline]
pub(super) fn nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()))
}

impl Paced {
    pub(super) fn new(pace: Pace) -> Paced {
        let state = State { pace, latest: 0, granted: 0, limited: 0 };
        Paced { started: Instant::now(), state: Mutex::new(state), line: Turnstile::default() }
    }

    #[inline]
    fn since_start(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.started))
    }

    /// Takes when that is possible at once and nobody waits. The hot path: one clock and one short lock.
    ///
    /// # Errors
    /// `limited`, with the time to wait; `timeout` when the deadline has passed already: nothing is taken then.
    #[inline]
    pub(super) fn take(&self, ctx: &Context) -> Result<()> {
        let now = Instant::now();
        if ctx.deadline().is_some_and(|deadline| deadline <= now) {
            return Err(late());
        }
        let at = self.since_start(now);
        let mut state = self.state.lock();
        let at = state.latest.max(at);
        state.latest = at;
        if self.line.waiting() == 0 && state.pace.take(at).is_ok() {
            state.granted += 1;
            return Ok(());
        }
        Err(self.refusal(&state, at))
    }

    #[cold]
    fn refusal(&self, state: &State, at: u64) -> Error {
        let waiting = self.line.waiting();
        let wait = Duration::from_nanos(state.pace.ready(at, waiting).saturating_sub(at));
        if waiting == 0 { refusal::limited(Some(wait)) } else { refusal::behind_others(wait) }
    }

    /// Waits in the line and takes.
    ///
    /// # Errors
    /// `limited` when the wait would pass the deadline, at once where that is known; `cancelled`.
    pub(super) async fn wait(&self, ctx: &Context) -> Result<()> {
        let mut place = self.line.join().ok_or_else(refusal::line_full)?;
        if place.ahead > 0 {
            let now = Instant::now();
            refusal::check_wait(ctx, now, self.wait_behind(place.ahead, now))?;
        }
        let _turn = ctx.run(place.turn()).await.map_err(refusal::ended)?;
        loop {
            let now = Instant::now();
            if ctx.deadline().is_some_and(|deadline| deadline <= now) {
                return Err(refusal::ended(late()));
            }
            let Err(wait) = self.take_at_head(&mut place, now) else { return Ok(()) };
            refusal::check_wait(ctx, now, wait)?;
            ctx.run(tokio::time::sleep_until(now + wait)).await.map_err(refusal::ended)?;
        }
    }

    fn wait_behind(&self, ahead: u64, now: Instant) -> Duration {
        let state = self.state.lock();
        let at = state.latest.max(self.since_start(now));
        Duration::from_nanos(state.pace.ready(at, ahead) - at)
    }

    fn take_at_head(&self, place: &mut InLine<'_>, now: Instant) -> Result<(), Duration> {
        let at = self.since_start(now);
        let mut state = self.state.lock();
        state.latest = state.latest.max(at);
        let at = state.latest;
        state.pace.take(at).map_err(|ready| Duration::from_nanos(ready - at))?;
        state.granted += 1;
        place.leave();
        Ok(())
    }

    /// Counts a send that was refused in the end.
    pub(super) fn refused(&self) {
        self.state.lock().limited += 1;
    }

    /// `granted`, `limited`, `waiting`, and what the limiter has used.
    pub(super) fn state(&self) -> Value {
        let at = self.since_start(Instant::now());
        let state = self.state.lock();
        let (name, seen) = state.pace.seen(state.latest.max(at));
        json!({
            "granted": state.granted, "limited": state.limited, "waiting": self.line.waiting(), name: seen,
        })
    }
}

#[cold]
fn late() -> Error {
    Error::new(Kind::Timeout, "the deadline passed")
}
