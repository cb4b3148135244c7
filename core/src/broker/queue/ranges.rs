//! Sets of sequences, as runs.

use std::collections::BTreeMap;

/// A set of sequences: first and end of each run.
#[derive(Debug, Default)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `first..end`.
    pub(super) fn add(&mut self, first: u64, end: u64) {
        if end <= first {
            return;
        }
        let (mut first, mut end) = (first, end);
        // Those that touch it go into it.
        while let Some((&there, &its_end)) = self.0.range(..=end).next_back() {
            if its_end < first {
                break;
            }
            first = first.min(there);
            end = end.max(its_end);
            self.0.remove(&there);
        }
        self.0.insert(first, end);
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, &end)| sequence < end)
    }

    /// Past the highest.
    pub(super) fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, &end)| end)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&first, &end)| (first, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..30 {
                let first = random.random_range(0..100);
                let end = first + random.random_range(0..12);
                set.add(first, end);
                model.extend(first..end);
            }
            assert!((0..120).all(|sequence| set.has(sequence) == model.contains(&sequence)));
            assert_eq!(set.end(), model.last().map_or(0, |last| last + 1));
            let runs: Vec<_> = set.iter().collect();
            assert!(runs.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
