//! What consumers do: take, acknowledge, refuse.

use std::sync::Arc;

use super::entries::{Stage, flag};
use super::intake::ticks_of;
use super::lines::Source;
use super::{Kind, Outgoing, Queue, Reason, Window};
use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, Record};

impl Queue {
    /// Takes what this consumer may get now into `out`; nothing when it must wait to be woken. Its waker must
    /// be registered before.
    pub(in crate::broker) fn take(
        &mut self,
        number: u64,
        window: Window,
        now: Tick,
        journal: &mut dyn Journal,
        out: &mut Vec<Outgoing>,
    ) {
        self.now = now;
        let shared = self.is_shared();
        // Each consumer takes its part of the line, so that the first one awake does not take it all.
        let fair = if shared { usize::MAX } else { self.in_line().div_ceil(self.consumers.len().max(1)) };
        let Some(consumer) = self.consumers.get_mut(&number) else { return };
        let subscription = consumer.subscription;
        let (line, meter) = if shared {
            let Some(subscription) = self.subscriptions.get_mut(&subscription) else { return };
            (&mut subscription.line, &mut subscription.meter)
        } else {
            (&mut self.line, &mut self.meter)
        };
        let mut count = window.count.min(fair).max(1);
        let mut later = None;
        if let Some(rate) = self.terms.rate {
            let allowed = meter.allowed(rate, now);
            if allowed == 0 {
                later = Some(meter.next(rate, now).max(now + 1));
            }
            count = count.min(allowed);
        }
        let (mut taken, mut bytes, mut again) = (0, 0, 0);
        let (mut pushed, mut dead) = (Vec::new(), Vec::new());
        while taken < count {
            let Some(pick) = line.peek(&self.entries, &self.due) else { break };
            let sequence = pick.sequence;
            let Some(entry) = self.entries.get_mut(sequence) else { break };
            let before = match (shared, pick.source) {
                (false, _) => entry.attempts(),
                (true, Source::Back(pushes)) => u32::try_from(pushes).unwrap_or(u32::MAX),
                (true, _) => 0,
            };
            if self.terms.max_attempts > 0 && before >= self.terms.max_attempts {
                line.advance(pick);
                dead.push((sequence, before));
                continue;
            }
            if !consumer.held.has_room(entry.length, &self.terms) {
                consumer.stalled = true;
                break;
            }
            bytes += entry.length as usize;
            if taken > 0 && bytes > window.bytes {
                break;
            }
            line.advance(pick);
            let attempt = before.saturating_add(1);
            if !shared {
                entry.set_attempts(attempt);
                pushed.push(sequence);
            }
            again += u64::from(attempt > 1);
            consumer.held.add(sequence, attempt, entry.length, now);
            taken += 1;
            let (position, length) = (entry.position(), entry.length);
            out.push(Outgoing { sequence, position, length, attempt });
        }
        if let Some(rate) = self.terms.rate {
            meter.spend(rate, now, taken);
        }
        let stalled = consumer.stalled;
        if taken == 0 && !stalled && !consumer.waiting {
            consumer.waiting = true;
            self.waiting.push_back(number);
        }
        self.holding += taken;
        self.events.redelivered += again;
        self.append(journal, &mut pushed, Kind::Pushed);
        for (sequence, attempts) in dead {
            self.die(sequence, Reason::Attempts, attempts, if shared { subscription } else { 0 });
        }
        self.drop_passed_due();
        if let Some(later) = later.filter(|_| shared || self.in_line() > 0) {
            self.alarm_by(later);
        }
        if taken > 0 {
            self.alarm_by(now.saturating_add(self.terms.redeliver_after));
        } else if stalled && !shared {
            // It was woken for what it may not take: another one must be.
            self.wake_waiting(self.in_line());
        }
    }

    /// Forgets due messages that every line has passed.
    pub(super) fn drop_passed_due(&mut self) {
        let passed = if self.is_shared() {
            self.subscriptions.values().map(|subscription| subscription.line.due).min()
        } else {
            Some(self.line.due)
        };
        let end = self.due.end();
        let (entries, expiries) = (&mut self.entries, &mut self.expiries);
        self.due.drop_below(passed.unwrap_or(end), |sequence, until| {
            let unnoted = entries.get_mut(sequence).filter(|entry| !entry.has(flag::NOTED));
            if let (Some(entry), Some(until)) = (unnoted, until) {
                entry.set(flag::NOTED);
                expiries.add_single(until, sequence);
            }
        });
    }

    /// Takes the acks of a consumer; those of messages that it does not hold are ignored. Returns how many
    /// counted.
    pub(in crate::broker) fn ack(
        &mut self,
        number: u64,
        sequences: impl IntoIterator<Item = u64>,
        now: Tick,
        journal: &mut dyn Journal,
    ) -> usize {
        self.now = now;
        let shared = self.is_shared();
        let mut counted = Vec::new();
        let Some(consumer) = self.consumers.get_mut(&number) else { return 0 };
        let (who, subscription) = (consumer.who, consumer.subscription);
        for sequence in sequences {
            let held = consumer.held.remove(sequence).is_some();
            if held {
                consumer.stalled = false;
                self.holding -= 1;
            }
            // A late one: the message is in line again, and nobody else has it.
            let mut late = || match shared {
                false => self.line.backs.take_out(sequence, |word| word == who),
                true => {
                    let subscription = self.subscriptions.get_mut(&subscription);
                    subscription.is_some_and(|there| there.line.backs.take_out(sequence, |word| word > 0))
                }
            };
            if (held || late()) && self.entries.live(sequence).is_some() {
                counted.push(sequence);
            }
        }
        let count = counted.len();
        if shared {
            self.settle_acks(subscription, counted, journal);
        } else {
            self.finish(counted, journal);
        }
        count
    }

    /// Takes refusals: messages that this consumer holds go back in line, after a time in milliseconds.
    /// Returns how many counted.
    pub(in crate::broker) fn nack(
        &mut self,
        number: u64,
        refusals: impl IntoIterator<Item = (u64, u64)>,
        now: Tick,
        wall: i64,
        journal: &mut dyn Journal,
    ) -> usize {
        self.now = now;
        let shared = self.is_shared();
        let Some(consumer) = self.consumers.get_mut(&number) else { return 0 };
        let (subscription, mut refused) = (consumer.subscription, Vec::new());
        for (sequence, delay_ms) in refusals {
            if let Some(pushes) = consumer.held.remove(sequence) {
                consumer.stalled = false;
                self.holding -= 1;
                refused.push((sequence, pushes, delay_ms));
            }
        }
        let counted = refused.len();
        let mut back = Vec::new();
        for (sequence, pushes, delay_ms) in refused {
            if !self.may_return(sequence, pushes, subscription) {
                continue;
            }
            if delay_ms == 0 {
                back.push((sequence, if shared { u64::from(pushes) } else { 0 }));
                continue;
            }
            let due = now.saturating_add(ticks_of(delay_ms));
            self.alarm_by(due);
            if shared {
                if let Some(subscription) = self.subscriptions.get_mut(&subscription) {
                    subscription.postponed.insert((due, sequence), pushes);
                }
            } else if let Some(entry) = self.entries.get_mut(sequence) {
                entry.set_stage(Stage::Delayed);
                entry.set(flag::POSTPONED);
                self.delays.push(due, sequence);
                self.delayed += 1;
                self.alarm_by(self.delays.next());
                let due_ms = wall.saturating_add_unsigned(delay_ms);
                journal.append(&Record::Postponed { topic: self.topic, sequence, due_ms });
            }
        }
        self.put_back(back, subscription);
        counted
    }

    /// Puts messages back in line, each with its word: in a work queue the consumer whose ack still counts, in
    /// publish-subscribe the count of its pushes.
    pub(super) fn put_back(&mut self, back: Vec<(u64, u64)>, subscription: u32) {
        if back.is_empty() {
            return;
        }
        if !self.is_shared() {
            self.line.backs.merge(back);
            // For all that waits, not only for these: who brought them may have been woken and taken nothing.
            self.wake_waiting(self.in_line());
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(&subscription) else { return };
        subscription.line.backs.merge(back);
        if let Some(number) = subscription.consumer {
            self.wake(number);
        }
    }

    /// Wakes one consumer: it may have been stalled, which is no waiting that a new message ends.
    pub(super) fn wake(&mut self, number: u64) {
        let Some(consumer) = self.consumers.get_mut(&number) else { return };
        self.events.wakes.push(Arc::clone(&consumer.waker));
        if std::mem::take(&mut consumer.waiting) {
            self.waiting.retain(|&waiting| waiting != number);
        }
    }

    /// Whether a message that comes back after so many pushes may be pushed again; if not, it dies here.
    pub(super) fn may_return(&mut self, sequence: u64, pushes: u32, subscription: u32) -> bool {
        let Some(entry) = self.entries.live(sequence) else { return false };
        if entry.has(flag::EXPIRED) && self.holder(sequence).is_none() {
            self.die(sequence, Reason::Expired, pushes, 0);
            return false;
        }
        if self.terms.max_attempts > 0 && pushes >= self.terms.max_attempts {
            let subscription = if self.is_shared() { subscription } else { 0 };
            self.die(sequence, Reason::Attempts, pushes, subscription);
            return false;
        }
        true
    }

    /// A consumer that holds the message, if one does.
    pub(super) fn holder(&self, sequence: u64) -> Option<u64> {
        let holds = |&(_, consumer): &(&u64, &super::Consumer)| consumer.held.has(sequence);
        self.consumers.iter().find(holds).map(|(&number, _)| number)
    }
}
