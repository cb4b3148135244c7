//! A work queue's rules.

use super::*;
use crate::broker::room::Room;

const WORK: DeliveryMode = DeliveryMode::WorkQueue;

#[test]
fn messages_wait_for_a_consumer_in_order() {
    let mut bench = Bench::new(WORK);
    bench.send(&["a", "b", "c"]);
    bench.join(1, "c");
    assert_eq!(bench.bodies(1), ["a", "b", "c"]);
    assert!(bench.bodies(1).is_empty());
}

#[test]
fn consumers_share_a_line_fairly() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["m"; 10]);
    assert_eq!((bench.take(1, WIDE).len(), bench.take(2, WIDE).len()), (5, 3));
    // One by one they take turns: the longest waiting is woken.
    let mut bench = Bench::new(WORK);
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
    let mut bench = Bench::new(WORK);
    bench.send(&["a", "b", "c", "d"]);
    bench.join(1, "c1");
    let taken = bench.take(1, Window { count: 3, bytes: 1000 });
    assert_eq!(bench.ack(1, &taken[1..2]), 1);
    bench.now += SECOND;
    bench.leave(1);
    bench.leave(1);
    bench.join(2, "c2");
    let again = bench.take(2, WIDE);
    assert_eq!(bench.text(&again), ["a", "c", "d"]);
    // The wire shows the age of what comes again.
    assert_eq!(again.iter().map(|out| out.attempt).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(bench.redelivered, 2);
    // The lost consumer cannot acknowledge any more.
    assert_eq!(bench.ack(1, &taken), 0);
    assert_eq!(bench.ack(2, &again), 3);
    assert_eq!(bench.consumed, [1, 0, 2, 3]);
}

#[test]
fn acks_count_only_from_the_holder_and_once() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["a"]);
    let taken = bench.take(1, WIDE);
    assert_eq!(bench.ack(2, &taken), 0);
    assert_eq!(bench.ack(1, &taken), 1);
    assert_eq!(bench.ack(1, &taken), 0);
    // The next message has another sequence: the old code means nothing to it.
    bench.send(&["b"]);
    let other = bench.take(1, WIDE);
    assert_eq!(bench.ack(1, &taken), 0);
    assert_eq!(bench.ack(1, &other), 1);
}

#[test]
fn unacknowledged_messages_come_again_after_the_time() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c1");
    bench.send(&["a", "b"]);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[..1]);
    assert_eq!(bench.queue.alarm(), 10 * SECOND);
    bench.pass(10 * SECOND - 1);
    assert!(bench.bodies(1).is_empty());
    bench.pass(1);
    let again = bench.take(1, WIDE);
    assert_eq!((bench.text(&again), again[0].attempt), (vec!["b".to_owned()], 2));
    assert_eq!(again[0].sequence, taken[1].sequence);
    bench.pass(10 * SECOND);
    assert_eq!(bench.bodies(1), ["b"]);
}

#[test]
fn an_ack_survives_a_reconnect_of_its_consumer() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c");
    bench.send(&["a", "b"]);
    let taken = bench.take(1, WIDE);
    // A new connection of the id ends the old one, said or not.
    bench.join(2, "c");
    assert_eq!(bench.take(1, WIDE), []);
    assert_eq!(bench.ack(2, &taken[..1]), 1);
    assert_eq!(bench.bodies(2), ["b"]);
    // Another consumer has no say in it.
    bench.leave(2);
    bench.join(3, "d");
    assert_eq!(bench.ack(3, &taken[1..]), 0);
    assert_eq!(bench.bodies(3), ["b"]);
}

#[test]
fn a_late_ack_counts_while_nobody_else_has_the_message() {
    for mode in [WORK, DeliveryMode::PublishSubscribe] {
        let mut bench = Bench::new(mode);
        bench.join(1, "c1");
        let sent = bench.send(&["a"]);
        let taken = bench.take(1, WIDE);
        bench.pass(10 * SECOND);
        assert_eq!(bench.ack(1, &taken), 1);
        assert!(bench.bodies(1).is_empty());
        assert_eq!(bench.consumed, sent);
        assert!(!bench.queue.is_idle());
        bench.leave(1);
        assert!(bench.queue.is_idle());
    }
}

#[test]
fn the_window_of_unacknowledged_messages_stalls_its_consumer_alone() {
    let mut bench = Bench::new(WORK);
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
    let mut bench = Bench::new(WORK);
    bench.join(1, "c1");
    bench.send(&[&"x".repeat(20_000), "y"]);
    let large = bench.take(1, WIDE);
    assert_eq!((large.len(), bench.take(1, WIDE).len()), (1, 0));
    bench.ack(1, &large);
    assert_eq!(bench.bodies(1), ["y"]);
}

#[test]
fn delayed_messages_fall_due_in_their_order() {
    let mut bench = Bench::new(WORK);
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
fn what_falls_due_comes_behind_what_was_there() {
    let mut bench = Bench::new(WORK);
    bench.send_later("due", 1);
    bench.send(&["a", "b"]);
    bench.pass(SECOND);
    bench.send(&["c"]);
    bench.join(1, "c1");
    assert_eq!(bench.bodies(1), ["a", "b", "due", "c"]);
}

#[test]
fn many_that_fall_due_at_once_come_in_parts() {
    let mut bench = Bench::new(WORK);
    for _ in 0..10_000 {
        bench.send_later("m", 1);
    }
    bench.pass(SECOND);
    assert_eq!((bench.queue.counts(), bench.queue.alarm()), ((4096, 5904), SECOND));
    bench.pass(0);
    bench.pass(0);
    assert_eq!(bench.queue.counts(), (10_000, 0));
}

#[test]
fn a_refused_message_comes_again_at_once_or_later() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c1");
    bench.join(2, "c2");
    bench.send(&["a", "b"]);
    let one = bench.take(1, WIDE);
    let two = bench.take(2, WIDE);
    assert_eq!(bench.nack(1, &two, 0), 0, "not its own");
    assert_eq!((bench.nack(1, &one, 0), bench.ack(1, &one)), (1, 0));
    let again = bench.take(2, WIDE);
    assert_eq!((bench.text(&again), again[0].attempt), (vec!["a".to_owned()], 2));
    assert_eq!(bench.nack(2, &again, 2000), 1);
    assert_eq!((bench.queue.counts(), bench.queue.alarm()), ((1, 1), 2 * SECOND));
    bench.send(&["c"]);
    bench.pass(2 * SECOND - 1);
    assert_eq!(bench.bodies(1), ["c"]);
    bench.send(&["d"]);
    bench.pass(1);
    // It was there first.
    let last = bench.take(1, Window { count: 1, bytes: 100 });
    assert_eq!((bench.text(&last), last[0].attempt), (vec!["a".to_owned()], 3));
}

#[test]
fn a_deleted_message_is_nowhere() {
    for mode in [WORK, DeliveryMode::PublishSubscribe] {
        let mut bench = Bench::new(mode);
        bench.join(1, "c1");
        bench.send(&["taken", "waits"]);
        bench.send_later("delayed", 1);
        let taken = bench.take(1, Window { count: 1, bytes: 1000 });
        let all: Vec<_> = bench.queue.all().collect();
        assert_eq!(all.len(), 3);
        for shown in &all {
            assert_eq!(bench.queue.find(shown.sequence), Some(*shown));
            assert!(bench.queue.delete(shown.sequence, &mut bench.journal));
            assert!(!bench.queue.delete(shown.sequence, &mut bench.journal));
            assert!(bench.queue.find(shown.sequence).is_none());
        }
        bench.pass(100 * SECOND);
        assert!(bench.bodies(1).is_empty());
        assert_eq!(bench.ack(1, &taken), 0);
        assert!(bench.consumed.is_empty());
        let cost: usize = ["taken", "waits", "delayed"].iter().map(|body| Room::cost(body.len())).sum();
        assert_eq!((bench.freed, bench.queue.unacked()), (cost, 0));
    }
}

#[test]
fn a_purge_drops_all_there_is() {
    for mode in [WORK, DeliveryMode::PublishSubscribe] {
        let mut bench = Bench::new(mode);
        bench.join(1, "c1");
        bench.send(&["taken", "waits"]);
        bench.send_later("delayed", 1);
        let taken = bench.take(1, Window { count: 1, bytes: 1000 });
        assert_eq!(bench.queue.purge(bench.now, &mut bench.journal), 3);
        bench.settle();
        assert_eq!((bench.queue.counts(), bench.queue.unacked(), bench.queue.body_bytes()), ((0, 0), 0, 0));
        assert_eq!((bench.ack(1, &taken), bench.consumed.len()), (0, 0));
        assert_eq!(bench.freed, 3 * Room::cost(0) + "takenwaitsdelayed".len());
        bench.pass(2 * SECOND);
        bench.send(&["after"]);
        assert_eq!(bench.bodies(1), ["after"]);
        bench.restart();
        assert_eq!(bench.queue.counts(), (1, 0));
    }
}
