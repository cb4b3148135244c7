//! How messages leave, and the places that they leave behind.

use super::ready::Ready;
use super::{BATCH, LeaseQueue, ranges_of};
use crate::broker::delay::{NEVER, Tick};
use crate::broker::log::record::{Journal, Record};
use crate::broker::queue::delays::Delays;
use crate::broker::queue::entries::{Entry, Stage};
use crate::broker::queue::{Left, Why};
use crate::broker::room::Room;

impl LeaseQueue {
    pub(super) fn expire(&mut self, now: Tick, journal: &mut dyn Journal) {
        let mut done = Vec::new();
        while done.len() < BATCH {
            let Some((first, run)) = self.expiries.pop(now, BATCH as u64) else { break };
            let end = first + run;
            let mut from = first;
            while let Some((sequence, _)) = self.entries.next(from).filter(|&(sequence, _)| sequence < end) {
                self.drop_message(sequence, Why::Purged);
                done.push(sequence);
                from = sequence + 1;
            }
        }
        self.events.expired += done.len() as u64;
        self.append_done(done, journal);
        let entries = &self.entries;
        self.expiries.forget(entries.len(), |first, count| {
            entries.next(first).is_some_and(|(sequence, _)| sequence < first + count)
        });
    }

    /// Drops all messages: the queue goes, and its record with it.
    pub(in crate::broker) fn clear(&mut self) {
        let mut from = 0;
        while let Some((sequence, _)) = self.entries.next(from) {
            self.drop_message(sequence, Why::Purged);
            from = sequence + 1;
        }
        self.ready = Default::default();
        self.delays.clear();
        self.ends.clear();
        self.expiries.clear();
        self.alarm = NEVER;
        self.wake(usize::MAX);
    }

    pub(super) fn drop_message(&mut self, sequence: u64, why: Why) {
        let Some(entry) = self.entries.remove(sequence) else { return };
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        if entry.stage() == Stage::Delayed {
            self.delayed -= 1;
        }
        self.leases.remove(&sequence);
        self.events.freed += Room::cost(entry.length as usize);
        self.events.left.push(Left { sequence, position: entry.position(), length: entry.length, why });
        self.tidy();
    }

    /// Drops places of what left or moved on, when they are more than the others.
    pub(super) fn tidy(&mut self) {
        let ready = self.ready();
        if self.ready.iter().map(Ready::len).sum::<usize>() > 2 * ready + 1024 {
            let entries = &self.entries;
            self.ready.iter_mut().for_each(|heap| heap.retain(|sequence| entries.get(sequence).is_some()));
        }
        if self.delays.len() > 2 * self.delayed + 1024 {
            let entries = &self.entries;
            let delayed = |entry: &Entry| entry.stage() == Stage::Delayed;
            self.delays.forget(|sequence| entries.get(sequence).is_some_and(delayed));
        }
        if self.ends.len() > 2 * self.leases.len() + 1024 {
            // One place for each, at its present end.
            let ends = self.leases.iter().map(|(&sequence, lease)| (lease.until, sequence));
            self.ends = Delays::from_pairs(ends);
        }
    }

    pub(super) fn append_done(&self, mut sequences: Vec<u64>, journal: &mut dyn Journal) {
        if !sequences.is_empty() {
            let ranges = ranges_of(&mut sequences);
            journal.append(&Record::Done { topic: self.topic, ranges: &ranges });
        }
    }
}
