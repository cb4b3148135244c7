//! A queue from its records: each is replayed in the order of the log, then the queue is restored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entries::{Entry, Stage, flag};
use super::intake::ticks_of;
use super::lines::Line;
use super::pair::Pair;
use super::ranges::RangeSet;
use super::rate::Meter;
use super::subscriptions::Subscription;
use super::time::{place_ms, place_of};
use super::{Queue, Reason};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record};

/// Sequences left out at each start: what was delivered before a crash but never reached the disk had some. More
/// than is sent between two syncs of an interval, and few of the 48 bits that there are.
const GAP: u64 = 1 << 24;

/// When a message expired that did already: before any clock.
pub(super) const GONE: i64 = 1;

/// A subscription of the records.
#[derive(Debug)]
struct Told {
    id: Arc<str>,
    durable: bool,
    from: u64,
}

/// What a replay gathers beside the entries.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Due times in milliseconds, and sequences, as the messages were accepted.
    due: Vec<Pair>,
    /// Due times that changed since; `None` when the message is due.
    changed: HashMap<u64, Option<i64>>,
    /// Places in line of messages that fell due, in publish-subscribe.
    places: HashMap<u64, u64>,
    told: BTreeMap<u32, Told>,
    /// What each subscription acknowledged: cleaning may have put the acks before the subscription.
    acked: HashMap<u32, RangeSet>,
}

impl Queue {
    /// Takes a record of this topic. Nothing else may happen to the queue before [`Queue::restored`].
    pub(in crate::broker) fn replay(&mut self, record: &Record<'_>, position: Position) {
        match record {
            Record::Message(message) => self.replay_message(message, position),
            Record::Done { ranges, .. } => {
                self.replay_each(ranges, |queue, sequence| queue.replay_gone(sequence));
            }
            Record::Pushed { ranges, .. } if !self.is_shared() => {
                self.replay_each(ranges, |queue, sequence| {
                    if let Some(entry) = queue.entries.get_mut(sequence) {
                        entry.set_attempts(entry.attempts().saturating_add(1));
                    }
                });
            }
            Record::Postponed { sequence, due_ms, .. } => self.replay_postponed(*sequence, *due_ms),
            Record::Topic { next_sequence, .. } => {
                self.next_sequence = self.next_sequence.max(*next_sequence);
            }
            Record::Subscribed { subscription, durable, from, id, .. } => {
                self.next_sequence = self.next_sequence.max(*from);
                self.last_subscription = self.last_subscription.max(*subscription);
                let new = || Told { id: Arc::from(*id), durable: *durable, from: *from };
                self.gathered().told.entry(*subscription).or_insert_with(new).durable = *durable;
            }
            Record::Unsubscribed { subscription, .. } => {
                self.last_subscription = self.last_subscription.max(*subscription);
                let gathered = self.gathered();
                gathered.told.remove(subscription);
                gathered.acked.remove(subscription);
            }
            Record::Acked { subscription, ranges, .. } => {
                let acked = self.gathered().acked.entry(*subscription).or_default();
                for range in *ranges {
                    acked.add(range.first, range.first.saturating_add(u64::from(range.count)));
                }
                self.replay_each(ranges, |queue, sequence| {
                    if let Some(entry) = queue.entries.get_mut(sequence) {
                        entry.set(flag::ACKED);
                    }
                });
            }
            Record::Purged { below, .. } => {
                let mut gone = Vec::new();
                self.entries.remove_below(*below, |_, entry| gone.push(entry));
                gone.into_iter().for_each(|entry| self.replay_left(entry));
            }
            Record::Pushed { .. }
            | Record::TopicGone { .. }
            | Record::Synced { .. }
            | Record::Kept { .. }
            | Record::Leased { .. }
            | Record::Hidden { .. } => {}
        }
    }

    fn gathered(&mut self) -> &mut Gathered {
        self.replay.get_or_insert_default()
    }

    fn replay_each(&mut self, ranges: &[Range], mut each: impl FnMut(&mut Queue, u64)) {
        for range in ranges {
            let end = range.first.saturating_add(u64::from(range.count));
            let mut from = range.first;
            // What is there, not what the range could hold.
            while let Some((sequence, _)) = self.entries.next(from).filter(|&(sequence, _)| sequence < end) {
                each(self, sequence);
                from = sequence + 1;
            }
        }
    }

    fn replay_gone(&mut self, sequence: u64) {
        if let Some(entry) = self.entries.remove(sequence) {
            self.replay_left(entry);
        }
    }

    fn replay_left(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        self.delayed -= usize::from(entry.stage() == Stage::Delayed);
    }

    fn replay_message(&mut self, message: &MessageRecord<'_>, position: Position) {
        let sequence = message.sequence;
        let is_new = sequence >= self.next_sequence;
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        if !message.key.is_empty()
            && let Some(dedup) = &mut self.dedup
        {
            dedup.recall(message.key, sequence, message.created_ms);
        }
        let before = if is_new { None } else { self.entries.remove(sequence) };
        if let Some(before) = before {
            // It was written again.
            self.replay_left(before);
        }
        let length = u32::try_from(message.body.len()).unwrap_or(u32::MAX);
        let is_delayed = message.due_ms > 0;
        let stage = if is_delayed { Stage::Delayed } else { Stage::Live };
        let mut entry = Entry::new(position, length, stage);
        if !self.is_shared() {
            entry.set_attempts(message.attempts);
        } else if before.is_some_and(|before| before.has(flag::ACKED)) {
            entry.set(flag::ACKED);
        }
        if is_delayed && message.attempts > 0 {
            entry.set(flag::POSTPONED);
        }
        if message.expires_ms != GONE && before.is_some_and(|before| before.has(flag::NOTED)) {
            entry.set(flag::NOTED);
        } else if message.expires_ms > 0 {
            let until = message.expires_ms.unsigned_abs();
            let base = if is_delayed { message.due_ms } else { message.created_ms };
            let by_terms = self.terms.expiry_ms > 0
                && message.expires_ms == base.saturating_add_unsigned(self.terms.expiry_ms);
            // One that waits for its time is noted when it is due.
            if !(by_terms && is_delayed && message.attempts == 0) {
                entry.set(flag::NOTED);
                if by_terms {
                    self.expiries.add(until, sequence, self.terms.expiry_ms / 64);
                } else {
                    self.expiries.add_single(until, sequence);
                }
            }
        }
        if before.is_some() || is_delayed {
            let gathered = self.gathered();
            if before.is_some() {
                gathered.changed.insert(sequence, is_delayed.then_some(message.due_ms));
            } else {
                gathered.due.push(Pair::new(message.due_ms.unsigned_abs(), sequence));
            }
        }
        if let Some(after) = place_of(message.due_ms).filter(|_| self.is_shared()) {
            entry.set(flag::DUE);
            self.gathered().places.insert(sequence, after);
        }
        self.bytes += length as usize;
        self.delayed += usize::from(is_delayed);
        self.entries.insert(sequence, entry);
    }

    fn replay_postponed(&mut self, sequence: u64, due_ms: i64) {
        let shared = self.is_shared();
        let Some(entry) = self.entries.get_mut(sequence) else { return };
        let was = entry.stage() == Stage::Delayed;
        let place = place_of(due_ms);
        match place {
            None => {
                entry.set_stage(Stage::Delayed);
                entry.set(flag::POSTPONED);
            }
            Some(_) => {
                entry.set_stage(Stage::Live);
                if shared {
                    entry.set(flag::DUE);
                }
            }
        }
        self.delayed += usize::from(place.is_none());
        self.delayed -= usize::from(was);
        let gathered = self.gathered();
        gathered.changed.insert(sequence, if place.is_none() { Some(due_ms) } else { None });
        if let Some(after) = place.filter(|_| shared) {
            gathered.places.insert(sequence, after);
        }
    }

    /// All records were replayed: sets the clocks, and writes down from where the sequences go on. That must
    /// be on disk before anything is delivered.
    pub(in crate::broker) fn restored(&mut self, now: Tick, wall: i64, journal: &mut dyn Journal) {
        self.now = now;
        self.next_sequence = self.next_sequence.saturating_add(GAP);
        let mut gathered = self.replay.take().unwrap_or_default();
        // A wall clock that was set back makes times later than they should be, never earlier.
        let tick_of = |ms: u64| {
            let left = i64::try_from(ms).unwrap_or(i64::MAX).saturating_sub(wall);
            now.saturating_add(ticks_of(u64::try_from(left).unwrap_or(0)))
        };
        // Past is past, without the rounding up of a time that is now.
        self.expiries.convert(|ms| if tick_of(ms) <= now { 0 } else { tick_of(ms) });
        if let Some(dedup) = &mut self.dedup {
            dedup.restored(tick_of);
        }
        self.restore_delays(&mut gathered, wall, tick_of, journal);
        if self.is_shared() {
            self.restore_subscriptions(*gathered, now, journal);
        } else if self.terms.max_attempts > 0 {
            let most = self.terms.max_attempts;
            let dead: Vec<(u64, u32)> = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.attempts() >= most)
                .map(|(sequence, entry)| (sequence, entry.attempts()))
                .collect();
            for (sequence, attempts) in dead {
                self.die(sequence, Reason::Attempts, attempts, 0);
            }
        }
        // What expired meanwhile is given to nobody.
        while self.expiries.next() <= now {
            self.expire_due(now);
        }
        self.describe(journal);
        self.alarm = now;
    }

    fn restore_delays(
        &mut self,
        gathered: &mut Gathered,
        wall: i64,
        tick_of: impl Fn(u64) -> Tick,
        journal: &mut dyn Journal,
    ) {
        let mut due = std::mem::take(&mut gathered.due);
        let expiry = self.terms.expiry_ms;
        if !gathered.changed.is_empty() {
            for pair in due.iter().filter(|pair| expiry > 0 && gathered.changed.contains_key(&pair.second()))
            {
                // It was due before it was refused: its time runs since.
                let there = self.entries.get_mut(pair.second());
                if let Some(entry) = there.filter(|entry| !entry.has(flag::NOTED)) {
                    entry.set(flag::NOTED);
                    self.expiries.add_single(tick_of(pair.first().saturating_add(expiry)), pair.second());
                }
            }
            due.retain(|pair| !gathered.changed.contains_key(&pair.second()));
            let changed = gathered.changed.iter();
            due.extend(
                changed.filter_map(|(&sequence, due)| Some(Pair::new((*due)?.unsigned_abs(), sequence))),
            );
        }
        due.retain(|pair| {
            self.entries.get(pair.second()).is_some_and(|entry| entry.stage() == Stage::Delayed)
        });
        let is_due = |pair: &Pair| i64::try_from(pair.first()).unwrap_or(i64::MAX) <= wall;
        let mut passed: Vec<Pair> = due.iter().copied().filter(is_due).collect();
        due.retain(|pair| !is_due(pair));
        if !self.is_shared() {
            for pair in &due {
                // It fell due before, by a clock that was set back since: it comes before what never did.
                let pushed = self.entries.get_mut(pair.second()).filter(|entry| entry.attempts() > 0);
                if let Some(entry) = pushed {
                    entry.set(flag::POSTPONED);
                }
            }
        }
        self.delays = super::delays::Delays::from_pairs(
            due.into_iter().map(|pair| (tick_of(pair.first()), pair.second())),
        );
        passed.sort_unstable();
        let (shared, after) = (self.is_shared(), self.next_sequence);
        for pair in passed {
            let sequence = pair.second();
            let Some(entry) = self.entries.get_mut(sequence) else { continue };
            entry.set_stage(Stage::Live);
            entry.clear(flag::POSTPONED);
            self.delayed -= 1;
            if expiry > 0 && !entry.has(flag::NOTED) {
                entry.set(flag::NOTED);
                let until = tick_of(pair.first().saturating_add(expiry));
                self.expiries.add(until, sequence, ticks_of(expiry) / 64);
            }
            if shared {
                entry.set(flag::DUE);
                gathered.places.insert(sequence, after);
                let due_ms = place_ms(after);
                journal.append(&Record::Postponed { topic: self.topic, sequence, due_ms });
            }
        }
    }

    /// Who owes what: every subscription is away, the durable ones for as long as it takes.
    fn restore_subscriptions(&mut self, mut gathered: Gathered, now: Tick, journal: &mut dyn Journal) {
        let mut places: Vec<(u64, u64)> =
            gathered.places.into_iter().map(|(sequence, after)| (after, sequence)).collect();
        places.retain(|&(_, sequence)| self.entries.live(sequence).is_some_and(|entry| entry.has(flag::DUE)));
        places.sort_unstable();
        places.iter().for_each(|&(after, sequence)| self.due.push(after, sequence));
        let until = now.saturating_add(self.terms.redeliver_after);
        for (number, told) in gathered.told {
            let (acked, from) = (gathered.acked.remove(&number).unwrap_or_default(), told.from);
            let mut line = Line::default();
            line.clear(from.max(acked.end()), 0);
            let last_acked = places.iter().rposition(|&(_, sequence)| acked.has(sequence));
            let after_from = places.partition_point(|&(after, _)| after < from);
            line.due = last_acked.map_or(0, |at| at + 1).max(after_from) as u64;
            let mut back = Vec::new();
            for (at, &(_, sequence)) in places.iter().enumerate().skip(after_from) {
                if !acked.has(sequence) {
                    self.claim(sequence);
                    if (at as u64) < line.due {
                        back.push((sequence, 0));
                    }
                }
            }
            let mut next = from;
            while let Some((sequence, entry)) = self.entries.next(next) {
                next = sequence + 1;
                if entry.has(flag::DUE) || entry.stage() == Stage::Delayed || acked.has(sequence) {
                    continue;
                }
                self.claim(sequence);
                if sequence < line.cursor {
                    back.push((sequence, 0));
                }
            }
            for (first, end) in acked.iter() {
                let mut next = first;
                while let Some((sequence, _)) =
                    self.entries.next(next).filter(|&(sequence, _)| sequence < end)
                {
                    next = sequence + 1;
                    if let Some(entry) = self.entries.get_mut(sequence) {
                        entry.set(flag::ACKED);
                    }
                }
            }
            line.backs.merge(back);
            let subscription = Subscription {
                id: told.id,
                durable: told.durable,
                from,
                line,
                meter: Meter::default(),
                postponed: BTreeMap::new(),
                consumer: None,
                until,
            };
            self.subscriptions.insert(number, subscription);
        }
        let (mut done, mut orphans) = (Vec::new(), Vec::new());
        self.entries.each_mut(|sequence, entry| {
            if entry.stage() == Stage::Live && entry.owed() == 0 {
                if entry.has(flag::ACKED) {
                    done.push(sequence);
                } else {
                    entry.set_shares(1, 0);
                    orphans.push((sequence, 0));
                }
            }
        });
        self.finish(done, journal);
        self.line.backs.merge(orphans);
    }

    fn claim(&mut self, sequence: u64) {
        if let Some(entry) = self.entries.live_mut(sequence) {
            entry.set_shares(entry.owed().saturating_add(1), 0);
        }
    }
}
