//! The messages and consumers of one topic, as a state machine: no lock, no clock, no socket.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures_util::task::AtomicWaker;

use super::consumer::{Consumer, Entry};
use crate::broker::config::DeliveryMode;
use crate::broker::delay::{Delayed, Delays, NEVER, Tick};
use crate::broker::history::Consumed;
use crate::broker::room::{Room, Stored};

/// Bytes that a place in the line of a consumer costs, before and after its push.
const PLACE: u32 = 64;

/// A message on its way into a queue.
#[derive(Debug)]
pub(in crate::broker) struct Draft {
    pub(in crate::broker) body: Stored,
    /// Seconds; zero and less mean at once.
    pub(in crate::broker) delay: i64,
}

/// A message to write to a consumer.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Outgoing {
    pub(in crate::broker) slot: u32,
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) body: Stored,
    pub(in crate::broker) created: i64,
    pub(in crate::broker) delay: i64,
}

/// Where a message is in its life. Acknowledged ones leave their slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    Delayed,
    Live,
}

/// A message, or a free place for one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) sequence: u64,
    pub(super) body: Option<Stored>,
    pub(super) created: i64,
    /// As the wire shows it: the delay, and from the second push on the age.
    pub(super) delay: i64,
    /// Consumers that have yet to acknowledge; 1 while it waits for any consumer.
    pub(super) shares: u32,
    /// Lost consumers that may come back for it.
    pub(super) parked: u32,
    pub(super) acked: bool,
    /// What was charged for its places in the lines of consumers.
    pub(super) charged: u32,
    /// The consumer it was last pushed to: by its id, so that an ack survives a reconnect. 0 for none.
    pub(super) last: u64,
    pub(super) stage: Stage,
}

/// What bounds a queue.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Terms {
    pub(in crate::broker) mode: DeliveryMode,
    pub(in crate::broker) redeliver_after: Tick,
    pub(in crate::broker) unacked: usize,
    pub(in crate::broker) unacked_bytes: usize,
}

/// How much one call of [`Queue::take`] may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Window {
    pub(in crate::broker) count: usize,
    pub(in crate::broker) bytes: usize,
}

/// What was delivered once more or given up; read and reset by the owner.
#[derive(Debug, Default)]
pub(in crate::broker) struct Events {
    pub(in crate::broker) redelivered: u64,
    /// Cost of places in the lines of consumers.
    pub(in crate::broker) charged: usize,
    /// Cost of messages that left the log, with what was charged for them.
    pub(in crate::broker) freed: usize,
    /// Messages that everybody acknowledged.
    pub(in crate::broker) consumed: Vec<Consumed>,
    pub(in crate::broker) wakes: Vec<Arc<AtomicWaker>>,
}

/// One topic's messages and consumers.
#[derive(Debug)]
pub(in crate::broker) struct Queue {
    pub(super) terms: Terms,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    /// Messages for whoever comes: all of them in a work queue, the held ones in publish-subscribe.
    pub(super) ready: VecDeque<Entry>,
    pub(super) delays: Delays,
    pub(super) consumers: BTreeMap<u64, Consumer>,
    /// Consumers with an open window and nothing to take, the longest waiting first.
    pub(super) waiting: VecDeque<u64>,
    pub(super) departed: VecDeque<super::consumer::Departed>,
    pub(super) events: Events,
    next_sequence: u64,
    hasher: RandomState,
    /// When the owner will call [`Queue::advance`] next.
    alarm: Tick,
}

impl Queue {
    pub(in crate::broker) fn new(terms: Terms) -> Queue {
        Queue {
            terms,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            delays: Delays::default(),
            consumers: BTreeMap::new(),
            waiting: VecDeque::new(),
            departed: VecDeque::new(),
            events: Events::default(),
            next_sequence: 0,
            hasher: RandomState::new(),
            alarm: NEVER,
        }
    }

    /// A number for a consumer's id, as good as unique.
    pub(super) fn who(&self, id: &str) -> u64 {
        self.hasher.hash_one(id) | 1
    }

    /// What happened since the last call.
    pub(in crate::broker) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// When [`Queue::advance`] must be called.
    pub(in crate::broker) fn alarm(&self) -> Tick {
        self.alarm
    }

    pub(super) fn alarm_by(&mut self, tick: Tick) {
        self.alarm = self.alarm.min(tick);
    }

    pub(super) fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    /// The slot of this message, if the message is still there.
    pub(super) fn slot_of(&mut self, index: u32, sequence: u64) -> Option<&mut Slot> {
        self.slot(index).filter(|slot| slot.sequence == sequence && slot.stage != Stage::Free)
    }

    fn insert(&mut self, draft: Draft, created: i64, stage: Stage) -> u32 {
        let slot = Slot {
            sequence: self.next_sequence,
            body: Some(draft.body),
            created,
            delay: draft.delay,
            shares: 1,
            parked: 0,
            acked: false,
            charged: 0,
            last: 0,
            stage,
        };
        self.next_sequence += 1;
        if let Some(index) = self.free.pop()
            && let Some(place) = self.slots.get_mut(index as usize)
        {
            *place = slot;
            return index;
        }
        self.slots.push(slot);
        // The bound on stored bytes keeps the count far below 2^32.
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes messages in, in order. Returns slot and sequence of the last.
    pub(in crate::broker) fn accept(
        &mut self,
        drafts: impl IntoIterator<Item = Draft>,
        now: Tick,
        wall: i64,
    ) -> Option<(u32, u64)> {
        let mut last = None;
        let mut due_now = 0;
        for draft in drafts {
            let delay = u64::try_from(draft.delay).unwrap_or(0);
            let sequence = self.next_sequence;
            let slot = if delay > 0 {
                let slot = self.insert(draft, wall, Stage::Delayed);
                let due = now.saturating_add(delay.saturating_mul(1_000_000));
                self.delays.push(Delayed { due, sequence, slot });
                self.alarm_by(due);
                slot
            } else {
                let slot = self.insert(draft, wall, Stage::Live);
                self.make_ready(slot);
                due_now += 1;
                slot
            };
            last = Some((slot, sequence));
        }
        self.wake_waiting(due_now);
        last
    }

    /// Puts a message in line for whom it is meant.
    fn make_ready(&mut self, slot: u32) {
        let entry = Entry { slot, pushes: 0 };
        if self.terms.mode == DeliveryMode::WorkQueue || self.consumers.is_empty() {
            self.ready.push_back(entry);
            return;
        }
        for consumer in self.consumers.values_mut() {
            consumer.line.push_back(entry);
        }
        let shares = u32::try_from(self.consumers.len()).unwrap_or(u32::MAX);
        let charge = shares.saturating_mul(PLACE);
        if let Some(slot) = self.slot(slot) {
            slot.shares = shares;
            slot.charged = charge;
        }
        self.events.charged += charge as usize;
    }

    /// Wakes consumers for this many new messages.
    pub(super) fn wake_waiting(&mut self, messages: usize) {
        let count = match self.terms.mode {
            DeliveryMode::WorkQueue => messages.min(self.waiting.len()),
            DeliveryMode::PublishSubscribe if messages == 0 => 0,
            DeliveryMode::PublishSubscribe => self.waiting.len(),
        };
        for number in self.waiting.drain(..count) {
            if let Some(consumer) = self.consumers.get_mut(&number) {
                consumer.waiting = false;
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
    }

    /// Takes what this consumer may get now into `out`; nothing when it must wait to be woken.
    pub(in crate::broker) fn take(
        &mut self,
        number: u64,
        window: Window,
        now: Tick,
        wall: i64,
        out: &mut Vec<Outgoing>,
    ) {
        let sharers = self.consumers.len().max(1);
        let Some(consumer) = self.consumers.get_mut(&number) else { return };
        let (line, fair) = match self.terms.mode {
            // Each consumer takes its part of the line, so that the first one awake does not take it all.
            DeliveryMode::WorkQueue => {
                let part = self.ready.len().div_ceil(sharers);
                (&mut self.ready, part)
            }
            DeliveryMode::PublishSubscribe => (&mut consumer.line, usize::MAX),
        };
        let count = window.count.min(fair).max(1);
        let mut bytes = 0;
        let mut done = Vec::new();
        while out.len() < count {
            let Some(&entry) = line.front() else { break };
            let slot = self.slots.get_mut(entry.slot as usize);
            let Some((slot, body)) = slot.and_then(|slot| {
                let body = slot.body.clone()?;
                Some((slot, body))
            }) else {
                line.pop_front();
                continue;
            };
            if slot.acked && self.terms.mode == DeliveryMode::WorkQueue {
                // Its ack came late, when it was in line again.
                slot.shares = 0;
                line.pop_front();
                done.push(entry.slot);
                continue;
            }
            if !consumer.unacked.has_room(body.len(), &self.terms) {
                consumer.stalled = true;
                break;
            }
            bytes += body.len();
            if !out.is_empty() && bytes > window.bytes {
                break;
            }
            line.pop_front();
            if entry.pushes > 0 {
                slot.delay = wall.saturating_sub(slot.created).max(0);
                self.events.redelivered += 1;
            }
            slot.last = consumer.who;
            consumer.unacked.add(entry.slot, entry.pushes.saturating_add(1), body.len(), now);
            out.push(Outgoing {
                slot: entry.slot,
                sequence: slot.sequence,
                body,
                created: slot.created,
                delay: slot.delay,
            });
        }
        let stalled = consumer.stalled;
        if out.is_empty() && !stalled && !consumer.waiting {
            consumer.waiting = true;
            self.waiting.push_back(number);
        }
        for index in done {
            self.finish_if_done(index, wall);
        }
        if !out.is_empty() {
            self.alarm_by(now.saturating_add(self.terms.redeliver_after));
        } else if stalled {
            // It was woken for what it may not take: another one must be.
            self.wake_waiting(self.ready.len());
        }
    }

    /// Takes the acks of a consumer; those of messages that it does not hold are ignored. Returns how many
    /// counted.
    pub(in crate::broker) fn ack(
        &mut self,
        number: u64,
        messages: impl IntoIterator<Item = (u32, u64)>,
        wall: i64,
    ) -> usize {
        let mut counted = 0;
        for (index, sequence) in messages {
            let Some(consumer) = self.consumers.get_mut(&number) else { return counted };
            let slot = self.slots.get_mut(index as usize);
            let Some(slot) = slot.filter(|slot| slot.sequence == sequence && slot.stage == Stage::Live)
            else {
                continue;
            };
            if consumer.unacked.remove(index) {
                consumer.stalled = false;
            } else if self.terms.mode == DeliveryMode::WorkQueue {
                // Late: it is in line again, and is dropped there unless another consumer has it by now.
                if slot.last == consumer.who && !slot.acked {
                    slot.acked = true;
                    counted += 1;
                }
                continue;
            } else if !consumer.drop_from_line(index) {
                continue;
            }
            slot.acked = true;
            slot.shares = slot.shares.saturating_sub(1);
            counted += 1;
            self.finish_if_done(index, wall);
        }
        counted
    }

    /// Ends a message that everybody acknowledged.
    pub(super) fn finish_if_done(&mut self, index: u32, wall: i64) {
        let Some(slot) = self.slot(index) else { return };
        if !slot.acked || slot.shares > 0 || slot.parked > 0 || slot.stage != Stage::Live {
            return;
        }
        if let Some(done) = self.free_slot(index, wall) {
            self.events.consumed.push(done);
        }
    }

    /// Empties a slot and gives its room in the log back. Returns what was in it.
    pub(super) fn free_slot(&mut self, index: u32, wall: i64) -> Option<Consumed> {
        let slot = self.slot(index)?;
        if slot.stage == Stage::Free {
            return None;
        }
        slot.stage = Stage::Free;
        let body = slot.body.take()?;
        let charged = slot.charged as usize;
        let left = Consumed {
            slot: index,
            sequence: slot.sequence,
            created: slot.created,
            consumed: wall,
            delay: slot.delay,
            body,
        };
        self.events.freed += Room::cost(left.body.len()) + charged;
        self.free.push(index);
        if self.free.len() == self.slots.len() && self.slots.len() > 4096 {
            // Nothing is left: a past peak keeps no memory.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.ready.shrink_to(1024);
        }
        Some(left)
    }

    /// Moves on what time moves: delayed messages that are due, deliveries not acknowledged in time, lost
    /// consumers that did not come back. Sets the next alarm.
    pub(in crate::broker) fn advance(&mut self, now: Tick, wall: i64) {
        let mut due = 0;
        while let Some(delayed) = self.delays.pop_due(now) {
            let Some(slot) = self.slot_of(delayed.slot, delayed.sequence) else { continue };
            slot.stage = Stage::Live;
            self.make_ready(delayed.slot);
            due += 1;
        }
        self.wake_waiting(due);
        self.redeliver(now);
        self.forget_departed(now, wall);
        let overdue = self.consumers.values().map(|consumer| consumer.unacked.oldest());
        let overdue = overdue.min().unwrap_or(NEVER).saturating_add(self.terms.redeliver_after);
        let gone = self.departed.front().map_or(NEVER, |departed| departed.until);
        self.alarm = self.delays.next().min(overdue).min(gone);
    }

    /// Nothing would be lost if this topic went.
    pub(in crate::broker) fn is_idle(&self) -> bool {
        self.consumers.is_empty() && self.free.len() == self.slots.len()
    }

    /// Messages that wait or were pushed without an ack, and those not yet due.
    pub(in crate::broker) fn counts(&self) -> (usize, usize) {
        let delayed = self.delays.len();
        let stored = self.slots.len().saturating_sub(self.free.len());
        (stored.saturating_sub(delayed), delayed)
    }

    /// Deliveries that wait for an ack.
    pub(in crate::broker) fn unacked(&self) -> usize {
        self.consumers.values().map(|consumer| consumer.unacked.len()).sum()
    }
}
