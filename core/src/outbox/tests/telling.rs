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
    let ops = StandIn::new([], Step::Hangs);
    let config = json!({"when": "always", "notify": "ops"});
    let first = opened(config.clone(), &inner, Some(ops.clone()), &case.store, &case.time);
    first.send(&soon(), Arc::new(Message::new("loud"))).await.unwrap();
    until("the digest", || ops.count() == 1).await;
    first.close(&soon()).await.unwrap();
    ops.becomes(Step::Sent);
    let second = opened(config, &inner, Some(ops.clone()), &case.store, &case.time);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ops.count(), 1, "the first may still be telling");
    case.time.pass(120);
    second.wake();
    second.send(&soon(), Arc::new(Message::new("third"))).await.unwrap();
    until("the digest", || ops.count() >= 2).await;
    let text = ops.bodies().join("\n");
    assert!(text.contains("loud") && !text.contains("silent"), "{text}");
    second.close(&soon()).await.unwrap();
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
