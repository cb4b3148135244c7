//! Slots in Redis: each is a lease that its holder renews, gives back when its send ends, and loses some time after
//! its process is gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Counts;
use super::link::Link;
use super::request::{Code, Request, strange};
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::strategy::Setup;
use crate::strategy::random::{Random, fresh};
use crate::strategy::rate_limit::concurrent::{Slot, Slots};
use crate::strategy::rate_limit::config::{OnFailure, Settings, StoreSettings};
use crate::strategy::rate_limit::refusal;

const CODE: &str = include_str!("acquire.lua");

/// How long a server that was started anew is not asked: till then holders have entered their leases again.
const MEMORY: Duration = Duration::from_secs(5);

/// How often the head of the line asks while other processes hold all slots.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Leases that are being given back at once. Further ones end by themselves.
const MOST_RELEASES: u64 = 10_000;

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Leases {
    link: Link,
    runtime: Handle,
    random: Random,
    code: Code,
    name: String,
    slots: String,
    lease: Duration,
    on_failure: OnFailure,
    // How many of them this process uses, which is also the limit while Redis is away.
    local: Slots,
    holder: String,
    next: AtomicU64,
    counts: Counts,
    releasing: AtomicU64,
    released: Notify,
}

/// A slot, given back when this is dropped.
#[derive(Debug)]
#[must_use]
pub(in super::super) struct Held<'a> {
    // Dropped first: whoever takes the slot of this process next asks behind the release.
    lease: Option<Lease>,
    // None where the slots of this process are no limit, with `open`.
    _slot: Option<Slot<'a>>,
}

#[derive(Debug)]
struct Lease {
    leases: Arc<Leases>,
    name: String,
    // The connection that it was taken over.
    connection: u64,
    // Whether Redis may hold it.
    asked: AtomicBool,
}

enum Answer {
    Taken(Lease),
    // Redis is away: the slot of this process is the limit.
    Here,
    // Redis is away, and nothing is.
    Open,
    Full,
}

impl Leases {
    pub(in super::super) fn open(
        setup: &Setup,
        settings: &Settings,
        store: &StoreSettings,
        key: Option<&str>,
    ) -> Result<Arc<Leases>> {
        Ok(Arc::new(Leases {
            link: Link::open(
                setup,
                store,
                super::name(setup, settings, store, key),
                MEMORY.min(store.lease),
            )?,
            runtime: Handle::try_current().map_err(|error| {
                Error::new(Kind::Internal, "a rate limit in Redis needs a runtime").caused_by(error)
            })?,
            random: setup.random.clone(),
            code: Code::new(CODE),
            name: super::name(setup, settings, store, key),
            slots: settings.rate.to_string(),
            lease: store.lease,
            on_failure: store.on_failure,
            local: Slots::new(settings.rate),
            holder: format!("{:016x}", fresh()),
            next: AtomicU64::new(0),
            counts: Counts::default(),
            releasing: AtomicU64::new(0),
            released: Notify::new(),
        }))
    }

    /// Takes a slot when one is free and nobody waits.
    ///
    /// # Errors
    /// `limited`; where Redis does not answer, what the policy says.
    pub(in super::super) async fn take(self: &Arc<Self>, ctx: &Context) -> Result<Held<'_>> {
        let slot = match self.local.take() {
            Ok(slot) => Some(slot),
            Err(refusal) if self.on_failure == OnFailure::Open => {
                // Nobody goes past a line that Redis still serves.
                if self.local.line.waiting() > 0 && !self.link.is_away() {
                    return Err(refusal);
                }
                None
            }
            Err(refusal) => return Err(refusal),
        };
        self.held(ctx, slot).await?.map_err(|_| refusal::limited(None))
    }

    // Asks Redis for a lease; gives the slot back where all are taken.
    async fn held<'a>(
        self: &'a Arc<Self>,
        ctx: &Context,
        slot: Option<Slot<'a>>,
    ) -> Result<Result<Held<'a>, Option<Slot<'a>>>> {
        Ok(match self.ask(ctx).await? {
            Answer::Taken(lease) => Ok(Held { lease: Some(lease), _slot: slot }),
            Answer::Here => Ok(Held { lease: None, _slot: slot }),
            Answer::Open => Ok(Held { lease: None, _slot: None }),
            Answer::Full => Err(slot),
        })
    }

    /// Waits in the line for a slot.
    ///
    /// # Errors
    /// `limited` at the deadline; `cancelled`; where Redis does not answer, what the policy says.
    pub(in super::super) async fn wait(self: &Arc<Self>, ctx: &Context) -> Result<Held<'_>> {
        let mut place = self.local.line.join().ok_or_else(refusal::line_full)?;
        let _turn = ctx.run(place.turn()).await.map_err(refusal::ended)?;
        let mut pause = FIRST_PAUSE;
        loop {
            let slot = self.local.take_at_head(None);
            // With `open` the slots of this process are no limit of their own: Redis may be away.
            if slot.is_none() && self.on_failure != OnFailure::Open {
                ctx.run(self.local.freed.notified()).await.map_err(refusal::ended)?;
                continue;
            }
            match self.held(ctx, slot).await? {
                Ok(held) => {
                    place.leave();
                    return Ok(held);
                }
                Err(Some(slot)) => slot.put_back(),
                Err(None) => {}
            }
            let freed = async {
                tokio::select! {
                    () = self.local.freed.notified() => {}
                    () = tokio::time::sleep(self.random.between(pause / 2, pause)) => {}
                }
            };
            ctx.run(freed).await.map_err(refusal::ended)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask(self: &Arc<Self>, ctx: &Context) -> Result<Answer> {
        ctx.check()?;
        let lease = Lease {
            leases: self.clone(),
            name: format!("{}-{}", self.holder, self.next.fetch_add(1, Ordering::Relaxed)),
            connection: self.link.number(),
            asked: AtomicBool::new(false),
        };
        let request = self.request(&lease.name, false);
        let answer = ctx.run(self.link.ask(&request, MEMORY.min(self.lease), &lease.asked)).await?;
        let answer = match answer {
            Ok(Value::Int(1)) => Answer::Taken(lease),
            Ok(Value::Int(0)) => {
                lease.asked.store(false, Ordering::Release);
                Answer::Full
            }
            Ok(_) => self.without_store(strange())?,
            Err(error) => self.without_store(error)?,
        };
        if !matches!(answer, Answer::Full) {
            Counts::add(&self.counts.granted);
        }
        Ok(answer)
    }

    fn request(&self, lease: &str, in_any_case: bool) -> Request {
        let (span, life) = (self.lease.as_micros().to_string(), (self.lease * 2).as_millis().to_string());
        self.code.over(&self.name, &[&self.slots, &span, lease, &life, if in_any_case { "1" } else { "0" }])
    }

    fn without_store(&self, error: Error) -> Result<Answer> {
        Counts::add(&self.counts.without_store);
        tracing::debug!(%error, policy = self.on_failure.name(), "decides without Redis");
        match self.on_failure {
            OnFailure::Closed => Err(error),
            OnFailure::Local => Ok(Answer::Here),
            OnFailure::Open => Ok(Answer::Open),
        }
    }

    fn release(self: &Arc<Self>, lease: &str) {
        if self.releasing.fetch_add(1, Ordering::AcqRel) >= MOST_RELEASES {
            self.releasing.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let leases = self.clone();
        let request = Request::command(&["ZREM", &self.name, lease]);
        let mut release: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(tokio::task::coop::unconstrained(async move {
                leases.link.give_back(&request, Instant::now() + leases.lease).await;
                leases.releasing.fetch_sub(1, Ordering::AcqRel);
                leases.released.notify_waiters();
            }));
        // Polled once right here, it is in the connection's queue before anything that is asked later.
        let _entered = self.runtime.enter();
        let mut nobody = std::task::Context::from_waker(Waker::noop());
        if release.as_mut().poll(&mut nobody).is_pending() {
            self.runtime.spawn(release);
        }
    }

    /// Waits, for as long as a request may take, until what ended is given back.
    pub(in super::super) async fn close(&self, ctx: &Context, bound: Duration) {
        let until = Instant::now() + bound;
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.releasing.load(Ordering::Acquire) == 0 {
                return;
            }
            if !matches!(timeout_at(until, ctx.run(released)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Counts a send that was refused in the end.
    pub(in super::super) fn refused(&self) {
        Counts::add(&self.counts.limited);
    }

    pub(in super::super) fn state(&self) -> serde_json::Value {
        let mut state = self.counts.state(self.local.line.waiting());
        if let Some(state) = state.as_object_mut() {
            state.insert("used_here".into(), json!(self.local.used()));
            state.insert("releasing".into(), json!(self.releasing.load(Ordering::Relaxed)));
            state.insert("on_failure".into(), json!(self.on_failure.name()));
            state.insert("store".into(), self.link.state());
        }
        state
    }
}

impl Held<'_> {
    /// Runs a send while its lease is kept.
    pub(in super::super) async fn during<T>(self, send: impl Future<Output = T>) -> T {
        let Some(lease) = &self.lease else { return send.await };
        tokio::select! {
            biased;
            ended = send => ended,
            never = lease.keep() => match never {},
        }
    }
}

impl Lease {
    async fn keep(&self) -> Infallible {
        let leases = &self.leases;
        let request = leases.request(&self.name, true);
        let mut connection = self.connection;
        loop {
            tokio::select! {
                () = tokio::time::sleep(leases.lease / 3) => {}
                // A server that was started anew has to be told.
                () = leases.link.reconnected(&mut connection) => {}
            }
            if let Err(error) = leases.link.ask(&request, Duration::ZERO, &self.asked).await {
                tracing::debug!(%error, "a slot is not kept yet");
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.asked.load(Ordering::Acquire) {
            self.leases.release(&self.name);
        }
    }
}
