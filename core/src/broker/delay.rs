//! Due times on the monotonic clock: nothing falls due early, whatever the time of day does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::{Duration, Instant};

/// Microseconds since the broker's start.
pub(super) type Tick = u64;

/// Never.
pub(super) const NEVER: Tick = Tick::MAX;

/// A microsecond count of this duration, rounded up.
pub(super) fn ticks(duration: Duration) -> Tick {
    Tick::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(NEVER)
}

/// The clock of one broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Ticks passed, rounded down.
    pub(super) fn now(self) -> Tick {
        Tick::try_from(self.start.elapsed().as_micros()).unwrap_or(NEVER)
    }

    /// The instant of a tick; an hour ahead at most, so that sleepers look again.
    pub(super) fn at(self, tick: Tick) -> Instant {
        let soon = tick.saturating_sub(self.now()).min(3_600_000_000);
        // One more for the rounding down of `now`.
        Instant::now() + Duration::from_micros(soon + 1)
    }
}

/// A message that waits for its due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Delayed {
    pub(super) due: Tick,
    pub(super) sequence: u64,
    pub(super) slot: u32,
}

/// The delayed messages of one topic, first due first, and in order of acceptance among equals.
#[derive(Debug, Default)]
pub(super) struct Delays(BinaryHeap<Reverse<Delayed>>);

impl Delays {
    pub(super) fn push(&mut self, delayed: Delayed) {
        self.0.push(Reverse(delayed));
    }

    /// When the first falls due.
    pub(super) fn next(&self) -> Tick {
        self.0.peek().map_or(NEVER, |Reverse(delayed)| delayed.due)
    }

    /// Takes the first if it is due.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<Delayed> {
        if self.next() > now {
            return None;
        }
        self.0.pop().map(|Reverse(delayed)| delayed)
    }

    /// Takes the message of this slot out.
    pub(super) fn remove(&mut self, slot: u32) {
        self.0.retain(|Reverse(delayed)| delayed.slot != slot);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
