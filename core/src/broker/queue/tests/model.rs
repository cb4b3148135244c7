//! The simple model of a queue: maps and plain rules, without lists, chunks or clever orders.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Reason, Terms};
use super::*;
use crate::broker::room::Room;

/// Who a message is owed to: an id in publish-subscribe, always the same in a work queue.
pub(super) type Claimant = u8;
pub(super) const ALL: Claimant = 255;
/// Nobody was there for it: it is held for the first that comes.
pub(super) const HELD: Claimant = 254;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In line; an ack of this id still counts.
    Line(Option<Claimant>),
    /// With the consumer of this number, since.
    With(u64, Tick),
    /// Refused until.
    Later(Tick),
    Dying,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) place: Place,
    pub(super) pushes: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) body: String,
    pub(super) due: Tick,
    pub(super) due_wall: i64,
    pub(super) is_due: bool,
    pub(super) expires: Option<Tick>,
    pub(super) expires_wall: i64,
    pub(super) claims: BTreeMap<Claimant, Claim>,
    /// Lost subscribers that may come back for it, with their pushes.
    pub(super) parked: BTreeMap<Claimant, u32>,
    pub(super) acked: bool,
    pub(super) acked_by: BTreeSet<Claimant>,
    /// Nobody was there for it, or all were lost: who has it got it by chance.
    pub(super) adopted: bool,
    /// What the wall clock shows when a refusal is over.
    pub(super) later_wall: i64,
    pub(super) dying: bool,
    /// Whose subscriptions ended while it was dying: a restart knows of no claim of theirs.
    pub(super) lost_by: BTreeSet<Claimant>,
}

impl Message {
    pub(super) fn is_held(&self) -> bool {
        self.claims.values().any(|claim| matches!(claim.place, Place::With(..)))
    }

    pub(super) fn cost(&self) -> usize {
        Room::cost(self.body.len())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sub {
    pub(super) consumer: Option<u64>,
    pub(super) durable: bool,
    /// Waited for since a restart.
    pub(super) until: Option<Tick>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) terms: Terms,
    pub(super) shared: bool,
    pub(super) messages: BTreeMap<u64, Message>,
    pub(super) consumers: BTreeMap<u64, Claimant>,
    pub(super) subs: BTreeMap<Claimant, Sub>,
    /// Lost ones, in order of their loss.
    pub(super) departed: Vec<(Claimant, Tick)>,
    /// Those that left by acks in this step.
    pub(super) consumed: BTreeSet<u64>,
    pub(super) freed: usize,
    pub(super) keys: BTreeMap<String, (u64, Tick)>,
    pub(super) now: Tick,
    /// Past the last that was accepted.
    pub(super) next_sequence: u64,
}

impl Model {
    pub(super) fn new(terms: Terms) -> Model {
        Model {
            shared: terms.mode == DeliveryMode::PublishSubscribe,
            terms,
            messages: BTreeMap::new(),
            consumers: BTreeMap::new(),
            subs: BTreeMap::new(),
            departed: Vec::new(),
            consumed: BTreeSet::new(),
            freed: 0,
            keys: BTreeMap::new(),
            now: 0,
            next_sequence: 0,
        }
    }

    pub(super) fn claimant(&self, number: u64) -> Claimant {
        if self.shared { self.consumers[&number] } else { ALL }
    }

    /// A message falls due: it is owed to those that are there.
    pub(super) fn falls_due(&mut self, sequence: u64) {
        let line = Claim { place: Place::Line(None), pushes: 0 };
        let message = self.messages.get_mut(&sequence).unwrap();
        message.is_due = true;
        if !self.shared {
            message.claims.entry(ALL).or_insert(line).place = Place::Line(None);
        } else if self.subs.is_empty() {
            message.adopted = true;
            message.claims.insert(HELD, line);
        } else {
            message.claims.extend(self.subs.keys().map(|&id| (id, line)));
        }
    }

    /// Something left: done if nobody is owed it.
    fn settle(&mut self, sequence: u64) {
        let Some(message) = self.messages.get_mut(&sequence) else { return };
        if !message.claims.is_empty() || message.dying {
            return;
        }
        if message.acked && message.parked.is_empty() {
            self.consume(sequence);
        } else if !message.acked {
            panic!("{sequence} is owed to nobody");
        }
    }

    fn consume(&mut self, sequence: u64) {
        if let Some(message) = self.messages.remove(&sequence) {
            self.freed += message.cost();
            self.consumed.insert(sequence);
        }
    }

    pub(super) fn drop(&mut self, sequence: u64) {
        if let Some(message) = self.messages.remove(&sequence) {
            self.freed += message.cost();
        }
    }

    /// Acks; says whether it counted.
    pub(super) fn ack(&mut self, number: u64, sequence: u64) -> bool {
        let Some(&id) = self.consumers.get(&number) else { return false };
        let claimant = self.claimant(number);
        let Some(message) = self.messages.get_mut(&sequence).filter(|message| !message.dying) else {
            return false;
        };
        let counts = message.claims.get(&claimant).is_some_and(|claim| match claim.place {
            Place::With(holder, _) => holder == number,
            Place::Line(late) => late == Some(id),
            _ => false,
        });
        if !counts {
            return false;
        }
        message.acked = true;
        message.acked_by.insert(claimant);
        message.claims.remove(&claimant);
        if self.terms.compat || !self.shared {
            self.consume(sequence);
        } else {
            self.settle(sequence);
        }
        true
    }

    /// Gives messages that nobody has to the first consumer, or holds them.
    fn adopt(&mut self, orphans: Vec<(u64, Claim)>) {
        let heir = self.consumers.values().next().copied();
        for (sequence, mut claim) in orphans {
            let message = self.messages.get_mut(&sequence).unwrap();
            message.parked.clear();
            message.adopted = true;
            claim.place = Place::Line(heir.filter(|_| claim.pushes > 0));
            message.claims.insert(heir.unwrap_or(HELD), claim);
        }
    }

    pub(super) fn join(&mut self, number: u64, id: Claimant, durable: bool) {
        let before = self.consumers.iter().find(|(_, there)| **there == id).map(|(&number, _)| number);
        if let Some(before) = before {
            self.leave(before);
        }
        self.consumers.insert(number, id);
        if !self.shared {
            return;
        }
        let returned: Vec<_> = self.departed.iter().filter(|(there, _)| *there == id).collect();
        assert!(returned.len() < 2);
        let is_new = !self.subs.contains_key(&id);
        self.departed.retain(|(there, _)| *there != id);
        self.subs.insert(id, Sub { consumer: Some(number), durable, until: None });
        for message in self.messages.values_mut().filter(|message| message.is_due && !message.dying) {
            if let Some(pushes) = message.parked.remove(&id).filter(|_| is_new) {
                let late = (pushes > 0).then_some(id);
                message.claims.insert(id, Claim { place: Place::Line(late), pushes });
            }
            if let Some(mut held) = message.claims.remove(&HELD) {
                held.place = Place::Line((held.pushes > 0).then_some(id));
                message.claims.insert(id, held);
            }
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        let Some(id) = self.consumers.remove(&number) else { return };
        for message in self.messages.values_mut() {
            for claim in message.claims.values_mut() {
                if matches!(claim.place, Place::With(holder, _) if holder == number) {
                    claim.place = Place::Line(Some(id));
                }
            }
        }
        self.check_attempts();
        if let Some(sub) = self.subs.get_mut(&id) {
            sub.consumer = None;
            if !sub.durable {
                self.depart(id);
            }
        }
    }

    /// What would be pushed too often dies instead.
    fn check_attempts(&mut self) {
        if self.terms.max_attempts == 0 {
            return;
        }
        let (shared, most) = (self.shared, self.terms.max_attempts);
        for message in self.messages.values_mut().filter(|message| !message.dying) {
            for claim in message.claims.values_mut() {
                if !matches!(claim.place, Place::With(..)) && claim.pushes >= most {
                    claim.place = Place::Dying;
                    message.dying |= !shared;
                }
            }
        }
    }

    fn depart(&mut self, id: Claimant) {
        self.subs.remove(&id);
        let (mut orphans, mut parked) = (Vec::new(), false);
        for (&sequence, message) in &mut self.messages {
            if message.dying {
                message.lost_by.insert(id);
                continue;
            }
            // A share on its way to the dead letters stays.
            let there = message.claims.get(&id).filter(|claim| claim.place != Place::Dying);
            let Some(claim) = there.copied() else { continue };
            message.claims.remove(&id);
            if message.claims.is_empty() && !message.acked {
                orphans.push((sequence, claim));
            } else {
                message.parked.insert(id, claim.pushes);
                parked = true;
            }
        }
        self.adopt(orphans);
        if parked {
            self.departed.push((id, self.now + self.terms.redeliver_after));
        }
    }

    fn give_up(&mut self, id: Claimant) {
        let mut orphans = Vec::new();
        let sequences: Vec<u64> = self.messages.keys().copied().collect();
        for sequence in sequences {
            let message = self.messages.get_mut(&sequence).unwrap();
            if message.dying {
                message.lost_by.insert(id);
            }
            let Some(pushes) = message.parked.remove(&id).filter(|_| !message.dying) else { continue };
            if !message.claims.is_empty() || !message.parked.is_empty() {
                continue;
            }
            if message.acked {
                self.settle(sequence);
            } else {
                orphans.push((sequence, Claim { place: Place::Line(None), pushes }));
            }
        }
        self.adopt(orphans);
    }

    pub(super) fn unsubscribe(&mut self, id: Claimant) {
        self.depart(id);
        self.departed.retain(|(there, _)| *there != id);
        self.give_up(id);
    }

    pub(super) fn nack(&mut self, number: u64, sequence: u64, delay_ms: u64) {
        let (claimant, id) = (self.claimant(number), self.consumers[&number]);
        let message = self.messages.get_mut(&sequence).unwrap();
        let claim = message.claims.get_mut(&claimant).unwrap();
        claim.place = match delay_ms {
            0 => Place::Line(Some(id).filter(|_| self.shared)),
            delay => Place::Later(self.now + delay * 1000),
        };
        self.check_attempts();
    }

    /// Time passed.
    pub(super) fn advance(&mut self, now: Tick) {
        self.now = now;
        let sequences: Vec<u64> = self.messages.keys().copied().collect();
        for &sequence in &sequences {
            let message = &self.messages[&sequence];
            if !message.is_due && !message.dying && reached(message.due, now) {
                self.falls_due(sequence);
            }
        }
        let (redeliver_after, shared) = (self.terms.redeliver_after, self.shared);
        let ids = self.consumers.clone();
        for message in self.messages.values_mut().filter(|message| !message.dying) {
            for claim in message.claims.values_mut() {
                match claim.place {
                    Place::With(number, at) if at + redeliver_after <= now => {
                        claim.place = Place::Line(Some(ids[&number]));
                    }
                    Place::Later(due) if !self.shared && reached(due, now) => claim.place = Place::Line(None),
                    _ => {}
                }
            }
        }
        self.check_attempts();
        while self.departed.first().is_some_and(|&(_, until)| until <= now) {
            let (id, _) = self.departed.remove(0);
            self.give_up(id);
        }
        let missed =
            |sub: &Sub| sub.consumer.is_none() && !sub.durable && sub.until.is_some_and(|at| at <= now);
        let missed: Vec<Claimant> =
            self.subs.iter().filter(|(_, sub)| missed(sub)).map(|(&id, _)| id).collect();
        for id in missed {
            self.unsubscribe(id);
        }
        for message in self.messages.values_mut().filter(|message| !message.dying) {
            for (&id, claim) in &mut message.claims {
                if shared && matches!(claim.place, Place::Later(due) if due <= now) {
                    claim.place = Place::Line(Some(id));
                }
            }
        }
    }

    /// The queue says that a message is dead: is it?
    pub(super) fn dies(&mut self, dead: &Dead, id: Option<Claimant>) {
        let message = self.messages.get_mut(&dead.sequence).expect("a dead message was there");
        if message.dying && dead.reason == Reason::Expired {
            // A crash before its burial shows it again.
            return;
        }
        match dead.reason {
            Reason::Expired => {
                assert!(message.expires.is_some_and(|at| at <= self.now), "expired early: {message:?}");
                assert!(!message.is_held(), "expired in hands: {message:?}");
                message.dying = true;
            }
            Reason::Attempts => {
                let claim = message.claims.get(&id.unwrap_or(ALL));
                let claim = claim.expect("who had it too often owed an ack");
                assert_eq!((claim.place, claim.pushes), (Place::Dying, dead.attempts));
                assert_eq!(dead.attempts, self.terms.max_attempts);
            }
        }
    }

    /// The dead one is stored elsewhere.
    pub(super) fn buried(&mut self, dead: &Dead, id: Option<Claimant>) {
        let Some(message) = self.messages.get_mut(&dead.sequence) else { return };
        match id {
            None => self.drop(dead.sequence),
            Some(_) if message.dying => {}
            Some(id) => {
                message.acked = true;
                message.acked_by.insert(id);
                message.claims.remove(&id);
                if message.claims.is_empty() && message.parked.is_empty() {
                    self.drop(dead.sequence);
                }
            }
        }
    }

    /// What every step must leave true.
    pub(super) fn check(&self) {
        let grain = self.terms.expiry_ms * 1000 / 64 + 200_000;
        for (sequence, message) in &self.messages {
            if let Some(expires) = message.expires.filter(|_| !message.dying && !message.is_held()) {
                assert!(self.now <= expires + grain, "{sequence} should have expired: {message:?}");
            }
            assert!(message.dying || !message.is_due || !message.claims.is_empty() || message.acked);
        }
    }
}

/// Due times are kept in 64 microseconds, rounded up.
pub(super) fn reached(due: Tick, now: Tick) -> bool {
    due.div_ceil(64).saturating_mul(64) <= now
}
