//! Due times on the monotonic clock: nothing falls due early, whatever the time of day does.

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
