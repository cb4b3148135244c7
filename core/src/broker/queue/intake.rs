//! How messages come in.

use std::sync::Arc;

use futures_util::task::AtomicWaker;

use super::Queue;
use super::entries::{Entry, Stage, flag};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Record};

/// A message on its way into a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::broker) struct Draft<'a> {
    pub(in crate::broker) body: &'a [u8],
    /// Milliseconds; zero and less mean at once.
    pub(in crate::broker) delay_ms: i64,
    /// The delay as the wire shows it, in seconds.
    pub(in crate::broker) wire_delay: i64,
    /// For de-duplication; empty for none.
    pub(in crate::broker) key: &'a str,
    /// Milliseconds from now until it is dead, whatever the topic's setting; 0 for that one.
    pub(in crate::broker) expires_in_ms: u64,
}

/// What became of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Accepted {
    /// With this sequence.
    New(u64),
    /// It came before, with this sequence.
    Duplicate(u64),
    /// A bound is reached.
    Full,
}

/// Milliseconds as ticks.
pub(super) fn ticks_of(ms: u64) -> Tick {
    ms.saturating_mul(1000)
}

impl Queue {
    /// Whether a body of this length fits.
    pub(in crate::broker) fn has_room(&self, length: usize) -> bool {
        let fits =
            self.entries.len() < self.terms.depth && self.bytes.saturating_add(length) <= self.terms.bytes;
        fits || self.entries.len() == 0
    }

    /// Wakes this waker when a message leaves. The place is the waiter's, none before it waited: one that waits
    /// twice is woken once.
    pub(in crate::broker) fn wait_for_room(&mut self, waker: &Arc<AtomicWaker>, place: &mut Option<u64>) {
        if place.is_none_or(|place| !self.room.contains_key(&place)) {
            self.last_waiter += 1;
            *place = Some(self.last_waiter);
            self.room.insert(self.last_waiter, Arc::clone(waker));
        }
    }

    /// A waiter gives its place up.
    pub(in crate::broker) fn stop_waiting(&mut self, place: u64) {
        self.room.remove(&place);
    }

    /// Takes messages in, in order, and says for each what became of it. Returns the last sequence, that of a
    /// duplicate too: what must be on disk before the answer.
    pub(in crate::broker) fn accept<'a>(
        &mut self,
        drafts: impl IntoIterator<Item = Draft<'a>>,
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
        results: &mut Vec<Accepted>,
    ) -> Option<u64> {
        self.now = now;
        let (mut last, mut due_now, mut full) = (None, 0, false);
        for draft in drafts {
            if full && !self.terms.refuse {
                // A duplicate too: it keeps its place behind what waits.
                results.push(Accepted::Full);
                continue;
            }
            if !draft.key.is_empty()
                && let Some(before) = self.dedup.as_mut().and_then(|dedup| dedup.find(draft.key, now))
            {
                results.push(Accepted::Duplicate(before));
                last = Some(before);
                continue;
            }
            full = !self.has_room(draft.body.len());
            let Some(length) = u32::try_from(draft.body.len()).ok().filter(|_| !full) else {
                results.push(Accepted::Full);
                continue;
            };
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let is_due = self.take_in(&draft, sequence, length, wall, journal);
            due_now += usize::from(is_due);
            results.push(Accepted::New(sequence));
            last = Some(sequence);
        }
        self.wake_waiting(due_now);
        last
    }

    fn take_in(
        &mut self,
        draft: &Draft<'_>,
        sequence: u64,
        length: u32,
        wall: i64,
        journal: &mut dyn Journal,
    ) -> bool {
        let delay = u64::try_from(draft.delay_ms).unwrap_or(0);
        let due_ms = wall.saturating_add_unsigned(delay);
        let expiry = self.terms.expiry_ms;
        let expires_ms = match (draft.expires_in_ms, expiry) {
            (0, 0) => 0,
            (0, expiry) => due_ms.saturating_add_unsigned(expiry),
            (own, _) => wall.saturating_add_unsigned(own),
        };
        let position = journal.append(&Record::Message(MessageRecord {
            topic: self.topic,
            sequence,
            created_ms: wall,
            due_ms: if delay > 0 { due_ms } else { 0 },
            expires_ms,
            wire_delay: draft.wire_delay,
            attempts: 0,
            moved: false,
            key: draft.key,
            noted: false,
            body: draft.body,
        }));
        if let Some(dedup) = self.dedup.as_mut().filter(|_| !draft.key.is_empty()) {
            dedup.note(draft.key, sequence, self.now);
        }
        self.bytes += length as usize;
        let stage = if delay > 0 { Stage::Delayed } else { Stage::Live };
        let mut entry = Entry::new(position, length, stage);
        if draft.expires_in_ms > 0 {
            entry.set(flag::NOTED);
            let until = self.now.saturating_add(ticks_of(draft.expires_in_ms));
            self.expiries.add_single(until, sequence);
            self.alarm_by(until);
        } else if expiry > 0 && delay == 0 {
            entry.set(flag::NOTED);
            self.note_expiry(self.now, sequence);
        }
        if delay > 0 {
            let due = self.now.saturating_add(ticks_of(delay));
            self.delays.push(due, sequence);
            self.delayed += 1;
            self.alarm_by(self.delays.next());
        } else if self.is_shared() {
            let owed = u16::try_from(self.subscriptions.len()).unwrap_or(u16::MAX);
            entry.set_shares(owed.max(1), 0);
            if owed == 0 {
                self.line.backs.add(sequence, 0);
            }
        }
        self.entries.insert(sequence, entry);
        delay == 0
    }

    /// Notes when a message that is due at this time expires.
    pub(super) fn note_expiry(&mut self, due: Tick, sequence: u64) {
        let expiry = ticks_of(self.terms.expiry_ms);
        let until = due.saturating_add(expiry);
        self.expiries.add(until, sequence, expiry / 64);
        self.alarm_by(until);
    }
}
