//! What does not go as it should: clocks that jump, sends that panic, callers that go away, more than there is room for.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::message::Disposition;

fn keyed(body: &str) -> Arc<Message> {
    Arc::new(Message::new(body.to_owned()).with(|fields| fields.key = Some("k".into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_hanging_send_of_its_key_is_stored_behind_it() {
    let inner = StandIn::new([Step::Hangs], Step::Sent);
    let case = Case::new(json!({"ordered": true}), &inner).await;
    let ctx = Context::within(Duration::from_millis(150));
    let sends = ["1", "2", "3"].map(|body| case.outbox.send(&ctx, keyed(body)));
    for receipt in futures_util::future::join_all(sends).await {
        assert_eq!(receipt.unwrap().disposition, Disposition::Stored);
    }
    // One that is late already has not been sent either.
    assert_eq!(case.outbox.send(&ctx, keyed("4")).await.unwrap().disposition, Disposition::Stored);
    assert_eq!((inner.bodies(), &case.state()["store_failures"]), (vec!["1".to_owned()], &json!(0)));
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [4, 0, 0]);
    assert_eq!(inner.bodies(), ["1", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_when_a_close_is_about_to_end_is_stored_unsent() {
    let inner = StandIn::new([], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    case.outbox.closing(&Context::within(Duration::ZERO));
    let hurry = case.outbox.hurry.clone();
    until("the hurry", || hurry.is_cancelled()).await;
    let receipt = case.send("late").await.unwrap();
    assert_eq!((receipt.disposition, receipt.attempts, inner.count()), (Disposition::Stored, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_panics_is_a_failure_of_its_row_alone() {
    let inner = StandIn::new([Step::Panics], Step::Sent);
    let case = Case::new(json!({"when": "always", "concurrency": 1}), &inner).await;
    case.send("panics").await.unwrap();
    for body in ["a", "b"] {
        case.send(body).await.unwrap();
    }
    until("the others", || inner.count() == 3).await;
    case.becomes("leased", 0).await;
    let row = case.rows().await.remove(0);
    assert_eq!((row["attempts"].as_u64(), row["state"].as_str()), (Some(1), Some("pending")), "{row}");
    assert_eq!((&row["error"]["kind"], &row["error"]["outcome"]), (&json!("internal"), &json!("unknown")));
    case.outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_panics_begins_anew() {
    let inner = StandIn::new([], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    case.outbox.close(&soon()).await.unwrap();
    let (faulty, time) = (Arc::new(AtomicBool::new(false)), case.time.clock());
    let clock = {
        let faulty = faulty.clone();
        Clock::from_fn(move || {
            assert!(!faulty.swap(false, Ordering::SeqCst), "by the clock");
            time.now()
        })
    };
    let again = opened_at(json!({"when": "always"}), &inner, None, &case.store, clock);
    faulty.store(true, Ordering::SeqCst);
    // The runner alone looks at the clock now.
    until("the panic", || !faulty.load(Ordering::SeqCst)).await;
    again.send(&soon(), Arc::new(Message::new("after it"))).await.unwrap();
    until("the send", || inner.count() == 1).await;
    again.drain(&soon()).await.unwrap();
    again.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_are_not_all_under_way_at_once() {
    let inner = StandIn::new([], Step::Hangs);
    let case = Case::new(json!({}), &inner).await;
    let large = |_| NewRow {
        message: StoredMessage { body: vec![b'x'; 12 << 20].into(), ..row("").message },
        ..row("")
    };
    case.store.insert(&soon(), (0..6).map(large).collect()).await.unwrap();
    case.outbox.wake();
    until("the first", || inner.count() == 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((inner.count(), case.state()["under_way"].as_u64()), (3, Some(3)), "36 MiB of 32 and a row");
    let ctx = Context::within(Duration::from_millis(50));
    assert_eq!(case.outbox.close(&ctx).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(case.count("leased").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_forward_past_a_lease_does_not_send_twice() {
    let inner = StandIn::new([fails(Kind::Unavailable), Step::Takes(Duration::from_secs(1))], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    case.send("x").await.unwrap();
    case.time.pass(120);
    until("the attempt", || inner.count() == 2).await;
    // The lease is of 14 s.
    case.time.pass(3600);
    case.becomes("leased", 0).await;
    assert_eq!((inner.count(), case.state()["lost"].as_u64()), (2, Some(0)));
    assert!(case.rows().await.is_empty(), "it was sent, and that was noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_keeps_no_row_waiting() {
    let inner = StandIn::new([fails(Kind::Unavailable)], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    case.send("x").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    case.time.pass(-7200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(inner.count(), 1);
    case.time.pass(120);
    until("the attempt", || inner.count() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_at_what_is_unknown_a_close_gives_up_what_it_interrupts() {
    for (on_unknown, state) in [("stop", "dead"), ("again", "pending")] {
        let inner = StandIn::new([], Step::Hangs);
        let case = Case::new(json!({"when": "always", "on_unknown": on_unknown}), &inner).await;
        case.send("x").await.unwrap();
        until("the attempt", || inner.count() == 1).await;
        let ctx = Context::within(Duration::from_millis(50));
        assert_eq!(case.outbox.close(&ctx).await.unwrap_err().kind(), Kind::Timeout);
        assert_eq!(case.rows().await[0]["state"], state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_rows_that_fall_due_wait_for_no_poll() {
    let inner = StandIn::new([fails(Kind::Unavailable), fails(Kind::Unavailable)], Step::Sent);
    let config = json!({"poll": "1h", "backoff": {"type": "fixed", "wait": "50ms"}});
    let case = Case::new(config, &inner).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    case.send("x").await.unwrap();
    case.time.pass(1);
    until("the first attempt", || inner.count() == 2).await;
    case.becomes("leased", 0).await;
    case.time.pass(1);
    until("the second", || inner.count() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backoff_goes_on_at_the_first_run_after_it() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let more = json!({"schedule": "0 */10 * * * *", "backoff": {"type": "fixed", "wait": "15m"}});
    let case = Case::new(more, &inner).await;
    case.send("x").await.unwrap();
    // Stored at 22:13:20.
    assert_eq!(case.rows().await[0]["next_attempt"], "2023-11-14T22:30:00.000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_though_there_is_always_more() {
    let inner = StandIn::new([], Step::Takes(Duration::from_millis(20)));
    let case = Case::new(json!({"concurrency": 1}), &inner).await;
    let due = case.time.0.load(Ordering::SeqCst);
    let old =
        |number| NewRow { start: Start::Pending { due: due + 1_000_000 }, ..row(&format!("old {number}")) };
    case.store.insert(&soon(), (0..4).map(old).collect()).await.unwrap();
    let outbox = case.outbox.clone();
    let mut drain = tokio::spawn(async move { outbox.drain(&soon()).await });
    until("the first", || inner.count() == 1).await;
    // More of them fall due than can be sent.
    let drained = loop {
        case.time.pass(1);
        let due = case.time.0.load(Ordering::SeqCst);
        let new = |_| NewRow { start: Start::Pending { due }, ..row("new") };
        case.store.insert(&soon(), (0..50).map(new).collect()).await.unwrap();
        case.outbox.wake();
        tokio::select! {
            drained = &mut drain => break drained.unwrap().unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    };
    assert!(drained[0] >= 4 && case.count("pending").await > 20, "{drained:?}");
    assert_eq!(inner.bodies()[..4], ["old 0", "old 1", "old 2", "old 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_for_a_caller_that_goes_away_is_sent_all_the_same() {
    let inner = StandIn::new([], Step::Sent);
    let case = Case::new(json!({"when": "always"}), &inner).await;
    let shared = case.outbox.shared.clone();
    until("the first look", || !shared.behind.load(Ordering::SeqCst)).await;
    let ctx = soon();
    let mut send = case.outbox.send(&ctx, Arc::new(Message::new("left")));
    assert!(futures_util::poll!(&mut send).is_pending());
    drop(send);
    until("the send", || inner.count() == 1).await;
    case.becomes("leased", 0).await;
    // Without a runner nobody sends it: then it is given back.
    case.outbox.close(&soon()).await.unwrap();
    case.send("late").await.unwrap();
    case.becomes("leased", 0).await;
    case.becomes("pending", 1).await;
    let weak = Arc::downgrade(&shared);
    drop((case, shared));
    until("the end of it", || weak.strong_count() == 0).await;
}
