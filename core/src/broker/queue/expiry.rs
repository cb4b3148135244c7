//! When messages expire. Those whose time comes from the topic's setting expire in the order of their
//! acceptance, so runs of them are kept, a few bytes for thousands; the others take 12 bytes each.

use std::collections::VecDeque;

use super::delays::Delays;
use crate::broker::delay::{NEVER, Tick};

/// Messages that expire together.
#[derive(Debug)]
struct Bucket {
    start: Tick,
    /// When the last of them expires, and so all.
    until: Tick,
    /// First sequence in the upper 48 bits, count less one in the lower 16.
    runs: VecDeque<u64>,
}

/// The expiry times of a topic.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    buckets: VecDeque<Bucket>,
    runs: usize,
    single: Delays,
}

impl Expiries {
    /// Notes that a message expires, at its time or up to `grain` later.
    pub(super) fn add(&mut self, until: Tick, sequence: u64, grain: Tick) {
        let Some(back) =
            self.buckets.back_mut().filter(|back| until < back.until || until - back.start <= grain)
        else {
            let runs = VecDeque::from([sequence << 16]);
            self.buckets.push_back(Bucket { start: until, until, runs });
            self.runs += 1;
            return;
        };
        if until < back.until {
            self.single.push(until, sequence);
            return;
        }
        back.until = until;
        if let Some(run) = back.runs.back_mut() {
            let next = (*run >> 16) + (*run & 0xffff) + 1;
            if next == sequence && *run & 0xffff < 0xffff {
                *run += 1;
                return;
            }
        }
        back.runs.push_back(sequence << 16);
        self.runs += 1;
    }

    /// Notes the expiry of one message, whatever the others'.
    pub(super) fn add_single(&mut self, until: Tick, sequence: u64) {
        self.single.push(until, sequence);
    }

    /// When something expires next.
    pub(super) fn next(&self) -> Tick {
        self.buckets.front().map_or(NEVER, |front| front.until).min(self.single.next())
    }

    /// Takes a run that expired, or as much of it: its first sequence and its count.
    pub(super) fn pop(&mut self, now: Tick, most: u64) -> Option<(u64, u64)> {
        if let Some((_, sequence)) = self.single.pop_due(now) {
            return Some((sequence, 1));
        }
        let front = self.buckets.front_mut().filter(|front| front.until <= now)?;
        if let Some(run) = front.runs.front_mut() {
            let (first, count) = (*run >> 16, (*run & 0xffff) + 1);
            if count > most {
                *run = (first + most) << 16 | (count - most - 1);
                return Some((first, most));
            }
        }
        let run = front.runs.pop_front();
        if front.runs.is_empty() {
            self.buckets.pop_front();
        }
        self.runs = self.runs.saturating_sub(1);
        run.map(|run| (run >> 16, (run & 0xffff) + 1))
    }

    /// Drops runs with nothing left in them, when there are far more than messages.
    pub(super) fn forget(&mut self, messages: usize, mut wanted: impl FnMut(u64, u64) -> bool) {
        if self.runs + self.single.len() <= 2 * messages + 1024 {
            return;
        }
        self.single.forget(|sequence| wanted(sequence, 1));
        for bucket in &mut self.buckets {
            bucket.runs.retain(|run| wanted(run >> 16, (run & 0xffff) + 1));
            bucket.runs.shrink_to_fit();
        }
        self.buckets.retain(|bucket| !bucket.runs.is_empty());
        self.runs = self.buckets.iter().map(|bucket| bucket.runs.len()).sum();
    }

    /// Reads all times anew.
    pub(super) fn convert(&mut self, tick_of: impl Fn(u64) -> Tick) {
        for bucket in &mut self.buckets {
            bucket.start = tick_of(bucket.start);
            bucket.until = tick_of(bucket.until);
        }
        let single = std::mem::take(&mut self.single);
        self.single = Delays::from_pairs(single.iter().map(|(until, sequence)| (tick_of(until), sequence)));
    }

    pub(super) fn clear(&mut self) {
        *self = Expiries::default();
    }

    pub(super) fn bytes(&self) -> usize {
        let runs: usize = self.buckets.iter().map(|bucket| bucket.runs.capacity() * 8).sum();
        runs + self.buckets.capacity() * size_of::<Bucket>() + self.single.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_small_and_never_early() {
        let mut expiries = Expiries::default();
        for sequence in 0..100_000u64 {
            expiries.add(1_000_000 + sequence, sequence, 15_000);
        }
        expiries.add(500, 200_000, 15_000);
        expiries.add_single(1_050_000, 300_000);
        assert!(expiries.runs < 20 && expiries.bytes() < 10_000);
        let mut seen = 0;
        for now in (0..1_200_000).step_by(1000) {
            while let Some((first, count)) = expiries.pop(now, 1000) {
                seen += count;
                let last = first + count - 1;
                match last {
                    200_000 => assert!(now >= 500),
                    300_000 => assert!(now >= 1_050_000),
                    _ => assert!(now >= 1_000_000 + last && now <= 1_000_000 + first + 16_000),
                }
            }
        }
        assert_eq!((seen, expiries.next()), (100_002, NEVER));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut expiries = Expiries::default();
        (0..100_000).for_each(|sequence| expiries.add(1_000_000, sequence * 2, 0));
        expiries.forget(10, |first, _| first < 20);
        assert_eq!((expiries.runs, expiries.pop(1_000_000, 10)), (10, Some((0, 1))));
    }
}
