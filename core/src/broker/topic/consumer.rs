//! The consumers of a topic: what they hold unacknowledged, and what happens when they come, go or are slow.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use futures_util::task::AtomicWaker;

use super::queue::{Queue, Stage, Terms};
use crate::broker::config::DeliveryMode;
use crate::broker::delay::{NEVER, Tick};

/// A message in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slot: u32,
    /// How often it was pushed to the consumer of this line.
    pub(super) pushes: u32,
}

/// A connected consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: Arc<str>,
    /// Stands for the id in [`super::queue::Slot::last`]: the same for each connection of this id, never 0.
    pub(super) who: u64,
    pub(super) waker: Arc<AtomicWaker>,
    /// Its own messages in publish-subscribe; unused in a work queue.
    pub(super) line: VecDeque<Entry>,
    pub(super) unacked: Unacked,
    /// It is among those to wake for a new message.
    pub(super) waiting: bool,
    /// It holds as much unacknowledged as it may.
    pub(super) stalled: bool,
}

impl Consumer {
    /// Takes a message that was pushed before out of the front of the line: its ack came late.
    pub(super) fn drop_from_line(&mut self, slot: u32) -> bool {
        let mut pushed = self.line.iter().take_while(|entry| entry.pushes > 0);
        let Some(at) = pushed.position(|entry| entry.slot == slot) else { return false };
        self.line.remove(at).is_some()
    }
}

/// A consumer that was lost in publish-subscribe, with what it may come back for.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) id: Arc<str>,
    pub(super) until: Tick,
    pub(super) entries: Vec<(Entry, u64)>,
}

/// The deliveries of one consumer that wait for their acks.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    held: HashMap<u32, Held, BuildHasherDefault<SlotHasher>>,
    /// In order of push; entries whose ack came are skipped.
    order: VecDeque<Pushed>,
    bytes: usize,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    number: u64,
    pushes: u32,
    length: usize,
}

#[derive(Debug, Clone, Copy)]
struct Pushed {
    slot: u32,
    number: u64,
    at: Tick,
}

impl Unacked {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether a body of this length may be pushed too. One always may.
    pub(super) fn has_room(&self, length: usize, terms: &Terms) -> bool {
        self.held.is_empty()
            || (self.held.len() < terms.unacked && self.bytes.saturating_add(length) <= terms.unacked_bytes)
    }

    pub(super) fn add(&mut self, slot: u32, pushes: u32, length: usize, at: Tick) {
        let number = self.next;
        self.next += 1;
        self.held.insert(slot, Held { number, pushes, length });
        self.order.push_back(Pushed { slot, number, at });
        self.bytes += length;
    }

    fn is_current(&self, pushed: &Pushed) -> bool {
        self.held.get(&pushed.slot).is_some_and(|held| held.number == pushed.number)
    }

    /// Whether the slot was held; it is not any more.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let Some(held) = self.held.remove(&slot) else { return false };
        self.bytes = self.bytes.saturating_sub(held.length);
        while let Some(front) = self.order.front() {
            if self.is_current(front) {
                break;
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.held.len() + 64 {
            // One delivery at the front that is never acknowledged must not keep the rest of the order.
            let held = &self.held;
            self.order
                .retain(|pushed| held.get(&pushed.slot).is_some_and(|held| held.number == pushed.number));
        }
        true
    }

    /// When the oldest was pushed.
    pub(super) fn oldest(&self) -> Tick {
        self.order.front().map_or(NEVER, |pushed| pushed.at)
    }

    /// Takes the oldest out if it was pushed at this time or before.
    fn pop_until(&mut self, at: Tick) -> Option<Entry> {
        let front = *self.order.front().filter(|front| front.at <= at)?;
        let held = self.held.get(&front.slot).copied();
        self.remove(front.slot);
        held.map(|held| Entry { slot: front.slot, pushes: held.pushes })
    }

    fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.held.into_iter().map(|(slot, held)| Entry { slot, pushes: held.pushes })
    }
}

/// Spreads slot numbers, which are small and ours, in one multiplication.
#[derive(Debug, Default)]
pub(super) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, slot: u32) {
        let word = (self.0 ^ u64::from(slot)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = word ^ (word >> 32);
    }
}

impl Queue {
    /// Adds a consumer. The number is the caller's and unique. In publish-subscribe it gets what an earlier
    /// connection of the same id left, and what is held.
    pub(in crate::broker) fn join(&mut self, number: u64, id: &Arc<str>, waker: Arc<AtomicWaker>) {
        let mut line = VecDeque::new();
        if self.terms.mode == DeliveryMode::PublishSubscribe {
            let mut back: Vec<(Entry, u64)> = Vec::new();
            self.departed.retain_mut(|departed| {
                if departed.id != *id {
                    return true;
                }
                back.append(&mut departed.entries);
                false
            });
            back.sort_unstable_by_key(|&(_, sequence)| sequence);
            let mut last = None;
            for (entry, sequence) in back {
                let Some(slot) = self.slot_of(entry.slot, sequence).filter(|slot| slot.parked > 0) else {
                    continue;
                };
                slot.parked -= 1;
                // Two lost connections of this id may both have left it: it comes back once.
                if last.replace(sequence) != Some(sequence) {
                    slot.shares += 1;
                    line.push_back(entry);
                }
            }
            line.append(&mut self.ready);
        }
        let consumer = Consumer {
            id: Arc::clone(id),
            who: self.who(id),
            waker,
            line,
            unacked: Unacked::default(),
            waiting: false,
            stalled: false,
        };
        self.consumers.insert(number, consumer);
    }

    /// Removes a consumer; what it did not acknowledge goes back at once, in order, to the front. Safe to
    /// call twice.
    pub(in crate::broker) fn leave(&mut self, number: u64, now: Tick) {
        let Some(consumer) = self.consumers.remove(&number) else { return };
        self.waiting.retain(|&waiting| waiting != number);
        let mut entries: Vec<(Entry, u64)> = consumer
            .unacked
            .into_entries()
            .chain(consumer.line)
            .filter_map(|entry| {
                let slot = self.slots.get(entry.slot as usize)?;
                (slot.stage == Stage::Live).then_some((entry, slot.sequence))
            })
            .collect();
        entries.sort_unstable_by_key(|&(_, sequence)| sequence);
        if self.terms.mode == DeliveryMode::PublishSubscribe {
            self.park(&consumer.id, &mut entries, now);
        }
        self.hand_back(entries.into_iter().map(|(entry, _)| entry));
    }

    /// Leaves in `entries` those that nobody else has or had; the others wait for their consumer.
    fn park(&mut self, id: &Arc<str>, entries: &mut Vec<(Entry, u64)>, now: Tick) {
        let mut parked = Vec::new();
        entries.retain(|&(entry, sequence)| {
            let Some(slot) = self.slots.get_mut(entry.slot as usize) else { return false };
            slot.shares = slot.shares.saturating_sub(1);
            if slot.shares == 0 && !slot.acked {
                // Whoever gets it now stands for all who lost it.
                slot.parked = 0;
                slot.shares = 1;
                return true;
            }
            slot.parked += 1;
            parked.push((entry, sequence));
            false
        });
        if !parked.is_empty() {
            let until = now.saturating_add(self.terms.redeliver_after);
            self.departed.push_back(Departed { id: Arc::clone(id), until, entries: parked });
            self.alarm_by(until);
        }
    }

    /// Puts entries, which are in order, before everything else that waits.
    fn hand_back(&mut self, entries: impl DoubleEndedIterator<Item = Entry>) {
        let line = match (self.terms.mode, self.consumers.values_mut().next()) {
            (DeliveryMode::PublishSubscribe, Some(consumer)) => &mut consumer.line,
            _ => &mut self.ready,
        };
        for entry in entries.rev() {
            line.push_front(entry);
        }
        // For all that waits, not only for these: the one that left may have been woken and taken nothing.
        let waits = line.len();
        self.wake_waiting(waits);
    }

    /// Puts deliveries that were not acknowledged in time back in line.
    pub(super) fn redeliver(&mut self, now: Tick) {
        let Some(limit) = now.checked_sub(self.terms.redeliver_after) else { return };
        let mut late: Vec<Entry> = Vec::new();
        let mut any = 0;
        for consumer in self.consumers.values_mut() {
            let before = late.len();
            while let Some(entry) = consumer.unacked.pop_until(limit) {
                late.push(entry);
            }
            if late.len() == before {
                continue;
            }
            any += late.len() - before;
            consumer.stalled = false;
            if self.terms.mode == DeliveryMode::PublishSubscribe {
                for entry in late.drain(..).rev() {
                    consumer.line.push_front(entry);
                }
            }
            // It may have been stalled, which is no waiting that a new message ends.
            self.events.wakes.push(Arc::clone(&consumer.waker));
        }
        late.sort_unstable_by_key(|entry| self.slots.get(entry.slot as usize).map(|slot| slot.sequence));
        for entry in late.into_iter().rev() {
            self.ready.push_front(entry);
        }
        self.wake_waiting(any);
    }

    /// Gives up on lost consumers that did not come back in time.
    pub(super) fn forget_departed(&mut self, now: Tick, wall: i64) {
        while self.departed.front().is_some_and(|departed| departed.until <= now) {
            let Some(departed) = self.departed.pop_front() else { return };
            for (entry, sequence) in departed.entries {
                if let Some(slot) = self.slot_of(entry.slot, sequence) {
                    slot.parked = slot.parked.saturating_sub(1);
                    self.finish_if_done(entry.slot, wall);
                }
            }
        }
    }
}
