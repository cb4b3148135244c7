//! Which node of a cluster gets the next message.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::section::Spread;

/// Draws from the lanes that can take a message.
#[derive(Debug)]
pub(super) struct Spreader {
    spread: Spread,
    last: usize,
    random: SmallRng,
}

impl Spreader {
    pub(super) fn new(spread: Spread, seed: u64) -> Spreader {
        Spreader { spread, last: usize::MAX, random: SmallRng::seed_from_u64(seed) }
    }

    /// A place in `open`, the numbers of the lanes that can take a message in rising order; `pending` tells
    /// how many messages of a lane wait for their ack.
    pub(super) fn pick(&mut self, open: &[usize], pending: impl Fn(usize) -> usize) -> Option<usize> {
        if open.len() < 2 {
            return (!open.is_empty()).then_some(0);
        }
        match self.spread {
            Spread::Random => Some(self.random.random_range(0..open.len())),
            Spread::RoundRobin => {
                let next = open.iter().position(|lane| self.last == usize::MAX || *lane > self.last);
                let place = next.unwrap_or(0);
                self.last = open.get(place).copied().unwrap_or(usize::MAX);
                Some(place)
            }
            Spread::LeastPending => {
                (0..open.len()).min_by_key(|place| open.get(*place).map(|lane| pending(*lane)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spread() {
        let mut round = Spreader::new(Spread::RoundRobin, 1);
        let open = [0, 2, 5];
        let picks: Vec<_> = (0..5).map(|_| open[round.pick(&open, |_| 0).unwrap()]).collect();
        assert_eq!(picks, [0, 2, 5, 0, 2]);
        // Lane 5 went away while 2 was the last.
        assert_eq!(round.pick(&[0, 2], |_| 0), Some(0));

        let mut least = Spreader::new(Spread::LeastPending, 1);
        assert_eq!(least.pick(&[0, 1, 2], |lane| [5, 2, 9][lane]), Some(1));

        let mut random = Spreader::new(Spread::Random, 1);
        let mut counts = [0u32; 3];
        for _ in 0..3000 {
            counts[random.pick(&[0, 1, 2], |_| 0).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 850), "{counts:?}");
        assert_eq!(random.pick(&[], |_| 0), None);
    }
}
