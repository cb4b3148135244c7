//! Attempts, expiry, rate, bounds and keys.

use super::super::{KeyWindow, Rate, Reason};
use super::*;

const WORK: DeliveryMode = DeliveryMode::WorkQueue;
const BOTH: [DeliveryMode; 2] = [WORK, DeliveryMode::PublishSubscribe];

#[test]
fn a_message_dies_after_its_attempts_and_leaves_when_it_is_buried() {
    for mode in BOTH {
        let mut bench = Bench::with(Terms { max_attempts: 3, ..terms(mode) });
        bench.join(1, "c");
        bench.send(&["m"]);
        for attempt in 1..=3 {
            let taken = bench.take(1, WIDE);
            assert_eq!(taken[0].attempt, attempt);
            assert!(bench.dead.is_empty());
            match attempt {
                1 => assert_eq!(bench.nack(1, &taken, 0), 1),
                2 => bench.pass(10 * SECOND),
                _ => bench.leave(1),
            }
        }
        let dead = std::mem::take(&mut bench.dead);
        assert_eq!((dead.len(), dead[0].reason, dead[0].attempts), (1, Reason::Attempts, 3));
        assert_eq!(bench.journal.body(dead[0].position), "m");
        // It stays until it is safe elsewhere, over a crash too, but nobody gets it.
        assert_eq!((bench.queue.counts().0, bench.queue.dying()), (1, 1));
        assert_eq!(bench.queue.unburied(9), dead);
        bench.join(2, "d");
        assert!(bench.bodies(2).is_empty());
        bench.leave(2);
        if mode == WORK {
            bench.restart();
            assert_eq!(std::mem::take(&mut bench.dead), dead);
        }
        bench.queue.buried(&dead, bench.now, &mut bench.journal);
        bench.queue.buried(&dead, bench.now, &mut bench.journal);
        assert_eq!((bench.queue.counts(), bench.queue.dying()), ((0, 0), 0));
        bench.restart();
        bench.pass(30 * SECOND);
        assert!(bench.queue.counts() == (0, 0) && bench.queue.is_idle());
    }
}

#[test]
fn a_message_expires_unless_somebody_has_it() {
    for mode in BOTH {
        let mut bench = Bench::with(Terms { expiry_ms: 5_000, ..terms(mode) });
        bench.send(&["m"]);
        bench.send_later("later", 3);
        bench.accept(&[Draft { body: b"short", expires_in_ms: 1000, delay_ms: 2000, ..Draft::default() }]);
        bench.pass(SECOND - 1);
        assert!(bench.dead.is_empty());
        bench.pass(1);
        assert_eq!(bench.dead.len(), 1, "before its delay was over");
        bench.pass(4 * SECOND - 1);
        assert_eq!(bench.dead.len(), 1);
        bench.pass(1);
        assert_eq!((bench.dead.len(), bench.dead[1].reason), (2, Reason::Expired));
        bench.join(1, "c");
        let taken = bench.take(1, WIDE);
        assert_eq!(bench.text(&taken), ["later"]);
        // In the hands of a consumer it is still good; it is not when it comes back.
        bench.pass(4 * SECOND);
        assert_eq!(bench.dead.len(), 2);
        bench.nack(1, &taken, 100);
        assert_eq!(bench.dead.len(), 3);
        let dead = std::mem::take(&mut bench.dead);
        bench.queue.buried(&dead, bench.now, &mut bench.journal);
        assert_eq!(bench.queue.counts(), (0, 0));
        bench.send(&["held"]);
        let taken = bench.take(1, WIDE);
        bench.pass(6 * SECOND);
        assert_eq!((bench.ack(1, &taken), bench.dead.len()), (1, 0));
        // Over a restart the time is that of the wall clock.
        bench.leave(1);
        bench.pass(20 * SECOND);
        bench.send(&["over"]);
        bench.crash(usize::MAX, 4 * SECOND);
        assert_eq!(bench.dead.len(), 0);
        bench.pass(SECOND);
        assert_eq!(bench.dead.len(), 1);
    }
}

#[test]
fn a_line_gives_no_faster_than_its_rate() {
    for mode in BOTH {
        let rate = Some(Rate { interval: SECOND / 10, burst: 4 });
        let mut bench = Bench::with(Terms { rate, ..terms(mode) });
        bench.join(1, "c");
        assert!(bench.take(1, WIDE).is_empty());
        bench.send(&["m"; 20]);
        assert_eq!(bench.take(1, WIDE).len(), 4);
        let mut given = 4;
        assert!(bench.take(1, WIDE).is_empty());
        bench.pass(0);
        while given < 20 {
            let alarm = bench.queue.alarm();
            assert!(alarm > bench.now && alarm <= bench.now + SECOND / 10, "it is told when to look again");
            bench.wakes = 0;
            bench.pass(alarm - bench.now);
            assert_eq!(bench.wakes, 1, "{mode:?} {given} at {}", bench.now);
            given += bench.take(1, WIDE).len();
            assert_eq!(given as u64, 4 + bench.now / (SECOND / 10));
            assert!(bench.take(1, WIDE).is_empty());
        }
    }
}

#[test]
fn bounds_refuse_or_let_wait() {
    let draft = |body: &'static str| Draft { body: body.as_bytes(), ..Draft::default() };
    let mut bench = Bench::with(Terms { depth: 3, bytes: 10, ..terms(WORK) });
    let results = bench.accept(&[draft("1234"), draft("1234567"), draft("1")]);
    assert_eq!(results, [Accepted::New(0), Accepted::Full, Accepted::Full], "in order");
    let (waker, mut place, mut gone) = (Arc::new(AtomicWaker::new()), None, None);
    bench.queue.wait_for_room(&waker, &mut place);
    bench.queue.wait_for_room(&waker, &mut place);
    bench.queue.wait_for_room(&Arc::new(AtomicWaker::new()), &mut gone);
    bench.queue.stop_waiting(gone.unwrap());
    bench.join(1, "c");
    let taken = bench.take(1, WIDE);
    bench.wakes = 0;
    bench.ack(1, &taken);
    assert_eq!(bench.wakes, 1);
    // One over the bound fits an empty queue.
    assert_eq!(bench.accept(&[draft("1234567890123")]), [Accepted::New(1)]);
    assert_eq!(bench.accept(&[draft("")]), [Accepted::Full]);
    let mut bench = Bench::with(Terms { depth: 3, bytes: 10, refuse: true, ..terms(WORK) });
    let results = bench.accept(&[draft("1234"), draft("1234567"), draft("1"), draft("1"), draft("1")]);
    let expected = [Accepted::New(0), Accepted::Full, Accepted::New(1), Accepted::New(2), Accepted::Full];
    assert_eq!(results, expected, "each by itself");
}

#[test]
fn a_duplicate_waits_behind_what_waits() {
    let keys = Some(KeyWindow { time: 10 * SECOND, keys: 100 });
    let draft = |key: &'static str| Draft { body: b"m", key, ..Draft::default() };
    let mut bench = Bench::with(Terms { keys, depth: 1, ..terms(WORK) });
    let results = bench.accept(&[draft("a"), draft("b"), draft("a")]);
    assert_eq!(results, [Accepted::New(0), Accepted::Full, Accepted::Full]);
    let mut bench = Bench::with(Terms { keys, depth: 1, refuse: true, ..terms(WORK) });
    let results = bench.accept(&[draft("a"), draft("b"), draft("a")]);
    assert_eq!(results, [Accepted::New(0), Accepted::Full, Accepted::Duplicate(0)]);
}

#[test]
fn a_message_that_leaves_dies_for_nobody() {
    let mut bench = Bench::with(Terms { max_attempts: 1, ..terms(DeliveryMode::PublishSubscribe) });
    bench.join(1, "a");
    bench.join(2, "b");
    let sequences = bench.send(&["m"]);
    let taken = bench.take(1, WIDE);
    bench.nack(1, &taken, 0);
    bench.pass(SECOND);
    assert_eq!((bench.queue.dying(), bench.dead.len()), (1, 1));
    assert!(bench.queue.delete(sequences[0], &mut bench.journal));
    assert_eq!(bench.queue.dying(), 0);
}

#[test]
fn a_key_stands_for_one_message_within_the_window() {
    let keys = Some(KeyWindow { time: 10 * SECOND, keys: 100 });
    let mut bench = Bench::with(Terms { keys, ..terms(WORK) });
    let draft = |key: &'static str| Draft { body: b"m", key, ..Draft::default() };
    let results = bench.accept(&[draft("a"), draft("b"), draft("a"), draft(""), draft("")]);
    let expected =
        [Accepted::New(0), Accepted::New(1), Accepted::Duplicate(0), Accepted::New(2), Accepted::New(3)];
    assert_eq!(results, expected);
    bench.join(1, "c");
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken);
    bench.pass(5 * SECOND);
    assert_eq!(bench.accept(&[draft("a")]), [Accepted::Duplicate(0)]);
    bench.restart();
    bench.pass(3 * SECOND);
    assert_eq!(bench.accept(&[draft("b")]), [Accepted::Duplicate(1)]);
    bench.pass(SECOND);
    assert!(matches!(bench.accept(&[draft("b")])[..], [Accepted::New(_)]));
}
