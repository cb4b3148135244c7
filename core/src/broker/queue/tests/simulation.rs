//! Random lives of a queue, each step compared with the model: nothing is lost, invented or early, each
//! message is with one consumer at a time in a work queue, each subscription gets its own, counts and costs
//! are right. A crash keeps any prefix of the journal beyond what was committed.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::{KeyWindow, Rate, Reason};
use super::model::{Claim, Claimant, Message, Model, Place, reached};
use super::*;

const IDS: u8 = 5;

pub(super) struct Life {
    pub(super) bench: Bench,
    pub(super) model: Model,
    pub(super) random: StdRng,
    /// As of the last commit, with the length of the journal then.
    pub(super) committed: (usize, Model),
    /// Everything that was ever accepted.
    pub(super) all: BTreeMap<u64, Message>,
    next_number: u64,
    /// What the queue said is dead.
    pub(super) dead: Vec<Dead>,
    /// Pushes of each line, for the rate.
    pub(super) pushes: BTreeMap<Claimant, Vec<Tick>>,
    cleaned: usize,
    /// The ids of subscriptions.
    pub(super) ids: BTreeMap<u32, Claimant>,
}

pub(super) fn name(id: Claimant) -> Arc<str> {
    Arc::from(format!("c{id}"))
}

pub(super) fn id_of(name: &str) -> Claimant {
    name[1..].parse().unwrap()
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = StdRng::seed_from_u64(seed);
        let mode = [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe][(seed % 2) as usize];
        let mut may = |one_in: u32| random.random_range(0..one_in) == 0;
        let terms = Terms {
            compat: may(6),
            max_attempts: if may(3) { 2 } else { 0 },
            expiry_ms: if may(3) { 15_000 } else { 0 },
            rate: may(6).then_some(Rate { interval: SECOND / 4, burst: 5 }),
            depth: if may(6) { 30 } else { usize::MAX },
            refuse: may(2),
            keys: may(3).then_some(KeyWindow { time: 20 * SECOND, keys: 10_000 }),
            ..terms(mode)
        };
        let bench = Bench::with(terms.clone());
        let model = Model::new(terms);
        Life {
            bench,
            committed: (0, model.clone()),
            model,
            random,
            all: BTreeMap::new(),
            next_number: 1,
            dead: Vec::new(),
            pushes: BTreeMap::new(),
            cleaned: 0,
            ids: BTreeMap::new(),
        }
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn any_consumer(&mut self) -> Option<u64> {
        let count = self.model.consumers.len() as u64;
        if count == 0 {
            return None;
        }
        let at = self.below(count) as usize;
        self.model.consumers.keys().nth(at).copied()
    }

    fn send(&mut self) {
        let terms = self.model.terms.clone();
        let (now, wall) = (self.bench.now, self.bench.wall());
        let mut drafts = Vec::new();
        for _ in 0..self.random.random_range(1..10) {
            let delay_ms = if self.below(3) == 0 { self.random.random_range(-1000..15_000) } else { 0 };
            let own = if self.below(12) == 0 { 1 + self.below(20_000) } else { 0 };
            let key = if self.below(3) == 0 { format!("k{}", self.below(8)) } else { String::new() };
            let length = self.below(200) as usize;
            let body = format!("{}{}", self.next_number, "b".repeat(length));
            drafts.push((body, delay_ms, own, key));
        }
        let given: Vec<Draft<'_>> = drafts
            .iter()
            .map(|(body, delay_ms, own, key)| Draft {
                body: body.as_bytes(),
                delay_ms: *delay_ms,
                wire_delay: delay_ms / 1000,
                key,
                expires_in_ms: *own,
            })
            .collect();
        let results = self.bench.accept(&given);
        assert_eq!(results.len(), drafts.len());
        self.model.keys.retain(|_, (_, until)| *until > now);
        let mut full = false;
        for ((body, delay_ms, own, key), result) in drafts.into_iter().zip(results) {
            let has_key = terms.keys.is_some() && !key.is_empty();
            let waits = full && !terms.refuse;
            if has_key
                && !waits
                && let Some(&(before, _)) = self.model.keys.get(&key)
            {
                assert_eq!(result, Accepted::Duplicate(before));
                continue;
            }
            full = waits || self.model.messages.len() >= terms.depth;
            let sequence = match result {
                Accepted::New(sequence) if !full => sequence,
                Accepted::Full if full => continue,
                other => panic!("{other:?}, full: {full}"),
            };
            assert!(!self.all.contains_key(&sequence), "{sequence} was there before");
            if has_key {
                self.model.keys.insert(key, (sequence, now + 20 * SECOND));
            }
            let delay = delay_ms.max(0);
            let due_wall = wall + delay;
            let lives = match (own, terms.expiry_ms) {
                (0, 0) => None,
                (0, expiry) => Some(delay as u64 + expiry),
                (own, _) => Some(own),
            };
            let message = Message {
                body,
                due: now + delay as u64 * 1000,
                due_wall,
                is_due: false,
                expires: lives.map(|ms| now + ms * 1000),
                expires_wall: wall + lives.unwrap_or(0) as i64,
                claims: BTreeMap::new(),
                parked: BTreeMap::new(),
                acked: false,
                acked_by: Default::default(),
                adopted: false,
                later_wall: 0,
                dying: false,
                lost_by: BTreeSet::new(),
            };
            self.all.insert(sequence, message.clone());
            self.model.next_sequence = sequence + 1;
            self.model.messages.insert(sequence, message);
            if delay == 0 {
                self.model.falls_due(sequence);
            }
        }
    }

    fn join(&mut self) {
        let (number, id) = (self.next_number, self.below(u64::from(IDS)) as u8);
        self.next_number += 1;
        let durable = self.model.shared && id == 0;
        if self.model.shared {
            self.pushes.remove(&id);
        }
        self.bench.durable = durable;
        self.bench.join(number, &name(id));
        self.model.join(number, id, durable);
    }

    fn take(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let window = Window { count: self.random.random_range(1..30), bytes: 3000 };
        let claimant = self.model.claimant(number);
        let held = self.bench.queue.consumers[&number].held.len();
        let line = |model: &Model| {
            let in_line = |message: &&Message| {
                message.claims.get(&claimant).is_some_and(|claim| matches!(claim.place, Place::Line(_)))
            };
            model.messages.values().filter(|message| !message.dying).filter(in_line).count()
        };
        let waits = line(&self.model);
        let now = self.bench.now;
        let taken = self.bench.take(number, window);
        let stalled = self.bench.queue.consumers[&number].stalled;
        let is_rated = self.model.terms.rate.is_some();
        assert!(!taken.is_empty() || waits == 0 || stalled || is_rated, "{waits} wait");
        assert!(held + taken.len() <= 100 && taken.len() <= window.count);
        for out in &taken {
            let message = self.model.messages.get_mut(&out.sequence).expect("it is there");
            assert!(!message.dying && message.is_due);
            let claim = message.claims.get_mut(&claimant).expect("it is owed to this one");
            assert!(matches!(claim.place, Place::Line(_)), "another one has it: {claim:?}");
            claim.pushes += 1;
            claim.place = Place::With(number, now);
            assert_eq!(out.attempt, claim.pushes);
            assert_eq!(self.bench.journal.body(out.position), message.body);
            assert_eq!(out.length as usize, message.body.len());
        }
        if let Some(rate) = self.model.terms.rate {
            let pushes = self.pushes.entry(claimant).or_default();
            pushes.extend(taken.iter().map(|_| now));
            for (at, &since) in pushes.iter().enumerate() {
                let most = u64::from(rate.burst) + (now - since) / rate.interval;
                assert!((pushes.len() - at) as u64 <= most, "too fast");
            }
        }
    }

    /// Sequences that a consumer holds, or, rarely, anything.
    fn some_of(&mut self, number: u64) -> Vec<u64> {
        let strange = self.below(4) == 0;
        let held = |message: &Message| {
            message
                .claims
                .values()
                .any(|claim| matches!(claim.place, Place::With(holder, _) if holder == number))
        };
        let all: Vec<u64> = self
            .model
            .messages
            .iter()
            .filter(|(_, message)| strange || held(message))
            .map(|(&sequence, _)| sequence)
            .collect();
        all.into_iter().filter(|_| self.below(3) > 0).collect()
    }

    fn ack(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let sequences = self.some_of(number);
        let expected = sequences.iter().filter(|&&sequence| self.model.ack(number, sequence)).count();
        let counted = self.bench.queue.ack(number, sequences, self.bench.now, &mut self.bench.journal);
        assert_eq!(counted, expected);
    }

    fn nack(&mut self) {
        let Some(number) = self.any_consumer() else { return };
        let claimant = self.model.claimant(number);
        let delay = if self.below(2) == 0 { 0 } else { 1 + self.below(8000) };
        let wall = self.bench.wall();
        let sequences: Vec<u64> = self
            .some_of(number)
            .into_iter()
            .filter(|sequence| {
                let claim = self.model.messages[sequence].claims.get(&claimant);
                claim.is_some_and(|claim| matches!(claim.place, Place::With(holder, _) if holder == number))
            })
            .collect();
        for &sequence in &sequences {
            self.model.nack(number, sequence, delay);
            self.model.messages.get_mut(&sequence).unwrap().later_wall = wall + delay as i64;
        }
        let refusals: Vec<(u64, u64)> = sequences.iter().map(|&sequence| (sequence, delay)).collect();
        let (now, journal) = (self.bench.now, &mut self.bench.journal);
        assert_eq!(self.bench.queue.nack(number, refusals, now, wall, journal), sequences.len());
    }

    pub(super) fn pass(&mut self, ticks: Tick) {
        self.bench.now += ticks;
        self.bench.queue.advance(self.bench.now, &mut self.bench.journal);
        self.bench.settle();
        self.model.now = self.bench.now;
        // What expires does so before anything comes back.
        let held = |model: &Model, dead: &Dead| model.messages[&dead.sequence].is_held();
        for dead in std::mem::take(&mut self.bench.dead) {
            if dead.reason == Reason::Expired && !held(&self.model, &dead) {
                self.model.dies(&dead, None);
                let message = self.model.messages.get_mut(&dead.sequence).unwrap();
                message.is_due |= reached(message.due, self.bench.now);
                self.dead.push(dead);
            } else {
                self.bench.dead.push(dead);
            }
        }
        self.model.advance(self.bench.now);
        assert!(self.bench.queue.alarm() > self.bench.now, "an alarm in the past");
    }

    fn remove_some(&mut self) {
        let sequences: Vec<u64> = self.model.messages.keys().copied().collect();
        if self.below(4) == 0 {
            let purged = self.bench.queue.purge(self.bench.now, &mut self.bench.journal);
            assert_eq!(purged, sequences.len());
            sequences.into_iter().for_each(|sequence| self.model.drop(sequence));
            self.model.departed.clear();
            return;
        }
        for sequence in sequences.into_iter().filter(|_| self.random.random_range(0..6) == 0) {
            assert!(self.bench.queue.delete(sequence, &mut self.bench.journal));
            self.model.drop(sequence);
        }
    }

    fn bury(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        self.bench.queue.buried(&dead, self.bench.now, &mut self.bench.journal);
        for dead in &dead {
            self.model.buried(dead, self.share_of(dead));
        }
    }

    pub(super) fn share_of(&self, dead: &Dead) -> Option<Claimant> {
        (dead.subscription > 0).then(|| self.ids[&dead.subscription])
    }

    fn commit(&mut self) {
        self.committed = (self.bench.journal.records.len(), self.model.clone());
    }

    fn clean(&mut self) {
        let committed = self.committed.0;
        if committed > self.cleaned {
            self.cleaned += 1 + self.below((committed - self.cleaned) as u64) as usize;
            super::durable::clean(&mut self.bench, self.cleaned);
            // What was written anew says when it is due by the clock as it is now.
            let is_later = |message: &Message| {
                !message.dying && message.claims.values().any(|claim| matches!(claim.place, Place::Later(_)))
            };
            let mut later: Vec<u64> = Vec::new();
            if !self.model.shared {
                let all = self.model.messages.iter();
                later.extend(all.filter(|(_, message)| is_later(message)).map(|(&sequence, _)| sequence));
            }
            for sequence in later {
                let due = self.due_by_records(sequence);
                self.model.messages.get_mut(&sequence).unwrap().later_wall = due;
            }
            // The old records go only when the new ones are safe.
            self.commit();
        }
    }

    fn step(&mut self) {
        match self.below(40) {
            0..8 => self.send(),
            8..11 => self.join(),
            11..21 => self.take(),
            21..27 => self.ack(),
            27..30 => self.nack(),
            30..34 => {
                let ticks = self.below(5 * SECOND);
                self.pass(ticks);
            }
            34 => {
                if let Some(number) = self.any_consumer() {
                    self.bench.queue.leave(number, self.bench.now, &mut self.bench.journal);
                    if self.model.shared {
                        // Who comes again begins anew.
                        self.pushes.remove(&self.model.claimant(number));
                    }
                    self.model.leave(number);
                }
            }
            35 if self.below(4) == 0 => self.remove_some(),
            35 => self.bench.epoch += self.random.random_range(-30_000..30_000),
            36 if self.model.shared && self.model.subs.get(&0).is_some_and(|sub| sub.consumer.is_none()) => {
                assert!(self.bench.queue.unsubscribe("c0", self.bench.now, &mut self.bench.journal));
                self.model.unsubscribe(0);
            }
            36 | 37 => self.bury(),
            38 => match self.below(3) {
                0 => self.clean(),
                _ => self.commit(),
            },
            _ => {
                if self.below(3) == 0 {
                    self.crash();
                }
            }
        }
        self.settle();
        self.compare();
    }

    /// Everything that is left is delivered, acknowledged or buried.
    fn end(&mut self) {
        for _ in 0..2000 {
            if self.bench.queue.counts() == (0, 0) {
                break;
            }
            if self.model.consumers.len() < usize::from(IDS) {
                self.join();
            }
            self.pass(SECOND);
            self.settle();
            let numbers: Vec<u64> = self.model.consumers.keys().copied().collect();
            for number in numbers {
                let taken = self.bench.take(number, WIDE);
                let claimant = self.model.claimant(number);
                for out in &taken {
                    let message = self.model.messages.get_mut(&out.sequence).unwrap();
                    let claim = message.claims.get_mut(&claimant).unwrap();
                    *claim = Claim { place: Place::With(number, self.bench.now), pushes: claim.pushes + 1 };
                    assert!(self.model.ack(number, out.sequence));
                }
                assert_eq!(self.bench.ack(number, &taken), taken.len());
                self.settle();
            }
            self.bury();
            self.settle();
            self.compare();
        }
        assert_eq!(self.bench.queue.counts(), (0, 0), "what is left never comes");
        assert!(self.model.messages.is_empty());
        assert_eq!((self.bench.queue.body_bytes(), self.bench.queue.unacked()), (0, 0));
    }
}

/// Lives through one seed.
pub(super) fn live(seed: u64) {
    let mut life = Life::new(seed);
    for _ in 0..life.random.random_range(10..120) {
        life.step();
    }
    life.end();
}

#[test]
fn random_lives_follow_the_model() {
    // More of them are asked for by the environment.
    let asked = std::env::var("CEIBA_SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok());
    let seeds = asked.unwrap_or(1000);
    let next = std::sync::atomic::AtomicU64::new(0);
    let some = || loop {
        let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if seed >= seeds {
            return;
        }
        // The seed is said where it fails.
        if let Err(panic) = std::panic::catch_unwind(|| live(seed)) {
            eprintln!("the life of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(some);
        some();
    });
}
