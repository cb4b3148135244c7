//! What is asked of a queue without changing it.

use super::ready::Ready;
use super::{LeaseQueue, Received, count_of, priority_of};
use crate::broker::log::record::Position;

/// How many messages a queue has, by what can be done with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::broker) struct LeaseCounts {
    /// They can be received.
    pub(in crate::broker) ready: usize,
    /// They were received, and their time is not over.
    pub(in crate::broker) leased: usize,
    /// Their delay has not passed.
    pub(in crate::broker) delayed: usize,
}

impl LeaseQueue {
    /// The messages that would be received next.
    pub(in crate::broker) fn peek(&mut self, most: usize) -> Vec<Received> {
        let mut seen = Vec::new();
        while seen.len() < most {
            let Some((sequence, first_ms)) = self.pop_ready() else { break };
            let Some(entry) = self.entries.get(sequence) else { continue };
            seen.push(Received {
                sequence,
                position: entry.position(),
                length: entry.length,
                priority: priority_of(entry),
                count: count_of(entry),
                first_ms,
                serial: 0,
                until_ms: 0,
            });
        }
        for one in &seen {
            self.make_ready(one.sequence, one.priority, one.first_ms);
        }
        seen
    }

    /// How many messages there are.
    pub(in crate::broker) fn counts(&self) -> LeaseCounts {
        LeaseCounts { ready: self.ready(), leased: self.leases.len(), delayed: self.delayed }
    }

    /// Bytes of bodies in the log.
    pub(in crate::broker) fn body_bytes(&self) -> usize {
        self.bytes
    }

    /// The sequence that the next message gets.
    pub(in crate::broker) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Where each message lies, and the length of its body.
    pub(in crate::broker) fn all(&self) -> impl Iterator<Item = (Position, u32)> {
        self.entries.iter().map(|(_, entry)| (entry.position(), entry.length))
    }

    /// Bytes of memory that the messages take, those in somebody's hands aside.
    pub(in crate::broker) fn memory(&self) -> usize {
        let ready: usize = self.ready.iter().map(Ready::bytes).sum();
        self.entries.bytes() + ready + self.delays.bytes() + self.expiries.bytes()
    }
}
