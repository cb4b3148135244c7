//! The deliveries of one consumer that wait for their acks.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::Terms;
use crate::broker::delay::{NEVER, Tick};

/// The deliveries of one consumer that wait for their acks.
#[derive(Debug, Default)]
pub(super) struct Held {
    held: HashMap<u64, One, BuildHasherDefault<SequenceHasher>>,
    /// In order of push; those whose ack came are skipped.
    order: VecDeque<Pushed>,
    bytes: usize,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct One {
    number: u32,
    pushes: u32,
    length: u32,
}

#[derive(Debug, Clone, Copy)]
struct Pushed {
    sequence: u64,
    number: u32,
    at: Tick,
}

impl Held {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.held.contains_key(&sequence)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.held.keys().copied()
    }

    /// Whether a body of this length may be pushed too. One always may.
    pub(super) fn has_room(&self, length: u32, terms: &Terms) -> bool {
        self.held.is_empty()
            || (self.held.len() < terms.unacked
                && self.bytes.saturating_add(length as usize) <= terms.unacked_bytes)
    }

    pub(super) fn add(&mut self, sequence: u64, pushes: u32, length: u32, at: Tick) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.held.insert(sequence, One { number, pushes, length });
        self.order.push_back(Pushed { sequence, number, at });
        self.bytes += length as usize;
    }

    /// Takes a delivery out; says how often it was pushed.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<u32> {
        let one = self.held.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(one.length as usize);
        if self.order.front().is_some_and(|front| front.number == one.number) {
            // Most acks come in order.
            self.order.pop_front();
        }
        // Each delivery has one place: no more places than deliveries, none to skip.
        while self.order.len() > self.held.len()
            && let Some(front) = self.order.front()
        {
            if self.held.get(&front.sequence).is_some_and(|held| held.number == front.number) {
                break;
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.held.len() + 64 {
            // One delivery at the front that is never acknowledged must not keep the rest of the order.
            let held = &self.held;
            self.order
                .retain(|pushed| held.get(&pushed.sequence).is_some_and(|one| one.number == pushed.number));
        }
        Some(one.pushes)
    }

    /// When the oldest was pushed.
    pub(super) fn oldest(&self) -> Tick {
        self.order.front().map_or(NEVER, |pushed| pushed.at)
    }

    /// Takes the oldest out if it was pushed at this time or before: its sequence and pushes.
    pub(super) fn pop_until(&mut self, at: Tick) -> Option<(u64, u32)> {
        let sequence = self.order.front().filter(|front| front.at <= at)?.sequence;
        self.remove(sequence).map(|pushes| (sequence, pushes))
    }

    /// Takes all out, in no order.
    pub(super) fn drain(&mut self) -> Vec<(u64, u32)> {
        self.order = VecDeque::new();
        self.bytes = 0;
        std::mem::take(&mut self.held).into_iter().map(|(sequence, one)| (sequence, one.pushes)).collect()
    }
}

/// Spreads sequences, which are small and ours, in one multiplication.
#[derive(Debug, Default)]
pub(super) struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, sequence: u64) {
        let word = (self.0 ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = word ^ (word >> 32);
    }
}
