//! How long to wait between attempts.

use std::time::Duration;

use serde::Deserialize;

use super::random::Random;
use crate::config::Span;
use crate::error::{Error, Kind, Result};

/// The section `backoff` of a config, by its `type`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Backoff {
    /// At once after each other.
    #[default]
    None,
    /// The same wait each time.
    Fixed {
        /// The wait.
        wait: Span,
    },
    /// A wait drawn between two bounds, both possible.
    Random {
        /// The least.
        min: Span,
        /// The most.
        max: Span,
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
    /// A wait drawn between `base` and three times the wait before, up to `max`.
    Decorrelated {
        /// The least.
        #[serde(default = "base")]
        base: Span,
        /// The longest.
        #[serde(default = "most")]
        max: Span,
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
    Span(Duration::from_millis(100))
}

fn most() -> Span {
    Span(Duration::from_secs(10))
}

impl Backoff {
    /// Refuses bounds that are the wrong way round.
    pub(super) fn check(&self) -> Result<()> {
        let (least, names, most) = match self {
            Backoff::None | Backoff::Fixed { .. } => return Ok(()),
            Backoff::Random { min, max } => (min, ["min", "max"], max),
            Backoff::Exponential { base, max, .. } | Backoff::Decorrelated { base, max } => {
                (base, ["base", "max"], max)
            }
        };
        if least.0 > most.0 {
            let [least, most] = names;
            let text = format!("`backoff.{least}` is longer than `backoff.{most}`");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        Ok(())
    }

    /// The waits of one message.
    pub(super) fn waits<'a>(&'a self, random: &'a Random) -> Waits<'a> {
        Waits { backoff: self, random, last: None }
    }
}

/// See [`Backoff::waits`].
pub(super) struct Waits<'a> {
    backoff: &'a Backoff,
    random: &'a Random,
    last: Option<Duration>,
}

impl Waits<'_> {
    /// The wait before the next attempt.
    pub(super) fn draw(&mut self) -> Duration {
        match self.backoff {
            Backoff::None => Duration::ZERO,
            Backoff::Fixed { wait } => wait.0,
            Backoff::Random { min, max } => self.random.between(min.0, max.0),
            Backoff::Exponential { base, max, jitter } => {
                let whole = self.last.map_or(base.0, |last| last.saturating_mul(2)).min(max.0);
                self.last = Some(whole);
                match jitter {
                    Jitter::None => whole,
                    Jitter::Equal => self.random.between(whole / 2, whole),
                    Jitter::Full => self.random.between(Duration::ZERO, whole),
                }
            }
            Backoff::Decorrelated { base, max } => {
                let most = self.last.unwrap_or(base.0).saturating_mul(3).clamp(base.0, max.0);
                let wait = self.random.between(base.0, most);
                self.last = Some(wait);
                wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Span {
        Span(Duration::from_millis(number))
    }

    #[test]
    fn exponential_waits_double_up_to_the_longest() {
        let backoff = Backoff::Exponential { base: ms(100), max: ms(450), jitter: Jitter::None };
        let random = Random::seeded(1);
        let mut waits = backoff.waits(&random);
        let drawn: Vec<u128> = (0..5).map(|_| waits.draw().as_millis()).collect();
        assert_eq!(drawn, [100, 200, 400, 450, 450]);
    }

    #[test]
    fn drawn_waits_stay_in_their_bounds() {
        let random = Random::seeded(2);
        let full = Backoff::Exponential { base: ms(100), max: ms(1000), jitter: Jitter::Full };
        let equal = Backoff::Exponential { base: ms(100), max: ms(1000), jitter: Jitter::Equal };
        let apart = Backoff::Decorrelated { base: ms(100), max: ms(1000) };
        let drawn = Backoff::Random { min: ms(1000), max: ms(1500) };
        let mut beyond_the_base = false;
        for _ in 0..1000 {
            let (mut full, mut equal) = (full.waits(&random), equal.waits(&random));
            for whole in [100, 200, 400, 800, 1000, 1000] {
                assert!(full.draw() <= ms(whole).0);
                let wait = equal.draw();
                assert!(wait >= ms(whole / 2).0 && wait <= ms(whole).0);
            }
            let mut apart = apart.waits(&random);
            let mut most = ms(300).0;
            for number in 0..8 {
                let wait = apart.draw();
                assert!(wait >= ms(100).0 && wait <= most);
                beyond_the_base |= number == 0 && wait > ms(250).0;
                most = (wait * 3).min(ms(1000).0);
            }
            let wait = drawn.waits(&random).draw();
            assert!((1000..=1500).contains(&wait.as_millis()));
        }
        assert!(beyond_the_base, "the first wait is drawn as well");
    }

    #[test]
    fn bounds_the_wrong_way_round_are_refused() {
        let error = Backoff::Random { min: ms(2), max: ms(1) }.check().unwrap_err();
        assert!(error.message().contains("backoff.min"), "{error}");
    }
}
