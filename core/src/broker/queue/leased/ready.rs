//! The messages of one priority that can be received: by sequence, those that nobody received before in 6 bytes each,
//! the others in 12, with when that was first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::broker::queue::pair::{Heap, Pair};

/// A sequence: 48 bits.
type Short = [u16; 3];

/// See the module. What left the queue meanwhile stays until it comes up, or until [`Ready::retain`].
#[derive(Debug, Default)]
pub(super) struct Ready {
    fresh: BinaryHeap<Reverse<Short>>,
    back: Heap,
}

fn short(sequence: u64) -> Short {
    [(sequence >> 32) as u16, (sequence >> 16) as u16, sequence as u16]
}

fn long([high, middle, low]: Short) -> u64 {
    u64::from(high) << 32 | u64::from(middle) << 16 | u64::from(low)
}

impl Ready {
    /// Adds a message; 0 for one that was never received.
    pub(super) fn push(&mut self, sequence: u64, first_ms: u64) {
        if first_ms > 0 {
            self.back.push(Pair::new(sequence, first_ms));
            return;
        }
        if self.fresh.len() == self.fresh.capacity() {
            self.fresh.reserve_exact(self.fresh.len() / 16 + 64);
        }
        self.fresh.push(Reverse(short(sequence)));
    }

    /// Takes the lowest sequence out, and when it was first received.
    pub(super) fn pop(&mut self) -> Option<(u64, u64)> {
        let fresh = self.fresh.peek().map(|&Reverse(sequence)| long(sequence));
        match (fresh, self.back.peek()) {
            (Some(fresh), back) if back.is_none_or(|back| fresh < back.first()) => {
                self.fresh.pop();
                self.trim();
                Some((fresh, 0))
            }
            _ => self.back.pop().map(|pair| (pair.first(), pair.second())),
        }
    }

    fn trim(&mut self) {
        let length = self.fresh.len();
        if self.fresh.capacity() > length + length / 8 + 1024 {
            self.fresh.shrink_to(length + length / 16 + 64);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.fresh.retain(|&Reverse(sequence)| keep(long(sequence)));
        self.trim();
        self.back.retain(|pair| keep(pair.first()));
    }

    /// Those that were received before, each with when that was first.
    pub(super) fn back(&self) -> impl Iterator<Item = (u64, u64)> {
        self.back.iter().map(|pair| (pair.first(), pair.second()))
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.back.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.fresh.capacity() * size_of::<Short>() + self.back.bytes()
    }
}
