//! What others ask of a queue.

use super::Queue;
use super::entries::{Entry, Stage};
use crate::broker::log::record::Position;

/// A message that is not acknowledged, as the console finds it. The rest of it is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Shown {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) position: Position,
    pub(in crate::broker) length: u32,
    /// It is not due yet.
    pub(in crate::broker) delayed: bool,
    /// Pushes so far; 0 in publish-subscribe, where each subscription has its own count.
    pub(in crate::broker) attempts: u32,
}

impl Queue {
    fn show(&self, sequence: u64, entry: &Entry) -> Shown {
        Shown {
            sequence,
            position: entry.position(),
            length: entry.length,
            delayed: entry.stage() == Stage::Delayed,
            attempts: if self.is_shared() { 0 } else { entry.attempts() },
        }
    }

    /// Every message that is not acknowledged, in order of sequence.
    pub(in crate::broker) fn all(&self) -> impl Iterator<Item = Shown> {
        self.entries.iter().map(|(sequence, entry)| self.show(sequence, entry))
    }

    /// Messages that are not acknowledged, with sequences below this one, in order: the last ones, a bounded
    /// number. None when there is none. The first says below which sequence the rest is.
    pub(in crate::broker) fn last_below(&self, below: u64) -> Option<(u64, Vec<Shown>)> {
        let (first, end) = self.entries.block_before(below)?;
        let mut block = Vec::new();
        let mut from = first;
        while let Some((sequence, entry)) = self.entries.next(from).filter(|&(sequence, _)| sequence < end) {
            block.push(self.show(sequence, entry));
            from = sequence + 1;
        }
        Some((first, block))
    }

    #[cfg(test)]
    /// Producers that wait for room.
    pub(in crate::broker) fn waiters(&self) -> usize {
        self.room.len()
    }

    /// One message that is not acknowledged.
    pub(in crate::broker) fn find(&self, sequence: u64) -> Option<Shown> {
        self.entries.get(sequence).map(|entry| self.show(sequence, entry))
    }

    /// What has no room waits, and with it what comes after.
    pub(in crate::broker) fn waits_when_full(&self) -> bool {
        !self.terms.refuse
    }

    /// Nothing would be lost if this topic went.
    pub(in crate::broker) fn is_idle(&self) -> bool {
        self.consumers.is_empty() && self.entries.len() == 0 && self.subscriptions.is_empty()
    }

    /// Messages that wait or were pushed without an ack, and those not yet due.
    pub(in crate::broker) fn counts(&self) -> (usize, usize) {
        (self.entries.len().saturating_sub(self.delayed), self.delayed)
    }

    /// Deliveries that wait for an ack.
    pub(in crate::broker) fn unacked(&self) -> usize {
        self.holding
    }

    /// Messages on their way to the dead letters.
    pub(in crate::broker) fn dying(&self) -> usize {
        self.dying.len() + self.dying_shares.len()
    }

    /// Bytes of bodies in the log.
    pub(in crate::broker) fn body_bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    /// The sequence that the next message gets.
    pub(in crate::broker) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Ids of the subscriptions that outlive their connections, and whether they are connected.
    pub(in crate::broker) fn durable(&self) -> impl Iterator<Item = (&str, bool)> {
        let durable = self.subscriptions.values().filter(|there| there.durable);
        durable.map(|there| (&*there.id, there.consumer.is_some()))
    }

    /// Bytes of memory that the messages take, deliveries in the hands of consumers aside.
    pub(in crate::broker) fn memory(&self) -> usize {
        let lines: usize = self.subscriptions.values().map(|there| there.line.backs.bytes()).sum();
        let parked: usize = self.departed.iter().map(|departed| size_of_val::<[_]>(&departed.parked)).sum();
        self.entries.bytes()
            + self.delays.bytes()
            + self.expiries.bytes()
            + self.due.bytes()
            + self.line.backs.bytes()
            + self.dedup.as_ref().map_or(0, super::dedup::Dedup::bytes)
            + lines
            + parked
    }
}
