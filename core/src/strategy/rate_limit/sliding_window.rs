//! Never more than `rate` in any span of `per`, wherever it begins.

/// A ring of the last `rate` grants: each place holds from when on it may be used again. Times are nanoseconds
/// since any fixed moment and never go back.
#[derive(Debug)]
pub(super) struct SlidingWindow {
    free_at: Box<[u64]>,
    next: usize,
    per: u64,
}

impl SlidingWindow {
    pub(super) fn new(rate: usize, per: u64) -> SlidingWindow {
        // Zeros cost no memory before they are used.
        SlidingWindow { free_at: vec![0; rate.max(1)].into_boxed_slice(), next: 0, per }
    }

    /// Takes a place, or says from when on there is one.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        match self.free_at.get_mut(self.next) {
            Some(free_at) if *free_at > now => Err(*free_at),
            Some(free_at) => {
                *free_at = now.saturating_add(self.per);
                self.step();
                Ok(())
            }
            None => Err(now),
        }
    }

    /// Notes a grant that somebody else decided.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) fn note(&mut self, now: u64) {
        if let Some(free_at) = self.free_at.get_mut(self.next) {
            *free_at = now.saturating_add(self.per);
        }
        self.step();
    }

    #[inline]
    fn step(&mut self) {
        self.next += 1;
        if self.next == self.free_at.len() {
            self.next = 0;
        }
    }

    /// When the one can take that has `ahead` others before it, each of which takes as soon as it can.
    pub(super) fn ready(&self, now: u64, ahead: u64) -> u64 {
        let places = self.free_at.len() as u64;
        let place = (self.next as u64 + ahead % places) % places;
        let free_at = usize::try_from(place).ok().and_then(|place| self.free_at.get(place));
        free_at.copied().unwrap_or(now).max(now).saturating_add((ahead / places).saturating_mul(self.per))
    }

    /// Grants within the span that ends now.
    pub(super) fn used(&self, now: u64) -> u64 {
        // From `next` on the ring is in the order of time.
        let (newer, older) = self.free_at.split_at(self.next);
        let held = |part: &[u64]| part.len() - part.partition_point(|free_at| *free_at <= now);
        (held(newer) + held(older)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_place_is_that_of_the_oldest_grant() {
        let mut window = SlidingWindow::new(2, 100);
        assert_eq!(window.take(10), Ok(()));
        assert_eq!(window.take(60), Ok(()));
        assert_eq!(window.take(109), Err(110));
        assert_eq!(window.used(109), 2);
        assert_eq!(window.take(110), Ok(()));
        assert_eq!(window.take(159), Err(160));
        assert_eq!((window.used(159), window.used(160), window.used(210)), (2, 1, 0));
    }

    #[test]
    fn those_in_line_know_their_time() {
        let mut window = SlidingWindow::new(2, 100);
        for now in [10, 60] {
            window.take(now).unwrap();
        }
        let ready: Vec<u64> = (0..5).map(|ahead| window.ready(70, ahead)).collect();
        assert_eq!(ready, [110, 160, 210, 260, 310]);
    }

    #[test]
    fn a_noted_grant_pushes_the_oldest_out() {
        let mut window = SlidingWindow::new(2, 100);
        for now in [10, 20, 30] {
            window.note(now);
        }
        assert_eq!(window.take(119), Err(120));
        assert_eq!(window.take(120), Ok(()));
    }
}
