//! Acknowledged messages that the console still shows: the last ones of the broker, as long as the log has them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::log::record::Position;

/// An acknowledged message: its content is in the log until its segment goes.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// Number of its topic.
    pub(super) number: u32,
    pub(super) topic: Arc<str>,
    pub(super) sequence: u64,
    pub(super) position: Position,
    /// Bytes of the body.
    pub(super) length: u32,
    /// When it was acknowledged, in seconds since 1970.
    pub(super) consumed: i64,
}

/// The last acknowledged messages of all topics.
#[derive(Debug)]
pub(super) struct History {
    shown: Mutex<VecDeque<Past>>,
    limit: usize,
    total: AtomicU64,
}

impl History {
    pub(super) fn new(limit: usize) -> History {
        History { shown: Mutex::default(), limit, total: AtomicU64::new(0) }
    }

    /// Adds messages of one topic, in the order of their acks.
    pub(super) fn add(&self, messages: impl ExactSizeIterator<Item = Past>) {
        let count = messages.len();
        if count == 0 {
            return;
        }
        self.total.fetch_add(count as u64, Ordering::Relaxed);
        let mut shown = self.shown.lock();
        for past in messages.skip(count.saturating_sub(self.limit)) {
            if shown.len() >= self.limit {
                shown.pop_front();
            }
            shown.push_back(past);
        }
    }

    /// How many messages were acknowledged and not deleted since.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Those that `wanted` names.
    pub(super) fn select(&self, mut wanted: impl FnMut(&Past) -> bool) -> Vec<Past> {
        self.shown.lock().iter().filter(|past| wanted(past)).cloned().collect()
    }

    /// Takes one out.
    pub(super) fn remove(&self, number: u32, sequence: u64) -> bool {
        let mut shown = self.shown.lock();
        let same = |past: &Past| past.number == number && past.sequence == sequence;
        let Some(at) = shown.iter().position(same) else { return false };
        if shown.remove(at).is_some() {
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.shown.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(sequence: u64) -> Past {
        Past {
            number: 1,
            topic: Arc::from("t"),
            sequence,
            position: Position(sequence * 8),
            length: 1,
            consumed: 0,
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_all_are_counted() {
        let history = History::new(3);
        history.add((0..2).map(past).collect::<Vec<_>>().into_iter());
        history.add((2..7).map(past).collect::<Vec<_>>().into_iter());
        let kept: Vec<u64> = history.select(|_| true).iter().map(|past| past.sequence).collect();
        assert_eq!((kept, history.total()), (vec![4, 5, 6], 7));
        assert!(history.remove(1, 5));
        assert!(!history.remove(1, 5));
        assert!(!history.remove(2, 6));
        assert_eq!(history.total(), 6);
    }

    #[test]
    fn none_are_kept_where_none_may_be() {
        let history = History::new(0);
        history.add((0..2).map(past).collect::<Vec<_>>().into_iter());
        assert!(history.select(|_| true).is_empty());
        assert_eq!(history.total(), 2);
    }
}
