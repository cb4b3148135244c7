//! The queue alone: single rules first, then random lives against a simple model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::task::AtomicWaker;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Draft, Outgoing, Queue, Terms, Window};
use crate::broker::config::DeliveryMode;
use crate::broker::delay::Tick;
use crate::broker::log::Log;

const SECOND: Tick = 1_000_000;
const WIDE: Window = Window { count: 1000, bytes: 1 << 20 };

struct Bench {
    queue: Queue,
    log: Log,
    now: Tick,
    consumed: Vec<u64>,
    charged: usize,
    freed: usize,
}

impl Bench {
    fn new(mode: DeliveryMode) -> Bench {
        let terms = Terms { mode, redeliver_after: 10 * SECOND, unacked: 100, unacked_bytes: 10_000 };
        Bench {
            queue: Queue::new(terms),
            log: Log::new(usize::MAX),
            now: 0,
            consumed: Vec::new(),
            charged: 0,
            freed: 0,
        }
    }

    fn wall(&self) -> i64 {
        1000 + (self.now / SECOND) as i64
    }

    fn send(&mut self, bodies: &[&str]) {
        let drafts: Vec<Draft> =
            bodies.iter().map(|body| Draft { body: self.log.store(body), delay: 0 }).collect();
        self.queue.accept(drafts, self.now, self.wall());
    }

    fn send_later(&mut self, body: &str, delay: i64) {
        let draft = Draft { body: self.log.store(body), delay };
        self.queue.accept([draft], self.now, self.wall());
    }

    fn join(&mut self, number: u64, id: &str) {
        self.queue.join(number, &Arc::from(id), Arc::new(AtomicWaker::new()));
    }

    fn take(&mut self, number: u64, window: Window) -> Vec<Outgoing> {
        let mut out = Vec::new();
        self.queue.take(number, window, self.now, self.wall(), &mut out);
        out
    }

    fn bodies(&mut self, number: u64) -> Vec<String> {
        self.take(number, WIDE).iter().map(|out| out.body.body().to_owned()).collect()
    }

    fn ack(&mut self, number: u64, messages: &[Outgoing]) -> usize {
        let places: Vec<(u32, u64)> = messages.iter().map(|out| (out.slot, out.sequence)).collect();
        let counted = self.queue.ack(number, places, self.wall());
        self.settle();
        counted
    }

    fn pass(&mut self, ticks: Tick) {
        self.now += ticks;
        self.queue.advance(self.now, self.wall());
        self.settle();
    }

    fn settle(&mut self) {
        let events = self.queue.take_events();
        self.charged += events.charged;
        self.freed += events.freed;
        self.consumed.extend(events.consumed.iter().map(|consumed| consumed.sequence));
    }
}

#[test]
fn messages_wait_for_a_consumer_in_order() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.send(&["a", "b", "c"]);
    bench.join(1, "c");
    assert_eq!(bench.bodies(1), ["a", "b", "c"]);
    assert!(bench.bodies(1).is_empty());
}

#[test]
fn consumers_share_a_line_fairly() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["m"; 10]);
    assert_eq!((bench.take(1, WIDE).len(), bench.take(2, WIDE).len()), (5, 3));
    // One by one they take turns: the longest waiting is woken.
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    for number in 1..=3 {
        bench.join(number, &number.to_string());
        assert!(bench.take(number, WIDE).is_empty());
    }
    let mut turns = Vec::new();
    for _ in 0..6 {
        bench.send(&["m"]);
        assert_eq!(bench.queue.take_events().wakes.len(), 1);
        let woken = (1..=3).find(|number| !bench.queue.consumers[number].waiting).unwrap();
        assert_eq!(bench.take(woken, WIDE).len(), 1);
        assert!(bench.take(woken, WIDE).is_empty());
        turns.push(woken);
    }
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_lost_consumer_s_messages_go_to_the_front_in_order() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.send(&["a", "b", "c", "d"]);
    bench.join(1, "c1");
    let taken = bench.take(1, Window { count: 3, bytes: 1000 });
    assert_eq!(bench.ack(1, &taken[1..2]), 1);
    bench.now += SECOND;
    bench.queue.leave(1, bench.now);
    bench.queue.leave(1, bench.now);
    bench.join(2, "c2");
    let again = bench.take(2, WIDE);
    assert_eq!(again.iter().map(|out| out.body.body()).collect::<Vec<_>>(), ["a", "c", "d"]);
    // The age stands in the delay of what comes again.
    assert_eq!(again.iter().map(|out| out.delay).collect::<Vec<_>>(), [1, 1, 0]);
    // The lost consumer cannot acknowledge any more.
    assert_eq!(bench.ack(1, &taken), 0);
    assert_eq!(bench.ack(2, &again), 3);
    assert_eq!(bench.consumed, [1, 0, 2, 3]);
}

#[test]
fn acks_count_only_from_the_holder_and_once() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["a"]);
    let taken = bench.take(1, WIDE);
    assert_eq!(bench.ack(2, &taken), 0);
    assert_eq!(bench.ack(1, &taken), 1);
    assert_eq!(bench.ack(1, &taken), 0);
    // The slot is used again by another message: the old code means nothing to it.
    bench.send(&["b"]);
    let other = bench.take(1, WIDE);
    assert_eq!(other[0].slot, taken[0].slot);
    assert_eq!(bench.ack(1, &taken), 0);
    assert_eq!(bench.ack(1, &other), 1);
}

#[test]
fn unacknowledged_messages_come_again_after_the_time() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.send(&["a", "b"]);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[..1]);
    assert_eq!(bench.queue.alarm(), 10 * SECOND);
    bench.pass(10 * SECOND - 1);
    assert!(bench.bodies(1).is_empty());
    bench.pass(1);
    let again = bench.take(1, WIDE);
    assert_eq!((again.len(), again[0].body.body(), again[0].delay), (1, "b", 10));
    assert_eq!(again[0].sequence, taken[1].sequence);
    bench.pass(10 * SECOND);
    assert_eq!(bench.bodies(1), ["b"]);
}

#[test]
fn an_ack_survives_a_reconnect_of_its_consumer() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c");
    bench.send(&["a", "b"]);
    let taken = bench.take(1, WIDE);
    bench.queue.leave(1, bench.now);
    bench.join(2, "c");
    assert_eq!(bench.ack(2, &taken[..1]), 1);
    assert_eq!(bench.bodies(2), ["b"]);
    // Another consumer has no say in it.
    bench.queue.leave(2, bench.now);
    bench.join(3, "d");
    assert_eq!(bench.ack(3, &taken[1..]), 0);
    assert_eq!(bench.bodies(3), ["b"]);
}

#[test]
fn a_late_ack_counts_while_nobody_else_has_the_message() {
    for mode in [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe] {
        let mut bench = Bench::new(mode);
        bench.join(1, "c1");
        bench.send(&["a"]);
        let taken = bench.take(1, WIDE);
        bench.pass(10 * SECOND);
        assert_eq!(bench.ack(1, &taken), 1);
        assert!(bench.bodies(1).is_empty());
        bench.settle();
        assert_eq!(bench.consumed, [0]);
        assert!(!bench.queue.is_idle());
        bench.queue.leave(1, bench.now);
        assert!(bench.queue.is_idle());
    }
}

#[test]
fn the_window_of_unacknowledged_messages_stalls_its_consumer_alone() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.send(&["m"; 250]);
    let first = bench.take(1, WIDE);
    assert_eq!(first.len(), 100);
    assert!(bench.take(1, WIDE).is_empty());
    bench.join(2, "c2");
    assert_eq!(bench.take(2, WIDE).len(), 75);
    assert_eq!(bench.ack(1, &first[..10]), 10);
    assert_eq!(bench.take(1, WIDE).len(), 10);
    // By bytes: one message always passes.
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.send(&[&"x".repeat(20_000), "y"]);
    let large = bench.take(1, WIDE);
    assert_eq!((large.len(), bench.take(1, WIDE).len()), (1, 0));
    bench.ack(1, &large);
    assert_eq!(bench.bodies(1), ["y"]);
}

#[test]
fn delayed_messages_fall_due_in_their_order() {
    let mut bench = Bench::new(DeliveryMode::WorkQueue);
    bench.join(1, "c1");
    bench.send_later("late", 3);
    bench.send_later("soon", 1);
    bench.send_later("past", -7);
    assert_eq!(bench.bodies(1), ["past"]);
    assert_eq!((bench.queue.alarm(), bench.queue.counts()), (SECOND, (1, 2)));
    bench.pass(SECOND - 1);
    assert!(bench.bodies(1).is_empty());
    bench.pass(1);
    assert_eq!(bench.bodies(1), ["soon"]);
    bench.pass(5 * SECOND);
    assert_eq!(bench.bodies(1), ["late"]);
    bench.send_later("never", i64::MAX);
    bench.pass(1000 * SECOND);
    assert_eq!(bench.queue.counts().1, 1);
}

#[test]
fn publish_subscribe_gives_each_its_own_ack() {
    let mut bench = Bench::new(DeliveryMode::PublishSubscribe);
    bench.send(&["held"]);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["both"]);
    let one = bench.take(1, WIDE);
    let two = bench.take(2, WIDE);
    assert_eq!(one.iter().map(|out| out.body.body()).collect::<Vec<_>>(), ["held", "both"]);
    assert_eq!(two.iter().map(|out| out.body.body()).collect::<Vec<_>>(), ["both"]);
    bench.ack(1, &one);
    assert_eq!(bench.consumed, [0]);
    bench.ack(2, &two);
    assert_eq!(bench.consumed, [0, 1]);
}

#[test]
fn publish_subscribe_keeps_a_lost_consumer_s_share_for_its_id() {
    let mut bench = Bench::new(DeliveryMode::PublishSubscribe);
    bench.join(1, "a");
    bench.join(2, "b");
    bench.send(&["m"]);
    let held = bench.take(2, WIDE);
    bench.ack(2, &held);
    bench.queue.leave(1, bench.now);
    assert!(bench.bodies(2).is_empty());
    bench.join(3, "a");
    let back = bench.take(3, WIDE);
    assert_eq!(back.len(), 1);
    bench.ack(3, &back);
    assert_eq!(bench.consumed, [0]);
    // One that does not come back is not waited for without end.
    bench.send(&["n"]);
    let held = bench.take(2, WIDE);
    bench.ack(2, &held);
    bench.queue.leave(3, bench.now);
    bench.pass(10 * SECOND);
    assert_eq!(bench.consumed, [0, 1]);
}

#[test]
fn publish_subscribe_gives_what_nobody_acknowledged_to_the_next() {
    let mut bench = Bench::new(DeliveryMode::PublishSubscribe);
    bench.join(1, "a");
    bench.join(2, "b");
    bench.send(&["m", "n"]);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[1..]);
    bench.queue.leave(1, bench.now);
    bench.queue.leave(2, bench.now);
    bench.join(3, "c");
    let orphans = bench.take(3, WIDE);
    assert_eq!(orphans.iter().map(|out| out.body.body()).collect::<Vec<_>>(), ["m"]);
    bench.join(4, "a");
    assert!(bench.bodies(4).is_empty());
    bench.ack(3, &orphans);
    bench.pass(10 * SECOND);
    assert_eq!(bench.consumed, [0, 1]);
}

#[test]
fn a_deleted_message_is_nowhere() {
    for mode in [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe] {
        let mut bench = Bench::new(mode);
        bench.join(1, "c1");
        bench.send(&["taken", "waits"]);
        bench.send_later("delayed", 1);
        let taken = bench.take(1, Window { count: 1, bytes: 1000 });
        let all: Vec<_> = bench.queue.all().collect();
        assert_eq!(all.len(), 3);
        for shown in &all {
            assert!(bench.queue.find(shown.slot, shown.sequence).is_some());
            assert!(bench.queue.delete(shown.slot, shown.sequence));
            assert!(!bench.queue.delete(shown.slot, shown.sequence));
            assert!(bench.queue.find(shown.slot, shown.sequence).is_none());
        }
        bench.pass(100 * SECOND);
        assert!(bench.bodies(1).is_empty());
        assert_eq!(bench.ack(1, &taken), 0);
        assert!(bench.consumed.is_empty());
        let cost: usize = ["taken", "waits", "delayed"].iter().map(|body| Log::cost(body.len())).sum();
        assert_eq!(bench.freed, cost + bench.charged);
        assert_eq!(bench.charged > 0, mode == DeliveryMode::PublishSubscribe);
    }
}

/// One random life of a queue. Every message is acknowledged in the end, none is held by two consumers of a
/// work queue at a time, none comes early, each consumer of publish-subscribe that stays gets all. Returns what
/// was charged for places in lines.
fn live(mode: DeliveryMode, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bench = Bench::new(mode);
    let mut due: Vec<Tick> = Vec::new();
    let mut cost = 0;
    // What each consumer took and did not acknowledge, with the time of the push.
    let mut held: BTreeMap<u64, HashMap<u64, (Outgoing, Tick)>> = BTreeMap::new();
    let mut seen: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut acked: HashSet<u64> = HashSet::new();
    let mut next_number = 1;
    let steps = random.random_range(20..200);
    for step in 0..steps + 300 {
        let ending = step >= steps;
        if ending && bench.queue.counts() == (0, 0) {
            break;
        }
        match if ending { 3 + step % 3 } else { random.random_range(0..7) } {
            0 | 1 => {
                for _ in 0..random.random_range(1..20) {
                    let delay = if random.random_range(0..3) == 0 { random.random_range(-1..25) } else { 0 };
                    due.push(bench.now + delay.max(0) as u64 * SECOND);
                    let body = "b".repeat(random.random_range(0..300));
                    cost += Log::cost(body.len());
                    bench.send_later(&body, delay);
                }
            }
            2 if held.len() < 4 => {
                // Ids come again, as after a reconnect.
                bench.join(next_number, &format!("c{}", random.random_range(0..5)));
                held.insert(next_number, HashMap::new());
                next_number += 1;
            }
            3 => {
                if ending && held.is_empty() {
                    bench.join(next_number, "last");
                    held.insert(next_number, HashMap::new());
                    next_number += 1;
                }
                let numbers: Vec<u64> = held.keys().copied().collect();
                for number in numbers {
                    let window = Window { count: random.random_range(1..50), bytes: 5_000 };
                    for out in bench.take(number, window) {
                        let sequence = out.sequence;
                        assert!(due[sequence as usize] <= bench.now, "early, seed {seed}");
                        assert!(!acked.contains(&sequence) || mode == DeliveryMode::PublishSubscribe);
                        if mode == DeliveryMode::WorkQueue {
                            for (&other, theirs) in &held {
                                if let Some((_, at)) = theirs.get(&sequence) {
                                    assert!(bench.now - at >= 10 * SECOND, "{other} holds it, seed {seed}");
                                }
                            }
                        }
                        seen.entry(number).or_default().insert(sequence);
                        held.get_mut(&number).unwrap().insert(sequence, (out, bench.now));
                    }
                }
            }
            4 => {
                for (&number, theirs) in &mut held {
                    let some: Vec<Outgoing> = theirs
                        .values()
                        .filter(|_| ending || random.random_range(0..3) > 0)
                        .map(|(out, _)| out.clone())
                        .collect();
                    bench.ack(number, &some);
                    for out in some {
                        theirs.remove(&out.sequence);
                        acked.insert(out.sequence);
                    }
                }
                // In a work queue an ack can come too late, when another consumer has the message.
                if mode == DeliveryMode::WorkQueue {
                    acked = bench.consumed.iter().copied().collect();
                }
            }
            5 => bench.pass(random.random_range(0..6 * SECOND)),
            6 if random.random_range(0..3) == 0 && !held.is_empty() => {
                let gone = *held.keys().nth(random.random_range(0..held.len())).unwrap();
                bench.queue.leave(gone, bench.now);
                held.remove(&gone);
            }
            _ => {}
        }
        bench.settle();
        let queue = &bench.queue;
        let asleep = queue.consumers.values().filter(|consumer| consumer.waiting).count();
        let awake = queue.consumers.values().any(|consumer| !consumer.waiting && !consumer.stalled);
        assert_eq!(asleep, queue.waiting.len());
        assert!(queue.ready.is_empty() || asleep == 0 || awake, "nobody was woken, seed {seed}");
        assert!(queue.consumers.values().all(|consumer| consumer.line.is_empty() || !consumer.waiting));
        let (waiting, delayed) = bench.queue.counts();
        assert_eq!(waiting + delayed + bench.consumed.len(), due.len(), "seed {seed}");
    }
    let consumed: HashSet<u64> = bench.consumed.iter().copied().collect();
    assert_eq!(consumed.len(), bench.consumed.len(), "consumed twice, seed {seed}");
    assert_eq!(bench.consumed.len(), due.len(), "lost, seed {seed}");
    assert_eq!(bench.freed, cost + bench.charged, "seed {seed}");
    for number in held.keys() {
        bench.queue.leave(*number, bench.now);
    }
    assert!(bench.queue.is_idle() && bench.queue.ready.is_empty(), "seed {seed}");
    bench.charged
}

#[test]
fn random_lives_lose_nothing() {
    // CEIBA_SEEDS asks for more of them.
    let seeds = std::env::var("CEIBA_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    let mut charged = 0;
    for seed in 0..seeds {
        assert_eq!(live(DeliveryMode::WorkQueue, seed), 0, "seed {seed}");
        charged += live(DeliveryMode::PublishSubscribe, seed);
    }
    assert!(charged > 0 || seeds == 0);
}
