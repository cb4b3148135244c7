//! Keys seen lately: a message whose key came within the window is the same message.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::broker::delay::Tick;

/// How long and how many.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct KeyWindow {
    /// How long a key is remembered.
    pub(in crate::broker) time: Tick,
    /// How many keys are; past it the oldest are forgotten.
    pub(in crate::broker) keys: usize,
}

/// The keys of one topic: 16 bytes of each, under keys of this run.
#[derive(Debug)]
pub(super) struct Dedup {
    window: KeyWindow,
    hashers: [RandomState; 2],
    /// Sequence, and until when.
    seen: HashMap<u128, (u64, Tick)>,
    order: VecDeque<(Tick, u128)>,
}

impl Dedup {
    pub(super) fn new(window: KeyWindow) -> Dedup {
        Dedup {
            window,
            hashers: [RandomState::new(), RandomState::new()],
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn hash(&self, key: &str) -> u128 {
        let [one, two] = &self.hashers;
        u128::from(one.hash_one(key)) << 64 | u128::from(two.hash_one(key))
    }

    /// The sequence of the message that had this key within the window.
    pub(super) fn find(&mut self, key: &str, now: Tick) -> Option<u64> {
        while self.order.front().is_some_and(|&(until, _)| until <= now) {
            self.forget_oldest();
        }
        // The order is not that of time after a restart with a clock that was set back.
        let seen = self.seen.get(&self.hash(key)).filter(|&&(_, until)| until > now);
        seen.map(|&(sequence, _)| sequence)
    }

    /// Notes a key that was not found.
    pub(super) fn note(&mut self, key: &str, sequence: u64, now: Tick) {
        self.note_until(key, sequence, now.saturating_add(self.window.time));
    }

    fn note_until(&mut self, key: &str, sequence: u64, until: Tick) {
        if self.window.keys == 0 {
            return;
        }
        let hash = self.hash(key);
        if self.seen.get(&hash).is_some_and(|&(_, later)| later >= until) {
            // A replay may show one twice, and an older one after a newer.
            return;
        }
        self.seen.insert(hash, (sequence, until));
        self.order.push_back((until, hash));
        while self.order.len() > self.window.keys {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((until, hash)) = self.order.pop_front()
            && self.seen.get(&hash).is_some_and(|&(_, current)| current == until)
        {
            self.seen.remove(&hash);
        }
    }

    /// Notes a key of a replay: until a time on the wall clock, in milliseconds.
    pub(super) fn recall(&mut self, key: &str, sequence: u64, created_ms: i64) {
        let time = i64::try_from(self.window.time / 1000).unwrap_or(i64::MAX);
        self.note_until(key, sequence, created_ms.saturating_add(time).max(0).unsigned_abs());
    }

    /// Puts the times of a replay on the monotonic clock.
    pub(super) fn restored(&mut self, tick_of: impl Fn(u64) -> Tick) {
        for (until, _) in &mut self.order {
            *until = tick_of(*until);
        }
        self.seen.values_mut().for_each(|(_, until)| *until = tick_of(*until));
        self.order.make_contiguous().sort_by_key(|&(until, _)| until);
    }

    pub(super) fn bytes(&self) -> usize {
        self.seen.capacity() * 49 + self.order.capacity() * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_forgotten_in_time_and_in_number() {
        let mut dedup = Dedup::new(KeyWindow { time: 100, keys: 3 });
        dedup.note("a", 1, 0);
        assert_eq!((dedup.find("a", 99), dedup.find("b", 99), dedup.find("a", 100)), (Some(1), None, None));
        for (at, key) in ["b", "c", "d", "e"].into_iter().enumerate() {
            dedup.note(key, at as u64, 200);
        }
        assert_eq!((dedup.find("b", 201), dedup.find("c", 201)), (None, Some(1)));
        assert_eq!((dedup.seen.len(), dedup.order.len()), (3, 3));
    }
}
