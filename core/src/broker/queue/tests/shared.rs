//! The rules of publish-subscribe.

use super::*;

const SHARED: DeliveryMode = DeliveryMode::PublishSubscribe;

#[test]
fn each_has_its_own_ack() {
    let mut bench = Bench::new(SHARED);
    let mut sent = bench.send(&["held"]);
    bench.join(1, "c1");
    bench.join(2, "c2");
    sent.extend(bench.send(&["both"]));
    let one = bench.take(1, WIDE);
    let two = bench.take(2, WIDE);
    assert_eq!(bench.text(&one), ["held", "both"]);
    assert_eq!(bench.text(&two), ["both"]);
    bench.ack(1, &one);
    assert_eq!(bench.consumed, sent[..1]);
    bench.ack(2, &two);
    assert_eq!(bench.consumed, sent);
}

#[test]
fn a_lost_consumer_s_share_is_kept_for_its_id() {
    let mut bench = Bench::new(SHARED);
    bench.join(1, "a");
    bench.join(2, "b");
    let mut sent = bench.send(&["m"]);
    let held = bench.take(2, WIDE);
    bench.ack(2, &held);
    bench.leave(1);
    assert!(bench.bodies(2).is_empty());
    bench.join(3, "a");
    let back = bench.take(3, WIDE);
    assert_eq!(back.len(), 1);
    bench.ack(3, &back);
    assert_eq!(bench.consumed, sent);
    // One that does not come back is not waited for without end.
    sent.extend(bench.send(&["n"]));
    let held = bench.take(2, WIDE);
    bench.ack(2, &held);
    bench.leave(3);
    bench.pass(10 * SECOND);
    assert_eq!(bench.consumed, sent);
}

#[test]
fn what_nobody_acknowledged_goes_to_the_next() {
    let mut bench = Bench::new(SHARED);
    bench.join(1, "a");
    bench.join(2, "b");
    let sent = bench.send(&["m", "n"]);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[1..]);
    bench.leave(1);
    bench.leave(2);
    bench.join(3, "c");
    let orphans = bench.take(3, WIDE);
    assert_eq!(bench.text(&orphans), ["m"]);
    bench.join(4, "a");
    assert!(bench.bodies(4).is_empty());
    bench.ack(3, &orphans);
    bench.pass(10 * SECOND);
    assert_eq!(bench.consumed, sent);
}

#[test]
fn a_delayed_message_owes_those_that_are_there_when_it_falls_due() {
    let mut bench = Bench::new(SHARED);
    bench.join(1, "before");
    bench.send_later("m", 1);
    bench.join(2, "between");
    bench.pass(SECOND);
    bench.join(3, "after");
    let one = bench.take(1, WIDE);
    let two = bench.take(2, WIDE);
    assert_eq!((one.len(), two.len(), bench.bodies(3).len()), (1, 1, 0));
    bench.ack(1, &one);
    assert!(bench.consumed.is_empty());
    bench.ack(2, &two);
    assert_eq!(bench.consumed.len(), 1);
    // Nobody is there: it is held.
    (1..=3).for_each(|number| bench.leave(number));
    bench.send_later("n", 1);
    bench.pass(SECOND);
    bench.join(4, "d");
    bench.join(5, "e");
    assert_eq!((bench.bodies(4).len(), bench.bodies(5).len()), (1, 0));
}

#[test]
fn a_durable_subscription_gets_what_comes_while_it_is_away() {
    let mut bench = Bench::new(SHARED);
    bench.durable = true;
    bench.join(1, "d");
    bench.durable = false;
    bench.join(2, "e");
    bench.send(&["a", "b"]);
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[..1]);
    bench.leave(1);
    bench.send(&["c"]);
    let others = bench.take(2, WIDE);
    bench.ack(2, &others);
    bench.pass(1000 * SECOND);
    assert_eq!(bench.queue.durable().collect::<Vec<_>>(), [("d", false)]);
    bench.restart();
    bench.send(&["d"]);
    bench.durable = true;
    bench.join(3, "d");
    let rest = bench.take(3, WIDE);
    assert_eq!(bench.text(&rest), ["b", "c", "d"]);
    bench.ack(3, &rest);
    // The other one was lost by the restart: it is waited for, then given up.
    assert_eq!(bench.queue.counts(), (1, 0));
    bench.pass(10 * SECOND);
    assert_eq!(bench.queue.counts(), (0, 0));
    bench.send(&["x"]);
    bench.leave(3);
    assert!(!bench.queue.unsubscribe("e", bench.now, &mut bench.journal));
    assert!(bench.queue.unsubscribe("d", bench.now, &mut bench.journal));
    // Nobody acknowledged it: it is held, over a restart too.
    bench.restart();
    bench.durable = false;
    bench.join(4, "f");
    assert_eq!(bench.bodies(4), ["x"]);
}

#[test]
fn the_first_ack_consumes_for_all_if_asked() {
    let mut bench = Bench::with(Terms { compat: true, ..terms(SHARED) });
    bench.join(1, "a");
    bench.join(2, "b");
    bench.join(3, "c");
    let sent = bench.send(&["m"]);
    let (one, two) = (bench.take(1, WIDE), bench.take(2, WIDE));
    assert_eq!((one.len(), two.len()), (1, 1));
    assert_eq!(bench.ack(2, &two), 1);
    assert_eq!((bench.consumed.clone(), bench.queue.unacked()), (sent, 0));
    assert_eq!((bench.ack(1, &one), bench.bodies(3).len()), (0, 0));
    bench.pass(20 * SECOND);
    assert!(bench.bodies(1).is_empty() && bench.queue.counts() == (0, 0));
}

#[test]
fn a_refusal_is_one_subscription_s_own() {
    let mut bench = Bench::new(SHARED);
    bench.join(1, "a");
    bench.join(2, "b");
    bench.send(&["m"]);
    let (one, two) = (bench.take(1, WIDE), bench.take(2, WIDE));
    assert_eq!((bench.nack(1, &one, 3000), bench.nack(2, &two, 0)), (1, 1));
    let two = bench.take(2, WIDE);
    assert_eq!((two.len(), two[0].attempt), (1, 2));
    bench.pass(3 * SECOND - 1);
    assert!(bench.bodies(1).is_empty());
    bench.pass(1);
    let one = bench.take(1, WIDE);
    assert_eq!((one.len(), bench.ack(1, &one), bench.ack(2, &two)), (1, 1, 1));
    assert_eq!(bench.consumed.len(), 1);
}

#[test]
fn a_restart_loses_nobody_s_share() {
    let mut bench = Bench::new(SHARED);
    bench.join(1, "a");
    bench.join(2, "b");
    bench.send(&["m", "n"]);
    bench.send_later("due", 1);
    bench.pass(SECOND);
    bench.join(3, "c");
    let taken = bench.take(1, WIDE);
    bench.ack(1, &taken[..1]);
    let taken = bench.take(2, WIDE);
    bench.ack(2, &taken[1..]);
    bench.restart();
    bench.join(4, "a");
    bench.join(5, "b");
    bench.join(6, "c");
    let (a, b) = (bench.take(4, WIDE), bench.take(5, WIDE));
    assert_eq!((bench.text(&a), bench.text(&b)), (vec!["n".into(), "due".into()], vec!["m".into()]));
    assert!(bench.bodies(6).is_empty());
    assert_eq!((bench.ack(4, &a), bench.ack(5, &b)), (2, 1));
    assert_eq!(bench.queue.counts(), (0, 0));
}
