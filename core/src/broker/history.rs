//! Acknowledged messages that the console still shows: the last ones of the broker, within a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::room::{Room, Stored};

/// Bytes that acknowledged messages may take.
const SHOWN_BYTES: usize = 16 << 20;

/// An acknowledged message.
#[derive(Debug, Clone)]
pub(super) struct Consumed {
    pub(super) slot: u32,
    pub(super) sequence: u64,
    pub(super) created: i64,
    pub(super) consumed: i64,
    pub(super) delay: i64,
    pub(super) body: Stored,
}

/// A message of the list, with its topic.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) number: u32,
    pub(super) topic: Arc<str>,
    pub(super) message: Consumed,
}

#[derive(Debug, Default)]
struct Ring {
    shown: VecDeque<Past>,
    bytes: usize,
}

/// The last acknowledged messages of all topics.
#[derive(Debug)]
pub(super) struct History {
    ring: Mutex<Ring>,
    limit: usize,
    total: AtomicU64,
}

impl History {
    pub(super) fn new(limit: usize) -> History {
        History { ring: Mutex::new(Ring::default()), limit, total: AtomicU64::new(0) }
    }

    /// Adds messages of one topic, in the order of their acks.
    pub(super) fn add(&self, number: u32, topic: &Arc<str>, messages: Vec<Consumed>) {
        if messages.is_empty() {
            return;
        }
        self.total.fetch_add(messages.len() as u64, Ordering::Relaxed);
        // What falls out is freed after the lock.
        let mut out = Vec::new();
        let mut ring = self.ring.lock();
        for message in messages {
            let cost = Room::cost(message.body.len());
            if self.limit == 0 || cost > SHOWN_BYTES {
                continue;
            }
            while ring.shown.len() >= self.limit || ring.bytes + cost > SHOWN_BYTES {
                let Some(oldest) = ring.shown.pop_front() else { break };
                ring.bytes = ring.bytes.saturating_sub(Room::cost(oldest.message.body.len()));
                out.push(oldest);
            }
            ring.bytes += cost;
            ring.shown.push_back(Past { number, topic: Arc::clone(topic), message });
        }
        drop(ring);
    }

    /// How many messages were acknowledged and not deleted since.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Those that `wanted` names.
    pub(super) fn select(&self, mut wanted: impl FnMut(&Past) -> bool) -> Vec<Past> {
        self.ring.lock().shown.iter().filter(|past| wanted(past)).cloned().collect()
    }

    /// Takes one out.
    pub(super) fn remove(&self, number: u32, slot: u32, sequence: u64) -> bool {
        let mut ring = self.ring.lock();
        let same = |past: &Past| {
            past.number == number && past.message.slot == slot && past.message.sequence == sequence
        };
        let Some(at) = ring.shown.iter().position(same) else { return false };
        if let Some(past) = ring.shown.remove(at) {
            ring.bytes = ring.bytes.saturating_sub(Room::cost(past.message.body.len()));
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        *self.ring.lock() = Ring::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept() {
        let log = Room::new(usize::MAX);
        let topic: Arc<str> = Arc::from("t");
        let history = History::new(3);
        for sequence in 0..5 {
            let body = log.store("x");
            let message = Consumed { slot: 0, sequence, created: 1, consumed: 2, delay: 0, body };
            history.add(7, &topic, vec![message]);
        }
        let kept: Vec<u64> = history.select(|_| true).iter().map(|past| past.message.sequence).collect();
        assert_eq!((kept, history.total()), (vec![2, 3, 4], 5));
        assert!(history.remove(7, 0, 3) && !history.remove(7, 0, 3) && !history.remove(7, 0, 1));
        assert_eq!(history.total(), 4);
    }

    #[test]
    fn bytes_are_bounded() {
        let log = Room::new(usize::MAX);
        let history = History::new(1000);
        let body = log.store(&"x".repeat(SHOWN_BYTES / 4));
        for sequence in 0..10 {
            let message =
                Consumed { slot: 0, sequence, created: 1, consumed: 2, delay: 0, body: body.clone() };
            history.add(1, &Arc::from("t"), vec![message]);
        }
        assert_eq!(history.select(|_| true).len(), 3);
    }
}
