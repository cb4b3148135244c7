//! Who is next: what came back, what fell due, what is fresh.

use std::collections::VecDeque;

use super::entries::{Entries, Stage, flag};
use super::pair::{self, MOST, Pair};
use crate::broker::delay::{NEVER, Tick};

/// Marks a place that its message left.
const VOID: u64 = MOST;

/// Messages that come before all others, in order of their sequence, each with a word about its last push:
/// the consumer in a work queue, the count of pushes in publish-subscribe.
#[derive(Debug, Default)]
pub(super) struct Backs(VecDeque<Pair>);

impl Backs {
    /// The first that is still in line; those before it are dropped.
    fn front(&mut self, entries: &Entries) -> Option<(u64, u64)> {
        while let Some(pair) = self.0.front() {
            let (sequence, word) = (pair.first(), pair.second());
            if word != VOID && entries.live(sequence).is_some() {
                return Some((sequence, word));
            }
            self.pop();
        }
        None
    }

    fn pop(&mut self) {
        self.0.pop_front();
        pair::trim(&mut self.0);
    }

    /// Adds one that comes after all that are here, or is put in its place.
    pub(super) fn add(&mut self, sequence: u64, word: u64) {
        let new = Pair::new(sequence, word);
        if self.0.back().is_none_or(|last| *last < new) {
            pair::push_back(&mut self.0, new);
        } else {
            let at = self.0.partition_point(|there| *there < new);
            self.0.insert(at, new);
        }
    }

    /// Adds some, in any order.
    pub(super) fn merge(&mut self, mut more: Vec<(u64, u64)>) {
        more.sort_unstable();
        let (Some(&first), Some(&last)) = (more.first(), more.last()) else { return };
        if self.0.back().is_none_or(|back| back.first() < first.0) {
            more.iter().for_each(|&(sequence, word)| pair::push_back(&mut self.0, Pair::new(sequence, word)));
        } else if self.0.front().is_some_and(|front| front.first() > last.0) {
            self.0.reserve_exact(more.len());
            more.iter().rev().for_each(|&(sequence, word)| self.0.push_front(Pair::new(sequence, word)));
        } else {
            let mut all = VecDeque::new();
            all.reserve_exact(self.0.len() + more.len());
            let mut more = more.into_iter().map(|(sequence, word)| Pair::new(sequence, word)).peekable();
            for pair in self.0.drain(..).filter(|pair| pair.second() != VOID) {
                while let Some(new) = more.next_if(|new| *new < pair) {
                    all.push_back(new);
                }
                all.push_back(pair);
            }
            all.extend(more);
            self.0 = all;
        }
    }

    /// Takes one out whose word passes; says whether there was one.
    pub(super) fn take_out(&mut self, sequence: u64, passes: impl Fn(u64) -> bool) -> bool {
        let at = self.0.partition_point(|there| there.first() < sequence);
        let Some(pair) = self.0.get_mut(at).filter(|pair| pair.first() == sequence) else { return false };
        if pair.second() == VOID || !passes(pair.second()) {
            return false;
        }
        *pair = Pair::new(sequence, VOID);
        while self.0.front().is_some_and(|pair| pair.second() == VOID) {
            self.pop();
        }
        true
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        let at = self.0.partition_point(|there| there.first() < sequence);
        self.0.get(at).is_some_and(|pair| pair.first() == sequence && pair.second() != VOID)
    }

    /// All that are in line, in order.
    pub(super) fn drain(&mut self) -> Vec<(u64, u64)> {
        let all = std::mem::take(&mut self.0);
        let there = all.into_iter().filter(|pair| pair.second() != VOID);
        there.map(|pair| (pair.first(), pair.second())).collect()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let there = self.0.iter().filter(|pair| pair.second() != VOID);
        there.map(|pair| (pair.first(), pair.second()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Pair>()
    }
}

/// Messages that waited for their time, as (after, sequence): they come before the first message of sequence
/// `after`, and so behind all that were accepted before they fell due.
#[derive(Debug, Default)]
pub(super) struct DueList {
    list: VecDeque<Pair>,
    /// The number of the first; numbers count on for ever.
    base: u64,
    /// When those expire that have no note of their own: from `start` to `until`, up to this number.
    expiries: VecDeque<Fate>,
    /// Those below were said to have expired.
    expired: u64,
}

/// When some due messages expire.
#[derive(Debug, Clone, Copy)]
struct Fate {
    start: Tick,
    until: Tick,
    end: u64,
}

impl DueList {
    pub(super) fn push(&mut self, after: u64, sequence: u64) {
        pair::push_back(&mut self.list, Pair::new(after, sequence));
    }

    /// Notes when the last one expires, at its time or up to `grain` later. It is later than those before:
    /// the order is that of falling due.
    pub(super) fn expires(&mut self, until: Tick, grain: Tick) {
        let end = self.end();
        match self.expiries.back_mut() {
            Some(last) if until.max(last.until) - last.start <= grain => {
                *last = Fate { start: last.start, until: until.max(last.until), end };
            }
            Some(last) => {
                let until = until.max(last.until);
                self.expiries.push_back(Fate { start: until, until, end });
            }
            None => self.expiries.push_back(Fate { start: until, until, end }),
        }
    }

    /// When something here expires next.
    pub(super) fn next_expiry(&self) -> Tick {
        self.expiries.front().map_or(NEVER, |fate| fate.until)
    }

    /// The next one that expired.
    pub(super) fn pop_expired(&mut self, now: Tick) -> Option<u64> {
        while let Some(fate) = self.expiries.front().filter(|fate| fate.until <= now) {
            let number = self.expired.max(self.base);
            if number < fate.end
                && let Some((_, sequence)) = self.get(number)
            {
                self.expired = number + 1;
                return Some(sequence);
            }
            self.expiries.pop_front();
        }
        None
    }

    /// The number that the next one gets.
    pub(super) fn end(&self) -> u64 {
        self.base + self.list.len() as u64
    }

    /// The (after, sequence) of a number.
    fn get(&self, number: u64) -> Option<(u64, u64)> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.list.get(at).map(|pair| (pair.first(), pair.second()))
    }

    /// Numbers, afters and sequences from a number on.
    pub(super) fn range(&self, from: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let from = from.max(self.base);
        let skip = usize::try_from(from - self.base).unwrap_or(usize::MAX).min(self.list.len());
        self.list.range(skip..).zip(from..).map(|(pair, number)| (number, pair.first(), pair.second()))
    }

    /// Drops those below a number: every line is past them. Says which they were, and when they expire if
    /// that is noted here.
    pub(super) fn drop_below(&mut self, number: u64, mut dropped: impl FnMut(u64, Option<Tick>)) {
        while self.base < number
            && let Some(pair) = self.list.pop_front()
        {
            while self.expiries.pop_front_if(|fate| fate.end <= self.base).is_some() {}
            dropped(pair.second(), self.expiries.front().map(|fate| fate.until));
            self.base += 1;
        }
        pair::trim(&mut self.list);
    }

    /// Number and place in line of each that is here, by sequence.
    pub(super) fn places(&self) -> std::collections::HashMap<u64, (u64, u64)> {
        self.range(0).map(|(number, after, sequence)| (sequence, (number, after))).collect()
    }

    pub(super) fn clear(&mut self) {
        self.base = self.end();
        self.list = VecDeque::new();
        self.expiries = VecDeque::new();
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Pair>() + self.expiries.capacity() * size_of::<Fate>()
    }
}

/// Where a pick was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// With its word.
    Back(u64),
    Due,
    Fresh,
}

/// The next message of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) sequence: u64,
    pub(super) source: Source,
}

/// What waits for whoever takes from this line.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) backs: Backs,
    /// The fresh messages below were taken.
    pub(super) cursor: u64,
    /// The due ones below this number were taken.
    pub(super) due: u64,
}

impl Line {
    /// Forgets all below.
    pub(super) fn clear(&mut self, cursor: u64, due: u64) {
        *self = Line { backs: Backs::default(), cursor, due };
    }

    /// The next message; it stays in line.
    pub(super) fn peek(&mut self, entries: &Entries, due: &DueList) -> Option<Pick> {
        if let Some((sequence, word)) = self.backs.front(entries) {
            return Some(Pick { sequence, source: Source::Back(word) });
        }
        let fresh = loop {
            let Some((sequence, entry)) = entries.next(self.cursor) else { break None };
            self.cursor = sequence;
            if entry.stage() == Stage::Live && !entry.has(flag::DUE) {
                break Some(sequence);
            }
            self.cursor += 1;
        };
        while let Some((after, sequence)) = due.get(self.due) {
            if entries.live(sequence).is_none() {
                self.due += 1;
                continue;
            }
            if fresh.is_some_and(|fresh| fresh < after) {
                break;
            }
            return Some(Pick { sequence, source: Source::Due });
        }
        fresh.map(|sequence| Pick { sequence, source: Source::Fresh })
    }

    /// Takes what `peek` gave out.
    pub(super) fn advance(&mut self, pick: Pick) {
        match pick.source {
            Source::Back(_) => self.backs.pop(),
            Source::Due => self.due += 1,
            Source::Fresh => self.cursor = pick.sequence + 1,
        }
    }

    /// What this line was yet to give, beside what came back.
    pub(super) fn rest(&self, entries: &Entries, due: &DueList) -> Vec<u64> {
        let mut rest: Vec<u64> = due
            .range(self.due)
            .map(|(_, _, sequence)| sequence)
            .filter(|&sequence| entries.live(sequence).is_some())
            .collect();
        let mut from = self.cursor;
        while let Some((sequence, entry)) = entries.next(from) {
            if entry.stage() == Stage::Live && !entry.has(flag::DUE) {
                rest.push(sequence);
            }
            from = sequence + 1;
        }
        rest.sort_unstable();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::Entry;
    use super::*;
    use crate::broker::log::record::Position;

    #[test]
    fn what_came_back_stays_in_order() {
        let mut entries = Entries::default();
        (0..100).for_each(|sequence| entries.insert(sequence, Entry::new(Position(0), 1, Stage::Live)));
        let mut backs = Backs::default();
        backs.merge(vec![(20, 1), (10, 1)]);
        backs.merge(vec![(30, 1)]);
        backs.merge(vec![(5, 1), (1, 1)]);
        backs.merge(vec![(31, 2), (15, 2), (7, 2)]);
        backs.add(16, 3);
        backs.add(40, 3);
        let all: Vec<u64> = backs.iter().map(|(sequence, _)| sequence).collect();
        assert_eq!(all, [1, 5, 7, 10, 15, 16, 20, 30, 31, 40]);
        assert!(!backs.take_out(7, |word| word == 1) && backs.take_out(7, |word| word == 2));
        assert!(!backs.take_out(7, |_| true) && !backs.take_out(8, |_| true));
        entries.remove(1);
        assert_eq!(backs.front(&entries), Some((5, 1)));
        backs.pop();
        assert_eq!(backs.front(&entries), Some((10, 1)));
    }

    #[test]
    fn due_ones_come_behind_what_was_there_before() {
        let (mut entries, mut due, mut line) = (Entries::default(), DueList::default(), Line::default());
        for sequence in 0..6 {
            let mut entry = Entry::new(Position(0), 1, Stage::Live);
            if sequence == 0 || sequence == 2 {
                entry.set(flag::DUE);
            }
            entries.insert(sequence, entry);
        }
        due.push(4, 2);
        due.push(4, 0);
        line.backs.merge(vec![(5, 0)]);
        let mut order = Vec::new();
        while let Some(pick) = line.peek(&entries, &due) {
            line.advance(pick);
            order.push(pick.sequence);
        }
        assert_eq!(order, [5, 1, 3, 2, 0, 4, 5]);
        assert_eq!(Line::default().rest(&entries, &due), [0, 1, 2, 3, 4, 5]);
    }
}
