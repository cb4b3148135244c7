//! A topic: its queue behind a lock, and the task that moves it on in time.

mod draft;
mod journal;
mod shown;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::SystemTime;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) use draft::Drafts;
pub(super) use shown::Shown;

use super::delay::{Clock, NEVER};
use super::history::{History, Past};
use super::hub::Hub;
use super::log::record::{MessageRecord, Position};
use super::log::{Log, StoredMessage, Ticket};
use super::queue::{Accepted, Events, Outgoing, Queue, Why, Window};
use super::room::Room;
use crate::error::Kind;
use journal::{First, Single};

/// Dead messages that are moved at a time.
const BURIED: usize = 256;

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub(super) fn wall() -> i64 {
    wall_ms() / 1000
}

/// What all topics share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) log: Arc<Log>,
    pub(super) room: Room,
    pub(super) history: History,
    pub(super) redelivered: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) expired: AtomicU64,
}

/// One message to write to a consumer.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    /// As the wire shows it: the delay, and from the second push on the age, in seconds.
    pub(super) delay: i64,
    pub(super) stored: StoredMessage,
}

/// A place among the producers that wait for room in a topic; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    topic: &'a Topic,
    waker: Arc<AtomicWaker>,
    place: Option<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.topic.queue.lock().stop_waiting(place);
        }
    }
}

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) number: u32,
    pub(super) name: Arc<str>,
    queue: Mutex<Queue>,
    /// From where on the log says again that the topic and its subscriptions exist. Used with `queue` locked.
    described: AtomicU64,
    shared: Arc<Shared>,
    /// The alarm came nearer, or something died.
    rearm: Notify,
    /// Cancelled when the topic or the broker goes.
    pub(super) gone: CancellationToken,
}

impl Topic {
    pub(super) fn new(
        number: u32,
        name: Arc<str>,
        queue: Queue,
        shared: Arc<Shared>,
        gone: CancellationToken,
    ) -> Topic {
        Topic {
            number,
            name,
            queue: Mutex::new(queue),
            described: AtomicU64::new(0),
            shared,
            rearm: Notify::new(),
            gone,
        }
    }

    /// Works on the queue, then does what follows from it outside the lock.
    fn with<R>(&self, work: impl FnOnce(&mut Queue, &mut Single<'_>) -> R) -> R {
        self.locked(|queue| work(queue, &mut Single(&self.shared.log)))
    }

    fn locked<R>(&self, work: impl FnOnce(&mut Queue) -> R) -> R {
        let (result, events, nearer) = {
            let mut queue = self.queue.lock();
            let before = queue.alarm();
            let result = work(&mut queue);
            (result, queue.take_events(), queue.alarm() < before)
        };
        let died = !events.dead.is_empty();
        self.follow(events);
        if nearer || died {
            self.rearm.notify_one();
        }
        result
    }

    fn follow(&self, events: Events) {
        self.shared.room.release(events.freed);
        if events.redelivered > 0 {
            self.shared.redelivered.fetch_add(events.redelivered, Ordering::Relaxed);
        }
        if !events.left.is_empty() {
            self.shared.log.free(events.left.iter().map(|left| (left.position, left.length)));
            let consumed = wall();
            let past: Vec<Past> = events
                .left
                .iter()
                .filter(|left| left.why == Why::Consumed)
                .map(|left| Past {
                    number: self.number,
                    topic: Arc::clone(&self.name),
                    sequence: left.sequence,
                    position: left.position,
                    length: left.length,
                    consumed,
                })
                .collect();
            self.shared.history.add(past.into_iter());
        }
        for waker in events.wakes {
            waker.wake();
        }
    }

    /// For one batch of messages that may have to wait for room.
    pub(super) fn waiter(&self) -> Waiter<'_> {
        Waiter { topic: self, waker: Arc::new(AtomicWaker::new()), place: None }
    }

    /// Takes messages in from `first` on, whose cost was reserved, and adds what became of each. Where the topic
    /// is full and they are to wait, those that do are left out and the waker is woken when there is room.
    /// The ticket says when they are safe.
    pub(super) fn accept(
        &self,
        drafts: &Drafts,
        first: usize,
        waiter: &mut Waiter<'_>,
        waker: &Waker,
        results: &mut Vec<Accepted>,
    ) -> Ticket {
        // Before the look, so that room made in between is not missed.
        waiter.waker.register(waker);
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        let before = results.len();
        let log = &self.shared.log;
        let ticket = self.locked(|queue| {
            let (_, ticket) =
                log.append(|journal| queue.accept(drafts.from(first), now, wall, journal, results));
            if queue.waits_when_full() {
                let taken = results.iter().rposition(|result| *result != Accepted::Full);
                results.truncate(taken.map_or(before, |last| last + 1).max(before));
                if results.len() < before + drafts.len().saturating_sub(first) {
                    queue.wait_for_room(&waiter.waker, &mut waiter.place);
                }
            }
            ticket
        });
        let repeated = results.iter().skip(before).any(|result| matches!(result, Accepted::Duplicate(_)));
        // The first of its key may not be safe yet.
        if repeated { log.ticket() } else { ticket }
    }

    /// Adds a consumer; says whether there was room for it.
    pub(super) fn join(&self, number: u64, id: &Arc<str>, durable: bool, waker: Arc<AtomicWaker>) -> bool {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.join(number, id, durable, waker, now, journal))
    }

    /// Removes a consumer and takes back what it did not acknowledge.
    pub(super) fn leave(&self, number: u64) {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.leave(number, now, journal));
    }

    /// Takes what a consumer may get now; its waker must be registered before.
    pub(super) fn take(&self, number: u64, window: Window, out: &mut Vec<Delivery>) {
        let now = self.shared.clock.now();
        let mut taken: Vec<Outgoing> = Vec::new();
        // While this is held, no position that the queue gave is used for anything else.
        let mut reading = self.shared.log.reading();
        self.with(|queue, journal| queue.take(number, window, now, journal, &mut taken));
        out.reserve(taken.len());
        for outgoing in taken {
            match reading.message(outgoing.position, outgoing.length as usize) {
                Ok(stored) => out.push(self.delivery(&outgoing, stored)),
                // It stays with the consumer unseen, and comes again after the time: it may be readable then.
                Err(error) => {
                    let (topic, sequence) = (&self.name, outgoing.sequence);
                    tracing::error!(%topic, sequence, %error, "a message cannot be read and is not delivered");
                }
            }
        }
    }

    fn delivery(&self, outgoing: &Outgoing, stored: StoredMessage) -> Delivery {
        let delay = if outgoing.attempt > 1 {
            (wall_ms().saturating_sub(stored.created_ms) / 1000).max(0)
        } else {
            stored.wire_delay
        };
        Delivery { sequence: outgoing.sequence, attempt: outgoing.attempt, delay, stored }
    }

    /// Takes acks and returns how many counted.
    pub(super) fn ack(&self, number: u64, sequences: impl IntoIterator<Item = u64>) -> usize {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.ack(number, sequences, now, journal))
    }

    /// Takes back deliveries, each to come again after its delay in milliseconds; returns how many counted.
    pub(super) fn nack(&self, number: u64, refusals: impl IntoIterator<Item = (u64, u64)>) -> usize {
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        self.with(|queue, journal| queue.nack(number, refusals, now, wall, journal))
    }

    /// Deletes a message; says whether there was one.
    pub(super) fn delete(&self, sequence: u64) -> bool {
        let waited = self.with(|queue, journal| queue.delete(sequence, journal));
        waited || self.shared.history.remove(self.number, sequence)
    }

    /// Ends a durable subscription whose consumer is away; says whether there was one.
    pub(super) fn unsubscribe(&self, id: &str) -> bool {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.unsubscribe(id, now, journal))
    }

    /// Drops all messages; says how many.
    pub(super) fn purge(&self) -> usize {
        let now = self.shared.clock.now();
        self.with(|queue, journal| queue.purge(now, journal))
    }

    /// Writes those messages anew that are alive at these positions: the log gives the positions up.
    pub(super) fn renew(&self, records: &[(Position, MessageRecord<'_>)]) {
        let (now, wall) = (self.shared.clock.now(), wall_ms());
        self.with(|queue, journal| queue.rewrite(records, now, wall, journal));
    }

    /// Writes anew that the topic and its subscriptions exist, unless that was done after this position: then
    /// what lies there is not the latest word, and repeating it for each old word would never end.
    pub(super) fn describe(&self, position: Position) {
        self.with(|queue, journal| {
            if position.0 < self.described.load(Ordering::Relaxed) {
                return;
            }
            let mut journal = First { journal, position: None };
            queue.describe(&mut journal);
            if let Some(first) = journal.position {
                self.described.store(first.0, Ordering::Relaxed);
            }
        });
    }

    /// Reads the queue.
    pub(super) fn read<R>(&self, look: impl FnOnce(&Queue) -> R) -> R {
        look(&self.queue.lock())
    }

    /// Moves the queue on in time until the topic goes.
    pub(super) async fn run(self: Arc<Topic>, hub: Weak<Hub>) {
        loop {
            let (alarm, dying) = {
                let now = self.shared.clock.now();
                self.with(|queue, journal| {
                    queue.advance(now, journal);
                    (queue.alarm(), queue.dying() > 0)
                })
            };
            if dying && self.bury(&hub).await {
                continue;
            }
            let sleep = async {
                if alarm == NEVER {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(self.shared.clock.at(alarm)).await;
            };
            tokio::select! {
                () = self.gone.cancelled() => return,
                () = self.rearm.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Moves dead messages to the dead letters; says whether any went. They are there on disk before they go
    /// here, so that a crash shows them twice and never not at all.
    async fn bury(&self, hub: &Weak<Hub>) -> bool {
        let Some(hub) = hub.upgrade() else { return false };
        let mut drafts = Drafts::default();
        let mut moved = Vec::new();
        {
            // While this is held, no position that the queue gave is used for anything else.
            let mut reading = self.shared.log.reading();
            let dead = self.read(|queue| queue.unburied(BURIED));
            for dead in dead {
                match reading.message(dead.position, dead.length as usize) {
                    Ok(stored) => {
                        drafts.push(
                            &String::from_utf8_lossy(&stored.body),
                            stored.key.as_deref().unwrap_or_default(),
                            0,
                        );
                        moved.push(dead);
                    }
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => {
                        let (topic, sequence) = (&self.name, dead.sequence);
                        tracing::error!(%topic, sequence, %error, "a dead message cannot be read");
                    }
                }
            }
        }
        if moved.is_empty() {
            return false;
        }
        match hub.bury(self, &drafts).await {
            Ok(results) => {
                // What did not come in there stays here.
                let mut results = results.iter();
                moved.retain(|_| matches!(results.next(), Some(Accepted::New(_))));
                if moved.is_empty() {
                    return false;
                }
                self.shared.dead.fetch_add(moved.len() as u64, Ordering::Relaxed);
                let now = self.shared.clock.now();
                self.with(|queue, journal| queue.buried(&moved, now, journal));
                true
            }
            Err(error) => {
                tracing::error!(topic = %self.name, %error, "dead messages stay where they are");
                // Not at once again: what failed rarely heals in a moment.
                tokio::select! {
                    () = self.gone.cancelled() => {}
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                }
                true
            }
        }
    }
}
