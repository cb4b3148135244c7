//! Acknowledged messages that the console still shows: a few per topic, within a bound for all topics.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::broker::log::{Log, Stored};

/// Bytes that the acknowledged messages of all topics may take.
const SHOWN_BYTES: usize = 16 << 20;

/// A message that left the queue.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Left {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) created: i64,
    pub(in crate::broker) delay: i64,
    pub(in crate::broker) body: Stored,
}

/// An acknowledged message.
#[derive(Debug, Clone)]
pub(super) struct Consumed {
    pub(super) slot: u32,
    pub(super) consumed: i64,
    pub(super) left: Left,
}

/// Bytes of acknowledged messages kept, shared by all topics.
pub(in crate::broker) type Kept = Arc<AtomicUsize>;

/// The last acknowledged messages of one topic.
#[derive(Debug)]
pub(in crate::broker) struct History {
    shown: VecDeque<Consumed>,
    limit: usize,
    kept: Kept,
}

impl History {
    pub(in crate::broker) fn new(limit: usize, kept: Kept) -> History {
        History { shown: VecDeque::new(), limit, kept }
    }

    pub(super) fn add(&mut self, slot: u32, left: Left, consumed: i64) {
        let cost = Log::cost(left.body.len());
        if self.limit == 0 || cost > SHOWN_BYTES {
            return;
        }
        if self.shown.len() >= self.limit {
            self.drop_oldest();
        }
        while self.kept.load(Ordering::Relaxed).saturating_add(cost) > SHOWN_BYTES {
            if !self.drop_oldest() {
                return;
            }
        }
        self.kept.fetch_add(cost, Ordering::Relaxed);
        self.shown.push_back(Consumed { slot, consumed, left });
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.shown.pop_front() else { return false };
        self.kept.fetch_sub(Log::cost(oldest.left.body.len()), Ordering::Relaxed);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumed> {
        self.shown.iter()
    }

    pub(super) fn remove(&mut self, slot: u32, sequence: u64) -> bool {
        let same = |consumed: &Consumed| consumed.slot == slot && consumed.left.sequence == sequence;
        let Some(at) = self.shown.iter().position(same) else { return false };
        if let Some(consumed) = self.shown.remove(at) {
            self.kept.fetch_sub(Log::cost(consumed.left.body.len()), Ordering::Relaxed);
        }
        true
    }
}

impl Drop for History {
    fn drop(&mut self) {
        while self.drop_oldest() {}
    }
}
