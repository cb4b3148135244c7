//! Randomness that is given to strategies and providers: from the system, or seeded in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of numbers that many tasks draw from at once; clones share it.
#[derive(Debug, Clone)]
pub struct Random(Arc<AtomicU64>);

impl Random {
    /// Numbers that nobody can foresee well enough to align his retries with ours.
    pub fn from_system() -> Random {
        Random::seeded(rand::random())
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random(Arc::new(AtomicU64::new(seed)))
    }

    // SplitMix64: its whole state is a counter, so that drawing is one atomic addition.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.next()
    }

    /// A number that no other draw of any process has, as far as chance goes.
    pub fn nonce(&self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }

    /// A number from 0 to below 1.
    pub fn share(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A span from `least` to `most`, both possible, in whole microseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let width = most.saturating_sub(least).as_micros().min(u128::from(u64::MAX - 1)) as u64;
        let drawn = (u128::from(self.next()) * u128::from(width + 1)) >> 64;
        least + Duration::from_micros(drawn as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stay_inside_and_reach_both_ends() {
        let random = Random::seeded(7);
        let (least, most) = (Duration::from_micros(3), Duration::from_micros(6));
        let mut seen = [0_u32; 4];
        for _ in 0..4000 {
            let span = random.between(least, most);
            seen[(span.as_micros() - 3) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(random.between(most, least), most);
    }

    #[test]
    fn a_seed_names_the_whole_sequence() {
        let (one, other) = (Random::seeded(1), Random::seeded(1));
        assert!((0..100).all(|_| one.share() == other.share()));
    }
}
