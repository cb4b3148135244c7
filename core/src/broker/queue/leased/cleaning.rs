//! What the log's cleaning asks: to write anew what is still needed.

use std::collections::HashMap;

use super::{LeaseQueue, count_of};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Position, Record};
use crate::broker::queue::entries::Stage;

impl LeaseQueue {
    /// Writes those of these records anew whose messages are here, as they stand now: the log gives the positions up.
    pub(in crate::broker) fn rewrite(
        &mut self,
        records: &[(Position, MessageRecord<'_>)],
        now: Tick,
        journal: &mut dyn Journal,
    ) {
        self.now = now;
        let mut firsts: Option<HashMap<u64, u64>> = None;
        for (old, record) in records {
            let sequence = record.sequence;
            let there = self.entries.get(sequence).filter(|entry| entry.position() == *old).copied();
            let Some(entry) = there else { continue };
            let attempts = count_of(&entry);
            let due_ms = if entry.stage() == Stage::Delayed { record.due_ms } else { 0 };
            let topic = self.topic;
            let new = MessageRecord { topic, due_ms, attempts, moved: true, noted: true, ..*record };
            let position = journal.append(&Record::Message(new));
            if let Some(entry) = self.entries.get_mut(sequence) {
                entry.move_to(position);
            }
            // The records that said who has it may go before this one.
            if let Some(lease) = self.leases.get(&sequence) {
                let (serial, until_ms, first_ms) = (lease.serial, lease.until_ms, lease.first_ms);
                journal.append(&Record::Hidden { topic, sequence, serial, until_ms, first_ms });
            } else if attempts > 0 {
                let firsts = firsts
                    .get_or_insert_with(|| self.ready.iter().flat_map(super::ready::Ready::back).collect());
                let first_ms = firsts.get(&sequence).copied().unwrap_or_default();
                let first_ms = i64::try_from(first_ms).unwrap_or(0);
                let serial = self.last_serial;
                journal.append(&Record::Hidden { topic, sequence, serial, until_ms: 0, first_ms });
            }
        }
    }
}
