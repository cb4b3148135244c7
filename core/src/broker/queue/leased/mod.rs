//! The compact state machine of a queue whose deliveries are leases: who receives a message has it for a time,
//! under a serial number that ends with the time or with the next one. As the other queue it has no lock, no clock
//! and no file; what must outlive the process goes to a `Journal`, and the records alone rebuild it (`replay`).
//!
//! The way of a message:
//! 1. [`LeaseQueue::accept`] gives it a sequence. With a delay it waits in `delays`.
//! 2. It is `ready`, among those of its priority, by its sequence. The lowest priority number goes first.
//! 3. [`LeaseQueue::take`] hides it until a time. It may be deleted, or hidden until another time, by who knows
//!    its serial. When the time is over it is ready again.
//! 4. It leaves when it is deleted or past its retention.
//!
//! A waiting message takes 16 bytes (`entries`) and from 6 to 12 for its place, and up to 8 for its expiry where it
//! did not become ready in the order of its sending; one in somebody's hands has a lease beside.
//!
//! What must stay true: while a message is ready, no waiting receiver sleeps unless another one is awake to take
//! it; a serial is never given twice for one message; each list is bounded by the messages there are.

mod cleaning;
mod ending;
mod inspect;
mod ready;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use futures_util::task::AtomicWaker;

pub(in crate::broker) use inspect::LeaseCounts;

use super::delays::Delays;
use super::entries::{Entries, Entry, Stage};
use super::expiry::Expiries;
use super::held::SequenceHasher;
use super::intake::ticks_of;
use super::{Events, Why};
use crate::broker::delay::{NEVER, Tick};
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record};
use ready::Ready;

/// How many priorities there are; they are numbered from 1, which goes first.
pub(in crate::broker) const PRIORITIES: u8 = 16;
/// Messages that fall due or expire in one call: the rest follows in the next, which is due at once.
const BATCH: usize = 4096;

/// A message on its way in.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct LeaseDraft<'a> {
    pub(in crate::broker) body: &'a [u8],
    /// What its owner notes beside the body; empty for nothing.
    pub(in crate::broker) note: &'a str,
    pub(in crate::broker) delay_ms: u64,
    pub(in crate::broker) priority: u8,
    /// Milliseconds after which it is gone, from when it is due; 0 for never.
    pub(in crate::broker) retention_ms: u64,
}

impl LeaseDraft<'_> {
    /// Bytes that are counted of it.
    pub(in crate::broker) fn length(&self) -> usize {
        self.body.len().saturating_add(self.note.len())
    }
}

/// A message that was received, or looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Received {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) position: Position,
    /// Bytes of its body and note.
    pub(in crate::broker) length: u32,
    pub(in crate::broker) priority: u8,
    /// How often it was received, this time included.
    pub(in crate::broker) count: u32,
    /// When it was first received, in milliseconds since 1970; 0 for never.
    pub(in crate::broker) first_ms: i64,
    /// What this delivery is known by, and until when; 0 where it was only looked at.
    pub(in crate::broker) serial: u64,
    pub(in crate::broker) until_ms: i64,
}

/// A delivery, or a message whose delay was changed by who sent it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    until: Tick,
    until_ms: i64,
    serial: u64,
    first_ms: i64,
}

type Leases = HashMap<u64, Lease, BuildHasherDefault<SequenceHasher>>;

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct LeaseQueue {
    topic: u32,
    entries: Entries,
    /// Bytes of bodies and notes.
    bytes: usize,
    /// By priority.
    ready: [Ready; PRIORITIES as usize],
    /// Messages whose time has not come.
    delays: Delays,
    delayed: usize,
    /// Of the last message: one that waits for its time gets it when it is due.
    retention_ms: u64,
    leases: Leases,
    /// When leases end; some ended before or were prolonged.
    ends: Delays,
    expiries: Expiries,
    /// Receivers that wait, the longest waiting first.
    waiting: BTreeMap<u64, Arc<AtomicWaker>>,
    last_waiter: u64,
    last_serial: u64,
    next_sequence: u64,
    replay: Option<Box<replay::Gathered>>,
    events: Events,
    now: Tick,
    alarm: Tick,
}

/// The priority and the count of receives are kept in one word of an entry.
fn packed(priority: u8, count: u32) -> u32 {
    u32::from(priority.clamp(1, PRIORITIES) - 1) << 28 | count.min(MOST_RECEIVES)
}

const MOST_RECEIVES: u32 = (1 << 28) - 1;

fn priority_of(entry: &Entry) -> u8 {
    (entry.attempts() >> 28) as u8 + 1
}

fn count_of(entry: &Entry) -> u32 {
    entry.attempts() & MOST_RECEIVES
}

impl LeaseQueue {
    /// An empty queue with this number.
    pub(in crate::broker) fn new(topic: u32) -> LeaseQueue {
        LeaseQueue {
            topic,
            entries: Entries::default(),
            bytes: 0,
            ready: Default::default(),
            delays: Delays::default(),
            delayed: 0,
            retention_ms: 0,
            leases: Leases::default(),
            ends: Delays::default(),
            expiries: Expiries::default(),
            waiting: BTreeMap::new(),
            last_waiter: 0,
            last_serial: 0,
            next_sequence: 0,
            replay: None,
            events: Events::default(),
            now: 0,
            alarm: NEVER,
        }
    }

    /// What happened since the last call.
    pub(in crate::broker) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// When [`LeaseQueue::advance`] must be called.
    pub(in crate::broker) fn alarm(&self) -> Tick {
        self.alarm
    }

    /// Takes a message in and says its sequence.
    pub(in crate::broker) fn accept(
        &mut self,
        draft: &LeaseDraft<'_>,
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
    ) -> u64 {
        self.now = now;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let due_ms = wall.saturating_add_unsigned(draft.delay_ms);
        let expires_ms = match draft.retention_ms {
            0 => 0,
            retention => due_ms.saturating_add_unsigned(retention),
        };
        let position = journal.append(&Record::Message(MessageRecord {
            topic: self.topic,
            sequence,
            created_ms: wall,
            due_ms: if draft.delay_ms > 0 { due_ms } else { 0 },
            expires_ms,
            wire_delay: i64::from(draft.priority),
            attempts: 0,
            moved: false,
            key: draft.note,
            noted: true,
            body: draft.body,
        }));
        let length = u32::try_from(draft.length()).unwrap_or(u32::MAX);
        let stage = if draft.delay_ms > 0 { Stage::Delayed } else { Stage::Live };
        let mut entry = Entry::new(position, length, stage);
        entry.set_attempts(packed(draft.priority, 0));
        self.bytes += length as usize;
        self.entries.insert(sequence, entry);
        self.retention_ms = draft.retention_ms;
        if draft.delay_ms > 0 {
            self.delays.push(now.saturating_add(ticks_of(draft.delay_ms)), sequence);
            self.delayed += 1;
            self.alarm = self.alarm.min(self.delays.next());
        } else {
            self.note_expiry(now, sequence);
            self.make_ready(sequence, priority_of(&entry), 0);
            self.wake(1);
        }
        sequence
    }

    /// Notes when a message expires that is due at this time.
    fn note_expiry(&mut self, due: Tick, sequence: u64) {
        if self.retention_ms > 0 {
            let retention = ticks_of(self.retention_ms);
            self.expiries.add(due.saturating_add(retention), sequence, retention / 64);
            self.alarm = self.alarm.min(self.expiries.next());
        }
    }

    fn make_ready(&mut self, sequence: u64, priority: u8, first_ms: i64) {
        if let Some(heap) = self.ready.get_mut(usize::from(priority.clamp(1, PRIORITIES) - 1)) {
            heap.push(sequence, first_ms.max(0).unsigned_abs());
        }
    }

    /// Messages that can be received.
    fn ready(&self) -> usize {
        self.entries.len().saturating_sub(self.delayed + self.leases.len())
    }

    /// The next that can be received, taken out of its list: its sequence and when it was first received.
    fn pop_ready(&mut self) -> Option<(u64, i64)> {
        for heap in &mut self.ready {
            while let Some((sequence, first_ms)) = heap.pop() {
                if self.entries.live(sequence).is_some() {
                    return Some((sequence, i64::try_from(first_ms).unwrap_or(0)));
                }
            }
        }
        None
    }

    /// Receives up to `most` messages, which nobody else gets for so many milliseconds.
    pub(in crate::broker) fn take(
        &mut self,
        most: usize,
        hidden_ms: u64,
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
        out: &mut Vec<Received>,
    ) {
        self.now = now;
        let (until, until_ms) =
            (now.saturating_add(ticks_of(hidden_ms)), wall.saturating_add_unsigned(hidden_ms));
        let before = out.len();
        let serial = self.last_serial + 1;
        let mut again = 0;
        for _ in 0..most {
            let Some((sequence, first_ms)) = self.pop_ready() else { break };
            let Some(entry) = self.entries.get_mut(sequence) else { continue };
            let (priority, count) = (priority_of(entry), count_of(entry).saturating_add(1));
            entry.set_attempts(packed(priority, count));
            again += u64::from(count > 1);
            let first_ms = if first_ms > 0 { first_ms } else { wall };
            let (position, length) = (entry.position(), entry.length);
            self.leases.insert(sequence, Lease { until, until_ms, serial, first_ms });
            self.ends.push(until, sequence);
            out.push(Received { sequence, position, length, priority, count, first_ms, serial, until_ms });
        }
        let taken = out.get(before..).unwrap_or_default();
        if taken.is_empty() {
            return;
        }
        self.last_serial = serial;
        self.events.redelivered += again;
        self.alarm = self.alarm.min(until);
        let mut sequences: Vec<u64> = taken.iter().map(|taken| taken.sequence).collect();
        let ranges = ranges_of(&mut sequences);
        journal.append(&Record::Leased { topic: self.topic, serial, at_ms: wall, until_ms, ranges: &ranges });
    }

    /// Whether this serial is that of the message now. One that waits for its delay has the serial 0.
    fn is_held(&self, sequence: u64, serial: u64, now: Tick) -> bool {
        match self.leases.get(&sequence) {
            Some(lease) => lease.serial == serial && lease.until > now,
            None => {
                serial == 0 && self.entries.get(sequence).is_some_and(|entry| entry.stage() == Stage::Delayed)
            }
        }
    }

    /// Deletes messages by sequence and serial; says for each whether it was there for who asks.
    pub(in crate::broker) fn delete(
        &mut self,
        handles: &[(u64, u64)],
        now: Tick,
        journal: &mut dyn Journal,
    ) -> Vec<bool> {
        self.now = now;
        let mut done = Vec::new();
        let mut results = Vec::with_capacity(handles.len());
        for &(sequence, serial) in handles {
            let held = self.is_held(sequence, serial, now);
            if held {
                self.drop_message(sequence, Why::Consumed);
                done.push(sequence);
            }
            results.push(held);
        }
        self.append_done(done, journal);
        results
    }

    /// Hides a message for so many milliseconds from now, whatever was said before; 0 makes it ready. Says its new
    /// serial and the end of the time, if the old serial was that of the message.
    pub(in crate::broker) fn change(
        &mut self,
        (sequence, serial): (u64, u64),
        hidden_ms: u64,
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
    ) -> Option<(u64, i64)> {
        self.now = now;
        if !self.is_held(sequence, serial, now) {
            return None;
        }
        let entry = self.entries.get_mut(sequence)?;
        let priority = priority_of(entry);
        if entry.stage() == Stage::Delayed {
            entry.set_stage(Stage::Live);
            self.delayed -= 1;
            self.note_expiry(now.saturating_add(ticks_of(hidden_ms)), sequence);
        }
        self.last_serial += 1;
        let serial = self.last_serial;
        let (until, until_ms) =
            (now.saturating_add(ticks_of(hidden_ms)), wall.saturating_add_unsigned(hidden_ms));
        let first_ms = self.leases.get(&sequence).map_or(0, |lease| lease.first_ms);
        journal.append(&Record::Hidden { topic: self.topic, sequence, serial, until_ms, first_ms });
        if hidden_ms == 0 {
            self.leases.remove(&sequence);
            self.make_ready(sequence, priority, first_ms);
            self.wake(1);
        } else {
            self.leases.insert(sequence, Lease { until, until_ms, serial, first_ms });
            self.ends.push(until, sequence);
            self.alarm = self.alarm.min(until);
        }
        self.tidy();
        Some((serial, until_ms))
    }

    /// Moves on what time moves, and sets the next alarm.
    pub(in crate::broker) fn advance(&mut self, now: Tick, journal: &mut dyn Journal) {
        self.now = now;
        self.expire(now, journal);
        let mut count = 0;
        for _ in 0..BATCH {
            let Some((due, sequence)) = self.delays.pop_due(now) else { break };
            let there = self.entries.get_mut(sequence);
            let Some(entry) = there.filter(|entry| entry.stage() == Stage::Delayed) else { continue };
            entry.set_stage(Stage::Live);
            let priority = priority_of(entry);
            self.delayed -= 1;
            self.note_expiry(due, sequence);
            self.make_ready(sequence, priority, 0);
            count += 1;
        }
        for _ in 0..BATCH {
            let Some((_, sequence)) = self.ends.pop_due(now) else { break };
            // One that was prolonged has a later end, too.
            let Some(lease) = self.leases.get(&sequence).copied().filter(|lease| lease.until <= now) else {
                continue;
            };
            self.leases.remove(&sequence);
            let Some(priority) = self.entries.get(sequence).map(priority_of) else { continue };
            self.make_ready(sequence, priority, lease.first_ms);
            count += 1;
        }
        self.wake(count);
        self.tidy();
        self.alarm = self.delays.next().min(self.ends.next()).min(self.expiries.next());
    }

    /// A receiver waits: its waker is woken when there may be something for it. The place is its own, none before it
    /// waited.
    pub(in crate::broker) fn wait(&mut self, waker: &Arc<AtomicWaker>, place: &mut Option<u64>) {
        if place.is_none_or(|place| !self.waiting.contains_key(&place)) {
            self.last_waiter += 1;
            *place = Some(self.last_waiter);
            self.waiting.insert(self.last_waiter, Arc::clone(waker));
        }
    }

    /// A receiver waits no more. One that was woken may have left without taking: the next one is woken.
    pub(in crate::broker) fn stop_waiting(&mut self, place: u64) {
        if self.waiting.remove(&place).is_none() && self.ready() > 0 {
            self.wake(1);
        }
    }

    fn wake(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some((_, waker)) = self.waiting.pop_first() else { return };
            self.events.wakes.push(waker);
        }
    }
}

fn ranges_of(sequences: &mut [u64]) -> Vec<Range> {
    sequences.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for &sequence in &*sequences {
        match ranges.last_mut() {
            Some(last) if last.first + u64::from(last.count) == sequence && last.count < u32::MAX => {
                last.count += 1
            }
            _ => ranges.push(Range { first: sequence, count: 1 }),
        }
    }
    ranges
}
