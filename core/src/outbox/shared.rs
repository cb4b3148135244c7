//! What the sends of a client, its runner and its operations share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::config::Terms;
use super::row::{Claimed, End, How, Millis, NEVER, RowId, State, Stats};
use super::store::Store;
use crate::client::Context;
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::random::Random;

/// Time in whole milliseconds since 1970.
pub(super) fn now(clock: &Clock) -> Millis {
    Millis::try_from(clock.unix_time().as_millis()).unwrap_or(Millis::MAX)
}

pub(super) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
}

/// Counted since the client was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Messages put into the store.
    pub(super) stored: AtomicU64,
    /// Messages that the store did not take.
    pub(super) not_stored: AtomicU64,
    /// Sent out of the store.
    pub(super) sent: AtomicU64,
    /// Attempts out of the store that failed.
    pub(super) failed: AtomicU64,
    /// Rows given up.
    pub(super) given_up: AtomicU64,
    /// Rows whose lease was another's when they ended.
    pub(super) lost: AtomicU64,
    /// Rows given back because too little was left of their lease.
    pub(super) late: AtomicU64,
    /// Digests sent, and digests that could not be.
    pub(super) notified: AtomicU64,
    pub(super) not_notified: AtomicU64,
    /// Calls of the store that failed.
    pub(super) store_failures: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Bytes of what was claimed and is under way, beyond one row; and as many of what its insert claims.
pub(super) const ROOM: u64 = 32 << 20;

/// How long a close that is late waits for rows to be given back.
const GRACE: Duration = Duration::from_secs(1);

/// The longest wait that the other side can ask for.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// When a lease ends, by both clocks: the first stands still while the machine sleeps, the second can be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) at: Instant,
    pub(super) time: Millis,
}

impl Until {
    /// What is left of it.
    pub(super) fn left(&self, shared: &Shared) -> Duration {
        let by_time = u64::try_from(self.time.saturating_sub(shared.now())).unwrap_or_default();
        self.at.saturating_duration_since(Instant::now()).min(Duration::from_millis(by_time))
    }
}

/// A row to send at once, claimed by its insert.
pub(super) struct Direct {
    pub(super) row: Claimed,
    /// The message of the row, which need not be read.
    pub(super) message: Option<Arc<Message>>,
    pub(super) until: Until,
    pub(super) slot: Slot,
}

/// A place among the sends under way, and the bytes there. What waits in [`Shared`] has one: it must not keep that alive.
pub(super) struct Slot {
    shared: Weak<Shared>,
    bytes: u64,
    of: Of,
}

/// Whose bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Claims,
    Inserts,
}

impl Slot {
    /// The same, of a row that was claimed and is so large.
    pub(super) fn holding(mut self, bytes: u64) -> Slot {
        if let Some(shared) = self.shared.upgrade() {
            self.bytes = bytes;
            shared.bytes(self.of).fetch_add(bytes, Ordering::AcqRel);
        }
        self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.bytes(self.of).fetch_sub(self.bytes, Ordering::AcqRel);
            shared.taken.fetch_sub(1, Ordering::AcqRel);
            shared.wake.notify_one();
        }
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) id: Arc<str>,
    pub(super) terms: Terms,
    /// How long an attempt may take, and a row belongs to it.
    pub(super) deadline: Duration,
    pub(super) lease: Duration,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) counts: Counts,
    /// Wakes the runner.
    pub(super) wake: Notify,
    // None once there is no runner to send them.
    direct: Mutex<Option<Vec<Direct>>>,
    /// Inserts of rows that are to be sent at once, and the ends of leases that nobody here uses: the store is closed after
    /// them.
    pub(super) handing: TaskTracker,
    // Sends under way, and those that are about to be; and their bytes.
    taken: AtomicUsize,
    claimed_bytes: AtomicU64,
    inserted_bytes: AtomicU64,
    // When the first row is due of those that were stored or put off here and that the runner has not heard of.
    soon: AtomicI64,
    /// Rows are in the store that were to be sent before what comes now.
    pub(super) behind: AtomicBool,
    /// Inserts under way of rows that nobody holds, and how many there were.
    pub(super) putting: AtomicUsize,
    pub(super) put: AtomicU64,
    pub(super) shown: Mutex<Shown>,
    /// Nobody is told here for now.
    pub(super) notify_held: AtomicBool,
    /// The next drain tells, whatever time the notifier named.
    pub(super) tell_at_once: AtomicBool,
    // The store was let go of.
    closed: AtomicBool,
}

/// What the status tells that is not counted here.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) stats: Option<Stats>,
    pub(super) trouble: Option<Error>,
    pub(super) state: &'static str,
}

impl Shared {
    pub(super) fn new(
        id: Arc<str>,
        terms: Terms,
        deadline: Duration,
        lease: Duration,
        store: Arc<dyn Store>,
        (clock, random): (Clock, Random),
    ) -> Arc<Shared> {
        let notify_held = AtomicBool::new(terms.config.notify_held);
        Arc::new(Shared {
            id,
            terms,
            deadline,
            lease,
            store,
            clock,
            random,
            counts: Counts::default(),
            wake: Notify::new(),
            direct: Mutex::new(Some(Vec::new())),
            handing: TaskTracker::new(),
            taken: AtomicUsize::new(0),
            claimed_bytes: AtomicU64::new(0),
            inserted_bytes: AtomicU64::new(0),
            soon: AtomicI64::new(NEVER),
            behind: AtomicBool::new(true),
            putting: AtomicUsize::new(0),
            put: AtomicU64::new(0),
            shown: Mutex::new(Shown { state: "open", ..Shown::default() }),
            notify_held,
            tell_at_once: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    pub(super) fn now(&self) -> Millis {
        now(&self.clock)
    }

    fn bytes(&self, of: Of) -> &AtomicU64 {
        match of {
            Of::Claims => &self.claimed_bytes,
            Of::Inserts => &self.inserted_bytes,
        }
    }

    fn place(self: &Arc<Self>, of: Of) -> Option<Slot> {
        let most = self.terms.config.concurrency;
        let took = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < most).then_some(taken + 1));
        took.ok().map(|_| Slot { shared: Arc::downgrade(self), bytes: 0, of })
    }

    /// A place, where there is one.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        self.place(Of::Claims)
    }

    /// How many bytes more may be claimed.
    pub(super) fn room(&self) -> u64 {
        ROOM.saturating_sub(self.claimed_bytes.load(Ordering::Acquire))
    }

    /// A place to send so many bytes without a look into the store: not while rows there come first.
    pub(super) fn slot_at_once(self: &Arc<Self>, bytes: u64) -> Option<Slot> {
        if self.behind.load(Ordering::Acquire) || self.putting.load(Ordering::Acquire) > 0 {
            return None;
        }
        let mut slot = self.place(Of::Inserts)?;
        let room = self.inserted_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |there| {
            (there == 0 || there.saturating_add(bytes) <= ROOM).then_some(there.saturating_add(bytes))
        });
        room.ok()?;
        slot.bytes = bytes;
        Some(slot)
    }

    /// Hands a row to the runner; where there is none any more the row is given back.
    pub(super) fn send_direct(self: &Arc<Self>, direct: Direct) {
        let left = match &mut *self.direct.lock() {
            Some(there) => {
                there.push(direct);
                None
            }
            None => Some(direct),
        };
        match left {
            None => self.wake.notify_one(),
            Some(direct) => self.give_back(vec![direct]),
        }
    }

    /// Takes what was handed over; and no more of it, where it is `last`.
    pub(super) fn take_direct(&self, last: bool) -> Vec<Direct> {
        let mut direct = self.direct.lock();
        if last {
            direct.take().unwrap_or_default()
        } else {
            direct.as_mut().map(std::mem::take).unwrap_or_default()
        }
    }

    /// Ends the leases of rows that nobody will send here.
    pub(super) fn give_back(self: &Arc<Self>, rows: Vec<Direct>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(until) = rows.iter().map(|row| row.until.at).max() else { return };
        let end =
            |row: Direct| End { id: row.row.id, token: row.row.token, now: self.now(), how: How::Released };
        let ends: Vec<End> = rows.into_iter().map(end).collect();
        let shared = self.clone();
        // Where it fails the leases end by themselves.
        let gives = async move {
            let settled = shared.store.settle(&Context::until(until), ends).await;
            let _ = shared.noted(settled);
        };
        self.handing.spawn_on(gives, &runtime);
    }

    /// Tells the runner that a row here is due then.
    pub(super) fn is_due(&self, due: Millis) {
        self.soon.fetch_min(due, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// When the first row is due that [`Shared::is_due`] told of since the last time.
    pub(super) fn take_soon(&self) -> Millis {
        self.soon.swap(NEVER, Ordering::AcqRel)
    }

    /// When a row is tried again after so many failures; `least` is what the other side asks for.
    pub(super) fn next_try(&self, failures: u32, least: Duration) -> Millis {
        let now = self.now();
        let wait = match &self.terms.config.backoff {
            Some(backoff) => backoff.wait(failures.max(1), &self.random),
            None => Duration::ZERO,
        };
        let ready = now.saturating_add(millis(wait.max(least.min(LONGEST))));
        let due = match &self.terms.schedule {
            Some(schedule) => schedule.after(ready),
            None => Some(ready),
        };
        // A schedule that has no run any more leaves what is there to whoever asks for it. A row that is never due would
        // wait for another one.
        due.unwrap_or(NEVER).min(NEVER - 1)
    }

    /// When the run is that rows without any more wait are tried in.
    pub(super) fn latest(&self) -> Option<Millis> {
        let longest = match &self.terms.config.backoff {
            Some(backoff) => millis(backoff.longest()),
            None => 0,
        };
        let ready = self.now().saturating_add(longest);
        match &self.terms.schedule {
            Some(schedule) => schedule.after(ready),
            None => Some(ready),
        }
    }

    /// Notes how a call of the store went that a caller asked for: his time, and what the store does not take, is no fault
    /// of it.
    pub(super) fn noted_of_caller<T>(&self, result: crate::error::Result<T>) -> crate::error::Result<T> {
        match result {
            Err(error) if matches!(error.kind(), Kind::Timeout | Kind::TooLarge | Kind::QueueFull) => {
                Err(error)
            }
            result => self.noted(result),
        }
    }

    /// Lets go of the store, once.
    pub(super) async fn close_store(&self, ctx: &Context) -> crate::error::Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.handing.close();
        let long = ctx.remaining().is_none_or(|left| left > GRACE);
        let gives = if long { ctx.clone() } else { Context::within(GRACE) };
        // What is not given back by then is claimed anew when its lease ends.
        let _ = gives.run(self.handing.wait()).await;
        self.store.close(ctx).await
    }

    /// Notes how a call of the store went.
    pub(super) fn noted<T>(&self, result: crate::error::Result<T>) -> crate::error::Result<T> {
        match &result {
            Ok(_) => {
                let mut shown = self.shown.lock();
                if shown.trouble.take().is_some() {
                    tracing::info!(id = %self.id, "the outbox's store works again");
                }
            }
            Err(error) if error.kind() == Kind::Cancelled => {}
            Err(error) => {
                count(&self.counts.store_failures);
                let mut shown = self.shown.lock();
                if shown.trouble.is_none() {
                    tracing::warn!(id = %self.id, %error, "the outbox's store failed");
                }
                shown.trouble = Some(error.clone());
            }
        }
        result
    }

    /// Its live state.
    pub(super) fn state(&self) -> Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let mut state = json!({
            "store": self.store.kind(),
            "when": self.terms.config.when.name(),
            "max_attempts": self.terms.config.max_attempts,
            "under_way": self.taken.load(Ordering::Relaxed),
            "stored": of(&counts.stored),
            "not_stored": of(&counts.not_stored),
            "sent": of(&counts.sent),
            "failed": of(&counts.failed),
            "given_up": of(&counts.given_up),
            "lost": of(&counts.lost),
            "late": of(&counts.late),
            "notified": of(&counts.notified),
            "not_notified": of(&counts.not_notified),
            "store_failures": of(&counts.store_failures),
        });
        let shown = self.shown.lock();
        if let Some(object) = state.as_object_mut() {
            object.insert("state".into(), shown.state.into());
            if self.terms.config.notify.is_some() {
                object.insert("notify_held".into(), self.notify_held.load(Ordering::Relaxed).into());
            }
            if let Some(stats) = &shown.stats {
                for state in State::ALL {
                    object.insert(format!("rows_{}", state.name()), stats.of(state).into());
                }
                if let Some(oldest) = stats.oldest {
                    object.insert("oldest_ms".into(), self.now().saturating_sub(oldest).max(0).into());
                }
                if let Some(next) = stats.next {
                    object.insert("next_ms".into(), next.saturating_sub(self.now()).max(0).into());
                }
            }
            if let Some(trouble) = &shown.trouble {
                object.insert("last_error".into(), trouble.to_json());
            }
        }
        state
    }
}

/// The id of a row as the receipt has it.
pub(super) fn told(id: RowId) -> Arc<str> {
    id.to_string().into()
}
