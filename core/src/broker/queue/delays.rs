//! Due times on the monotonic clock, 12 bytes each.

use super::pair::{Heap, MOST, Pair};
use crate::broker::delay::{NEVER, Tick};

/// Due times are kept in this many microseconds, rounded up: 48 bits of them are 570 years.
const UNIT: Tick = 64;

/// Sequences by the time at which something happens to them. What left the queue meanwhile stays until its
/// time, or until [`Delays::forget`].
#[derive(Debug, Default)]
pub(super) struct Delays(Heap);

fn units(due: Tick) -> u64 {
    due.div_ceil(UNIT).min(MOST)
}

fn tick(units: u64) -> Tick {
    if units == MOST { NEVER } else { units * UNIT }
}

impl Delays {
    pub(super) fn push(&mut self, due: Tick, sequence: u64) {
        self.0.push(Pair::new(units(due), sequence));
    }

    /// When the first falls due.
    pub(super) fn next(&self) -> Tick {
        self.0.peek().map_or(NEVER, |pair| tick(pair.first()))
    }

    /// Takes the first if it is due.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<(Tick, u64)> {
        let due = self.next();
        if due > now {
            return None;
        }
        self.0.pop().map(|pair| (due, pair.second()))
    }

    /// Drops those that are wanted no more.
    pub(super) fn forget(&mut self, mut wanted: impl FnMut(u64) -> bool) {
        self.0.retain(|pair| wanted(pair.second()));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Due time and sequence of each, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Tick, u64)> {
        self.0.iter().map(|pair| (tick(pair.first()), pair.second()))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// From due times and sequences, in one pass.
    pub(super) fn from_pairs(pairs: impl Iterator<Item = (Tick, u64)>) -> Delays {
        Delays(Heap::from_pairs(pairs.map(|(due, sequence)| Pair::new(units(due), sequence)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_early_and_never_is_never() {
        let mut delays = Delays::default();
        for due in [1, 63, 64, 65, 1_000_000, 7] {
            delays.push(due, due);
        }
        delays.push(NEVER, 9);
        let mut now = 0;
        let mut order = Vec::new();
        while order.len() < 6 {
            while let Some((due, sequence)) = delays.pop_due(now) {
                assert!(due <= now && sequence <= now && now < sequence + UNIT);
                order.push(sequence);
            }
            now += 1;
        }
        assert_eq!(order, [1, 7, 63, 64, 65, 1_000_000]);
        assert_eq!((delays.next(), delays.pop_due(NEVER - 1)), (NEVER, None));
    }
}
