//! How much of the traffic may be retries.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// The section `budget` of a config.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Retries for each send, in the long run: 0.2 allows one retry for five sends.
    share: f64,
    /// Retries that are allowed beyond the share, and saved up at most.
    #[serde(default = "reserve")]
    reserve: u32,
}

fn reserve() -> u32 {
    10
}

/// Thousandths of a retry: sends pay in, retries take out.
#[derive(Debug)]
pub(super) struct Budget {
    saved: AtomicI64,
    per_send: i64,
    most: i64,
}

const RETRY: i64 = 1000;

impl Budget {
    pub(super) fn new(config: Config) -> Result<Budget> {
        if !(config.share > 0.0 && config.share <= 100.0) {
            let text =
                "`budget.share` is more than 0 and at most 100, such as 0.2 for one retry in five sends";
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        let per_send = ((config.share * RETRY as f64).round() as i64).max(1);
        // At least one retry can be saved up, or a small share would never allow any.
        let most = i64::from(config.reserve).saturating_mul(RETRY).max(RETRY);
        Ok(Budget { saved: AtomicI64::new(i64::from(config.reserve) * RETRY), per_send, most })
    }

    /// A first attempt is made.
    pub(super) fn send(&self) {
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            (saved < self.most).then(|| (saved + self.per_send).min(self.most))
        });
    }

    /// Whether a retry is allowed; if so it is counted.
    pub(super) fn retry(&self) -> bool {
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved >= RETRY).then_some(saved - RETRY)
            })
            .is_ok()
    }

    /// Retries that could be made at once.
    pub(super) fn left(&self) -> i64 {
        self.saved.load(Ordering::Relaxed) / RETRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_sends() {
        let budget = Budget::new(Config { share: 0.2, reserve: 3 }).unwrap();
        let mut allowed = 0;
        for _ in 0..1000 {
            budget.send();
            while budget.retry() {
                allowed += 1;
            }
        }
        // The first send finds the reserve full and adds nothing.
        assert_eq!(allowed, 999 / 5 + 3);
    }

    #[test]
    fn what_is_saved_has_a_bound() {
        let budget = Budget::new(Config { share: 1.0, reserve: 5 }).unwrap();
        (0..1000).for_each(|_| budget.send());
        assert_eq!(budget.left(), 5);
        assert_eq!((0..10).filter(|_| budget.retry()).count(), 5);
    }

    #[test]
    fn a_share_of_nothing_is_refused() {
        for share in [0.0, -1.0, f64::NAN, 101.0] {
            Budget::new(Config { share, reserve: 1 }).unwrap_err();
        }
    }
}
