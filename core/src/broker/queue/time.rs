//! What time moves.

use std::sync::Arc;

use super::Queue;
use super::entries::{Stage, flag};
use super::intake::ticks_of;
use super::subscriptions::Subscription;
use crate::broker::delay::{NEVER, Tick};
use crate::broker::log::record::{Journal, Record};

/// Messages that fall due or expire in one call: the rest follows in the next, which is due at once.
const BATCH: usize = 4096;

impl Queue {
    /// Moves on what time moves: delayed messages that are due, those past their time, deliveries not
    /// acknowledged in time, lost consumers that did not come back. Sets the next alarm.
    pub(in crate::broker) fn advance(&mut self, now: Tick, journal: &mut dyn Journal) {
        self.now = now;
        self.fall_due(now, journal);
        self.expire_due(now);
        self.redeliver(now);
        while self.departed.front().is_some_and(|departed| departed.until <= now) {
            let departed = self.departed.pop_front();
            self.give_up(departed, journal);
        }
        let missed = |there: &Subscription| there.consumer.is_none() && !there.durable && there.until <= now;
        let missed: Vec<u32> =
            self.subscriptions.iter().filter(|(_, there)| missed(there)).map(|(&number, _)| number).collect();
        for number in missed {
            self.end_subscription(number, journal);
        }
        self.return_postponed(now);
        self.drop_passed_due();
        self.set_alarm();
        if self.terms.rate.is_some() {
            self.wake_by_rate();
        }
    }

    fn set_alarm(&mut self) {
        let overdue = self.consumers.values().map(|consumer| consumer.held.oldest());
        let overdue = overdue.min().unwrap_or(NEVER).saturating_add(self.terms.redeliver_after);
        let gone = self.departed.front().map_or(NEVER, |departed| departed.until);
        let postponed = self.subscriptions.values().filter_map(|there| there.postponed.keys().next());
        let postponed = postponed.map(|&(due, _)| due).min().unwrap_or(NEVER);
        let missed = self.subscriptions.values().filter(|there| there.consumer.is_none() && !there.durable);
        let missed = missed.map(|there| there.until).min().unwrap_or(NEVER);
        let soonest = self.delays.next().min(self.expiries.next()).min(self.due.next_expiry()).min(overdue);
        self.alarm = soonest.min(gone).min(postponed).min(missed);
    }

    /// Wakes those that wait although there is something for them, as far as the rate allows.
    fn wake_by_rate(&mut self) {
        let Some(rate) = self.terms.rate else { return };
        if !self.is_shared() {
            self.wake_waiting(self.in_line());
            return;
        }
        let mut wakes = Vec::new();
        for subscription in self.subscriptions.values_mut() {
            let Some(number) = subscription.consumer else { continue };
            if !self.consumers.get(&number).is_some_and(|consumer| consumer.waiting)
                || subscription.line.peek(&self.entries, &self.due).is_none()
            {
                continue;
            }
            match subscription.meter.allowed(rate, self.now) {
                0 => self.alarm = self.alarm.min(subscription.meter.next(rate, self.now).max(self.now + 1)),
                _ => wakes.push(number),
            }
        }
        wakes.into_iter().for_each(|number| self.wake(number));
    }

    fn fall_due(&mut self, now: Tick, journal: &mut dyn Journal) {
        let shared = self.is_shared();
        let owed = u16::try_from(self.subscriptions.len()).unwrap_or(u16::MAX);
        let after = self.next_sequence;
        let (mut back, mut count) = (Vec::new(), 0);
        for _ in 0..BATCH {
            let Some((due, sequence)) = self.delays.pop_due(now) else { break };
            let there = self.entries.get_mut(sequence);
            let Some(entry) = there.filter(|entry| entry.stage() == Stage::Delayed) else { continue };
            entry.set_stage(Stage::Live);
            self.delayed -= 1;
            count += 1;
            let to_note = !entry.has(flag::NOTED) && self.terms.expiry_ms > 0;
            let listed = !entry.has(flag::POSTPONED) && (!shared || owed > 0);
            if to_note && !listed {
                entry.set(flag::NOTED);
            }
            if entry.has(flag::POSTPONED) {
                entry.clear(flag::POSTPONED);
                // After a restart the line may not have come to its sequence yet.
                if entry.has(flag::DUE) || sequence < self.line.cursor {
                    back.push((sequence, 0));
                }
            } else if shared && owed == 0 {
                entry.set_shares(1, 0);
                back.push((sequence, 0));
            } else {
                entry.set(flag::DUE);
                if shared {
                    entry.set_shares(owed, 0);
                    // Which subscriptions it owes is a matter of when it fell due: its place in line says it.
                    let due_ms = place_ms(after);
                    journal.append(&Record::Postponed { topic: self.topic, sequence, due_ms });
                }
                self.due.push(after, sequence);
            }
            if to_note && listed {
                let expiry = ticks_of(self.terms.expiry_ms);
                self.due.expires(due.saturating_add(expiry), expiry / 64);
            } else if to_note {
                self.note_expiry(due, sequence);
            }
        }
        self.line.backs.merge(back);
        self.wake_waiting(count);
    }

    pub(super) fn expire_due(&mut self, now: Tick) {
        let mut count = 0;
        while count < BATCH {
            if let Some(sequence) = self.due.pop_expired(now) {
                count += 1;
                // One with a note of its own has another time.
                if self.entries.get(sequence).is_some_and(|entry| !entry.has(flag::NOTED)) {
                    self.expire(sequence);
                }
                continue;
            }
            let Some((first, run)) = self.expiries.pop(now, BATCH as u64) else { break };
            let end = first + run;
            let mut from = first;
            while let Some((sequence, _)) = self.entries.next(from).filter(|&(sequence, _)| sequence < end) {
                self.expire(sequence);
                count += 1;
                from = sequence + 1;
            }
        }
        let entries = &self.entries;
        self.expiries.forget(entries.len(), |first, count| {
            entries.next(first).is_some_and(|(sequence, _)| sequence < first + count)
        });
    }

    /// Puts deliveries that were not acknowledged in time back in line.
    fn redeliver(&mut self, now: Tick) {
        let Some(limit) = now.checked_sub(self.terms.redeliver_after) else { return };
        let shared = self.is_shared();
        let mut late = Vec::new();
        for (&number, consumer) in &mut self.consumers {
            let mut any = false;
            while let Some((sequence, pushes)) = consumer.held.pop_until(limit) {
                self.holding -= 1;
                any = true;
                late.push((sequence, pushes, number));
            }
            if any {
                consumer.stalled = false;
                // It may have been stalled, which is no waiting that a new message ends.
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
        if late.is_empty() {
            return;
        }
        let mut back = Vec::new();
        let mut last = None;
        for (sequence, pushes, number) in late {
            let Some((who, subscription)) =
                self.consumers.get(&number).map(|consumer| (consumer.who, consumer.subscription))
            else {
                continue;
            };
            if shared && let Some(last) = last.filter(|&last| last != subscription) {
                self.put_back(std::mem::take(&mut back), last);
            }
            last = Some(subscription);
            if self.may_return(sequence, pushes, subscription) {
                back.push((sequence, if shared { u64::from(pushes) } else { who }));
            }
        }
        self.put_back(back, last.unwrap_or(0));
    }

    /// In publish-subscribe: what a subscription refused for a time comes back to it.
    fn return_postponed(&mut self, now: Tick) {
        if !self.is_shared() {
            return;
        }
        let mut back = Vec::new();
        for (&number, subscription) in &mut self.subscriptions {
            while let Some(first) = subscription.postponed.first_entry().filter(|first| first.key().0 <= now)
            {
                let ((_, sequence), pushes) = first.remove_entry();
                back.push((number, sequence, pushes));
            }
        }
        for (number, sequence, pushes) in back {
            if self.may_return(sequence, pushes, number) {
                self.put_back(vec![(sequence, u64::from(pushes))], number);
            }
        }
    }
}

/// A place in line as the due time of a record: negative, so that it is no time.
pub(super) fn place_ms(after: u64) -> i64 {
    !i64::try_from(after).unwrap_or(i64::MAX)
}

/// The place in line that a due time stands for, if it does.
pub(super) fn place_of(due_ms: i64) -> Option<u64> {
    u64::try_from(!due_ms).ok().filter(|_| due_ms < 0)
}
