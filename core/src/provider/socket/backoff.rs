//! How long to wait before the next try to connect.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Exponential with full jitter; the first try after a loss comes at once.
#[derive(Debug)]
pub(in crate::provider) struct Backoff {
    base: Duration,
    max: Duration,
    tries: u32,
    random: SmallRng,
}

impl Backoff {
    pub(in crate::provider) fn new(base: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { base, max, tries: 0, random: SmallRng::seed_from_u64(seed) }
    }

    /// The wait before the next try.
    pub(in crate::provider) fn next(&mut self) -> Duration {
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        if tries == 0 {
            return Duration::ZERO;
        }
        let factor = 1u32.checked_shl(tries - 1).unwrap_or(u32::MAX);
        let ceiling = self.base.checked_mul(factor).map_or(self.max, |wait| wait.min(self.max));
        ceiling.mul_f64(self.random.random::<f64>())
    }

    /// After a connection that held.
    pub(in crate::provider) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_is_at_once_and_later_ones_stay_under_a_growing_ceiling() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut highest = Duration::ZERO;
        for seed in 0..200 {
            let mut backoff = Backoff::new(base, max, seed);
            assert_eq!(backoff.next(), Duration::ZERO);
            for step in 0..80u32 {
                let wait = backoff.next();
                let ceiling = base.checked_mul(1 << step.min(20)).unwrap().min(max);
                assert!(wait <= ceiling, "{wait:?} after {step} tries");
                highest = highest.max(wait);
            }
            backoff.reset();
            assert_eq!(backoff.next(), Duration::ZERO);
        }
        assert!(highest > Duration::from_secs(4), "the jitter reaches up to the ceiling: {highest:?}");
    }
}
