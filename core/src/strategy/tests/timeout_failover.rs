use super::*;
use crate::error::{Part, Whole};

fn current(producer: &Arc<dyn Producer>) -> u64 {
    strategies(producer)[0]["current"].as_u64().unwrap()
}

async fn send(producer: &Arc<dyn Producer>) -> Result<Receipt> {
    producer.send(&seconds(60), message()).await
}

#[tokio::test(start_paused = true)]
async fn so_many_timeouts_in_a_row_move_on() {
    let (one, two) = (StandIn::new([], fails(Kind::Timeout)), StandIn::good());
    let producer = group(json!({"type": "timeout_failover", "after": 3}), &[&one, &two]);
    for _ in 0..3 {
        assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::Timeout, "the message is not sent again");
    }
    send(&producer).await.unwrap();
    assert_eq!((one.count(), two.count(), current(&producer)), (3, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_success_resets_and_other_errors_neither_count_nor_reset() {
    let script = [
        fails(Kind::Timeout),
        fails(Kind::Unavailable),
        fails(Kind::Timeout),
        Step::Sent,
        fails(Kind::Timeout),
        fails(Kind::Timeout),
        fails(Kind::Throttled),
    ];
    let (one, two) = (StandIn::new(script, fails(Kind::Timeout)), StandIn::good());
    let producer = group(json!({"type": "timeout_failover", "after": 3}), &[&one, &two]);
    for _ in 0..7 {
        let _ = send(&producer).await;
    }
    assert_eq!(current(&producer), 0);
    let _ = send(&producer).await;
    assert_eq!(current(&producer), 1, "the third in a row");
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_deadline_counts() {
    let (one, two) = (StandIn::new([], after(5000, Step::Sent)), StandIn::good());
    let producer = group(json!({"type": "timeout_failover", "after": 2}), &[&one, &two]);
    for _ in 0..2 {
        producer.send(&seconds(1), message()).await.unwrap_err();
    }
    assert_eq!(current(&producer), 1);
}

#[tokio::test(start_paused = true)]
async fn after_its_time_it_returns_to_the_first() {
    let (one, two) = (StandIn::new([fails(Kind::Timeout)], Step::Sent), StandIn::good());
    let config = json!({"type": "timeout_failover", "after": 1, "return_after": "30m"});
    let producer = group(config, &[&one, &two]);
    let _ = send(&producer).await;
    tokio::time::sleep(Duration::from_secs(1799)).await;
    send(&producer).await.unwrap();
    assert_eq!((one.count(), two.count()), (1, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&producer).await.unwrap();
    assert_eq!((one.count(), two.count(), current(&producer)), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_well_returns_to_the_first() {
    let (one, two) = (StandIn::new([], fails(Kind::Timeout)), StandIn::good());
    let config = json!({"type": "timeout_failover", "after": 1, "probe_every": "10s"});
    let producer = group(config, &[&one, &two]);
    let _ = send(&producer).await;
    for _ in 0..30 {
        send(&producer).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(one.count(), 1 + 2, "one message in ten seconds probes, and is sent all the same");
    assert_eq!(two.count(), 30);
    one.becomes(Step::Sent);
    tokio::time::sleep(Duration::from_secs(10)).await;
    send(&producer).await.unwrap();
    assert_eq!((current(&producer), two.count()), (0, 30));
}

#[tokio::test(start_paused = true)]
async fn many_timeouts_at_once_move_on_once() {
    let slow = after(100, fails(Kind::Timeout));
    let members = [StandIn::new([], slow), StandIn::good(), StandIn::good()];
    let config = json!({"type": "timeout_failover", "after": 3});
    let producer = group(config, &[&members[0], &members[1], &members[2]]);
    futures_util::future::join_all((0..100).map(|_| send(&producer))).await;
    assert_eq!((current(&producer), strategies(&producer)[0]["switches"].as_u64()), (1, Some(1)));
}

/// Two members, of which the second is current, with a probe due.
async fn due(first: Step, settings: Value) -> (Arc<dyn Producer>, Arc<StandIn>, Arc<StandIn>) {
    let (one, two) = (StandIn::new([fails(Kind::Timeout)], first), StandIn::good());
    let mut config = json!({"type": "timeout_failover", "after": 1, "probe_every": "10s"});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let producer = group(config, &[&one, &two]);
    let _ = send(&producer).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    (producer, one, two)
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_probe_said_is_kept() {
    let (producer, ..) = due(fails(Kind::Unavailable), json!({})).await;
    assert_eq!(send(&producer).await.unwrap().attempts, 2);

    let (producer, _, two) = due(unknown(Kind::Timeout), json!({})).await;
    two.becomes(fails(Kind::Throttled));
    let error = send(&producer).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts(), error.outcome()), (Kind::Throttled, 2, Outcome::Unknown));
    let parts: Vec<_> =
        error.parts().iter().map(|part| (&*part.name, part.error.as_ref().unwrap().kind())).collect();
    assert_eq!(parts, [("m0", Kind::Timeout), ("m1", Kind::Throttled)]);

    // Nobody gets the message twice.
    let some = Error::new(Kind::Partial, "some").tried(1).outcome_is(Outcome::Unknown);
    let parts = vec![
        Part::sent(Whole::Recipient, "a", None),
        Part::failed(Whole::Recipient, "b", Error::new(Kind::Throttled, "later")),
    ];
    let to = || Arc::new(Message::new("x").with(|fields| fields.recipients = vec!["a".into(), "b".into()]));
    let (producer, _, two) = due(Step::Fails(some.clone().made_of(parts)), json!({})).await;
    let receipt = producer.send(&seconds(60), to()).await.unwrap();
    assert_eq!(two.messages()[0].fields().unwrap().recipients, ["b"]);
    assert_eq!(receipt.parts.unwrap().iter().filter(|part| part.error.is_none()).count(), 2);
    let (producer, _, two) = due(Step::Fails(some), json!({})).await;
    assert_eq!(producer.send(&seconds(60), to()).await.unwrap_err().kind(), Kind::Partial);
    assert_eq!(two.count(), 0, "who has it is unknown");
}

#[tokio::test(start_paused = true)]
async fn a_first_member_that_hangs_leaves_time_for_the_current_one() {
    for hangs in [Step::Hangs, after(600_000, Step::Sent)] {
        let (producer, one, two) = due(hangs, json!({})).await;
        let started = Instant::now();
        producer.send(&seconds(8), message()).await.unwrap();
        assert!(started.elapsed() <= Duration::from_millis(4050), "{:?}", started.elapsed());
        assert_eq!((one.count(), two.count(), current(&producer)), (2, 1, 1));
        assert_eq!(strategies(&producer)[0]["probes_failed"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_or_cancelled_is_made_by_the_next_message() {
    let (producer, one, two) = due(after(1000, Step::Sent), json!({})).await;
    let ctx = seconds(60);
    let dropped = tokio::time::timeout(Duration::from_millis(10), producer.send(&ctx, message())).await;
    assert!(dropped.is_err());
    let token = tokio_util::sync::CancellationToken::new();
    let ctx = ctx.cancelled_by(token.clone());
    let (cancelled, ()) = tokio::join!(producer.send(&ctx, message()), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        token.cancel();
    });
    assert_eq!(cancelled.unwrap_err().kind(), Kind::Cancelled);
    send(&producer).await.unwrap();
    assert_eq!((one.count(), two.count(), current(&producer)), (4, 0, 0));
}

#[test]
fn no_timeouts_are_refused() {
    assert!(refused(json!({"type": "timeout_failover", "after": 0})).contains("at least 1"));
    let config = json!({"type": "timeout_failover", "after": 1, "probe_every": "0s"});
    assert!(refused(config).contains("probe_every"));
}
