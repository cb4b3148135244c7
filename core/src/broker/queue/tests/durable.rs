//! What outlives a crash, and what the log's cleaning does.

use std::cmp::Ordering;

use super::journal::Saved;
use super::*;
use crate::broker::log::record::Position;

const WORK: DeliveryMode = DeliveryMode::WorkQueue;

#[test]
fn messages_attempts_and_delays_outlive_a_crash() {
    let mut bench = Bench::new(WORK);
    bench.join(1, "c");
    bench.send(&["a", "b", "c"]);
    bench.send_later("soon", 5);
    bench.send_later("late", 50);
    let taken = bench.take(1, Window { count: 2, bytes: 1000 });
    bench.ack(1, &taken[1..]);
    let next = bench.queue.next_sequence();
    bench.restart();
    assert!(bench.queue.next_sequence() >= next + (1 << 24), "codes stay unique");
    assert_eq!((bench.queue.counts(), bench.queue.unacked()), ((2, 2), 0));
    bench.join(2, "c");
    assert_eq!(bench.ack(2, &taken), 0, "nobody knows that it was pushed to this one");
    let again = bench.take(2, WIDE);
    assert_eq!(bench.text(&again), ["a", "c"]);
    assert_eq!(again.iter().map(|out| out.attempt).collect::<Vec<_>>(), [2, 1]);
    bench.pass(4 * SECOND - 1);
    assert!(bench.bodies(2).is_empty());
    bench.pass(1);
    let soon = bench.take(2, WIDE);
    assert_eq!(bench.text(&soon), ["soon"]);
    // Refused for a time: that outlives a crash too.
    bench.nack(2, &soon, 20_000);
    bench.restart();
    bench.join(3, "c");
    assert_eq!(bench.bodies(3), ["a", "c"]);
    bench.pass(19 * SECOND - 1);
    assert!(bench.bodies(3).iter().all(|body| body != "soon"));
    bench.pass(1);
    let soon = bench.take(3, WIDE);
    assert_eq!(soon.iter().map(|out| out.attempt).max(), Some(2));
    assert!(bench.text(&soon).contains(&"soon".to_owned()));
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_early() {
    for jump in [-3_600_000, 0, 3_600_000] {
        let mut bench = Bench::new(WORK);
        bench.send_later("m", 60);
        bench.epoch += jump;
        bench.restart();
        bench.join(1, "c");
        let first = bench.take(1, WIDE);
        bench.ack(1, &first);
        // The clock may jump while it runs: nobody asks it.
        bench.epoch += 100_000_000;
        bench.pass(59 * SECOND - 1);
        let early = bench.take(1, WIDE);
        bench.pass(1);
        let second = bench.take(1, WIDE);
        bench.ack(1, &second);
        bench.pass(3600 * SECOND);
        let third = bench.take(1, WIDE);
        let counts = [first.len(), early.len(), second.len(), third.len()];
        let expected = match jump.cmp(&0) {
            Ordering::Less => [0, 0, 0, 1],
            Ordering::Equal => [0, 0, 1, 0],
            Ordering::Greater => [1, 0, 0, 0],
        };
        assert_eq!(counts, expected);
    }
}

#[test]
fn each_prefix_of_the_journal_is_a_queue() {
    let mut bench = Bench::with(Terms { max_attempts: 2, expiry_ms: 60_000, ..terms(WORK) });
    bench.join(1, "c");
    for round in 0..10 {
        bench.send(&["a", "b", "c"]);
        bench.send_later("d", round);
        let taken = bench.take(1, WIDE);
        bench.ack(1, &taken[..taken.len() / 2]);
        bench.nack(1, &taken[taken.len() / 2..], 500 * round as u64);
        bench.pass(SECOND);
    }
    let all = bench.journal.clone();
    for kept in 0..=all.records.len() {
        bench.journal = all.clone();
        bench.crash(kept, 0);
        let sent = |saved: &Saved| matches!(saved, Saved::Message(_));
        let count = all.records[..kept].iter().filter(|saved| sent(saved)).count();
        let (waiting, delayed) = bench.queue.counts();
        assert!(waiting + delayed <= count);
        assert_eq!(waiting + delayed, bench.queue.all().count());
        bench.join(1, "c");
        bench.pass(20 * SECOND);
        let taken = bench.take(1, Window { count: 100, bytes: 100_000 });
        let dead = std::mem::take(&mut bench.dead);
        assert_eq!(taken.len() + dead.len(), waiting + delayed, "kept {kept}");
        bench.ack(1, &taken);
        bench.queue.buried(&dead, bench.now, &mut bench.journal);
        assert_eq!((bench.queue.counts(), bench.queue.body_bytes()), ((0, 0), 0));
    }
}

/// Cleans the first records of the journal as the log does.
pub(super) fn clean(bench: &mut Bench, upto: usize) -> usize {
    let upto = upto.min(bench.journal.records.len());
    let old: Vec<(Position, super::journal::Message)> = bench.journal.records[..upto]
        .iter()
        .zip((8..).step_by(8).map(Position))
        .filter_map(|(saved, position)| match saved {
            Saved::Message(message) => Some((position, message.clone())),
            _ => None,
        })
        .collect();
    let live = |(position, message): &&(Position, super::journal::Message)| {
        bench.queue.is_live(message.record.sequence, *position)
    };
    let live = old.iter().filter(live).count();
    let records: Vec<_> = old.iter().map(|(position, message)| (*position, message.record())).collect();
    let wall = bench.wall();
    let written = bench.queue.rewrite(&records, bench.now, wall, &mut bench.journal);
    assert_eq!(written, live);
    assert!(records.iter().all(|(position, record)| !bench.queue.is_live(record.sequence, *position)));
    bench.queue.describe(&mut bench.journal);
    bench.journal.records[..upto].fill(Saved::Cleaned);
    written
}

#[test]
fn what_is_cleaned_is_written_anew_as_it_stands() {
    let mut bench = Bench::with(Terms { expiry_ms: 500_000, ..terms(WORK) });
    bench.join(1, "c");
    bench.send(&["a", "gone", "b"]);
    bench.send_later("late", 50);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[1..2]);
    bench.nack(1, &taken[2..], 30_000);
    let upto = bench.journal.records.len();
    assert_eq!(clean(&mut bench, upto), 3);
    assert!(!bench.queue.moved(taken[0].sequence, taken[0].position, Position(8)));
    let before: Vec<_> = bench.queue.all().collect();
    // Here and over a restart: attempts, due times and bodies are the same.
    assert_eq!(bench.ack(1, &taken[..1]), 1);
    bench.restart();
    let after: Vec<_> = bench.queue.all().collect();
    assert_eq!(after, before[1..]);
    bench.join(1, "c");
    bench.pass(29 * SECOND - 1);
    assert!(bench.bodies(1).is_empty());
    bench.pass(1);
    let again = bench.take(1, WIDE);
    assert_eq!((bench.text(&again), again[0].attempt), (vec!["b".to_owned()], 2));
    bench.pass(20 * SECOND);
    let mut rest = bench.bodies(1);
    rest.sort();
    assert_eq!(rest, ["b", "late"]);
    bench.leave(1);
    bench.pass(480 * SECOND);
    assert_eq!(bench.dead.len(), 1);
    bench.pass(40 * SECOND);
    assert_eq!(bench.dead.len(), 2);
}

#[test]
fn shares_outlive_cleaning() {
    let mut bench = Bench::new(DeliveryMode::PublishSubscribe);
    bench.durable = true;
    bench.join(1, "a");
    bench.join(2, "b");
    bench.send(&["m", "n"]);
    bench.send_later("due", 1);
    bench.pass(SECOND);
    bench.join(3, "c");
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken);
    let taken = bench.take(2, WIDE);
    bench.ack(2, &taken[..1]);
    let upto = bench.journal.records.len();
    assert_eq!(clean(&mut bench, upto), 2);
    bench.restart();
    bench.join(1, "a");
    bench.join(2, "b");
    bench.join(3, "c");
    assert!(bench.bodies(1).is_empty() && bench.bodies(3).is_empty());
    let rest = bench.take(2, WIDE);
    assert_eq!(bench.text(&rest), ["n", "due"]);
    bench.ack(2, &rest);
    assert_eq!(bench.queue.counts(), (0, 0));
}
