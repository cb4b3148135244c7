//! Who the consumers are. In a work queue they are connections; in publish-subscribe each has a subscription,
//! which a durable one keeps while it is away. What another lost one did not acknowledge waits for its return
//! for a while, unless nobody else has it: then it goes to whoever is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::task::AtomicWaker;

use super::entries::flag;
use super::held::Held;
use super::lines::Line;
use super::pair::Pair;
use super::rate::Meter;
use super::{Consumer, Queue};
use crate::broker::delay::{NEVER, Tick};
use crate::broker::log::record::{Journal, Record};

/// The most subscriptions of a topic: an entry counts them in 16 bits.
const MOST: usize = 60_000;
/// The most messages that lost consumers may come back for; past it the longest lost are given up.
const MOST_PARKED: usize = 4 << 20;

/// A connected or durable subscriber.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: Arc<str>,
    pub(super) durable: bool,
    /// Messages are its own from here on: by sequence, or by place in line of those that waited.
    pub(super) from: u64,
    pub(super) line: Line,
    pub(super) meter: Meter,
    /// Messages that it refused for a time, with their pushes.
    pub(super) postponed: BTreeMap<(Tick, u64), u32>,
    /// Its connection.
    pub(super) consumer: Option<u64>,
    /// How long it is waited for after a restart, unless it is durable.
    pub(super) until: Tick,
}

/// A subscriber that was lost, with what it may come back for: sequences with their pushes, in order.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) number: u32,
    pub(super) id: Arc<str>,
    pub(super) from: u64,
    pub(super) until: Tick,
    pub(super) parked: Box<[Pair]>,
}

impl Queue {
    /// Adds a consumer; the number is the caller's and unique. A connected one of the same id leaves first. In
    /// publish-subscribe it gets what an earlier connection of the same id left, and what is held. Says
    /// whether there was room for it.
    pub(in crate::broker) fn join(
        &mut self,
        number: u64,
        id: &Arc<str>,
        durable: bool,
        waker: Arc<AtomicWaker>,
        now: Tick,
        journal: &mut dyn Journal,
    ) -> bool {
        self.now = now;
        if let Some(&before) = self.by_id.get(id) {
            self.leave(before, now, journal);
        }
        let mut subscription = 0;
        if self.is_shared() {
            let Some(found) = self.subscribe(number, id, durable, journal) else { return false };
            subscription = found;
        }
        let consumer = Consumer {
            id: Arc::clone(id),
            who: self.who(id),
            waker,
            held: Held::default(),
            waiting: false,
            stalled: false,
            subscription,
        };
        self.consumers.insert(number, consumer);
        self.by_id.insert(Arc::clone(id), number);
        true
    }

    fn subscribe(
        &mut self,
        consumer: u64,
        id: &Arc<str>,
        durable: bool,
        journal: &mut dyn Journal,
    ) -> Option<u32> {
        let kept = self.subscriptions.iter_mut().find(|(_, kept)| kept.id == *id);
        let (number, told) = if let Some((&number, kept)) = kept {
            let told = kept.durable == durable;
            kept.durable = durable;
            kept.consumer = Some(consumer);
            kept.until = NEVER;
            (number, told)
        } else {
            if self.subscriptions.len() >= MOST {
                return None;
            }
            let departed = self.departed.iter().position(|departed| departed.id == *id);
            let departed = departed.and_then(|at| self.departed.remove(at));
            let number = match &departed {
                Some(departed) => departed.number,
                // The numbers are used up.
                None => self.last_subscription.checked_add(1)?,
            };
            self.last_subscription = self.last_subscription.max(number);
            if departed.is_none() {
                // A sequence is left out: what falls due before and after differs in its place in line.
                self.next_sequence += 1;
            }
            let told = departed.is_some() && !durable;
            let mut line = Line::default();
            line.clear(self.next_sequence, self.due.end());
            let from = departed.as_ref().map_or(self.next_sequence, |departed| departed.from);
            for pair in departed.iter().flat_map(|departed| &departed.parked) {
                let (sequence, pushes) = (pair.first(), pair.second());
                let Some(entry) = self.entries.live_mut(sequence).filter(|entry| entry.parked() > 0) else {
                    continue;
                };
                entry.set_shares(entry.owed().saturating_add(1), entry.parked() - 1);
                line.backs.add(sequence, pushes);
            }
            let subscription = Subscription {
                id: Arc::clone(id),
                durable,
                from,
                line,
                meter: Meter::default(),
                postponed: BTreeMap::new(),
                consumer: Some(consumer),
                until: NEVER,
            };
            self.subscriptions.insert(number, subscription);
            (number, told)
        };
        let subscription = self.subscriptions.get_mut(&number)?;
        subscription.line.backs.merge(self.line.backs.drain());
        if !told {
            let (topic, from) = (self.topic, subscription.from);
            journal.append(&Record::Subscribed { topic, subscription: number, durable, from, id });
        }
        Some(number)
    }

    /// Removes a consumer; what it did not acknowledge goes back at once, in order, to the front. Safe to
    /// call twice.
    pub(in crate::broker) fn leave(&mut self, number: u64, now: Tick, journal: &mut dyn Journal) {
        self.now = now;
        let Some(mut consumer) = self.consumers.remove(&number) else { return };
        self.waiting.retain(|&waiting| waiting != number);
        if self.by_id.get(&consumer.id) == Some(&number) {
            self.by_id.remove(&consumer.id);
        }
        let held = consumer.held.drain();
        self.holding -= held.len();
        let subscription = consumer.subscription;
        if let Some(there) = self.subscriptions.get_mut(&subscription) {
            there.consumer = None;
        }
        let shared = self.is_shared();
        let mut back = Vec::with_capacity(held.len());
        for (sequence, pushes) in held {
            if self.may_return(sequence, pushes, subscription) {
                back.push((sequence, if shared { u64::from(pushes) } else { consumer.who }));
            }
        }
        self.put_back(back, subscription);
        if !shared {
            // For all that waits, not only for these: the one that left may have been woken and taken nothing.
            self.wake_waiting(self.in_line());
        } else if self.subscriptions.get(&subscription).is_some_and(|there| !there.durable) {
            self.depart(subscription, journal);
        }
    }

    /// Ends a durable subscription whose consumer is away; says whether there was one.
    pub(in crate::broker) fn unsubscribe(&mut self, id: &str, now: Tick, journal: &mut dyn Journal) -> bool {
        self.now = now;
        let away = |there: &Subscription| &*there.id == id && there.consumer.is_none();
        let found = self.subscriptions.iter().find(|(_, there)| away(there));
        let Some(number) = found.map(|(&number, _)| number) else { return false };
        self.end_subscription(number, journal);
        true
    }

    /// Ends a subscription that is waited for no more.
    pub(super) fn end_subscription(&mut self, number: u32, journal: &mut dyn Journal) {
        self.depart(number, journal);
        if let Some(at) = self.departed.iter().position(|departed| departed.number == number) {
            let departed = self.departed.remove(at);
            self.give_up(departed, journal);
        }
    }

    /// Ends a subscription: what nobody else has or had goes to whoever is there, the rest waits for its
    /// return.
    fn depart(&mut self, number: u32, journal: &mut dyn Journal) {
        let Some(mut subscription) = self.subscriptions.remove(&number) else { return };
        let mut claims = subscription.line.backs.drain();
        claims.extend(
            subscription.postponed.iter().map(|(&(_, sequence), &pushes)| (sequence, u64::from(pushes))),
        );
        let rest = subscription.line.rest(&self.entries, &self.due);
        claims.extend(rest.into_iter().map(|sequence| (sequence, 0)));
        claims.sort_unstable();
        let (mut parked, mut orphans) = (Vec::new(), Vec::new());
        for (sequence, pushes) in claims {
            let Some(entry) = self.entries.live_mut(sequence) else { continue };
            let owed = entry.owed().saturating_sub(1);
            if owed == 0 && !entry.has(flag::ACKED) {
                // Whoever gets it now stands for all who lost it.
                entry.set_shares(1, 0);
                orphans.push((sequence, pushes));
            } else {
                entry.set_shares(owed, entry.parked().saturating_add(1));
                parked.push(Pair::new(sequence, pushes));
            }
        }
        self.adopt(orphans);
        let (id, from, until) =
            (subscription.id, subscription.from, self.now.saturating_add(self.terms.redeliver_after));
        let departed = Departed { number, id, from, until, parked: parked.into_boxed_slice() };
        if departed.parked.is_empty() {
            self.give_up(Some(departed), journal);
            return;
        }
        self.departed.push_back(departed);
        self.alarm_by(until);
        let mut total: usize = self.departed.iter().map(|departed| departed.parked.len()).sum();
        while total > MOST_PARKED.max(self.entries.len()) && self.departed.len() > 1 {
            let oldest = self.departed.pop_front();
            total -= oldest.as_ref().map_or(0, |oldest| oldest.parked.len());
            self.give_up(oldest, journal);
        }
    }

    /// Gives messages that nobody has to the first consumer, or holds them for one.
    pub(super) fn adopt(&mut self, orphans: Vec<(u64, u64)>) {
        if orphans.is_empty() {
            return;
        }
        match self.consumers.values().next().map(|consumer| consumer.subscription) {
            Some(subscription) => self.put_back(orphans, subscription),
            None => self.line.backs.merge(orphans),
        }
    }

    /// Waits no more for a lost subscriber.
    pub(super) fn give_up(&mut self, departed: Option<Departed>, journal: &mut dyn Journal) {
        let Some(departed) = departed else { return };
        let (mut done, mut orphans) = (Vec::new(), Vec::new());
        for pair in &departed.parked {
            let sequence = pair.first();
            let Some(entry) = self.entries.live_mut(sequence).filter(|entry| entry.parked() > 0) else {
                continue;
            };
            entry.set_shares(entry.owed(), entry.parked() - 1);
            if entry.owed() > 0 || entry.parked() > 0 {
                continue;
            }
            if entry.has(flag::ACKED) {
                done.push(sequence);
            } else {
                entry.set_shares(1, 0);
                orphans.push((sequence, pair.second()));
            }
        }
        let (topic, subscription) = (self.topic, departed.number);
        journal.append(&Record::Unsubscribed { topic, subscription });
        self.finish(done, journal);
        self.adopt(orphans);
    }
}
