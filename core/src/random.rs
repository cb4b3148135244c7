//! Randomness that is given to strategies and providers: from the system, or seeded in tests.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rand::TryRngCore;
use rand::rngs::OsRng;

/// A number straight from the system. A generator within the process would not do for names that no other process may
/// have: after a fork the child goes on where its parent was.
pub fn fresh() -> u64 {
    OsRng.try_next_u64().unwrap_or_else(|_| {
        // A system that has none: at least no other process has the same at the same moment.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        RandomState::new().hash_one((std::process::id(), now.as_nanos()))
    })
}

/// A source of numbers that many tasks draw from at once; clones share it.
#[derive(Debug, Clone)]
pub struct Random {
    state: Arc<AtomicU64>,
    seeded: bool,
}

impl Random {
    /// Numbers that nobody can foresee well enough to align his retries with ours.
    pub fn from_system() -> Random {
        Random { state: Arc::new(AtomicU64::new(fresh())), seeded: false }
    }

    /// The same numbers for the same seed, the nonces too.
    pub fn seeded(seed: u64) -> Random {
        Random { state: Arc::new(AtomicU64::new(seed)), seeded: true }
    }

    // SplitMix64: its whole state is a counter, so that drawing is one atomic addition.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.next()
    }

    /// A number that no other draw of any process has, as far as chance goes: each is drawn from the system, however
    /// many sources there are. From a seed it is a number of its sequence.
    pub fn nonce(&self) -> u128 {
        let half = || if self.seeded { self.next() } else { fresh() };
        (u128::from(half()) << 64) | u128::from(half())
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

    #[test]
    fn nonces_of_the_system_are_not_of_the_sequence() {
        let random = Random::from_system();
        let same =
            Random { state: Arc::new(AtomicU64::new(random.state.load(Ordering::Relaxed))), seeded: false };
        // As in a process and the one that it forked.
        assert_eq!(random.number(), same.number());
        assert_ne!(random.nonce(), same.nonce());
        assert_eq!(Random::seeded(7).nonce(), Random::seeded(7).nonce());
    }
}
