//! Bounds how many sends go through: by time or at once, in this process or, over Redis, in all.
//!
//! | limiter | what it keeps |
//! | --- | --- |
//! | `sliding_window` | never more than `rate` in any span of `per` |
//! | `fixed_window` | at most `rate` in each of the spans of `per` laid end to end |
//! | `token_bucket` | in any span at most `burst` and the tokens that came in it, `rate` per `per` |
//! | `leaky_bucket` | at least `per` divided by `rate` between two: never more than `rate` in any span of `per` |
//! | `concurrent` | at most `rate` under way at once |
//!
//! A send that is not let through fails as `limited`, `not_sent` and with the time to wait where that is known; with
//! `when_limited: wait` it stands in line within its deadline. Waits are as fine as the timer, 1 ms.

mod concurrent;
mod config;
mod fixed_window;
mod keys;
mod leaky_bucket;
mod pace;
mod refusal;
mod sending;
mod sliding_window;
#[cfg(feature = "redis")]
mod store;
mod token_bucket;
mod turnstile;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::concurrent::{Slot, Slots};
use self::config::{Counting, Parsed, Settings, WhenLimited};
use self::fixed_window::FixedWindow;
use self::leaky_bucket::LeakyBucket;
use self::pace::{Pace, Paced, nanos};
use self::sending::Sending;
use self::sliding_window::SlidingWindow;
use self::token_bucket::TokenBucket;
use super::Setup;
use super::accepted::Accepted;
use super::layer::{Layer, Strategy};
use crate::client::{BoxFuture, Context, Producer};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    config::parse(section).map(drop)
}

pub(super) fn wrap(
    setup: &Setup,
    section: Map<String, Value>,
    inner: Arc<dyn Producer>,
) -> Result<Arc<dyn Producer>> {
    let Parsed { settings, key, when_limited } = config::parse(section)?;
    let make = || limiter(setup, &settings, key.as_deref());
    let limiter = match &key {
        Some(key) => keys::shared(key, &settings, make)?,
        None => Arc::new(make()?),
    };
    let id = setup.id.clone();
    let (waits, waited_ms) = (AtomicU64::new(0), AtomicU64::new(0));
    let strategy = RateLimit { id, settings, key, when_limited, limiter, waits, waited_ms };
    Ok(Arc::new(Layer { name: setup.name.clone(), strategy, inner }))
}

/// The state that all with the same key share.
#[derive(Debug)]
enum Limiter {
    Paced(Paced),
    Slots(Slots),
    #[cfg(feature = "redis")]
    Window(Arc<store::Window>),
    #[cfg(feature = "redis")]
    Leases(Arc<store::Leases>),
}

fn limiter(setup: &Setup, settings: &Settings, key: Option<&str>) -> Result<Limiter> {
    #[cfg(feature = "redis")]
    if let Some(store) = &settings.store {
        return Ok(match settings.counting {
            Counting::Concurrent => Limiter::Leases(store::Leases::open(setup, settings, store, key)?),
            _ => Limiter::Window(store::Window::open(setup, settings, store, key)?),
        });
    }
    let _ = (setup, key);
    let (rate, per) = (settings.rate, nanos(settings.per));
    let pace = match settings.counting {
        Counting::SlidingWindow => Pace::SlidingWindow(SlidingWindow::new(places(rate)?, per)),
        Counting::FixedWindow => Pace::FixedWindow(FixedWindow::new(rate, per)),
        Counting::TokenBucket => Pace::TokenBucket(TokenBucket::new(rate, per, settings.burst)),
        Counting::LeakyBucket => Pace::LeakyBucket(LeakyBucket::new(rate, per)),
        Counting::Concurrent => return Ok(Limiter::Slots(Slots::new(rate))),
    };
    Ok(Limiter::Paced(Paced::new(pace)))
}

fn places(rate: u64) -> Result<usize> {
    usize::try_from(rate).map_err(|_| Error::new(Kind::InvalidConfig, "`rate` is too high for this machine"))
}

struct RateLimit {
    id: Arc<str>,
    settings: Settings,
    key: Option<String>,
    when_limited: WhenLimited,
    limiter: Arc<Limiter>,
    // How many sends stood in line, and how long in all.
    waits: AtomicU64,
    waited_ms: AtomicU64,
}

/// A send that stands in line: the time counts however it ends.
struct Waits<'a> {
    strategy: &'a RateLimit,
    since: Instant,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.strategy.waited_ms.fetch_add(millis(self.since.elapsed()), Ordering::Relaxed);
    }
}

impl Strategy for RateLimit {
    const TYPE: &'static str = "rate_limit";

    fn send<'a>(
        &'a self,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>> {
        // What few sends need is apart, so that the future of each stays small.
        match &*self.limiter {
            Limiter::Paced(paced) => Box::pin(Sending::new(self, paced, inner, ctx, message)),
            Limiter::Slots(slots) => Box::pin(async move {
                let accepted = Accepted::new(message);
                let _slot = match slots.take() {
                    Ok(slot) => slot,
                    Err(refusal) => self.wait_for_slot(slots, inner, ctx, refusal).await?,
                };
                inner.send(ctx, accepted.into_now()).await
            }),
            #[cfg(feature = "redis")]
            Limiter::Window(window) => Box::pin(async move {
                let accepted = Accepted::new(message);
                let passed = match window.take(ctx).await {
                    Err(refusal) => match self.waits(inner, &refusal) {
                        Some(_waits) => window.wait(ctx, refusal.retry_after()).await,
                        None => Err(refusal),
                    },
                    passed => passed,
                };
                passed.map_err(|error| self.refused(inner, error, || window.refused()))?;
                inner.send(ctx, accepted.into_now()).await
            }),
            #[cfg(feature = "redis")]
            Limiter::Leases(leases) => Box::pin(async move {
                let accepted = Accepted::new(message);
                let passed = match leases.take(ctx).await {
                    Err(refusal) => match self.waits(inner, &refusal) {
                        Some(_waits) => leases.wait(ctx).await,
                        None => Err(refusal),
                    },
                    passed => passed,
                };
                let lease = passed.map_err(|error| self.refused(inner, error, || leases.refused()))?;
                lease.during(inner.send(ctx, accepted.into_now())).await
            }),
        }
    }

    #[cfg(feature = "redis")]
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let (Limiter::Leases(leases), Some(store)) = (&*self.limiter, &self.settings.store) {
                leases.close(ctx, store.timeout).await;
            }
        })
    }

    fn state(&self) -> Value {
        let mut state = match &*self.limiter {
            Limiter::Paced(paced) => paced.state(),
            Limiter::Slots(slots) => slots.state(),
            #[cfg(feature = "redis")]
            Limiter::Window(window) => window.state(),
            #[cfg(feature = "redis")]
            Limiter::Leases(leases) => leases.state(),
        };
        if let Some(state) = state.as_object_mut() {
            let settings = &self.settings;
            state.insert("limiter".into(), json!(settings.counting.name()));
            state.insert("rate".into(), json!(settings.rate));
            state.insert("waits".into(), json!(self.waits.load(Ordering::Relaxed)));
            state.insert("waited_ms".into(), json!(self.waited_ms.load(Ordering::Relaxed)));
            if settings.counting != Counting::Concurrent {
                state.insert("per_ms".into(), json!(millis(settings.per)));
            }
            if settings.counting == Counting::TokenBucket {
                state.insert("burst".into(), json!(settings.burst));
            }
            if let Some(key) = &self.key {
                state.insert("key".into(), json!(key));
            }
        }
        state
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl RateLimit {
    #[cold]
    fn wait_for_pace<'a>(
        &'a self,
        paced: &'a Paced,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        refusal: Error,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let passed = match self.waits(inner, &refusal) {
                Some(_waits) => paced.wait(ctx).await,
                None => Err(refusal),
            };
            passed.map_err(|error| self.refused(inner, error, || paced.refused()))
        })
    }

    #[cold]
    fn wait_for_slot<'a>(
        &'a self,
        slots: &'a Slots,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        refusal: Error,
    ) -> BoxFuture<'a, Result<Slot<'a>>> {
        Box::pin(async move {
            let passed = match self.waits(inner, &refusal) {
                Some(_waits) => slots.wait(ctx).await,
                None => Err(refusal),
            };
            passed.map_err(|error| self.refused(inner, error, || slots.refused()))
        })
    }

    // Whether a send that was not let through stands in line.
    fn waits(&self, inner: &Arc<dyn Producer>, refusal: &Error) -> Option<Waits<'_>> {
        (self.when_limited == WhenLimited::Wait && refusal.kind() == Kind::Limited).then(|| {
            let wait = refusal.retry_after();
            tracing::debug!(id = %self.id, strategy = Self::TYPE, provider = inner.provider(), ?wait, "waits");
            self.waits.fetch_add(1, Ordering::Relaxed);
            Waits { strategy: self, since: Instant::now() }
        })
    }

    fn refused(&self, inner: &Arc<dyn Producer>, error: Error, count: impl FnOnce()) -> Error {
        if error.kind() == Kind::Limited {
            count();
        }
        tracing::debug!(id = %self.id, strategy = Self::TYPE, why = %error, "refuses");
        error.by(inner.provider())
    }
}
