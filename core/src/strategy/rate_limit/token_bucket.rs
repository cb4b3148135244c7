//! A bucket that holds `burst` tokens and gets `rate` of them per `per`: never more than `burst` and the tokens
//! that came meanwhile, in any span. It begins full.

/// Fractions of a token are exact: one token is `per` parts, and each nanosecond brings `rate` parts.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: u128,
    per: u128,
    most: u128,
    parts: u128,
    filled_at: u64,
}

impl TokenBucket {
    pub(super) fn new(rate: u64, per: u64, burst: u64) -> TokenBucket {
        let per = u128::from(per.max(1));
        let most = u128::from(burst) * per;
        TokenBucket { rate: u128::from(rate.max(1)), per, most, parts: most, filled_at: 0 }
    }

    fn parts_at(&self, now: u64) -> u128 {
        let came = u128::from(now.saturating_sub(self.filled_at)) * self.rate;
        (self.parts + came).min(self.most)
    }

    /// Takes a token, or says from when on there is one.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        self.parts = self.parts_at(now);
        self.filled_at = self.filled_at.max(now);
        match self.parts.checked_sub(self.per) {
            Some(left) => {
                self.parts = left;
                Ok(())
            }
            None => Err(self.ready(now, 0)),
        }
    }

    /// When the one can take that has `ahead` others before it, each of which takes as soon as it can.
    pub(super) fn ready(&self, now: u64, ahead: u64) -> u64 {
        let wanted = (u128::from(ahead) + 1) * self.per;
        let missing = wanted.saturating_sub(self.parts_at(now));
        now.saturating_add(u64::try_from(missing.div_ceil(self.rate)).unwrap_or(u64::MAX))
    }

    /// Whole tokens that are there.
    pub(super) fn left(&self, now: u64) -> u64 {
        u64::try_from(self.parts_at(now) / self.per).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_one_by_one_up_to_the_burst() {
        // One token each 50.
        let mut bucket = TokenBucket::new(2, 100, 3);
        for _ in 0..3 {
            bucket.take(0).unwrap();
        }
        assert_eq!(bucket.take(0), Err(50));
        assert_eq!(bucket.take(49), Err(50));
        assert_eq!(bucket.take(50), Ok(()));
        assert_eq!(bucket.take(60), Err(100));
        assert_eq!((bucket.left(99), bucket.left(100), bucket.left(10_000)), (0, 1, 3));
    }

    #[test]
    fn no_part_of_a_token_is_lost() {
        let mut bucket = TokenBucket::new(3, 100, 2);
        // Asked at every moment, for long: the two it begins with, and all that came.
        let taken = (0..1_000_000).filter(|now| bucket.take(*now).is_ok()).count();
        assert_eq!(taken, 2 + 999_999 * 3 / 100);
    }

    #[test]
    fn those_in_line_know_their_time() {
        let mut bucket = TokenBucket::new(2, 100, 1);
        bucket.take(0).unwrap();
        let ready: Vec<u64> = (0..3).map(|ahead| bucket.ready(10, ahead)).collect();
        assert_eq!(ready, [50, 100, 150]);
    }
}
