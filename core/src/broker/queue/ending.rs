//! How messages leave.

use std::sync::Arc;

use super::entries::{Entry, Stage, flag};
use super::{Dead, Kind, Left, Queue, Reason, Why};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, Record};
use crate::broker::room::Room;

impl Queue {
    /// Takes messages out that everybody acknowledged.
    pub(super) fn finish(&mut self, mut sequences: Vec<u64>, journal: &mut dyn Journal) {
        sequences.retain(|&sequence| self.drop_message(sequence, Why::Consumed));
        self.append(journal, &mut sequences, Kind::Done);
    }

    /// Takes a message out of everything but the lists, which skip it. Says whether there was one.
    pub(super) fn drop_message(&mut self, sequence: u64, why: Why) -> bool {
        let Some(entry) = self.entries.remove(sequence) else { return false };
        self.left(sequence, entry, why);
        true
    }

    fn left(&mut self, sequence: u64, entry: Entry, why: Why) {
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        match entry.stage() {
            Stage::Delayed => self.delayed -= 1,
            Stage::Live => {}
            Stage::Dying => {
                self.dying.remove(&sequence);
            }
        }
        self.events.freed += Room::cost(entry.length as usize);
        self.events.left.push(Left { sequence, position: entry.position(), length: entry.length, why });
        self.events.wakes.extend(std::mem::take(&mut self.room).into_values());
        while let Some((&share, _)) = self.dying_shares.range((sequence, 0)..=(sequence, u32::MAX)).next() {
            self.dying_shares.remove(&share);
        }
        if self.delays.len() > 2 * self.delayed + 1024 {
            let entries = &self.entries;
            self.delays.forget(|sequence| entries.get(sequence).is_some());
        }
    }

    /// Takes a message out of the hands of all consumers.
    fn let_go(&mut self, sequence: u64) {
        for consumer in self.consumers.values_mut() {
            if consumer.held.remove(sequence).is_none() {
                continue;
            }
            self.holding -= 1;
            if std::mem::take(&mut consumer.stalled) {
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
    }

    /// A subscription's acks: each message is done when no other owes one.
    pub(super) fn settle_acks(&mut self, subscription: u32, mut acked: Vec<u64>, journal: &mut dyn Journal) {
        let mut done = Vec::new();
        for &sequence in &acked {
            let Some(entry) = self.entries.live_mut(sequence) else { continue };
            entry.set(flag::ACKED);
            entry.set_shares(entry.owed().saturating_sub(1), entry.parked());
            if self.terms.compat {
                self.let_go(sequence);
                done.push(sequence);
            } else if entry.owed() == 0 && entry.parked() == 0 {
                done.push(sequence);
            } else if entry.has(flag::EXPIRED) {
                self.expire(sequence);
            }
        }
        self.append(journal, &mut acked, Kind::Acked(subscription));
        self.finish(done, journal);
    }

    /// A message is past its time: it dies, unless a consumer has it, who may still acknowledge it.
    pub(super) fn expire(&mut self, sequence: u64) {
        let held = self.holder(sequence).is_some();
        let shared = self.is_shared();
        let Some(entry) = self.entries.get_mut(sequence) else { return };
        if entry.stage() == Stage::Live && held {
            entry.set(flag::EXPIRED);
            return;
        }
        let attempts = if shared { 0 } else { entry.attempts() };
        self.die(sequence, Reason::Expired, attempts, 0);
    }

    /// Sends a message on its way to the dead letters, whole or for one subscription.
    pub(super) fn die(&mut self, sequence: u64, reason: Reason, attempts: u32, subscription: u32) {
        let Some(entry) = self.entries.get_mut(sequence) else { return };
        let (position, length) = (entry.position(), entry.length);
        if subscription > 0 {
            if self.dying_shares.insert((sequence, subscription), attempts).is_some() {
                return;
            }
        } else {
            match entry.stage() {
                Stage::Dying => return,
                Stage::Delayed => self.delayed -= 1,
                Stage::Live => {}
            }
            entry.set_stage(Stage::Dying);
            self.dying.insert(sequence, (reason, attempts));
        }
        self.events.dead.push(Dead { sequence, position, length, reason, attempts, subscription });
    }

    /// The dead are stored elsewhere, or nobody wants them: they leave.
    pub(in crate::broker) fn buried(&mut self, dead: &[Dead], now: Tick, journal: &mut dyn Journal) {
        self.now = now;
        let mut done = Vec::new();
        for dead in dead {
            let sequence = dead.sequence;
            if dead.subscription == 0 {
                if self.dying.contains_key(&sequence) && self.drop_message(sequence, Why::Buried) {
                    done.push(sequence);
                }
            } else if self.dying_shares.remove(&(sequence, dead.subscription)).is_some() {
                self.append(journal, &mut vec![sequence], Kind::Acked(dead.subscription));
                let Some(entry) = self.entries.live_mut(sequence) else { continue };
                entry.set(flag::ACKED);
                entry.set_shares(entry.owed().saturating_sub(1), entry.parked());
                if entry.owed() == 0 && entry.parked() == 0 && self.drop_message(sequence, Why::Buried) {
                    done.push(sequence);
                }
            }
        }
        self.append(journal, &mut done, Kind::Done);
    }

    /// The dead that are not buried, again: for an owner that could not store them.
    pub(in crate::broker) fn unburied(&self, most: usize) -> Vec<Dead> {
        let whole = self.dying.iter().map(|(&sequence, &(reason, pushes))| (sequence, reason, pushes, 0));
        let shares = self.dying_shares.iter();
        let shares = shares.map(|(&(sequence, of), &pushes)| (sequence, Reason::Attempts, pushes, of));
        let dead = whole.chain(shares).filter_map(|(sequence, reason, attempts, subscription)| {
            let entry = self.entries.get(sequence)?;
            let (position, length) = (entry.position(), entry.length);
            Some(Dead { sequence, position, length, reason, attempts, subscription })
        });
        dead.take(most).collect()
    }

    /// Deletes a message that is not acknowledged, wherever it is; says whether there was one.
    pub(in crate::broker) fn delete(&mut self, sequence: u64, journal: &mut dyn Journal) -> bool {
        self.let_go(sequence);
        let was = self.drop_message(sequence, Why::Deleted);
        if was {
            self.append(journal, &mut vec![sequence], Kind::Done);
        }
        was
    }

    /// Drops all messages; returns how many there were.
    pub(in crate::broker) fn purge(&mut self, now: Tick, journal: &mut dyn Journal) -> usize {
        self.now = now;
        let count = self.entries.len();
        let below = self.next_sequence;
        let mut gone = Vec::with_capacity(count);
        self.entries.remove_below(below, |sequence, entry| gone.push((sequence, entry)));
        for (sequence, entry) in gone {
            self.left(sequence, entry, Why::Purged);
        }
        for consumer in self.consumers.values_mut() {
            consumer.held.drain();
            if std::mem::take(&mut consumer.stalled) {
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
        self.holding = 0;
        self.delays.clear();
        self.expiries.clear();
        self.due.clear();
        self.dying_shares.clear();
        self.line.clear(below, self.due.end());
        for subscription in self.subscriptions.values_mut() {
            subscription.line.clear(below, self.due.end());
            subscription.postponed.clear();
        }
        if count > 0 {
            journal.append(&Record::Purged { topic: self.topic, below });
        }
        for departed in std::mem::take(&mut self.departed) {
            let (topic, subscription) = (self.topic, departed.number);
            journal.append(&Record::Unsubscribed { topic, subscription });
        }
        count
    }
}
