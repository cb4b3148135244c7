//! How fast a line gives its messages.

use crate::broker::delay::Tick;

/// A message per interval; so many at once after a pause.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Rate {
    pub(in crate::broker) interval: Tick,
    pub(in crate::broker) burst: u32,
}

/// What a line gave lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    /// When all that was given has had its interval.
    paid: Tick,
}

impl Meter {
    fn credit(self, rate: Rate, now: Tick) -> Tick {
        let full = rate.interval.max(1).saturating_mul(Tick::from(rate.burst.max(1)));
        now.saturating_add(full).saturating_sub(self.paid.max(now))
    }

    /// How many may go now.
    pub(super) fn allowed(self, rate: Rate, now: Tick) -> usize {
        usize::try_from(self.credit(rate, now) / rate.interval.max(1)).unwrap_or(usize::MAX)
    }

    /// So many went.
    pub(super) fn spend(&mut self, rate: Rate, now: Tick, count: usize) {
        self.paid = self.paid.max(now).saturating_add(rate.interval.max(1).saturating_mul(count as Tick));
    }

    /// When the next may go.
    pub(super) fn next(self, rate: Rate, now: Tick) -> Tick {
        let interval = rate.interval.max(1);
        now.saturating_add(interval.saturating_sub(self.credit(rate, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_interval() {
        let rate = Rate { interval: 10, burst: 3 };
        let mut meter = Meter::default();
        assert_eq!((meter.allowed(rate, 1000), meter.next(rate, 1000)), (3, 1000));
        meter.spend(rate, 1000, 3);
        assert_eq!((meter.allowed(rate, 1000), meter.next(rate, 1000)), (0, 1010));
        assert_eq!((meter.allowed(rate, 1009), meter.allowed(rate, 1010)), (0, 1));
        meter.spend(rate, 1010, 1);
        assert_eq!((meter.allowed(rate, 1015), meter.next(rate, 1015)), (0, 1020));
        assert_eq!((meter.allowed(rate, 1029), meter.allowed(rate, 5000)), (1, 3));
        // Whoever looks often gets no more.
        let mut meter = Meter::default();
        let mut given = 0;
        for now in 0..1000 {
            let count = meter.allowed(rate, now);
            meter.spend(rate, now, count);
            given += count;
        }
        assert_eq!(given, 3 + 99);
    }
}
