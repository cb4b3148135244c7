//! Two numbers of 48 bits in 12 bytes, and lists of them that grow by little.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The highest number of 48 bits.
pub(super) const MOST: u64 = (1 << 48) - 1;

/// Two numbers of 48 bits, ordered by the first, then the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair([u32; 3]);

impl Pair {
    /// Larger numbers are cut to the highest.
    pub(super) fn new(first: u64, second: u64) -> Pair {
        let (first, second) = (first.min(MOST), second.min(MOST));
        Pair([(first >> 16) as u32, ((first & 0xffff) << 16 | second >> 32) as u32, second as u32])
    }

    pub(super) fn first(self) -> u64 {
        let Pair([high, middle, _]) = self;
        u64::from(high) << 16 | u64::from(middle >> 16)
    }

    pub(super) fn second(self) -> u64 {
        let Pair([_, middle, low]) = self;
        u64::from(middle & 0xffff) << 32 | u64::from(low)
    }
}

/// How much more room a list of this length takes when it is full.
fn growth(length: usize) -> usize {
    length / 16 + 32
}

/// Whether a list has so much room left that it gives some back.
fn is_roomy(length: usize, capacity: usize) -> bool {
    capacity > length + length / 8 + 1024
}

/// Adds at the end.
pub(super) fn push_back(list: &mut VecDeque<Pair>, pair: Pair) {
    if list.len() == list.capacity() {
        list.reserve_exact(growth(list.len()));
    }
    list.push_back(pair);
}

/// Gives room back that a list does not need.
pub(super) fn trim(list: &mut VecDeque<Pair>) {
    if is_roomy(list.len(), list.capacity()) {
        list.shrink_to(list.len() + growth(list.len()));
    }
}

/// The lowest first.
#[derive(Debug, Default)]
pub(super) struct Heap(BinaryHeap<Reverse<Pair>>);

impl Heap {
    pub(super) fn push(&mut self, pair: Pair) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(growth(self.0.len()));
        }
        self.0.push(Reverse(pair));
    }

    pub(super) fn peek(&self) -> Option<Pair> {
        self.0.peek().map(|&Reverse(pair)| pair)
    }

    pub(super) fn pop(&mut self) -> Option<Pair> {
        let Reverse(pair) = self.0.pop()?;
        self.trim();
        Some(pair)
    }

    fn trim(&mut self) {
        if is_roomy(self.0.len(), self.0.capacity()) {
            self.0.shrink_to(self.0.len() + growth(self.0.len()));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Pair> {
        self.0.iter().map(|&Reverse(pair)| pair)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(Pair) -> bool) {
        self.0.retain(|&Reverse(pair)| keep(pair));
        self.trim();
    }

    pub(super) fn clear(&mut self) {
        self.0 = BinaryHeap::new();
    }

    /// In one pass.
    pub(super) fn from_pairs(pairs: Vec<Pair>) -> Heap {
        Heap(pairs.into_iter().map(Reverse).collect::<Vec<_>>().into())
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Pair>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_both_and_their_order() {
        let numbers = [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, MOST - 1, MOST];
        let all: Vec<(u64, u64)> =
            numbers.iter().flat_map(|&first| numbers.iter().map(move |&second| (first, second))).collect();
        for &(first, second) in &all {
            let pair = Pair::new(first, second);
            assert_eq!((pair.first(), pair.second()), (first, second));
            for &other in &all {
                assert_eq!(pair.cmp(&Pair::new(other.0, other.1)), (first, second).cmp(&other));
            }
        }
        assert_eq!((size_of::<Pair>(), Pair::new(u64::MAX, u64::MAX).second()), (12, MOST));
    }

    #[test]
    fn lists_keep_little_room() {
        let (mut heap, mut list) = (Heap::default(), VecDeque::new());
        for number in 0..100_000u64 {
            heap.push(Pair::new(number * 7919 % 100_000, number));
            push_back(&mut list, Pair::new(number, 0));
            assert!(list.capacity() <= list.len() + list.len() / 16 + 64);
        }
        for number in 0..100_000 {
            assert_eq!(heap.pop().unwrap().first(), number);
            assert!(heap.0.capacity() <= heap.len() + heap.len() / 8 + 1024);
            list.pop_front();
            trim(&mut list);
        }
        assert!(heap.pop().is_none());
    }
}
