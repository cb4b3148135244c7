//! A message in 16 bytes, and 1024 of them together.

use crate::broker::log::record::Position;

/// Sequences of a chunk.
pub(super) const CHUNK: usize = 1024;
/// Below this many, a chunk that is not being filled keeps its entries by offset.
const FEW: usize = CHUNK * 7 / 8;
/// From this many on, the chunk that is being filled takes all its room at once.
const START: usize = 64;
/// Positions take 56 bits: 72 petabytes written.
pub(super) const PLACE: u64 = (1 << 56) - 1;

/// Where a message is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its time has not come.
    Delayed,
    /// In line or with consumers.
    Live,
    /// On its way to the dead letters.
    Dying,
}

/// What is known of a message beside its stage.
pub(super) mod flag {
    /// Somebody acknowledged it (publish-subscribe).
    pub(crate) const ACKED: u8 = 1 << 2;
    /// It waited for its time: its place is in the list of due ones, not at its sequence.
    pub(crate) const DUE: u8 = 1 << 3;
    /// Its expiry is noted.
    pub(crate) const NOTED: u8 = 1 << 4;
    /// It expired in the hands of a consumer.
    pub(crate) const EXPIRED: u8 = 1 << 5;
    /// A consumer refused it for a time.
    pub(crate) const POSTPONED: u8 = 1 << 6;
}

/// A message: 16 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    /// Its position, with stage and flags in the highest byte; a highest byte of 0 is no message.
    word: u64,
    /// Bytes of its body.
    pub(super) length: u32,
    /// Pushes so far in a work queue; in publish-subscribe how many owe an ack, and how many lost ones may
    /// come back for it.
    extra: u32,
}

impl Entry {
    pub(super) fn new(position: Position, length: u32, stage: Stage) -> Entry {
        let mut entry = Entry { word: position.0 & PLACE, length, extra: 0 };
        entry.set_stage(stage);
        entry
    }

    fn top(&self) -> u8 {
        (self.word >> 56) as u8
    }

    fn set_top(&mut self, top: u8) {
        self.word = self.word & PLACE | u64::from(top) << 56;
    }

    pub(super) fn is_there(&self) -> bool {
        self.top() & 3 != 0
    }

    pub(super) fn stage(&self) -> Stage {
        match self.top() & 3 {
            1 => Stage::Delayed,
            2 => Stage::Live,
            _ => Stage::Dying,
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        let bits = match stage {
            Stage::Delayed => 1,
            Stage::Live => 2,
            Stage::Dying => 3,
        };
        self.set_top(self.top() & !3 | bits);
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.top() & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.set_top(self.top() | flag);
    }

    pub(super) fn clear(&mut self, flag: u8) {
        self.set_top(self.top() & !flag);
    }

    pub(super) fn position(&self) -> Position {
        Position(self.word & PLACE)
    }

    pub(super) fn move_to(&mut self, position: Position) {
        self.word = self.word & !PLACE | position.0 & PLACE;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.extra
    }

    pub(super) fn set_attempts(&mut self, attempts: u32) {
        self.extra = attempts;
    }

    /// How many subscriptions owe an ack.
    pub(super) fn owed(&self) -> u16 {
        self.extra as u16
    }

    /// How many lost subscriptions may come back for it.
    pub(super) fn parked(&self) -> u16 {
        (self.extra >> 16) as u16
    }

    pub(super) fn set_shares(&mut self, owed: u16, parked: u16) {
        self.extra = u32::from(parked) << 16 | u32::from(owed);
    }
}

#[derive(Debug)]
pub(super) enum Chunk {
    /// At their offsets.
    Full { entries: Box<[Entry]>, live: usize, seen: usize },
    /// Those that are there, by offset.
    Few { offsets: Vec<u16>, entries: Vec<Entry> },
}

impl Chunk {
    pub(super) fn new() -> Chunk {
        Chunk::Few { offsets: Vec::new(), entries: Vec::new() }
    }

    /// Takes room for all.
    fn widen(&mut self) {
        let Chunk::Few { offsets, entries } = self else { return };
        let mut all = vec![Entry::default(); CHUNK].into_boxed_slice();
        for (&offset, &entry) in offsets.iter().zip(&*entries) {
            if let Some(place) = all.get_mut(usize::from(offset)) {
                *place = entry;
            }
        }
        *self = Chunk::Full { entries: all, live: entries.len(), seen: 0 };
    }

    pub(super) fn live(&self) -> usize {
        match self {
            Chunk::Full { live, .. } => *live,
            Chunk::Few { entries, .. } => entries.len(),
        }
    }

    pub(super) fn get(&self, offset: u16) -> Option<&Entry> {
        match self {
            Chunk::Full { entries, .. } => entries.get(usize::from(offset)).filter(|entry| entry.is_there()),
            Chunk::Few { offsets, entries } => {
                offsets.binary_search(&offset).ok().and_then(|at| entries.get(at))
            }
        }
    }

    pub(super) fn get_mut(&mut self, offset: u16) -> Option<&mut Entry> {
        match self {
            Chunk::Full { entries, .. } => {
                entries.get_mut(usize::from(offset)).filter(|entry| entry.is_there())
            }
            Chunk::Few { offsets, entries } => {
                offsets.binary_search(&offset).ok().and_then(|at| entries.get_mut(at))
            }
        }
    }

    /// Puts an entry where none is.
    pub(super) fn put(&mut self, offset: u16, entry: Entry) {
        match self {
            Chunk::Full { entries, live, .. } => {
                if let Some(place) = entries.get_mut(usize::from(offset)) {
                    *place = entry;
                    *live += 1;
                }
            }
            Chunk::Few { offsets, entries } => {
                if let Err(at) = offsets.binary_search(&offset) {
                    offsets.insert(at, offset);
                    entries.insert(at, entry);
                }
                if entries.len() == START {
                    self.widen();
                }
            }
        }
    }

    pub(super) fn take(&mut self, offset: u16) -> Option<Entry> {
        match self {
            Chunk::Full { entries, live, .. } => {
                let place = entries.get_mut(usize::from(offset)).filter(|entry| entry.is_there())?;
                *live -= 1;
                Some(std::mem::take(place))
            }
            Chunk::Few { offsets, entries } => {
                let at = offsets.binary_search(&offset).ok()?;
                offsets.remove(at);
                Some(entries.remove(at))
            }
        }
    }

    /// The first at this offset or after.
    pub(super) fn next(&self, offset: u16) -> Option<(u16, &Entry)> {
        match self {
            Chunk::Full { entries, .. } => {
                let rest = entries.get(usize::from(offset)..)?;
                let found = rest.iter().zip(offset..).find(|(entry, _)| entry.is_there());
                found.map(|(entry, offset)| (offset, entry))
            }
            Chunk::Few { offsets, entries } => {
                let at = offsets.partition_point(|&there| there < offset);
                Some((*offsets.get(at)?, entries.get(at)?))
            }
        }
    }

    /// Writes itself smaller, if that is worth it: not while it is being emptied, which is quicker as it is.
    pub(super) fn tidy(&mut self) {
        match self {
            Chunk::Full { live, seen, .. } if *live != *seen => *seen = *live,
            Chunk::Full { entries, live, .. } if *live < FEW => {
                let mut few = (Vec::with_capacity(*live), Vec::with_capacity(*live));
                for (entry, offset) in entries.iter().zip(0u16..).filter(|(entry, _)| entry.is_there()) {
                    few.0.push(offset);
                    few.1.push(*entry);
                }
                *self = Chunk::Few { offsets: few.0, entries: few.1 };
            }
            Chunk::Few { offsets, entries } if entries.capacity() > entries.len() + entries.len() / 8 => {
                offsets.shrink_to_fit();
                entries.shrink_to_fit();
            }
            _ => {}
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let inner = match self {
            Chunk::Full { entries, .. } => entries.len() * size_of::<Entry>(),
            Chunk::Few { offsets, entries } => {
                offsets.capacity() * size_of::<u16>() + entries.capacity() * size_of::<Entry>()
            }
        };
        inner + size_of::<Chunk>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_what_it_is_told() {
        assert_eq!(size_of::<Entry>(), 16);
        let mut one = Entry::new(Position(PLACE - 7), u32::MAX, Stage::Delayed);
        one.set(flag::DUE);
        one.set_stage(Stage::Live);
        one.set_shares(3, 65_535);
        assert_eq!((one.owed(), one.parked(), one.stage()), (3, 65_535, Stage::Live));
        assert!(one.has(flag::DUE) && !one.has(flag::ACKED));
        one.move_to(Position(8));
        one.clear(flag::DUE);
        assert_eq!((one.position(), one.stage(), one.has(flag::DUE)), (Position(8), Stage::Live, false));
    }
}
