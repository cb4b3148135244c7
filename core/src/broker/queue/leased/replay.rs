//! A queue from its records: each is replayed in the order of the log, then the queue is restored.

use std::collections::HashMap;

use super::{Lease, LeaseQueue, PRIORITIES, count_of, packed, priority_of};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record};
use crate::broker::queue::delays::Delays;
use crate::broker::queue::entries::{Entry, Stage};
use crate::broker::queue::intake::ticks_of;

/// Sequences and serials left out at each start: what was given before a crash but never reached the disk had some.
const GAP: u64 = 1 << 24;

/// What a replay gathers beside the entries.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// When each delayed message is due, and when it expires: that is noted once it is due.
    due: HashMap<u64, (i64, i64)>,
    /// The last word on who has a message.
    leases: HashMap<u64, Word>,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    serial: u64,
    until_ms: i64,
    first_ms: i64,
}

impl LeaseQueue {
    /// Takes a record of this queue. Nothing else may happen to the queue before [`LeaseQueue::restored`].
    pub(in crate::broker) fn replay(&mut self, record: &Record<'_>, position: Position) {
        match *record {
            Record::Kept { next_sequence, .. } => self.next_sequence = self.next_sequence.max(next_sequence),
            Record::Message(ref message) => self.replay_message(message, position),
            Record::Done { ranges, .. } => {
                self.replay_each(ranges, |queue, sequence| queue.replay_gone(sequence));
            }
            Record::Leased { serial, at_ms, until_ms, ranges, .. } => {
                self.last_serial = self.last_serial.max(serial);
                self.replay_each(ranges, |queue, sequence| {
                    let Some(entry) = queue.entries.get_mut(sequence) else { return };
                    entry.set_attempts(packed(priority_of(entry), count_of(entry).saturating_add(1)));
                    let leases = &mut queue.gathered().leases;
                    let before = leases.get(&sequence).map_or(0, |word| word.first_ms);
                    let first_ms = if before > 0 { before } else { at_ms };
                    leases.insert(sequence, Word { serial, until_ms, first_ms });
                });
            }
            Record::Hidden { sequence, serial, until_ms, first_ms, .. } => {
                self.last_serial = self.last_serial.max(serial);
                if self.entries.get(sequence).is_some() {
                    self.gathered().leases.insert(sequence, Word { serial, until_ms, first_ms });
                }
            }
            _ => {}
        }
    }

    fn gathered(&mut self) -> &mut Gathered {
        self.replay.get_or_insert_default()
    }

    fn replay_each(&mut self, ranges: &[Range], mut each: impl FnMut(&mut LeaseQueue, u64)) {
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
        let Some(entry) = self.entries.remove(sequence) else { return };
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        let gathered = self.gathered();
        gathered.due.remove(&sequence);
        gathered.leases.remove(&sequence);
    }

    fn replay_message(&mut self, message: &MessageRecord<'_>, position: Position) {
        let sequence = message.sequence;
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        let before = self.entries.remove(sequence);
        let length = u32::try_from(message.body.len().saturating_add(message.key.len())).unwrap_or(u32::MAX);
        let base = message.due_ms.max(message.created_ms);
        let retention = message.expires_ms.saturating_sub(base).max(0).unsigned_abs();
        if !message.moved || self.retention_ms == 0 {
            self.retention_ms = retention;
        }
        let waited = self.gathered().due.remove(&sequence).is_some();
        if let Some(before) = before {
            // It was written again.
            self.bytes = self.bytes.saturating_sub(before.length as usize);
        }
        if message.due_ms > 0 {
            self.gathered().due.insert(sequence, (message.due_ms, message.expires_ms));
        } else if message.expires_ms > 0 && (before.is_none() || waited) {
            self.expiries.add(message.expires_ms.unsigned_abs(), sequence, retention / 64);
        }
        self.bytes += length as usize;
        let mut entry = Entry::new(position, length, Stage::Live);
        let priority = u8::try_from(message.wire_delay).unwrap_or(PRIORITIES);
        entry.set_attempts(packed(priority, message.attempts));
        self.entries.insert(sequence, entry);
    }

    /// All records were replayed: sets the clocks. What was in somebody's hands still is, until its time.
    pub(in crate::broker) fn restored(&mut self, now: Tick, wall: i64, journal: &mut dyn Journal) {
        self.now = now;
        self.next_sequence = self.next_sequence.saturating_add(GAP);
        self.last_serial = self.last_serial.saturating_add(GAP);
        let gathered = self.replay.take().unwrap_or_default();
        // A wall clock that was set back makes times later than they should be, never earlier.
        let tick_of = |ms: i64| {
            let left = u64::try_from(ms.saturating_sub(wall)).unwrap_or(0);
            now.saturating_add(ticks_of(left))
        };
        self.expiries.convert(|ms| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            if ms <= wall { 0 } else { tick_of(ms) }
        });
        let mut ready = Vec::new();
        let mut delays = Vec::new();
        let (leases, ends, expiries) = (&mut self.leases, &mut self.ends, &mut self.expiries);
        self.entries.each_mut(|sequence, entry| {
            let word = gathered.leases.get(&sequence);
            let due = gathered.due.get(&sequence);
            if let (None, Some(&(due_ms, _))) = (word, due.filter(|&&(due_ms, _)| due_ms > wall)) {
                entry.set_stage(Stage::Delayed);
                delays.push((tick_of(due_ms), sequence));
                return;
            }
            if let Some(&(_, expires_ms)) = due.filter(|&&(_, expires_ms)| expires_ms > 0) {
                expiries.add_single(tick_of(expires_ms), sequence);
            }
            match word {
                Some(&Word { serial, until_ms, first_ms }) if until_ms > wall => {
                    let until = tick_of(until_ms);
                    leases.insert(sequence, Lease { until, until_ms, serial, first_ms });
                    ends.push(until, sequence);
                }
                _ => ready.push((sequence, priority_of(entry), word.map_or(0, |word| word.first_ms))),
            }
        });
        self.delayed = delays.len();
        self.delays = Delays::from_pairs(delays.into_iter());
        for (sequence, priority, first_ms) in ready {
            self.make_ready(sequence, priority, first_ms);
        }
        while self.expiries.next() <= now {
            self.expire(now, journal);
        }
        self.alarm = now;
    }
}
