//! What the console asks of a topic: find, list, delete.

use super::history::Consumed;
use super::queue::{Queue, Slot, Stage};
use crate::broker::log::Stored;
use crate::wire::kapokmq::{CONSUMED, DELAYED, WAITING};

/// A message as the console shows it.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Shown {
    pub(in crate::broker) slot: u32,
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) body: Stored,
    pub(in crate::broker) created: i64,
    pub(in crate::broker) consumed: i64,
    pub(in crate::broker) delay: i64,
    pub(in crate::broker) status: i64,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Deleted {
    Nothing,
    /// A message that no consumer had acknowledged.
    Waiting,
    /// A message that was kept to be shown.
    Consumed,
}

impl Slot {
    fn show(&self, index: u32) -> Option<Shown> {
        let status = match self.stage {
            Stage::Free => return None,
            Stage::Delayed => DELAYED,
            Stage::Live => WAITING,
        };
        Some(Shown {
            slot: index,
            sequence: self.sequence,
            body: self.body.clone()?,
            created: self.created,
            consumed: 0,
            delay: self.delay,
            status,
        })
    }
}

impl Consumed {
    fn show(&self) -> Shown {
        Shown {
            slot: self.slot,
            sequence: self.left.sequence,
            body: self.left.body.clone(),
            created: self.left.created,
            consumed: self.consumed,
            delay: self.left.delay,
            status: CONSUMED,
        }
    }
}

impl Queue {
    /// Every message, in no order: those in the queue, then the acknowledged ones that are still shown.
    pub(in crate::broker) fn all(&self) -> impl Iterator<Item = Shown> {
        let queued = self.slots.iter().zip(0u32..).filter_map(|(slot, index)| slot.show(index));
        queued.chain(self.history.iter().map(Consumed::show))
    }

    /// Acknowledged messages that are still shown.
    pub(in crate::broker) fn shown_consumed(&self) -> usize {
        self.history.len()
    }

    /// One message.
    pub(in crate::broker) fn find(&self, slot: u32, sequence: u64) -> Option<Shown> {
        let queued = self.slots.get(slot as usize).filter(|there| there.sequence == sequence);
        queued.and_then(|there| there.show(slot)).or_else(|| {
            let same = |consumed: &&Consumed| consumed.slot == slot && consumed.left.sequence == sequence;
            self.history.iter().find(same).map(Consumed::show)
        })
    }

    /// Deletes one message wherever it is. Looks through the lines: meant for people, not for programs.
    pub(in crate::broker) fn delete(&mut self, slot: u32, sequence: u64) -> Deleted {
        if self.slot_of(slot, sequence).is_none() {
            let shown = self.history.remove(slot, sequence);
            return if shown { Deleted::Consumed } else { Deleted::Nothing };
        }
        self.ready.retain(|entry| entry.slot != slot);
        self.delays.remove(slot);
        for consumer in self.consumers.values_mut() {
            consumer.line.retain(|entry| entry.slot != slot);
            if consumer.unacked.remove(slot) && consumer.stalled {
                consumer.stalled = false;
                self.events.wakes.push(std::sync::Arc::clone(&consumer.waker));
            }
        }
        self.free_slot(slot);
        Deleted::Waiting
    }
}
