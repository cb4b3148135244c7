//! A topic: its queue behind a lock, and the task that moves it on in time.

mod consumer;
mod inspect;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) use inspect::Shown;
pub(super) use queue::{Draft, Events, Outgoing, Queue, Terms, Window};

use super::delay::{Clock, NEVER};
use super::history::History;
use super::room::Room;

/// Seconds since 1970.
pub(super) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What all topics share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) log: Room,
    pub(super) history: History,
    pub(super) redelivered: AtomicU64,
}

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) number: u32,
    pub(super) name: Arc<str>,
    queue: Mutex<Queue>,
    shared: Arc<Shared>,
    /// The alarm came nearer.
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
        Topic { number, name, queue: Mutex::new(queue), shared, rearm: Notify::new(), gone }
    }

    /// Works on the queue, then does what follows from it outside the lock.
    fn with<R>(&self, work: impl FnOnce(&mut Queue) -> R) -> R {
        let (result, events, nearer) = {
            let mut queue = self.queue.lock();
            let before = queue.alarm();
            let result = work(&mut queue);
            let events = queue.take_events();
            // Under the lock: before anybody can free it.
            self.shared.log.charge(events.charged);
            (result, events, queue.alarm() < before)
        };
        self.follow(events);
        if nearer {
            self.rearm.notify_one();
        }
        result
    }

    fn follow(&self, events: Events) {
        self.shared.log.release(events.freed);
        if events.redelivered > 0 {
            self.shared.redelivered.fetch_add(events.redelivered, Ordering::Relaxed);
        }
        self.shared.history.add(self.number, &self.name, events.consumed);
        for waker in events.wakes {
            waker.wake();
        }
    }

    /// Takes messages in. Their cost was reserved. Returns slot and sequence of the last.
    pub(super) fn accept(&self, drafts: Vec<Draft>) -> Option<(u32, u64)> {
        let (now, wall) = (self.shared.clock.now(), wall());
        self.with(|queue| queue.accept(drafts, now, wall))
    }

    /// Adds a consumer.
    pub(super) fn join(&self, number: u64, id: &Arc<str>, waker: Arc<AtomicWaker>) {
        self.with(|queue| queue.join(number, id, waker));
    }

    /// Removes a consumer and takes back what it did not acknowledge.
    pub(super) fn leave(&self, number: u64) {
        let now = self.shared.clock.now();
        self.with(|queue| queue.leave(number, now));
    }

    /// Takes what a consumer may get now; its waker must be registered before.
    pub(super) fn take(&self, number: u64, window: Window, out: &mut Vec<Outgoing>) {
        let (now, wall) = (self.shared.clock.now(), wall());
        self.with(|queue| queue.take(number, window, now, wall, out));
    }

    /// Takes acks and returns how many counted.
    pub(super) fn ack(&self, number: u64, messages: impl IntoIterator<Item = (u32, u64)>) -> usize {
        let wall = wall();
        self.with(|queue| queue.ack(number, messages, wall))
    }

    /// Deletes a message; says whether there was one.
    pub(super) fn delete(&self, slot: u32, sequence: u64) -> bool {
        let waited = self.with(|queue| queue.delete(slot, sequence));
        waited || self.shared.history.remove(self.number, slot, sequence)
    }

    /// Finds a message, acknowledged or not.
    pub(super) fn find(&self, slot: u32, sequence: u64) -> Option<Shown> {
        let waits = self.read(|queue| queue.find(slot, sequence));
        waits.or_else(|| {
            let mut past = self.shared.history.select(|past| {
                past.number == self.number && past.message.slot == slot && past.message.sequence == sequence
            });
            past.pop().map(|past| Shown::past(past.message))
        })
    }

    /// Reads the queue.
    pub(super) fn read<R>(&self, look: impl FnOnce(&Queue) -> R) -> R {
        look(&self.queue.lock())
    }

    /// Moves the queue on in time until the topic goes.
    pub(super) async fn run(self: Arc<Topic>) {
        loop {
            let alarm = {
                let (now, wall) = (self.shared.clock.now(), wall());
                self.with(|queue| {
                    queue.advance(now, wall);
                    queue.alarm()
                })
            };
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
}
