//! A queue of leases behind its lock with its label, and the task that moves it on in time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::label::{About, Label};
use crate::broker::delay::NEVER;
use crate::broker::log::record::{Journal, MessageRecord, Position, Record};
use crate::broker::log::{Admission, Log, StoredMessage, Ticket};
use crate::broker::queue::{LeaseCounts, LeaseDraft, LeaseQueue, Received};
use crate::broker::room::{Reserved, Room};
use crate::broker::topic::{Shared, wall_ms};
use crate::error::{Error, Kind, Result};

/// What is under the lock.
#[derive(Debug)]
struct Inner {
    queue: LeaseQueue,
    /// It was removed: nothing is written of it any more.
    removed: bool,
    /// From where on the log says again that it exists.
    described: Position,
}

/// A message that was received or looked at, with what the log has of it.
#[derive(Debug)]
pub(in crate::broker) struct Delivery {
    pub(in crate::broker) received: Received,
    pub(in crate::broker) stored: StoredMessage,
}

/// Why messages were not stored.
#[derive(Debug)]
pub(in crate::broker) enum Store {
    /// The shelf is gone.
    Gone,
    /// There is no room for now; nothing was stored.
    Full,
    /// Nobody knows whether it was stored.
    Failed(Error),
}

/// A receiver that waits; dropping it gives its place up, and passes on that it was woken.
#[derive(Debug)]
pub(in crate::broker) struct Waiter<'a> {
    shelf: &'a Shelf,
    pub(in crate::broker) waker: Arc<AtomicWaker>,
    place: Option<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shelf.with(|queue, _| queue.stop_waiting(place));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Shelf {
    pub(in crate::broker) number: u32,
    pub(in crate::broker) name: Arc<str>,
    label: RwLock<Arc<Label>>,
    inner: Mutex<Inner>,
    shared: Arc<Shared>,
    rearm: Notify,
    /// Cancelled when the shelf or the broker goes.
    pub(in crate::broker) gone: CancellationToken,
}

/// Takes the log's lock for each record alone.
struct Single<'a>(&'a Log);

impl Journal for Single<'_> {
    fn append(&mut self, record: &Record<'_>) -> Position {
        // Who waits for it asks for the log's ticket.
        self.0.append(|journal| journal.append(record)).0
    }
}

impl Shelf {
    pub(super) fn new(
        number: u32,
        name: Arc<str>,
        label: Label,
        queue: LeaseQueue,
        shared: Arc<Shared>,
        gone: CancellationToken,
    ) -> Shelf {
        Shelf {
            number,
            name,
            label: RwLock::new(Arc::new(label)),
            inner: Mutex::new(Inner { queue, removed: false, described: Position(0) }),
            shared,
            rearm: Notify::new(),
            gone,
        }
    }

    /// What is known of it.
    pub(in crate::broker) fn label(&self) -> Arc<Label> {
        Arc::clone(&self.label.read())
    }

    /// Gives it other attributes, made of those that it has: of two at once the second sees what the first made.
    /// They are safe with the ticket.
    pub(in crate::broker) fn relabel<E>(
        &self,
        about: impl FnOnce(&About) -> std::result::Result<About, E>,
    ) -> std::result::Result<Ticket, E> {
        {
            let mut label = self.label.write();
            *label = Arc::new(label.with(about(&label.about)?));
        }
        Ok(self.describe_now())
    }

    fn locked<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        let (result, events, nearer) = {
            let mut inner = self.inner.lock();
            let before = inner.queue.alarm();
            let result = work(&mut inner);
            (result, inner.queue.take_events(), inner.queue.alarm() < before)
        };
        self.shared.room.release(events.freed);
        if events.redelivered > 0 {
            self.shared.redelivered.fetch_add(events.redelivered, Ordering::Relaxed);
        }
        if events.expired > 0 {
            self.shared.expired.fetch_add(events.expired, Ordering::Relaxed);
        }
        if !events.left.is_empty() {
            self.shared.log.free(events.left.iter().map(|left| (left.position, left.length)));
        }
        events.wakes.into_iter().for_each(|waker| waker.wake());
        if nearer {
            self.rearm.notify_one();
        }
        result
    }

    fn with<R>(&self, work: impl FnOnce(&mut LeaseQueue, &mut Single<'_>) -> R) -> R {
        self.locked(|inner| work(&mut inner.queue, &mut Single(&self.shared.log)))
    }

    fn write_label(&self, inner: &mut Inner) -> Ticket {
        if inner.removed {
            return self.shared.log.ticket();
        }
        let label = self.label();
        let json = label.to_json();
        let kept = Record::Kept {
            topic: self.number,
            sort: label.about.sort(),
            next_sequence: inner.queue.next_sequence(),
            name: &self.name,
            label: &json,
        };
        let (position, ticket) = self.shared.log.append(|journal| journal.append(&kept));
        inner.described = position;
        ticket
    }

    /// Writes that it exists, and what is known of it.
    pub(super) fn describe_now(&self) -> Ticket {
        self.locked(|inner| self.write_label(inner))
    }

    /// The same, unless that was done after this position: then what lies there is not the latest word.
    pub(super) fn describe(&self, position: Position) {
        self.locked(|inner| {
            if position >= inner.described {
                let _ = self.write_label(inner);
            }
        });
    }

    /// Drops all that is on it, and writes that it is no more.
    pub(super) fn remove(&self) -> Ticket {
        self.gone.cancel();
        self.locked(|inner| {
            inner.removed = true;
            inner.queue.clear();
            let gone = Record::TopicGone { topic: self.number };
            self.shared.log.append(|journal| journal.append(&gone)).1
        })
    }

    /// Writes those messages anew that are on it at these positions.
    pub(super) fn renew(&self, records: &[(Position, MessageRecord<'_>)]) {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.rewrite(records, now, journal));
    }

    /// Stores messages; their sequences, in order, once they are safe.
    pub(in crate::broker) async fn store(
        &self,
        drafts: &[LeaseDraft<'_>],
    ) -> std::result::Result<Vec<u64>, Store> {
        let cost = cost(drafts);
        let mut reserved = self.shared.room.try_reserve(cost).ok_or(Store::Full)?;
        let admission = admit(&self.shared, cost).await?;
        let stored = self.accept(drafts, &mut reserved);
        drop((admission, reserved));
        let (sequences, ticket) = stored.ok_or(Store::Gone)?;
        self.shared.log.committed(ticket).await.map_err(Store::Failed)?;
        Ok(sequences)
    }

    /// Takes in what room was reserved for; none where the shelf is gone.
    fn accept(&self, drafts: &[LeaseDraft<'_>], reserved: &mut Reserved<'_>) -> Option<(Vec<u64>, Ticket)> {
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        self.locked(|inner| {
            if inner.removed {
                return None;
            }
            let mut accept = |journal: &mut dyn Journal| -> Vec<u64> {
                drafts.iter().map(|draft| inner.queue.accept(draft, now, wall, journal)).collect()
            };
            let stored = self.shared.log.append(|journal| accept(journal));
            reserved.keep(cost(drafts));
            Some(stored)
        })
    }

    /// For one receive that may have to wait.
    pub(in crate::broker) fn waiter(&self) -> Waiter<'_> {
        Waiter { shelf: self, waker: Arc::new(AtomicWaker::new()), place: None }
    }

    /// Receives up to `most` messages, hidden for so many milliseconds; where there is none the waiter waits, whose
    /// waker must be registered before.
    pub(in crate::broker) fn take(
        &self,
        most: usize,
        hidden_ms: u64,
        waiter: Option<&mut Waiter<'_>>,
    ) -> Vec<Delivery> {
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        let mut taken = Vec::new();
        // While this is held, no position that the queue gave is used for anything else.
        let mut reading = self.shared.log.reading();
        self.with(|queue, journal| {
            queue.take(most, hidden_ms, now, wall, journal, &mut taken);
            if let Some(waiter) = waiter.filter(|_| taken.is_empty()) {
                queue.wait(&waiter.waker, &mut waiter.place);
            }
        });
        self.read(&mut reading, taken)
    }

    /// Whether there is a message to receive; where there is none the waiter waits, as for [`Shelf::take`].
    pub(in crate::broker) fn has_ready(&self, waiter: &mut Waiter<'_>) -> bool {
        self.with(|queue, _| {
            let ready = queue.counts().ready > 0;
            if !ready {
                queue.wait(&waiter.waker, &mut waiter.place);
            }
            ready
        })
    }

    /// The messages that would be received next.
    pub(in crate::broker) fn peek(&self, most: usize) -> Vec<Delivery> {
        let mut reading = self.shared.log.reading();
        let seen = self.with(|queue, _| queue.peek(most));
        self.read(&mut reading, seen)
    }

    fn read(&self, reading: &mut crate::broker::log::Reading<'_>, taken: Vec<Received>) -> Vec<Delivery> {
        let mut out = Vec::with_capacity(taken.len());
        for received in taken {
            match reading.message(received.position, received.length as usize) {
                Ok(stored) => out.push(Delivery { received, stored }),
                // It comes again after its time: it may be readable then.
                Err(error) => {
                    let (queue, sequence) = (&self.name, received.sequence);
                    tracing::error!(%queue, sequence, %error, "a message cannot be read and is not delivered");
                }
            }
        }
        out
    }

    /// Deletes messages by sequence and serial; says for each whether it was who asks's. Safe with the ticket.
    pub(in crate::broker) fn delete(&self, handles: &[(u64, u64)]) -> (Vec<bool>, Ticket) {
        let now = self.shared.clock.now();
        let done = self.with(|queue, journal| queue.delete(handles, now, journal));
        (done, self.shared.log.ticket())
    }

    /// Hides a message until another time; its new serial, and when the time ends.
    pub(in crate::broker) fn change(&self, handle: (u64, u64), hidden_ms: u64) -> Option<(u64, i64)> {
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        self.with(|queue, journal| queue.change(handle, hidden_ms, now, wall, journal))
    }

    /// Waits until the ticket is safe.
    ///
    /// # Errors
    /// `storage` once the log has failed.
    pub(in crate::broker) async fn committed(&self, ticket: Ticket) -> Result<()> {
        self.shared.log.committed(ticket).await
    }

    /// How many messages it has.
    pub(in crate::broker) fn counts(&self) -> LeaseCounts {
        self.inner.lock().queue.counts()
    }

    /// Bytes of memory that its messages take, without their bodies.
    pub(in crate::broker) fn memory(&self) -> usize {
        self.inner.lock().queue.memory()
    }
}

/// What messages take of the room.
fn cost(drafts: &[LeaseDraft<'_>]) -> usize {
    drafts.iter().map(|draft| Room::cost(draft.length())).fold(0, usize::saturating_add)
}

async fn admit(shared: &Shared, cost: usize) -> std::result::Result<Admission, Store> {
    let admission = shared.log.admit(cost).await;
    // A full disk refuses; what failed before takes nothing either.
    admission.map_err(|error| match error.kind() {
        Kind::TooLarge => Store::Full,
        _ if error.retryable() => Store::Full,
        _ => Store::Failed(error),
    })
}

/// Stores a message on each of these shelves that is still there, or on none of them.
pub(in crate::broker) async fn store_on_all(
    shelves: &[Arc<Shelf>],
    draft: LeaseDraft<'_>,
) -> std::result::Result<(), Store> {
    let Some(shared) = shelves.first().map(|shelf| &shelf.shared) else { return Ok(()) };
    let drafts = [draft];
    let cost = cost(&drafts).saturating_mul(shelves.len());
    let mut reserved = shared.room.try_reserve(cost).ok_or(Store::Full)?;
    let admission = admit(shared, cost).await?;
    // From here on nothing is waited for until all have it, and what is gone wants nothing any more.
    let tickets = shelves.iter().filter_map(|shelf| shelf.accept(&drafts, &mut reserved));
    let last = tickets.map(|(_, ticket)| ticket).max();
    drop((admission, reserved));
    match last {
        Some(ticket) => shared.log.committed(ticket).await.map_err(Store::Failed),
        None => Ok(()),
    }
}

/// Moves a shelf on in time until it goes.
pub(super) async fn run(shelf: Weak<Shelf>, gone: CancellationToken) {
    loop {
        let Some(shelf) = shelf.upgrade() else { return };
        let alarm = {
            let now = shelf.shared.clock.now();
            shelf.with(|queue, journal| {
                queue.advance(now, journal);
                queue.alarm()
            })
        };
        let sleep = async {
            if alarm == NEVER {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(shelf.shared.clock.at(alarm)).await;
        };
        tokio::select! {
            () = gone.cancelled() => return,
            () = shelf.rearm.notified() => {}
            () = sleep => {}
        }
    }
}
