use super::*;
use crate::broker::queue::LeaseCounts;

#[test]
fn the_lowest_priority_number_goes_first_and_then_the_oldest() {
    let mut bench = Bench::new();
    let sent: Vec<u64> =
        [8, 16, 1, 8, 1].into_iter().map(|priority| bench.send(draft(priority, 0))).collect();
    let order: Vec<u64> = bench.take(16, 1000).iter().map(|taken| taken.sequence).collect();
    assert_eq!(order, [sent[2], sent[4], sent[0], sent[3], sent[1]]);
    assert!(bench.take(1, 1000).is_empty());
}

#[test]
fn a_lease_ends_with_its_time() {
    let mut bench = Bench::new();
    bench.send(draft(8, 0));
    let first = bench.take(1, 1000)[0];
    assert_eq!((first.count, first.until_ms - bench.wall()), (1, 1000));
    bench.pass(992);
    assert!(bench.take(1, 1000).is_empty());
    bench.pass(8);
    // Its handle is none any more, whether or not another has the message.
    assert!(!bench.delete((first.sequence, first.serial)));
    let again = bench.take(1, 1000)[0];
    assert_eq!((again.count, again.first_ms), (2, first.first_ms));
    assert_ne!(again.serial, first.serial);
    assert!(!bench.delete((first.sequence, first.serial)));
    assert_eq!(bench.change((first.sequence, first.serial), 1000), None);
    assert!(bench.delete((again.sequence, again.serial)));
    assert!(!bench.delete((again.sequence, again.serial)));
    assert_eq!((bench.queue.counts(), bench.freed), (LeaseCounts::default(), 1));
}

#[test]
fn a_change_gives_another_serial_and_time() {
    let mut bench = Bench::new();
    let sequence = bench.send(draft(8, 0));
    let taken = bench.take(1, 1000)[0];
    let longer = bench.change((sequence, taken.serial), 5000).unwrap();
    assert!(!bench.delete((sequence, taken.serial)));
    bench.pass(2000);
    assert!(bench.take(1, 1000).is_empty());
    // At once.
    let given_up = bench.change((sequence, longer), 0).unwrap();
    assert!(!bench.delete((sequence, given_up)));
    assert_eq!(bench.take(1, 1000)[0].count, 2);
}

#[test]
fn a_delayed_message_can_be_deleted_and_changed_by_who_sent_it() {
    let mut bench = Bench::new();
    let one = bench.send(draft(8, 1000));
    let other = bench.send(draft(8, 1000));
    let third = bench.send(draft(8, 1000));
    assert_eq!(bench.queue.counts(), LeaseCounts { delayed: 3, ..LeaseCounts::default() });
    assert!(bench.delete((one, 0)));
    bench.change((other, 0), 4000).unwrap();
    bench.pass(1000);
    let taken = bench.take(16, 100_000);
    assert_eq!(taken.iter().map(|taken| taken.sequence).collect::<Vec<_>>(), [third]);
    assert!(!bench.delete((third, 0)));
    bench.pass(3000);
    let taken = bench.take(16, 100_000);
    assert_eq!((taken[0].sequence, taken[0].count), (other, 1));
}

#[test]
fn a_look_changes_nothing() {
    let mut bench = Bench::new();
    for priority in [8, 1, 8] {
        bench.send(draft(priority, 0));
    }
    let seen = bench.queue.peek(2);
    assert_eq!(seen, bench.queue.peek(2));
    assert_eq!((seen.len(), seen[0].count, seen[0].serial), (2, 0, 0));
    let taken = bench.take(16, 1000);
    assert_eq!(taken.len(), 3);
    assert_eq!(taken[0].sequence, seen[0].sequence);
    assert!(bench.queue.peek(2).is_empty());
}

#[test]
fn what_is_past_its_retention_is_gone_even_from_who_has_it() {
    let mut bench = Bench::new();
    let kept = crate::broker::queue::LeaseDraft { retention_ms: 60_000, ..draft(8, 0) };
    for _ in 0..3 {
        bench.send(kept);
    }
    let taken = bench.take(1, 100_000)[0];
    bench.pass(59_000);
    assert_eq!(bench.queue.counts().ready, 2);
    bench.pass(3000);
    assert_eq!((bench.queue.counts(), bench.freed), (LeaseCounts::default(), 3));
    assert!(!bench.delete((taken.sequence, taken.serial)));
    bench.restart();
    assert_eq!(bench.queue.counts(), LeaseCounts::default());
    // While nobody ran.
    bench.send(kept);
    bench.now += 61_000_000;
    bench.restart();
    assert!(bench.take(1, 1000).is_empty());
}

#[test]
fn a_restart_keeps_who_has_what_and_how_often() {
    let mut bench = Bench::new();
    let (held, back, delayed) =
        (bench.send(draft(3, 0)), bench.send(draft(2, 0)), bench.send(draft(1, 5000)));
    let taken = bench.take(2, 1000);
    let (one, other) = (taken[0], taken[1]);
    assert_eq!((one.sequence, other.sequence), (back, held));
    let serial = bench.change((held, other.serial), 3000).unwrap();
    bench.pass(1000);
    bench.restart();
    assert_eq!(bench.queue.counts(), LeaseCounts { ready: 1, leased: 1, delayed: 1 });
    let again = bench.take(16, 1000);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].sequence, again[0].count, again[0].first_ms), (back, 2, one.first_ms));
    assert!(again[0].serial > serial);
    // Handles of before count.
    assert!(bench.delete((held, serial)));
    bench.pass(4000);
    let due: Vec<(u64, u8)> =
        bench.take(1, 1000).iter().map(|taken| (taken.sequence, taken.priority)).collect();
    assert_eq!(due, [(delayed, 1)]);
}

#[test]
fn nobody_sleeps_while_there_is_a_message() {
    let mut bench = Bench::new();
    let (mut one, mut other) = (None, None);
    bench.wait(&mut one);
    bench.wait(&mut other);
    bench.wait(&mut other);
    bench.send(draft(8, 0));
    assert_eq!(bench.wakes, 1);
    // The one that was woken goes without taking: the other is woken in its place.
    bench.queue.stop_waiting(one.unwrap());
    bench.pass(0);
    assert_eq!(bench.wakes, 2);
    bench.take(1, 1000);
    bench.queue.stop_waiting(other.unwrap());
    bench.wait(&mut other);
    // Its time is over.
    bench.pass(1000);
    assert_eq!(bench.wakes, 3);
}
