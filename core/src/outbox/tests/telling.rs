//! Who is told of what was given up.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_digest_tells_of_all_that_a_run_gave_up() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let ops = StandIn::new([fails(Kind::Unavailable)], Step::Sent);
    let config = json!({"max_attempts": 1, "notify": "ops", "schedule": "60s", "concurrency": 7});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    for number in 0..30 {
        case.send(&format!("order {number}")).await.unwrap();
    }
    case.time.pass(60);
    case.becomes("dead", 30).await;
    until("the digest", || ops.count() == 1).await;
    // The notifier failed: it is told at the next run.
    until("the note", || case.state()["not_notified"] == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ops.count(), 1);
    case.time.pass(60);
    until("the second digest", || ops.count() == 2).await;
    let text = ops.bodies().pop().unwrap();
    assert!(text.starts_with("30 messages of `orders` were given up:"), "{text}");
    assert!(text.contains(", 1 attempt: unavailable: by the script\n  order 0\n"), "{text}");
    assert!(text.ends_with("and 10 more"), "{text}");
    until("the note", || case.state()["notified"] == 1).await;
    assert_eq!(case.state()["not_notified"], 1);
    // Told is told, also for the next who opens it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    case.outbox.close(&soon()).await.unwrap();
    let config = json!({"max_attempts": 1, "notify": "ops", "schedule": "60s"});
    let again = opened(config, &inner, Some(ops.clone()), &case.store, &case.time);
    case.time.pass(600);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(ops.count(), 2);
    again.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_was_cut_short_is_told_by_the_next() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let case = Case::new(json!({"when": "always"}), &inner).await;
    // Given up without a notifier: nobody waits to be told.
    case.send("silent").await.unwrap();
    case.becomes("dead", 1).await;
    case.outbox.close(&soon()).await.unwrap();
    let ops = StandIn::new([Step::Hangs], Step::Sent);
    let config = json!({"when": "always", "notify": "ops"});
    let first = opened(config.clone(), &inner, Some(ops.clone()), &case.store, &case.time);
    first.send(&soon(), Arc::new(Message::new("loud"))).await.unwrap();
    until("the digest", || ops.count() == 1).await;
    // A notifier that hangs does not hold up a close, and is none of its errors.
    first.close(&Context::within(Duration::from_secs(2))).await.unwrap();
    let second = opened(config, &inner, Some(ops.clone()), &case.store, &case.time);
    until("the next digest", || ops.count() == 2).await;
    let text = ops.bodies().remove(1);
    assert!(text.starts_with("1 message of `orders` was given up:"), "{text}");
    assert!(text.contains("loud") && !text.contains("silent"), "{text}");
    second.close(&soon()).await.unwrap();
    assert_eq!(ops.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_tells_of_what_was_given_up() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    // The digest of the first is under way when the second is given up.
    let ops = StandIn::new([Step::Takes(Duration::from_millis(200))], Step::Takes(Duration::from_millis(50)));
    let config = json!({"max_attempts": 1, "notify": "ops"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    case.send("first").await.unwrap();
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 1]);
    until("the first digest", || ops.count() == 1).await;
    case.send("second").await.unwrap();
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 1]);
    case.outbox.close(&soon()).await.unwrap();
    let texts = ops.bodies();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("first") && texts[1].contains("second") && !texts[1].contains("first"));
    assert_eq!((&case.state()["notified"], &case.state()["not_notified"]), (&json!(2), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_given_up_one_by_one_are_told_of_once_a_run() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let ops = StandIn::new([], Step::Sent);
    let config = json!({"when": "always", "notify": "ops", "schedule": "60s"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    case.send("0").await.unwrap();
    until("the digest", || case.state()["notified"] == 1).await;
    for number in 1..=20 {
        case.send(&number.to_string()).await.unwrap();
        case.becomes("dead", number + 1).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ops.count(), 1);
    case.time.pass(60);
    until("the next digest", || ops.count() == 2).await;
    assert!(ops.bodies()[1].starts_with("20 messages of"), "{:?}", ops.bodies());
    case.outbox.close(&soon()).await.unwrap();
    assert_eq!(ops.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_drains_is_told_at_once() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let ops = StandIn::new([], Step::Sent);
    let config = json!({"max_attempts": 1, "notify": "ops", "schedule": "1d"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    for number in 1..=3 {
        case.send(&number.to_string()).await.unwrap();
        assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 1]);
        until("the digest", || ops.count() == number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_too_large_tells_the_count() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let ops = StandIn::new([fails(Kind::TooLarge)], Step::Sent);
    let config = json!({"max_attempts": 1, "notify": "ops", "schedule": "60s"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    for _ in 0..3 {
        case.send("x").await.unwrap();
    }
    case.time.pass(60);
    until("the digest", || case.state()["notified"] == 1).await;
    assert_eq!(ops.bodies()[1..], ["3 messages of `orders` were given up"]);
}

/// Waits until the chores of an outbox were done again: they are done when the clock is set back, and count a new row.
async fn chores(case: &Case, outbox: &Outbox) {
    let another = Start::Leased { until: Millis::MAX / 2 };
    case.store.insert(&soon(), vec![NewRow { start: another, ..row("another's") }]).await.unwrap();
    let counted = || outbox.status()["strategies"][0]["rows_leased"].as_u64();
    let wanted = case.count("leased").await;
    for _ in 0..1000 {
        if counted() == Some(wanted) {
            return;
        }
        case.time.pass(-2);
        tokio::time::sleep(Duration::from_millis(20)).await;
        case.time.pass(2);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the chores are never done: {}", outbox.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_stay_until_somebody_was_told() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let ops = StandIn::new([], fails(Kind::Unavailable));
    let more = json!({"when": "always", "notify": "ops", "keep_dead": "1m", "schedule": "1h"});
    let case = Case::telling(more.clone(), &inner, Some(ops.clone())).await;
    case.send("x").await.unwrap();
    until("the try", || case.state()["not_notified"] == 1).await;
    case.outbox.close(&soon()).await.unwrap();
    // It is old by now, and its telling put off: whoever looks finds nothing to tell.
    case.time.pass(600);
    for (more, notifier) in [(more.clone(), Some(ops.clone())), (json!({"keep_dead": "1m"}), None)] {
        let outbox = opened(more, &inner, notifier, &case.store, &case.time);
        for _ in 0..4 {
            chores(&case, &outbox).await;
        }
        assert_eq!((case.count("dead").await, ops.count()), (1, 1));
        outbox.close(&soon()).await.unwrap();
    }
    // Told, it goes.
    ops.becomes(Step::Sent);
    let outbox = opened(more, &inner, Some(ops.clone()), &case.store, &case.time);
    case.time.pass(7200);
    until("the digest", || outbox.status()["strategies"][0]["notified"] == 1).await;
    chores(&case, &outbox).await;
    chores(&case, &outbox).await;
    case.becomes("dead", 0).await;
    outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_that_asks_for_a_time_is_told_then() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let later = Error::new(Kind::Unavailable, "not now").after(Duration::from_secs(15));
    let ops = StandIn::new([Step::Fails(later)], Step::Sent);
    let config = json!({"when": "always", "notify": "ops", "schedule": "1d"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    case.send("lost").await.unwrap();
    until("the first try", || ops.count() == 1).await;
    until("the note", || case.state()["not_notified"] == 1).await;
    case.time.pass(14);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ops.count(), 1);
    case.time.pass(2);
    until("the second", || ops.count() == 2).await;
    case.outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_once_somebody_was_told() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let slow = Step::Takes(Duration::from_millis(300));
    let ops = StandIn::new([slow.clone(), slow], Step::Hangs);
    let config = json!({"max_attempts": 1, "notify": "ops", "schedule": "1d"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    for (number, body) in [(1, "first"), (2, "second")] {
        case.send(body).await.unwrap();
        assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 1]);
        assert_eq!(case.state()["notified"], number);
        assert!(ops.bodies()[number - 1].contains(body), "{:?}", ops.bodies());
    }
    // It waits for a notifier no longer than its own context; nor for one who named a time, or where there is nothing.
    case.send("third").await.unwrap();
    assert_eq!(case.outbox.drain(&Context::within(Duration::from_secs(2))).await.unwrap(), [0, 1, 1]);
    assert_eq!((ops.count(), &case.state()["notified"]), (3, &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_gave_up_is_told_by_a_drain() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let (none, ops) = (StandIn::new([], Step::Sent), StandIn::new([], Step::Sent));
    let held = json!({"when": "always", "notify": "none", "notify_held": true, "schedule": "1d"});
    let case = Case::telling(held.clone(), &inner, Some(none.clone())).await;
    let tells = json!({"notify": "ops", "schedule": "1d"});
    let other = opened(tells, &inner, Some(ops.clone()), &case.store, &case.time);
    assert_eq!(other.drain(&soon()).await.unwrap(), [0, 0, 0]);
    for number in 1..=2 {
        // Who does not tell leaves it to the other, whether it drains, is opened anew, or does its chores.
        case.send(&format!("dies {number}")).await.unwrap();
        // Either may be the one who gives it up.
        case.becomes("dead", number as u64).await;
        case.outbox.drain(&soon()).await.unwrap();
        let third = opened(held.clone(), &inner, Some(none.clone()), &case.store, &case.time);
        chores(&case, &third).await;
        chores(&case, &third).await;
        third.close(&soon()).await.unwrap();
        assert_eq!(other.drain(&soon()).await.unwrap(), [0, 0, 0]);
        assert_eq!((ops.count(), none.count()), (number, 0));
        assert!(ops.bodies()[number - 1].contains(&format!("dies {number}")), "{:?}", ops.bodies());
    }
    other.close(&soon()).await.unwrap();
    // Once it may tell it does, also of what came before.
    case.send("dies 3").await.unwrap();
    case.becomes("dead", 3).await;
    assert_eq!(case.state()["notify_held"], true);
    let command = json!({"strategy": "outbox", "notify": true});
    assert_eq!(case.outbox.control(&command).unwrap(), json!({"notify_held": false}));
    case.outbox.drain(&soon()).await.unwrap();
    assert_eq!(none.count(), 1);
    for wrong in [json!({"strategy": "outbox"}), json!({"strategy": "outbox", "notify": "yes"})] {
        assert_eq!(case.outbox.control(&wrong).unwrap_err().kind(), Kind::Unsupported);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_tell_again_does_so_at_once() {
    let inner = StandIn::new([], fails(Kind::InvalidArgument));
    let later = Error::new(Kind::Unavailable, "not now").after(Duration::from_secs(600));
    let ops = StandIn::new([Step::Fails(later)], Step::Sent);
    let config = json!({"when": "always", "notify": "ops", "schedule": "1d"});
    let case = Case::telling(config, &inner, Some(ops.clone())).await;
    case.send("first").await.unwrap();
    until("the note", || case.state()["not_notified"] == 1).await;
    case.send("second").await.unwrap();
    until("the end", || case.state()["given_up"] == 2).await;
    // The notifier named a time.
    case.outbox.drain(&soon()).await.unwrap();
    assert_eq!(ops.count(), 1);
    case.outbox.control(&json!({"strategy": "outbox", "notify": true})).unwrap();
    case.outbox.drain(&soon()).await.unwrap();
    let texts = ops.bodies();
    assert!(texts.len() == 2 && texts[1].contains("second") && !texts[1].contains("first"), "{texts:?}");
}
