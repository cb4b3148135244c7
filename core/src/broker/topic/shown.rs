//! What the console asks of a topic: find and list, with what the log has.

use super::{Topic, wall_ms};
use crate::broker::history::Past;
use crate::broker::log::{Reading, StoredMessage};
use crate::broker::queue;
use crate::wire::kapokmq::{CONSUMED, DELAYED, WAITING};

/// A message as the console shows it.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Shown {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) body: bytes::Bytes,
    /// Seconds since 1970.
    pub(in crate::broker) created: i64,
    pub(in crate::broker) consumed: i64,
    pub(in crate::broker) delay: i64,
    pub(in crate::broker) status: i64,
}

impl Shown {
    fn waits(shown: &queue::Shown, stored: StoredMessage) -> Shown {
        let again = shown.attempts > 1;
        let age = (wall_ms().saturating_sub(stored.created_ms) / 1000).max(0);
        Shown {
            sequence: shown.sequence,
            created: stored.created_ms / 1000,
            consumed: 0,
            delay: if again { age } else { stored.wire_delay },
            status: if shown.delayed { DELAYED } else { WAITING },
            body: stored.body,
        }
    }

    /// An acknowledged message, while the log has it.
    pub(in crate::broker) fn past(past: &Past, reading: &mut Reading<'_>) -> Option<Shown> {
        let stored = reading.message(past.position, past.length as usize).ok()?;
        // Something else may lie there by now.
        let same = stored.topic == past.number && stored.sequence == past.sequence;
        same.then(|| Shown {
            sequence: past.sequence,
            created: stored.created_ms / 1000,
            consumed: past.consumed,
            delay: stored.wire_delay,
            status: CONSUMED,
            body: stored.body,
        })
    }
}

impl Topic {
    /// Finds a message, acknowledged or not.
    pub(in crate::broker) fn find(&self, sequence: u64) -> Option<Shown> {
        let mut reading = self.shared.log.reading();
        if let Some(shown) = self.read(|queue| queue.find(sequence)) {
            let stored = reading.message(shown.position, shown.length as usize).ok()?;
            return Some(Shown::waits(&shown, stored));
        }
        let past = self.shared.history.select(|past| past.number == self.number && past.sequence == sequence);
        past.iter().find_map(|past| Shown::past(past, &mut reading))
    }

    /// The newest messages that are not acknowledged and that `wanted` names, newest first and without their
    /// bodies, `most` at most; it ends with the first that is older than `since`, in seconds since 1970. Only
    /// those are read that `looked_for` names by whether their time has yet to come.
    pub(in crate::broker) fn newest(
        &self,
        most: usize,
        since: i64,
        looked_for: impl Fn(bool) -> bool,
        wanted: impl Fn(&Shown) -> bool,
    ) -> Vec<Shown> {
        let (mut found, mut below) = (Vec::new(), u64::MAX);
        loop {
            // In steps: the queue's lock and the guard are held for a bounded number of messages at a time.
            let mut reading = self.shared.log.reading();
            let Some((first, block)) = self.read(|queue| queue.last_below(below)) else { return found };
            below = first;
            for shown in block.iter().rev().filter(|shown| looked_for(shown.delayed)) {
                let Ok(stored) = reading.message(shown.position, shown.length as usize) else { continue };
                if stored.created_ms / 1000 < since || found.len() >= most {
                    return found;
                }
                let shown = Shown { body: bytes::Bytes::new(), ..Shown::waits(shown, stored) };
                found.extend(Some(shown).filter(&wanted));
            }
        }
    }
}
