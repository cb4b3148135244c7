//! What the log's cleaning asks: which records are still needed, and to write those anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::entries::{Stage, flag};
use super::replay::GONE;
use super::time::place_ms;
use super::{Kind, Queue, Reason};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Position, Record};

impl Queue {
    #[cfg(test)]
    /// Whether the record at this position is that of a message which is here.
    pub(in crate::broker) fn is_live(&self, sequence: u64, position: Position) -> bool {
        self.entries.get(sequence).is_some_and(|entry| entry.position() == position)
    }

    /// The message's record is elsewhere now. Says whether it was at the old position.
    pub(in crate::broker) fn moved(&mut self, sequence: u64, old: Position, new: Position) -> bool {
        let Some(entry) = self.entries.get_mut(sequence).filter(|entry| entry.position() == old) else {
            return false;
        };
        entry.move_to(new);
        true
    }

    /// Writes those of these records anew whose messages are here, as they stand now, and the acks that they
    /// have. The records are as they were read at their positions. Returns how many were written. A call looks
    /// through the due times once, so many records at a time are better than one.
    pub(in crate::broker) fn rewrite(
        &mut self,
        records: &[(Position, MessageRecord<'_>)],
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
    ) -> usize {
        self.now = now;
        let mut postponed: Option<HashMap<u64, Tick>> = None;
        let mut places: Option<HashMap<u64, (u64, u64)>> = None;
        let mut count = 0;
        let shared = self.is_shared();
        for (old, record) in records {
            let sequence = record.sequence;
            let Some(entry) = self.entries.get(sequence).filter(|entry| entry.position() == *old).copied()
            else {
                continue;
            };
            let due_ms = if entry.stage() == Stage::Delayed && entry.has(flag::POSTPONED) {
                let postponed = postponed.get_or_insert_with(|| {
                    self.delays.iter().map(|(due, sequence)| (sequence, due)).collect()
                });
                let due = postponed.get(&sequence).copied().unwrap_or(now);
                wall.saturating_add_unsigned(due.saturating_sub(now).div_ceil(1000)).max(1)
            } else if entry.stage() == Stage::Delayed {
                record.due_ms
            } else if shared && entry.has(flag::DUE) {
                // It owes those that were there when it fell due.
                let places = places.get_or_insert_with(|| self.due.places());
                match places.get(&sequence) {
                    Some(&(_, after)) => place_ms(after),
                    None if record.due_ms < 0 => record.due_ms,
                    // All have passed it. Rather one that came later gets it after a restart than one less.
                    None => place_ms(self.next_sequence),
                }
            } else {
                0
            };
            let attempts = if shared { 0 } else { entry.attempts() };
            let topic = self.topic;
            let expires_ms = match self.dying.get(&sequence) {
                // Whatever the clock shows after a crash, it is dead, and nobody's acks are needed.
                Some((Reason::Expired, _)) => GONE,
                _ => record.expires_ms,
            };
            let new = MessageRecord { topic, due_ms, expires_ms, attempts, moved: true, ..*record };
            let position = journal.append(&Record::Message(new));
            self.moved(sequence, *old, position);
            if shared && entry.has(flag::ACKED) && entry.stage() == Stage::Live {
                let number =
                    places.as_ref().and_then(|places| places.get(&sequence)).map(|&(number, _)| number);
                self.write_acks(sequence, entry.has(flag::DUE), number, journal);
            }
            count += 1;
        }
        count
    }

    /// Writes who owes no ack of a message any more: the records that said so may go before the message's.
    fn write_acks(&self, sequence: u64, waited: bool, number: Option<u64>, journal: &mut dyn Journal) {
        let owes = |line: &super::lines::Line| {
            let ahead =
                if waited { number.is_some_and(|at| line.due <= at) } else { line.cursor <= sequence };
            ahead || line.backs.has(sequence)
        };
        for (&number, subscription) in &self.subscriptions {
            let held = subscription.consumer.and_then(|number| self.consumers.get(&number));
            let owes = owes(&subscription.line)
                || held.is_some_and(|consumer| consumer.held.has(sequence))
                || self.dying_shares.contains_key(&(sequence, number))
                || subscription.postponed.keys().any(|&(_, postponed)| postponed == sequence);
            if !owes {
                self.append(journal, &mut vec![sequence], Kind::Acked(number));
            }
        }
        for departed in &self.departed {
            if departed.parked.binary_search_by_key(&sequence, |pair| pair.first()).is_err() {
                self.append(journal, &mut vec![sequence], Kind::Acked(departed.number));
            }
        }
    }

    /// Writes anew that the topic and its subscriptions exist.
    pub(in crate::broker) fn describe(&self, journal: &mut dyn Journal) {
        let (topic, mode, name) = (self.topic, self.terms.mode, Arc::clone(&self.name));
        journal.append(&Record::Topic { topic, mode, next_sequence: self.next_sequence, name: &name });
        let there =
            self.subscriptions.iter().map(|(&number, there)| (number, there.durable, there.from, &there.id));
        let departed =
            self.departed.iter().map(|departed| (departed.number, false, departed.from, &departed.id));
        for (subscription, durable, from, id) in there.chain(departed) {
            journal.append(&Record::Subscribed { topic, subscription, durable, from, id });
        }
    }
}
