//! A queue beside its model: after each step they are the same, after a crash the queue is between what was
//! committed and what was.

use std::collections::BTreeSet;

use rand::Rng;

use super::super::entries::{Stage, flag};
use super::journal::Saved;
use super::model::{ALL, Claim, Claimant, HELD, Model, Place, Sub};
use super::simulation::{Life, id_of};
use super::*;

/// What a queue owes, to whom: sequence and claimant, with those in line.
#[derive(Debug, PartialEq, Eq, Default)]
struct Owed {
    in_line: BTreeSet<(u64, Claimant)>,
    held: BTreeSet<(u64, u64)>,
    later: BTreeSet<(u64, Claimant)>,
    parked: BTreeSet<(u64, Claimant)>,
}

fn line_of(queue: &Queue, line: &super::super::lines::Line) -> Vec<u64> {
    let back = line.backs.iter().map(|(sequence, _)| sequence);
    let back = back.filter(|&sequence| queue.entries.live(sequence).is_some());
    back.chain(line.rest(&queue.entries, &queue.due)).collect()
}

impl Owed {
    fn by_queue(queue: &Queue) -> Owed {
        let live = |sequence: u64| queue.entries.live(sequence).is_some();
        let mut owed = Owed::default();
        if !queue.is_shared() {
            owed.in_line.extend(line_of(queue, &queue.line).into_iter().map(|sequence| (sequence, ALL)));
            let later = queue.entries.iter().filter(|(_, entry)| entry.has(flag::POSTPONED));
            let later = later.filter(|(_, entry)| entry.stage() == Stage::Delayed);
            owed.later.extend(later.map(|(sequence, _)| (sequence, ALL)));
        } else {
            let held = queue.line.backs.iter().map(|(sequence, _)| (sequence, HELD));
            owed.in_line.extend(held.filter(|&(sequence, _)| live(sequence)));
        }
        for there in queue.subscriptions.values() {
            let id = id_of(&there.id);
            for sequence in line_of(queue, &there.line) {
                assert!(owed.in_line.insert((sequence, id)), "{sequence} is in line twice for {id}");
            }
            let later = there.postponed.keys().map(|&(_, sequence)| (sequence, id));
            owed.later.extend(later.filter(|&(sequence, _)| live(sequence)));
        }
        for (&number, consumer) in &queue.consumers {
            owed.held.extend(consumer.held.iter().map(|sequence| (sequence, number)));
        }
        for departed in &queue.departed {
            let id = id_of(&departed.id);
            let parked = departed.parked.iter().map(|pair| pair.first());
            let parked = parked
                .filter(|&sequence| queue.entries.live(sequence).is_some_and(|entry| entry.parked() > 0));
            owed.parked.extend(parked.map(|sequence| (sequence, id)));
        }
        owed
    }

    fn by_model(model: &Model) -> Owed {
        let mut owed = Owed::default();
        for (&sequence, message) in model.messages.iter().filter(|(_, message)| !message.dying) {
            for (&id, claim) in &message.claims {
                match claim.place {
                    Place::Line(_) => drop(owed.in_line.insert((sequence, id))),
                    Place::With(number, _) => drop(owed.held.insert((sequence, number))),
                    Place::Later(_) => drop(owed.later.insert((sequence, id))),
                    Place::Dying => {}
                }
            }
            owed.parked.extend(message.parked.keys().map(|&id| (sequence, id)));
        }
        owed
    }
}

impl Life {
    /// What the queue says of the step, against the model.
    pub(super) fn settle(&mut self) {
        let events = self.bench.queue.take_events();
        self.bench.freed += events.freed;
        self.bench.dead.extend(events.dead);
        let consumed = events.left.iter().filter(|left| left.why == Why::Consumed);
        self.bench.consumed.extend(consumed.map(|left| left.sequence));
        for dead in std::mem::take(&mut self.bench.dead) {
            let id = self.share_of(&dead);
            self.model.dies(&dead, id);
            self.dead.push(dead);
        }
        let queue = &self.bench.queue;
        let there = queue.subscriptions.iter().map(|(&number, there)| (number, id_of(&there.id)));
        let departed = queue.departed.iter().map(|departed| (departed.number, id_of(&departed.id)));
        self.ids.extend(there.chain(departed));
        let consumed: BTreeSet<u64> = self.bench.consumed.drain(..).collect();
        assert_eq!(consumed, std::mem::take(&mut self.model.consumed));
    }

    pub(super) fn compare(&mut self) {
        let (queue, model) = (&self.bench.queue, &self.model);
        model.check();
        let there: Vec<u64> = queue.all().map(|shown| shown.sequence).collect();
        assert!(there.iter().eq(model.messages.keys()), "{there:?}, not {:?}", model.messages.keys());
        let owed = Owed::by_model(model);
        assert_eq!(Owed::by_queue(queue), owed);
        let delayed = |message: &super::model::Message| {
            !message.dying
                && (!message.is_due
                    || (!model.shared && matches!(message.claims[&ALL].place, Place::Later(_))))
        };
        let delayed = model.messages.values().filter(|message| delayed(message)).count();
        assert_eq!(queue.counts(), (model.messages.len() - delayed, delayed));
        let bytes: usize = model.messages.values().map(|message| message.body.len()).sum();
        assert_eq!((queue.body_bytes(), self.bench.freed), (bytes, model.freed));
        assert_eq!(queue.unacked(), owed.held.len());
        for (sequence, entry) in queue.entries.iter().filter(|(_, entry)| entry.stage() == Stage::Live) {
            let message = &model.messages[&sequence];
            if model.shared {
                let shares = (message.claims.len(), message.parked.len());
                assert_eq!((usize::from(entry.owed()), usize::from(entry.parked())), shares, "{sequence}");
                assert_eq!(entry.has(flag::ACKED), message.acked);
            } else {
                assert_eq!(entry.attempts(), message.claims[&ALL].pushes);
            }
        }
        // Nobody sleeps while there is something to take.
        let asleep = queue.consumers.values().filter(|consumer| consumer.waiting).count();
        assert_eq!(asleep, queue.waiting.len());
        if model.terms.rate.is_none() && !model.shared {
            let awake = queue.consumers.values().any(|consumer| !consumer.waiting && !consumer.stalled);
            let in_line = owed.in_line.len();
            assert_eq!(queue.in_line(), in_line);
            assert!(in_line == 0 || asleep == 0 || awake, "nobody was woken");
        }
        if model.terms.rate.is_none() && model.shared {
            for there in queue.subscriptions.values() {
                let asleep = there.consumer.is_some_and(|number| queue.consumers[&number].waiting);
                assert!(!asleep || line_of(queue, &there.line).is_empty(), "it was not woken");
            }
        }
    }

    /// The process ends; any part of what was not committed is lost.
    pub(super) fn crash(&mut self) {
        let (committed, before) = self.committed.clone();
        let length = self.bench.journal.records.len();
        let kept = match self.below(3) {
            0 => length,
            1 => committed,
            _ => self.random.random_range(committed..=length),
        };
        let after = self.model.clone();
        let pause = self.below(8 * SECOND);
        self.bench.freed = 0;
        self.bench.journal.records.truncate(kept);
        self.bench.queue = Queue::new(7, Arc::from("t"), after.terms.clone());
        self.bench.journal.replay(&mut self.bench.queue);
        self.bench.now += pause;
        let (now, wall) = (self.bench.now, self.bench.wall());
        self.bench.queue.restored(now, wall, &mut self.bench.journal);
        // What everybody had acknowledged may be there once more, and goes now.
        let events = self.bench.queue.take_events();
        self.bench.dead = events.dead;
        let model = self.read(&before, &after);
        self.compare_crash(&before, &after, &model, wall);
        self.model = model;
        self.dead.clear();
        self.pushes.clear();
        self.settle();
        self.compare();
        self.committed = (self.bench.journal.records.len(), self.model.clone());
        self.pass(0);
    }

    /// The model of the queue as it is after a restart.
    fn read(&self, before: &Model, after: &Model) -> Model {
        let queue = &self.bench.queue;
        let (now, wall) = (self.bench.now, self.bench.wall());
        let tick_of = |at: i64| now + u64::try_from(at - wall).unwrap_or(0) * 1000;
        let mut model = Model::new(after.terms.clone());
        model.now = now;
        model.next_sequence = queue.next_sequence();
        let restored = now + model.terms.redeliver_after;
        for there in queue.subscriptions.values() {
            let sub = Sub { consumer: None, durable: there.durable, until: Some(restored) };
            model.subs.insert(id_of(&there.id), sub);
        }
        let owed = Owed::by_queue(queue);
        for (sequence, entry) in queue.entries.iter() {
            let known = after.messages.get(&sequence).or(before.messages.get(&sequence));
            let mut message = known.or(self.all.get(&sequence)).expect("nothing is invented").clone();
            message.due = tick_of(message.due_wall);
            message.expires = message.expires.map(|_| tick_of(message.expires_wall));
            message.acked = entry.has(flag::ACKED);
            // Acks since the commit may be lost.
            message.acked_by =
                before.messages.get(&sequence).map(|it| it.acked_by.clone()).unwrap_or_default();
            message.dying = entry.stage() == Stage::Dying;
            let later = owed.later.contains(&(sequence, ALL));
            message.is_due = entry.stage() != Stage::Delayed || later;
            message.claims.clear();
            message.parked.clear();
            if !model.shared {
                let pushes = entry.attempts();
                let place = match (message.dying, later) {
                    (true, _) => Place::Dying,
                    (_, true) => {
                        message.later_wall = self.due_by_records(sequence);
                        Place::Later(tick_of(message.later_wall))
                    }
                    _ => Place::Line(None),
                };
                if message.is_due {
                    message.claims.insert(ALL, Claim { place, pushes });
                }
            }
            model.messages.insert(sequence, message);
        }
        if model.shared {
            for &(sequence, id) in &owed.in_line {
                let claim = Claim { place: Place::Line(None), pushes: 0 };
                let message = model.messages.get_mut(&sequence).unwrap();
                message.adopted |= id == HELD;
                message.claims.insert(id, claim);
            }
        }
        for saved in &self.bench.journal.records {
            if let Saved::Message(message) = saved
                && model.terms.keys.is_some()
                && !message.key.is_empty()
            {
                let until = tick_of(message.record.created_ms + 20_000);
                let known = model.keys.entry(message.key.clone()).or_insert((0, 0));
                if until > known.1 {
                    *known = (message.record.sequence, until);
                }
            }
        }
        model
    }

    /// When a message is due as the journal has it.
    pub(super) fn due_by_records(&self, wanted: u64) -> i64 {
        let due = |saved: &Saved| match saved {
            Saved::Message(message) if message.record.sequence == wanted => Some(message.record.due_ms),
            Saved::Postponed { sequence, due_ms } if *sequence == wanted => Some(*due_ms),
            _ => None,
        };
        self.bench.journal.records.iter().rev().find_map(due).unwrap()
    }

    fn compare_crash(&self, before: &Model, after: &Model, found: &Model, wall: i64) {
        for (sequence, message) in &before.messages {
            let Some(now) = found.messages.get(sequence) else {
                let left = !after.messages.contains_key(sequence);
                // Acknowledged by some, and the rest never will: their shares had died, or their subscriptions
                // ended while the message was on its way to the dead letters. Then it is consumed.
                let later = after.messages.get(sequence);
                let never = |(id, claim): (&Claimant, &Claim)| {
                    let gone = |it: &super::model::Message| {
                        it.acked_by.contains(id) || it.dying && it.lost_by.contains(id)
                    };
                    claim.place == Place::Dying || later.is_some_and(gone)
                };
                let acked = message.acked || later.is_some_and(|later| later.acked);
                let acked = acked && message.claims.iter().all(never);
                assert!(left || acked, "{sequence} was committed and is lost: {message:?}, then {later:?}");
                continue;
            };
            let Some(later) = after.messages.get(sequence) else { continue };
            if !before.shared {
                let pushes = |message: &super::model::Message| {
                    message.claims.get(&ALL).map_or(0, |claim| claim.pushes)
                };
                let (least, is, most) = (pushes(message), pushes(now), pushes(later));
                assert!(least <= is && is <= most, "{sequence}: {least} {is} {most}");
                continue;
            }
            let owes = |message: &super::model::Message, id: &Claimant| {
                message.claims.get(id).is_some_and(|claim| claim.place != Place::Dying)
                    || message.parked.contains_key(id)
            };
            let ids = message.claims.keys().chain(message.parked.keys());
            let ids = ids.filter(|&&id| id != HELD && !message.dying && !later.dying);
            for id in ids {
                if owes(message, id) && owes(later, id) && before.is_told(*id) && after.is_told(*id) {
                    // Chance is not written down: then it is the next one's.
                    let by_chance =
                        (message.adopted || later.adopted) && (!now.is_due || !now.claims.is_empty());
                    assert!(
                        now.dying || owes(now, id) || by_chance,
                        "{sequence} was owed to {id}: {message:?} {now:?}"
                    );
                }
            }
            assert!(now.dying || !now.is_due || !now.claims.is_empty(), "{sequence} is nobody's: {now:?}");
        }
        for (sequence, message) in &found.messages {
            assert!(self.all.contains_key(sequence));
            if message.dying {
                let dying = |model: &Model| model.messages.get(sequence).is_some_and(|message| message.dying);
                let expired = message.expires.is_some_and(|at| at <= found.now);
                let often = message.claims.get(&ALL).is_some_and(|claim| claim.place == Place::Dying);
                let often = often && message.claims[&ALL].pushes >= found.terms.max_attempts;
                let why = dying(before) || dying(after) || expired || (often && found.terms.max_attempts > 0);
                assert!(why, "{sequence} is dead for no reason: {message:?}");
            }
            let was_there = before.messages.get(sequence);
            assert!(
                was_there.is_some() || *sequence >= before.next_sequence,
                "{sequence} had left when that was committed"
            );
            if let Some(before) = was_there.filter(|_| found.shared) {
                for id in &before.acked_by {
                    assert!(!message.claims.contains_key(id), "{id} had acknowledged {sequence}");
                }
            }
            let never_due = after.messages.get(sequence).is_some_and(|message| !message.is_due);
            if never_due && message.is_due {
                assert!(message.due_wall <= wall || message.dying, "{sequence} is early");
            }
            let later = |model: &Model| {
                let claim = model.messages.get(sequence).filter(|it| !it.dying)?.claims.get(&ALL)?;
                matches!(claim.place, Place::Later(_)).then_some(model.messages[sequence].later_wall)
            };
            if let (Some(one), Some(two)) = (later(before), later(after))
                && one == two
                && one > wall
                && !message.dying
            {
                assert!(later(found).is_some(), "{sequence} is early: {message:?}");
            }
        }
    }
}

impl Model {
    /// A subscription of this id exists, connected or not.
    fn is_told(&self, id: Claimant) -> bool {
        self.subs.contains_key(&id) || self.departed.iter().any(|&(there, _)| there == id)
    }
}
