//! What a send returns, what is stored, and what becomes of it.

use super::*;
use crate::error::{Part, Whole};
use crate::message::Disposition;

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_stored_and_sent_at_the_next_run() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({"schedule": "0 */10 * * * *"}), &inner).await;
    let receipt = case.send("one").await.unwrap();
    assert_eq!(receipt.disposition, Disposition::Stored);
    assert_eq!((receipt.attempts, receipt.provider), (1, "script"));
    assert!(receipt.warning.as_deref().unwrap().contains("by the script"));
    let rows = case.rows().await;
    assert_eq!(rows[0]["id"], receipt.message_id.as_deref().unwrap());
    assert_eq!((rows[0]["state"].as_str(), rows[0]["attempts"].as_u64()), (Some("pending"), Some(0)));
    assert_eq!(rows[0]["next_attempt"], "2023-11-14T22:20:00.000Z");
    assert_eq!(rows[0]["error"]["kind"], "unavailable");
    inner.becomes(Step::Sent);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(inner.count(), 1, "the run is not yet");
    case.time.pass(600);
    case.becomes("pending", 0).await;
    case.becomes("leased", 0).await;
    assert_eq!(inner.bodies(), ["one", "one"]);
    let [first, second] = &inner.messages()[..] else { panic!("two sends") };
    assert_eq!(first.number(), second.number(), "attempts of one message");
    assert_eq!(case.send("two").await.unwrap().disposition, Disposition::Sent);
    assert_eq!((case.state()["sent"].as_u64(), case.state()["stored"].as_u64()), (Some(1), Some(1)));
    case.outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_attempt_can_help_is_not_stored() {
    for kind in [Kind::InvalidArgument, Kind::TooLarge, Kind::Unsupported] {
        let inner = StandIn::new([], fails(kind));
        let case = Case::new(json!({}), &inner).await;
        assert_eq!(case.send("x").await.unwrap_err().kind(), kind);
        assert!(case.rows().await.is_empty());
    }
    for kind in [Kind::Authentication, Kind::Limited, Kind::Internal, Kind::Protocol, Kind::CircuitOpen] {
        let case = Case::new(json!({}), &StandIn::new([], fails(kind))).await;
        assert_eq!(case.send("x").await.unwrap().disposition, Disposition::Stored, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ones_and_passed_deadlines_are_stored() {
    let inner = StandIn::new([unknown(Kind::Unavailable)], Step::Hangs);
    let case = Case::new(json!({}), &inner).await;
    assert_eq!(case.send("a").await.unwrap().disposition, Disposition::Stored);
    let ctx = Context::within(Duration::from_millis(50));
    let late = case.outbox.send(&ctx, Arc::new(Message::new("b"))).await.unwrap();
    assert_eq!(late.disposition, Disposition::Stored);
    assert_eq!(case.outbox.send(&ctx, Arc::new(Message::new("c"))).await.unwrap().attempts, 0, "came late");
    assert_eq!((inner.count(), case.rows().await.len()), (2, 3));
    let stop = Case::new(json!({"on_unknown": "stop"}), &StandIn::new([], unknown(Kind::Unavailable))).await;
    let error = stop.send("a").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_its_caller_cancels_is_not_stored() {
    let case = Case::new(json!({}), &StandIn::new([], Step::Hangs)).await;
    let token = tokio_util::sync::CancellationToken::new();
    let ctx = soon().cancelled_by(token.clone());
    let outbox = case.outbox.clone();
    let send = tokio::spawn(async move { outbox.send(&ctx, Arc::new(Message::new("x"))).await });
    until("the send", || case.inner.count() == 1).await;
    token.cancel();
    assert_eq!(send.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert!(case.rows().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_than_the_caller_cancelled_is_stored_and_tried_again() {
    let inner = StandIn::new([], fails(Kind::Cancelled));
    let case = Case::new(json!({"max_attempts": 3}), &inner).await;
    assert_eq!(case.send("x").await.unwrap().disposition, Disposition::Stored);
    for attempts in 1..=2 {
        assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 0]);
        let row = case.rows().await.remove(0);
        assert_eq!(
            (row["attempts"].as_u64(), row["state"].as_str()),
            (Some(attempts), Some("pending")),
            "{row}"
        );
    }
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_has_no_end_is_cut() {
    let never = || Step::Fails(Error::new(Kind::Throttled, "go away").after(Duration::MAX));
    for more in [json!({"backoff": {"type": "fixed", "wait": "1s"}}), json!({})] {
        let inner = StandIn::new([never(), never()], Step::Sent);
        let case = Case::new(more, &inner).await;
        // What it puts right as it opens, because a clock may have been set, is behind it.
        case.outbox.drain(&soon()).await.unwrap();
        case.send("x").await.unwrap();
        // In a year and a day.
        for sends in 1..=2 {
            let next = case.rows().await[0]["next_attempt"].as_str().unwrap_or_default().to_owned();
            assert!(next.starts_with("2024-11-14") || next.starts_with("2024-11-15"), "{next:?}");
            assert_eq!(inner.count(), sends);
            case.outbox.drain(&soon()).await.unwrap();
        }
        assert_eq!((inner.count(), case.rows().await.len()), (3, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_part_failed_the_rest_alone_is_sent_and_nobody_is_forgotten() {
    let part = |name: &str, kind| Part::failed(Whole::Recipient, name, Error::new(kind, "by the script"));
    let partial = Error::new(Kind::Partial, "some failed").made_of(vec![
        part("a", Kind::Unavailable),
        Part::sent(Whole::Recipient, "b", None),
        part("c", Kind::InvalidArgument),
    ]);
    let inner = StandIn::new([Step::Fails(partial)], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    let message = Message::new("x").with(|f| f.recipients = ["a", "b", "c"].map(String::from).to_vec());
    let receipt = case.outbox.send(&soon(), Arc::new(message)).await.unwrap();
    assert_eq!(receipt.parts.unwrap().len(), 3);
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [1, 0, 1]);
    let last = inner.messages().last().unwrap().clone();
    assert_eq!(last.fields().unwrap().recipients, ["a"]);
    assert!(last.is_rest());
    let rows = case.rows().await;
    assert_eq!(rows[0]["state"], "dead");
    assert!(rows[0]["error"]["message"].as_str().unwrap().contains("help c: by the script"), "{}", rows[0]);
    let shown = case.outbox.desk().show(&soon(), rows[0]["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(shown["message"]["recipients"], json!(["c"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn always_stores_first_and_sends_in_order() {
    let inner = StandIn::new([], Step::Sent);
    let case = Case::new(json!({"when": "always", "concurrency": 3, "keep_done": "1h"}), &inner).await;
    for number in 0..50 {
        let receipt = case.send(&number.to_string()).await.unwrap();
        assert_eq!((receipt.disposition, receipt.attempts), (Disposition::Stored, 0));
    }
    case.becomes("done", 50).await;
    let wanted: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(inner.bodies(), wanted);
    let large = Message::new(vec![0; (1 << 20) + 1]);
    let error = case.outbox.send(&soon(), Arc::new(large)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
    case.time.pass(3700);
    let purged = case.outbox.desk().purge(&soon(), json!({"older": "1h"})).await.unwrap();
    assert_eq!(purged, json!({"purged": 50}));
}

#[tokio::test(flavor = "multi_thread")]
async fn submits_at_once_keep_their_order_past_the_places() {
    let inner = StandIn::new([], Step::Sent);
    let case = Case::new(json!({"when": "always", "concurrency": 2}), &inner).await;
    // As a pump polls them: in order, all at once.
    let ctx = soon();
    let sends = (0..300).map(|number| case.outbox.send(&ctx, Arc::new(Message::new(format!("{number:03}")))));
    for receipt in futures_util::future::join_all(sends).await {
        receipt.unwrap();
    }
    until("all", || inner.count() == 300).await;
    let bodies = inner.bodies();
    assert!(bodies.is_sorted(), "{bodies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_dead_after_its_attempts_and_begins_anew_when_told() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({"max_attempts": 3, "schedule": "60s"}), &inner).await;
    let id = case.send("x").await.unwrap().message_id.unwrap();
    for attempts in 1..=3_u64 {
        case.time.pass(60);
        until("the attempt", || inner.count() as u64 == attempts + 1).await;
        case.becomes("leased", 0).await;
        let row = case.rows().await.remove(0);
        let state = if attempts < 3 { "pending" } else { "dead" };
        assert_eq!((row["attempts"].as_u64(), row["state"].as_str()), (Some(attempts), Some(state)), "{row}");
    }
    case.time.pass(3600);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((inner.count(), case.state()["given_up"].as_u64()), (4, Some(1)));
    inner.becomes(Step::Sent);
    let retried = case.outbox.desk().retry(&soon(), json!({"ids": [&*id]})).await.unwrap();
    assert_eq!(retried, json!({"retried": 1}));
    case.becomes("pending", 0).await;
    until("the last", || inner.count() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_back_here_counts_for_no_attempt() {
    let inner = StandIn::new([], fails(Kind::CircuitOpen));
    let case =
        Case::new(json!({"max_attempts": 1, "backoff": {"type": "fixed", "wait": "1s"}}), &inner).await;
    case.send("x").await.unwrap();
    for attempts in 2..6 {
        case.time.pass(2);
        until("the attempt", || inner.count() == attempts).await;
    }
    case.becomes("pending", 1).await;
    assert_eq!(case.rows().await[0]["attempts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_downtime_there_is_one_attempt() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({"schedule": "60s", "max_attempts": 9}), &inner).await;
    case.send("x").await.unwrap();
    case.outbox.close(&soon()).await.unwrap();
    case.time.pass(3600);
    let again = opened(json!({"schedule": "60s", "max_attempts": 9}), &inner, None, &case.store, &case.time);
    until("the attempt", || inner.count() == 2).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(inner.count(), 2);
    // A schedule that was changed holds for what is there.
    again.close(&soon()).await.unwrap();
    let sooner = opened(json!({"schedule": "5s"}), &inner, None, &case.store, &case.time);
    tokio::time::sleep(Duration::from_millis(100)).await;
    case.time.pass(5);
    until("the attempt", || inner.count() == 3).await;
    sooner.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_counts_from_the_acceptance() {
    let inner = StandIn::new([fails(Kind::Unavailable), fails(Kind::Unavailable)], Step::Sent);
    let case = Case::new(json!({"schedule": "10s"}), &inner).await;
    let delayed = Message::new("x").with_delay(Duration::from_secs(15));
    case.outbox.send(&soon(), Arc::new(delayed)).await.unwrap();
    for attempts in [2, 3] {
        case.time.pass(10);
        until("the attempt", || inner.count() == attempts).await;
        case.becomes("leased", 0).await;
    }
    let delays: Vec<u64> = inner.messages().iter().map(|message| message.delay().as_secs()).collect();
    assert_eq!(delays, [15, 5, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_key_go_one_after_the_other() {
    let inner = StandIn::new([fails(Kind::Unavailable)], Step::Sent);
    let case = Case::new(json!({"ordered": true}), &inner).await;
    let keyed = |body: &str, key: &str| {
        Arc::new(Message::new(body.to_owned()).with(|fields| fields.key = Some(key.into())))
    };
    for (body, key, disposition) in [
        ("1", "a", Disposition::Stored),
        ("2", "a", Disposition::Stored),
        ("3", "b", Disposition::Sent),
        ("4", "a", Disposition::Stored),
    ] {
        assert_eq!(case.outbox.send(&soon(), keyed(body, key)).await.unwrap().disposition, disposition);
    }
    assert_eq!(inner.bodies(), ["1", "3"], "those behind the first are not tried");
    assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [3, 0, 0]);
    assert_eq!(inner.bodies(), ["1", "3", "1", "2", "4"]);
    assert_eq!(case.outbox.send(&soon(), keyed("5", "a")).await.unwrap().disposition, Disposition::Sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_messages_with_the_same_key_one_is_kept() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({"deduplicate": "key"}), &inner).await;
    let message = || Arc::new(Message::new("x").with(|fields| fields.key = Some("k".into())));
    let first = case.outbox.send(&soon(), message()).await.unwrap();
    let second = case.outbox.send(&soon(), message()).await.unwrap();
    assert_eq!(first.message_id, second.message_id);
    assert!(second.warning.unwrap().contains("already"));
    assert_eq!(case.rows().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_stores_what_is_under_way_and_gives_leases_back() {
    let inner = StandIn::new([fails(Kind::Unavailable)], Step::Hangs);
    let case = Case::new(json!({}), &inner).await;
    case.send("stored").await.unwrap();
    let (outbox, long) = (case.outbox.clone(), Context::within(Duration::from_secs(60)));
    let send = tokio::spawn(async move { outbox.send(&long, Arc::new(Message::new("under way"))).await });
    until("the send", || inner.count() == 2).await;
    case.time.pass(600);
    until("the attempt", || inner.count() == 3).await;
    let ctx = Context::within(Duration::from_millis(600));
    case.outbox.closing(&ctx);
    assert_eq!(send.await.unwrap().unwrap().disposition, Disposition::Stored);
    assert_eq!(case.outbox.close(&ctx).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!((case.count("pending").await, case.count("leased").await), (2, 0));
    assert_eq!(case.rows().await[0]["attempts"], 0, "nobody knows how it would have ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_another_producer_is_neither_seen_nor_touched() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({}), &inner).await;
    let theirs = NewRow { producer: "other".into(), ..row("theirs") };
    let id = case.store.insert(&soon(), vec![theirs]).await.unwrap()[0].id.to_string();
    let desk = case.outbox.desk();
    assert!(case.rows().await.is_empty());
    assert_eq!(desk.show(&soon(), &id).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(desk.retry(&soon(), json!({"ids": [&id]})).await.unwrap(), json!({"retried": 0}));
    let dropped = desk.drop_rows(&soon(), json!({"ids": [&id]})).await.unwrap();
    assert_eq!(dropped, json!({"dropped": 0, "leased": [], "unknown": [id]}));
    let error = desk.list(&soon(), json!({"producer": "other"})).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(inner.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_back_once() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let case = Case::new(json!({}), &inner).await;
    for number in 0..25 {
        case.send(&number.to_string()).await.unwrap();
    }
    let mut lines: Vec<Value> = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = case.outbox.desk().export(&soon(), json!({"after": after, "limit": 10})).await.unwrap();
        lines.extend(page["lines"].as_array().unwrap().clone());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(lines.len(), 25);
    let desk = case.outbox.desk();
    let again = desk.import(&soon(), json!({"lines": lines})).await.unwrap();
    assert_eq!(again, json!({"imported": 0, "known": 25}), "they are there");
    let sends = StandIn::new([], Step::Sent);
    let other = Case::new(json!({"keep_done": "1h"}), &sends).await;
    for imported in [25, 0] {
        let answer = other.outbox.desk().import(&soon(), json!({"lines": lines})).await.unwrap();
        assert_eq!(answer["imported"], imported);
        if imported == 25 {
            continue;
        }
    }
    other.outbox.wake();
    until("all", || sends.count() >= 25).await;
    let numbers: Vec<u64> = sends.messages().iter().map(|message| message.number()).collect();
    assert_eq!(numbers[0], inner.messages()[0].number());
    let error = desk.import(&soon(), json!({"lines": ["{}"]})).await.unwrap_err();
    assert!(error.message().starts_with("line 1: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_no_poll() {
    let inner = StandIn::new([], Step::Sent);
    for _ in 0..50 {
        // Right after the opening a claim is under way.
        let case = Case::new(json!({"poll": "1h"}), &inner).await;
        assert_eq!(case.outbox.drain(&soon()).await.unwrap(), [0, 0, 0]);
        case.outbox.close(&soon()).await.unwrap();
    }
}
