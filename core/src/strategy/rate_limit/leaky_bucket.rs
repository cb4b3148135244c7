//! One at a time, evenly: between two grants lies at least `per` divided by `rate`. So no span of `per` has more
//! than `rate`.

/// See the module. Times are nanoseconds since any fixed moment and never go back.
#[derive(Debug)]
pub(super) struct LeakyBucket {
    every: u64,
    next_at: u64,
}

impl LeakyBucket {
    pub(super) fn new(rate: u64, per: u64) -> LeakyBucket {
        // Rounded up: the rate is a bound.
        LeakyBucket { every: per.div_ceil(rate.max(1)).max(1), next_at: 0 }
    }

    /// Takes the turn, or says when it is.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        if now < self.next_at {
            return Err(self.next_at);
        }
        self.next_at = now.saturating_add(self.every);
        Ok(())
    }

    /// When the one can take that has `ahead` others before it, each of which takes as soon as it can.
    pub(super) fn ready(&self, now: u64, ahead: u64) -> u64 {
        self.next_at.max(now).saturating_add(ahead.saturating_mul(self.every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_keep_their_distance() {
        let mut bucket = LeakyBucket::new(3, 100);
        assert_eq!((bucket.take(5), bucket.take(38), bucket.take(39)), (Ok(()), Err(39), Ok(())));
        // What was not used is gone: no burst follows a pause.
        assert_eq!((bucket.take(1000), bucket.take(1000)), (Ok(()), Err(1034)));
        assert_eq!(bucket.ready(1001, 2), 1102);
    }
}
