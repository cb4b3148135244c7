//! At most `rate` in each span of `per`, the spans laid end to end from the opening on. Two that touch can have
//! twice the rate between the middle of one and the middle of the other.

/// See the module. Times are nanoseconds since the opening and never go back.
#[derive(Debug)]
pub(super) struct FixedWindow {
    rate: u64,
    per: u64,
    number: u64,
    used: u64,
}

impl FixedWindow {
    pub(super) fn new(rate: u64, per: u64) -> FixedWindow {
        FixedWindow { rate, per: per.max(1), number: 0, used: 0 }
    }

    /// Takes a place, or says from when on there is one.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        let number = now / self.per;
        if number != self.number {
            self.number = number;
            self.used = 0;
        }
        if self.used >= self.rate {
            return Err(self.begin_of(number + 1));
        }
        self.used += 1;
        Ok(())
    }

    fn begin_of(&self, number: u64) -> u64 {
        number.saturating_mul(self.per)
    }

    /// When the one can take that has `ahead` others before it, each of which takes as soon as it can.
    pub(super) fn ready(&self, now: u64, ahead: u64) -> u64 {
        let room = self.rate - self.used(now).min(self.rate);
        match ahead.checked_sub(room) {
            None => now,
            Some(more) => self.begin_of(now / self.per + 1 + more / self.rate),
        }
    }

    /// Grants within the span that now is in.
    pub(super) fn used(&self, now: u64) -> u64 {
        if now / self.per == self.number { self.used } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_has_its_own_places() {
        let mut window = FixedWindow::new(2, 100);
        assert_eq!((window.take(90), window.take(99), window.take(99)), (Ok(()), Ok(()), Err(100)));
        assert_eq!((window.take(100), window.take(199), window.take(199)), (Ok(()), Ok(()), Err(200)));
        assert_eq!(window.take(555), Ok(()));
        assert_eq!((window.used(599), window.used(600)), (1, 0));
    }

    #[test]
    fn those_in_line_know_their_time() {
        let mut window = FixedWindow::new(2, 100);
        window.take(150).unwrap();
        let ready: Vec<u64> = (0..6).map(|ahead| window.ready(160, ahead)).collect();
        assert_eq!(ready, [160, 200, 200, 300, 300, 400]);
    }
}
