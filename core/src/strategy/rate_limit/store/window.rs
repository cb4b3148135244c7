//! The sliding window in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Counts;
use super::link::Link;
use super::request::{Code, Request, strange};
use super::returned::Returned;
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::strategy::Setup;
use crate::strategy::random::fresh;
use crate::strategy::rate_limit::config::{OnFailure, Settings, StoreSettings};
use crate::strategy::rate_limit::pace::nanos;
use crate::strategy::rate_limit::sliding_window::SlidingWindow;
use crate::strategy::rate_limit::turnstile::Turnstile;
use crate::strategy::rate_limit::{places, refusal};

const CODE: &str = include_str!("sliding_window.lua");

/// How much longer than the period Redis keeps an idle set: its own clock for that is coarser.
const SPARE: Duration = Duration::from_secs(1);

/// How long it is tried to give a grant back. A period later its place is free anyway.
const LONGEST_RETURN: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Window {
    link: Link,
    runtime: Handle,
    name: String,
    request: Request,
    // Names of grants: this and a number. Not from the randomness of the strategies, whose seed several may share.
    holder: String,
    next: AtomicU64,
    per: Duration,
    on_failure: OnFailure,
    // With `local` alone.
    mirror: Option<Mutex<Mirror>>,
    started: Instant,
    line: Turnstile,
    counts: Counts,
    returned: Returned,
}

/// What this process was granted, for when Redis is away.
#[derive(Debug)]
struct Mirror {
    window: SlidingWindow,
    latest: u64,
    away: bool,
    // Until then what was granted without Redis may still lie in the period: both have to grant.
    both_until: u64,
}

#[derive(Debug)]
enum Answer {
    Granted,
    Wait(Duration),
}

/// A question under way. Where it ends without an answer that its call heard of, what Redis may have granted is given
/// back.
struct Asked<'a> {
    window: &'a Arc<Window>,
    name: Option<String>,
    // Whether Redis may have heard of it.
    sent: AtomicBool,
}

impl Asked<'_> {
    // What was granted is used.
    fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && self.sent.load(Ordering::Acquire)
        {
            self.window.give_back(name);
        }
    }
}

impl Window {
    pub(in super::super) fn open(
        setup: &Setup,
        settings: &Settings,
        store: &StoreSettings,
        key: Option<&str>,
    ) -> Result<Arc<Window>> {
        let name = super::name(setup, settings, store, key);
        let life = (settings.per + SPARE).as_millis().to_string();
        let arguments = [settings.rate.to_string(), settings.per.as_micros().to_string(), life];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mirror = match store.on_failure {
            OnFailure::Local => Some(Mutex::new(Mirror {
                window: SlidingWindow::new(places(settings.rate)?, nanos(settings.per)),
                latest: 0,
                away: false,
                both_until: 0,
            })),
            _ => None,
        };
        Ok(Arc::new(Window {
            link: Link::open(setup, store, name.clone(), settings.per)?,
            runtime: Handle::try_current().map_err(|error| {
                Error::new(Kind::Internal, "a rate limit in Redis needs a runtime").caused_by(error)
            })?,
            request: Code::new(CODE).over(&name, &arguments),
            name,
            holder: format!("{:016x}", fresh()),
            next: AtomicU64::new(0),
            per: settings.per,
            on_failure: store.on_failure,
            mirror,
            started: Instant::now(),
            line: Turnstile::default(),
            counts: Counts::default(),
            returned: Returned::default(),
        }))
    }

    /// Takes when that is possible at once and nobody waits.
    ///
    /// # Errors
    /// `limited` with the time to wait; where Redis does not answer, what the policy says.
    pub(in super::super) async fn take(self: &Arc<Self>, ctx: &Context) -> Result<()> {
        if self.line.waiting() > 0 {
            return Err(refusal::behind_others(Duration::ZERO));
        }
        match self.ask(ctx).await? {
            None => Ok(()),
            Some(wait) => Err(refusal::limited(Some(wait))),
        }
    }

    /// Waits in the line and takes. The head of the line has been told `known` to wait, where there was nobody before
    /// it.
    ///
    /// # Errors
    /// `limited` when the wait would pass the deadline; `cancelled`; where Redis does not answer, what the policy says.
    pub(in super::super) async fn wait(
        self: &Arc<Self>,
        ctx: &Context,
        known: Option<Duration>,
    ) -> Result<()> {
        let mut place = self.line.join().ok_or_else(refusal::line_full)?;
        let mut known = known.filter(|_| place.ahead == 0);
        let _turn = ctx.run(place.turn()).await.map_err(refusal::ended)?;
        loop {
            let now = Instant::now();
            let wait = match known.take() {
                Some(wait) => wait,
                None => match self.ask(ctx).await? {
                    None => {
                        place.leave();
                        return Ok(());
                    }
                    Some(wait) => wait,
                },
            };
            refusal::check_wait(ctx, now, wait)?;
            ctx.run(tokio::time::sleep_until(now + wait)).await.map_err(refusal::ended)?;
        }
    }

    // None when granted, else the time to wait.
    async fn ask(self: &Arc<Self>, ctx: &Context) -> Result<Option<Duration>> {
        ctx.check()?;
        let name = format!("{}-{:x}", self.holder, self.next.fetch_add(1, Ordering::Relaxed));
        let request = self.request.with(&name);
        let asked = Asked { window: self, name: Some(name), sent: AtomicBool::new(false) };
        let wait = match ctx.run(self.question(&request, &asked.sent)).await? {
            Ok(Answer::Granted) => self.granted(),
            Ok(Answer::Wait(wait)) => {
                asked.keep();
                return Ok(Some(wait));
            }
            Err(error) => self.without_store(error)?,
        };
        if wait.is_none() {
            asked.keep();
            Counts::add(&self.counts.granted);
        }
        Ok(wait)
    }

    async fn question(&self, request: &Request, sent: &AtomicBool) -> Result<Answer> {
        match self.link.ask(request, self.per, sent).await? {
            Value::Int(0) => Ok(Answer::Granted),
            Value::Int(wait) => match u64::try_from(wait) {
                Ok(wait) => Ok(Answer::Wait(Duration::from_micros(wait))),
                Err(_) => Err(strange()),
            },
            _ => Err(strange()),
        }
    }

    fn give_back(self: &Arc<Self>, name: String) {
        if let Some(mut telling) = self.returned.put(name) {
            let window = self.clone();
            self.runtime.spawn(async move {
                while let Some((names, since)) = telling.next() {
                    window.tell(&names, since).await;
                }
            });
        }
    }

    // Over the connection of the question this is behind it. One over another connection can come before a question
    // that the server still has to read: then its grant counts for a period, and the limit holds all the same.
    async fn tell(&self, names: &[String], since: Instant) {
        let parts = ["ZREM", &self.name].into_iter().chain(names.iter().map(String::as_str));
        let request = Request::command(&parts.collect::<Vec<_>>());
        self.link.give_back(&request, since + self.per.min(LONGEST_RETURN)).await;
    }

    // Redis granted: the time to wait where that does not do.
    fn granted(&self) -> Option<Duration> {
        self.mirror.as_ref()?.lock().granted(nanos(self.started.elapsed()), nanos(self.per))
    }

    fn without_store(&self, error: Error) -> Result<Option<Duration>> {
        Counts::add(&self.counts.without_store);
        tracing::debug!(%error, policy = self.on_failure.name(), "decides without Redis");
        match (self.on_failure, &self.mirror) {
            (OnFailure::Open, _) => Ok(None),
            (OnFailure::Local, Some(mirror)) => {
                Ok(mirror.lock().without_store(nanos(self.started.elapsed())))
            }
            _ => Err(error),
        }
    }

    /// Counts a send that was refused in the end.
    pub(in super::super) fn refused(&self) {
        Counts::add(&self.counts.limited);
    }

    pub(in super::super) fn state(&self) -> serde_json::Value {
        let mut state = self.counts.state(self.line.waiting());
        if let Some(state) = state.as_object_mut() {
            state.insert("on_failure".into(), json!(self.on_failure.name()));
            state.insert("store".into(), self.link.state());
        }
        state
    }
}

impl Mirror {
    fn at(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        self.latest
    }

    // Redis granted: the time to wait where that does not do.
    fn granted(&mut self, now: u64, per: u64) -> Option<Duration> {
        let now = self.at(now);
        if std::mem::take(&mut self.away) {
            self.both_until = now.saturating_add(per);
        }
        if now >= self.both_until {
            self.window.note(now);
            return None;
        }
        self.window.take(now).err().map(|ready| Duration::from_nanos(ready - now))
    }

    // Redis is away: the time to wait where the window of this process is full.
    fn without_store(&mut self, now: u64) -> Option<Duration> {
        let now = self.at(now);
        self.away = true;
        self.window.take(now).err().map(|ready| Duration::from_nanos(ready - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> Mirror {
        Mirror { window: SlidingWindow::new(2, 100), latest: 0, away: false, both_until: 0 }
    }

    #[test]
    fn what_redis_granted_counts_when_it_is_away() {
        let mut mirror = mirror();
        assert_eq!(mirror.granted(10, 100), None);
        assert_eq!(mirror.without_store(20), None);
        assert_eq!(mirror.without_store(30), Some(Duration::from_nanos(80)));
        assert_eq!(mirror.without_store(110), None);
    }

    #[test]
    fn for_a_period_after_its_return_both_have_to_grant() {
        let mut mirror = mirror();
        assert_eq!((mirror.without_store(10), mirror.without_store(20)), (None, None));
        assert_eq!(mirror.granted(50, 100), Some(Duration::from_nanos(60)));
        assert_eq!(mirror.granted(110, 100), None);
        // Behind that Redis alone decides, however its clock and ours differ.
        for now in [150, 151, 152] {
            assert_eq!(mirror.granted(now, 100), None);
        }
    }

    #[test]
    fn no_window_of_one_process_is_over_full_whatever_happens() {
        // A Redis that always grants as long as this process is alone with it, and goes away at random.
        let random = crate::strategy::Random::seeded(11);
        let mut store = SlidingWindow::new(5, 1000);
        let mut mirror =
            Mirror { window: SlidingWindow::new(5, 1000), latest: 0, away: false, both_until: 0 };
        let (mut now, mut up, mut grants) = (0_u64, true, std::collections::VecDeque::new());
        for _ in 0..200_000 {
            now += (random.share() * 120.0) as u64;
            if random.share() < 0.01 {
                up = !up;
                // It comes back with nothing, as after a restart.
                store = SlidingWindow::new(5, 1000);
            }
            let granted = if up {
                store.take(now).is_ok() && mirror.granted(now, 1000).is_none()
            } else {
                mirror.without_store(now).is_none()
            };
            if granted {
                grants.push_back(now);
                if grants.len() > 5 {
                    let sixth = grants.pop_front().unwrap();
                    assert!(now - sixth >= 1000, "{sixth} {now}");
                }
            }
        }
    }
}
