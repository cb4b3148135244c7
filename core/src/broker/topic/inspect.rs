//! What the console asks of a topic: find, list, delete.

use super::queue::{Queue, Slot, Stage};
use crate::broker::history::Consumed;
use crate::broker::room::Stored;
use crate::wire::kapokmq::{CONSUMED, DELAYED, WAITING};
use std::sync::Arc;

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

impl Shown {
    /// An acknowledged message.
    pub(in crate::broker) fn past(message: Consumed) -> Shown {
        Shown {
            slot: message.slot,
            sequence: message.sequence,
            body: message.body,
            created: message.created,
            consumed: message.consumed,
            delay: message.delay,
            status: CONSUMED,
        }
    }
}

impl Queue {
    /// Every message that is not acknowledged, in no order.
    pub(in crate::broker) fn all(&self) -> impl Iterator<Item = Shown> {
        self.slots.iter().zip(0u32..).filter_map(|(slot, index)| slot.show(index))
    }

    /// One message that is not acknowledged.
    pub(in crate::broker) fn find(&self, slot: u32, sequence: u64) -> Option<Shown> {
        let there = self.slots.get(slot as usize).filter(|there| there.sequence == sequence);
        there.and_then(|there| there.show(slot))
    }

    /// Deletes a message that is not acknowledged, wherever it is. Looks through the lines: meant for people,
    /// not for programs.
    pub(in crate::broker) fn delete(&mut self, slot: u32, sequence: u64) -> bool {
        if self.slot_of(slot, sequence).is_none() {
            return false;
        }
        self.ready.retain(|entry| entry.slot != slot);
        self.delays.remove(slot);
        for consumer in self.consumers.values_mut() {
            consumer.line.retain(|entry| entry.slot != slot);
            if consumer.unacked.remove(slot) && consumer.stalled {
                consumer.stalled = false;
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
        self.free_slot(slot, 0).is_some()
    }
}
