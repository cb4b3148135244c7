//! How long a row waits after a failed attempt.

use std::time::Duration;

use serde::Deserialize;

use crate::config::Span;
use crate::error::{Error, Kind, Result};
use crate::random::Random;

/// The section `backoff`, by its `type`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Backoff {
    /// The same wait each time.
    Fixed {
        /// The wait.
        wait: Span,
    },
    /// Twice the wait before, from `base` up to `max`.
    Exponential {
        /// The first wait.
        #[serde(default = "base")]
        base: Span,
        /// The longest.
        #[serde(default = "most")]
        max: Span,
        /// How much of it is drawn.
        #[serde(default)]
        jitter: Jitter,
    },
}

/// How much of an exponential wait is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Jitter {
    /// None of it.
    None,
    /// The second half.
    Equal,
    /// All of it.
    #[default]
    Full,
}

fn base() -> Span {
    Span(Duration::from_secs(1))
}

fn most() -> Span {
    Span(Duration::from_secs(600))
}

impl Backoff {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Backoff::Exponential { base, max, .. } if base.0 > max.0 => {
                Err(Error::new(Kind::InvalidConfig, "`backoff.base` is longer than `backoff.max`"))
            }
            _ => Ok(()),
        }
    }

    /// The wait after so many failures.
    pub(super) fn wait(&self, failures: u32, random: &Random) -> Duration {
        match self {
            Backoff::Fixed { wait } => wait.0,
            Backoff::Exponential { base, max, jitter } => {
                let times = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
                let whole = base.0.saturating_mul(times).min(max.0);
                match jitter {
                    Jitter::None => whole,
                    Jitter::Equal => random.between(whole / 2, whole),
                    Jitter::Full => random.between(Duration::ZERO, whole),
                }
            }
        }
    }

    /// The longest wait there is.
    pub(super) fn longest(&self) -> Duration {
        match self {
            Backoff::Fixed { wait } => wait.0,
            Backoff::Exponential { max, .. } => max.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let random = Random::seeded(1);
        let span = |seconds| Span(Duration::from_secs(seconds));
        let plain = Backoff::Exponential { base: span(1), max: span(5), jitter: Jitter::None };
        let waits: Vec<u64> = (1..6).map(|failures| plain.wait(failures, &random).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(plain.wait(u32::MAX, &random), span(5).0);
        let drawn = Backoff::Exponential { base: span(4), max: span(4), jitter: Jitter::Equal };
        assert!((0..100).all(|_| (span(2).0..=span(4).0).contains(&drawn.wait(3, &random))));
        assert_eq!(Backoff::Fixed { wait: span(3) }.wait(9, &random), span(3).0);
    }
}
