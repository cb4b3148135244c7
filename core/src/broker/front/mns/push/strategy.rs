//! When what was not pushed is tried again.

use std::time::Duration;

use rand::{Rng, RngCore};

/// A strategy by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Strategy {
    /// Three more tries, 10 to 20 seconds apart.
    Backoff,
    /// 176 more tries within a day: after 1, 2, 4 seconds and so on, up to 512.
    ExponentialDecay,
}

/// The longest wait of the second one.
const LONGEST: u64 = 512;

impl Strategy {
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Strategy::Backoff => "BACKOFF_RETRY",
            Strategy::ExponentialDecay => "EXPONENTIAL_DECAY_RETRY",
        }
    }

    pub(in super::super) fn find(name: &str) -> Option<Strategy> {
        [Strategy::Backoff, Strategy::ExponentialDecay].into_iter().find(|strategy| strategy.name() == name)
    }

    /// The wait after so many tries; none when there are to be no more.
    pub(super) fn wait(self, tries: u32, random: &mut dyn RngCore) -> Option<Duration> {
        match self {
            Strategy::Backoff if tries <= 3 => {
                Some(Duration::from_millis(random.random_range(10_000..=20_000)))
            }
            Strategy::ExponentialDecay if tries <= 176 => {
                let doubled = tries.saturating_sub(1).min(9);
                Some(Duration::from_secs((1 << doubled).min(LONGEST)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_end() {
        let mut random = rand::rng();
        for tries in 1..=3 {
            let wait = Strategy::Backoff.wait(tries, &mut random).unwrap();
            assert!((10..=20).contains(&wait.as_secs()), "{wait:?}");
        }
        assert_eq!(Strategy::Backoff.wait(4, &mut random), None);
        let waits: Vec<u64> = (1..)
            .map_while(|tries| Strategy::ExponentialDecay.wait(tries, &mut random))
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]);
        assert_eq!((waits.len(), *waits.last().unwrap()), (176, 512));
        // A day.
        assert_eq!(waits.iter().sum::<u64>() / 3600, 23);
        assert_eq!(Strategy::find("BACKOFF_RETRY"), Some(Strategy::Backoff));
        assert_eq!(Strategy::find("backoff_retry"), None);
    }
}
