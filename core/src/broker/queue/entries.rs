//! Where every waiting message is: chunks of 1024 sequences. A chunk that holds few is written smaller, one
//! that holds none is freed.

use std::collections::{BTreeMap, VecDeque};

use super::chunk::{CHUNK, Chunk};
pub(super) use super::chunk::{Entry, Stage, flag};

const BITS: u32 = CHUNK.ilog2();
/// A chunk is looked at after so many changes, whether it can be written smaller.
const SWEEP: u32 = 32;

/// The messages of a topic, by sequence.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The chunks from number `base` on.
    window: VecDeque<Option<Box<Chunk>>>,
    base: u64,
    /// Chunks left behind by the window: a few old messages must not keep a place for each chunk since.
    old: BTreeMap<u64, Box<Chunk>>,
    present: usize,
    len: usize,
    changes: u32,
    /// The chunk of the window that is looked at next.
    hand: usize,
}

fn split(sequence: u64) -> (u64, u16) {
    (sequence >> BITS, (sequence & (CHUNK as u64 - 1)) as u16)
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn chunk(&self, number: u64) -> Option<&Chunk> {
        match number.checked_sub(self.base) {
            Some(at) => self.window.get(usize::try_from(at).ok()?)?.as_deref(),
            None => self.old.get(&number).map(|chunk| &**chunk),
        }
    }

    fn chunk_mut(&mut self, number: u64) -> Option<&mut Chunk> {
        match number.checked_sub(self.base) {
            Some(at) => self.window.get_mut(usize::try_from(at).ok()?)?.as_deref_mut(),
            None => self.old.get_mut(&number).map(|chunk| &mut **chunk),
        }
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Entry> {
        let (number, offset) = split(sequence);
        self.chunk(number)?.get(offset)
    }

    pub(super) fn get_mut(&mut self, sequence: u64) -> Option<&mut Entry> {
        let (number, offset) = split(sequence);
        self.chunk_mut(number)?.get_mut(offset)
    }

    /// The entry, if it is in line or with consumers.
    pub(super) fn live(&self, sequence: u64) -> Option<&Entry> {
        self.get(sequence).filter(|entry| entry.stage() == Stage::Live)
    }

    pub(super) fn live_mut(&mut self, sequence: u64) -> Option<&mut Entry> {
        self.get_mut(sequence).filter(|entry| entry.stage() == Stage::Live)
    }

    /// Adds a message whose sequence is not there.
    pub(super) fn insert(&mut self, sequence: u64, entry: Entry) {
        let (number, offset) = split(sequence);
        if self.chunk(number).is_none() {
            self.add_chunk(number);
        }
        if let Some(chunk) = self.chunk_mut(number) {
            chunk.put(offset, entry);
            self.len += 1;
        }
        self.changed();
    }

    fn add_chunk(&mut self, number: u64) {
        if let Some(last) = self.window.back_mut()
            && last.as_ref().is_some_and(|chunk| chunk.live() == 0)
        {
            *last = None;
            self.present -= 1;
            self.drop_empty();
        }
        self.present += 1;
        let chunk = Box::new(Chunk::new());
        if self.window.is_empty() {
            self.base = self.base.max(number);
        }
        let Some(at) = number.checked_sub(self.base) else {
            self.old.insert(number, chunk);
            return;
        };
        // A long way from the others: they are old at once.
        while at > (self.window.len() as u64).max(self.span()) && self.drop_front() {}
        if self.window.is_empty() {
            self.base = number;
        }
        let at = usize::try_from(number - self.base).unwrap_or(usize::MAX);
        while self.window.len() <= at {
            self.window.push_back(None);
        }
        if let Some(place) = self.window.get_mut(at) {
            *place = Some(chunk);
        }
        while self.window.len() as u64 > self.span() && self.drop_front() {}
    }

    /// How many places the window may have.
    fn span(&self) -> u64 {
        1024 + 8 * self.present as u64
    }

    /// Moves the first place of the window to the old ones.
    fn drop_front(&mut self) -> bool {
        let Some(front) = self.window.pop_front() else { return false };
        if let Some(chunk) = front {
            self.old.insert(self.base, chunk);
        }
        self.base += 1;
        true
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Entry> {
        let (number, offset) = split(sequence);
        let chunk = self.chunk_mut(number)?;
        let entry = chunk.take(offset)?;
        let empty = chunk.live() == 0;
        self.len -= 1;
        if empty {
            self.free_chunk(number);
        }
        self.changed();
        Some(entry)
    }

    fn free_chunk(&mut self, number: u64) {
        let Some(at) = number.checked_sub(self.base).and_then(|at| usize::try_from(at).ok()) else {
            self.present -= 1;
            self.old.remove(&number);
            return;
        };
        let last = at + 1 == self.window.len();
        let Some(place) = self.window.get_mut(at) else { return };
        if last {
            // It is being filled: a queue that is mostly empty must not take a new one for each message.
            if let Some(chunk) = place.as_deref_mut().filter(|chunk| matches!(chunk, Chunk::Full { .. })) {
                *chunk = Chunk::new();
            }
            return;
        }
        *place = None;
        self.present -= 1;
        self.drop_empty();
    }

    /// Drops places of the window that are free, from its front on.
    fn drop_empty(&mut self) {
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.base += 1;
        }
        if self.window.len() < self.window.capacity() / 4 && self.window.capacity() > 1024 {
            self.window.shrink_to(2 * self.window.len());
        }
    }

    /// Every so often looks at one chunk, so that what is sparse becomes small.
    fn changed(&mut self) {
        self.changes += 1;
        if self.changes < SWEEP {
            return;
        }
        self.changes = 0;
        self.hand += 1;
        if self.hand + 1 >= self.window.len() {
            // Not the last one, which is being filled.
            self.hand = 0;
        }
        if self.window.len() > 1
            && let Some(Some(chunk)) = self.window.get_mut(self.hand)
        {
            chunk.tidy();
        }
    }

    /// The first message with this sequence or a higher one.
    pub(super) fn next(&self, from: u64) -> Option<(u64, &Entry)> {
        let (number, offset) = split(from);
        let within = |number: u64, found: (u16, &'_ Entry)| number << BITS | u64::from(found.0);
        if number < self.base {
            for (&there, chunk) in self.old.range(number..) {
                if let Some(found) = chunk.next(if there == number { offset } else { 0 }) {
                    return Some((within(there, found), found.1));
                }
            }
        }
        let first = number.max(self.base);
        let skip = usize::try_from(first - self.base).unwrap_or(usize::MAX);
        if skip >= self.window.len() {
            return None;
        }
        for (place, there) in self.window.range(skip..).zip(first..) {
            let Some(chunk) = place else { continue };
            if let Some(found) = chunk.next(if there == number { offset } else { 0 }) {
                return Some((within(there, found), found.1));
            }
        }
        None
    }

    /// From where to where the last chunk below a sequence reaches that is not empty.
    pub(super) fn block_before(&self, below: u64) -> Option<(u64, u64)> {
        let (last, _) = split(below.checked_sub(1)?);
        let holds = |chunk: &Chunk| chunk.next(0).is_some();
        let window = last.checked_sub(self.base).and_then(|at| {
            let last = usize::try_from(at).unwrap_or(usize::MAX).min(self.window.len().checked_sub(1)?);
            let mut places = (0..=last).rev();
            let found = places.find(|&at| self.window.get(at).and_then(Option::as_deref).is_some_and(holds));
            found.map(|at| self.base + at as u64)
        });
        let old = || self.old.range(..=last).rev().find(|(_, chunk)| holds(chunk)).map(|(&number, _)| number);
        let number = window.or_else(old)?;
        Some((number << BITS, below.min((number + 1) << BITS)))
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let window = self.window.iter().zip(self.base..);
        let chunks = self
            .old
            .iter()
            .map(|(&number, chunk)| (number, &**chunk))
            .chain(window.filter_map(|(place, number)| Some((number, place.as_deref()?))));
        chunks.flat_map(|(number, chunk)| {
            let mut offset = Some(0);
            std::iter::from_fn(move || {
                let (at, entry) = chunk.next(offset?)?;
                offset = at.checked_add(1);
                Some((number << BITS | u64::from(at), entry))
            })
        })
    }

    /// All of them, to change.
    pub(super) fn each_mut(&mut self, mut change: impl FnMut(u64, &mut Entry)) {
        let window = self.window.iter_mut().zip(self.base..);
        let chunks = self
            .old
            .iter_mut()
            .map(|(&number, chunk)| (number, &mut **chunk))
            .chain(window.filter_map(|(place, number)| Some((number, place.as_deref_mut()?))));
        for (number, chunk) in chunks {
            match chunk {
                Chunk::Full { entries, .. } => {
                    let there = entries.iter_mut().zip(0u64..).filter(|(entry, _)| entry.is_there());
                    there.for_each(|(entry, offset)| change(number << BITS | offset, entry));
                }
                Chunk::Few { offsets, entries } => {
                    for (entry, &offset) in entries.iter_mut().zip(&*offsets) {
                        change(number << BITS | u64::from(offset), entry);
                    }
                }
            }
        }
    }

    /// Takes all out below a sequence.
    pub(super) fn remove_below(&mut self, below: u64, mut gone: impl FnMut(u64, Entry)) {
        let mut from = 0;
        while let Some((sequence, _)) = self.next(from).filter(|&(sequence, _)| sequence < below) {
            if let Some(entry) = self.remove(sequence) {
                gone(sequence, entry);
            }
            from = sequence + 1;
        }
    }

    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        let window: usize = self.window.iter().flatten().map(|chunk| chunk.bytes()).sum();
        // A map has about half as many places again as it uses.
        let old: usize = self.old.values().map(|chunk| chunk.bytes() + 24).sum();
        window + old + self.window.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::log::record::Position;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn entry(position: u64) -> Entry {
        Entry::new(Position(position), 7, Stage::Live)
    }

    /// Against a plain map, with old ones left behind, gaps, and sequences that come late.
    #[test]
    fn it_is_a_map() {
        for seed in 0..30 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut entries = Entries::default();
            let mut model = BTreeMap::new();
            let mut next = 0;
            for step in 0..2000u64 {
                match random.random_range(0..10) {
                    0 if step % 50 == 0 => next += random.random_range(0..3_000_000),
                    0..6 => {
                        for _ in 0..random.random_range(1..20) {
                            if model.insert(next, next * 8).is_none() {
                                entries.insert(next, entry(next * 8));
                            }
                            next += 1;
                        }
                    }
                    6 => {
                        let late = random.random_range(0..next + 1);
                        if model.insert(late, late * 8).is_none() {
                            entries.insert(late, entry(late * 8));
                        }
                        next = next.max(late + 1);
                    }
                    _ => {
                        for _ in 0..random.random_range(1..20) {
                            let from = random.random_range(0..next + 1);
                            let there = model.range(from..).next().map(|(&sequence, _)| sequence);
                            assert_eq!(entries.next(from).map(|(sequence, _)| sequence), there);
                            let Some(there) = there else { continue };
                            assert_eq!(entries.get(there).unwrap().position().0, there * 8);
                            assert!(entries.remove(there).is_some() && entries.remove(there).is_none());
                            model.remove(&there);
                        }
                    }
                }
                assert_eq!(entries.len(), model.len());
            }
            assert!(entries.iter().map(|(sequence, _)| sequence).eq(model.keys().copied()));
            let mut seen = Vec::new();
            entries.each_mut(|sequence, _| seen.push(sequence));
            assert!(seen.iter().eq(model.keys()));
            let half = next / 2;
            let mut gone = 0;
            entries.remove_below(half, |_, _| gone += 1);
            assert_eq!(gone, model.range(..half).count());
            assert_eq!(entries.len(), model.range(half..).count());
        }
    }

    #[test]
    fn few_messages_take_little_wherever_they_are() {
        // One of a hundred stays: 20 bytes each with a small chunk's own, not the 1600 of a full one.
        let mut entries = Entries::default();
        for sequence in 0..1_000_000 {
            entries.insert(sequence, entry(sequence * 8));
            if sequence >= 5000 && !(sequence - 5000).is_multiple_of(100) {
                entries.remove(sequence - 5000);
            }
        }
        let each = entries.bytes() / entries.len();
        assert!(each < 64, "{each} bytes each");
        // One of a hundred thousand: the window does not keep a place for all between.
        let mut entries = Entries::default();
        for sequence in 0..50_000_000u64 {
            if sequence % 1024 == 0 || sequence % 100_000 == 0 {
                entries.insert(sequence, entry(8));
                if sequence % 100_000 != 0 {
                    entries.remove(sequence);
                }
            }
        }
        assert_eq!(entries.len(), 500);
        assert!(entries.window.len() < 10_000);
    }
}
