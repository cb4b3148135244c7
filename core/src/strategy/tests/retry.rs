use super::*;
use crate::error::Whole;

fn retry(times: u32, inner: &Arc<StandIn>) -> Arc<dyn Producer> {
    wrap(json!({"type": "retry", "max_attempts": times}), inner.clone())
}

#[tokio::test(start_paused = true)]
async fn at_most_so_many_attempts_in_all() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let error = retry(3, &inner).send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((inner.count(), error.attempts(), error.kind()), (3, 3, Kind::Unavailable));
    let attempts: Vec<_> = error.parts().iter().map(|part| (part.of, part.name.to_string())).collect();
    let numbers = ["1", "2", "3"].map(|number| (Whole::Attempt, number.to_owned()));
    assert_eq!(attempts, numbers, "the error holds every attempt");
    assert!(error.parts().iter().all(|part| part.error.is_some()));
}

#[tokio::test(start_paused = true)]
async fn the_receipt_counts_the_attempts() {
    let inner = StandIn::new([fails(Kind::Unavailable), fails(Kind::Throttled)], Step::Sent);
    let receipt = retry(5, &inner).send(&seconds(9), message()).await.unwrap();
    assert_eq!((receipt.attempts, inner.count()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_cannot_help_is_not_tried_again() {
    for kind in [Kind::InvalidArgument, Kind::Authentication, Kind::Unsupported, Kind::TooLarge] {
        let inner = StandIn::new([], fails(kind));
        assert_eq!(retry(3, &inner).send(&seconds(9), message()).await.unwrap_err().kind(), kind);
        assert_eq!(inner.count(), 1, "{kind}");
        let any = wrap(json!({"type": "retry", "max_attempts": 3, "retry_on": "any"}), inner.clone());
        any.send(&seconds(9), message()).await.unwrap_err();
        assert_eq!(inner.count(), 1 + 3, "told otherwise: {kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_starts_after_the_failed_attempt() {
    let slow = after(400, fails(Kind::Unavailable));
    let inner = StandIn::new([slow.clone(), slow], Step::Sent);
    let config = json!({"type": "retry", "max_attempts": 3, "backoff": {"type": "fixed", "wait": "1s"}});
    wrap(config, inner.clone()).send(&seconds(60), message()).await.unwrap();
    assert_eq!(inner.times(), [0, 1400, 2800], "a slow send eats nothing of the wait");
}

#[tokio::test(start_paused = true)]
async fn a_drawn_wait_is_between_its_bounds() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let backoff = json!({"type": "random", "min": "1000ms", "max": "1500ms"});
    let config = json!({"type": "retry", "max_attempts": 50, "backoff": backoff});
    wrap(config, inner.clone()).send(&seconds(600), message()).await.unwrap_err();
    let times = inner.times();
    let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 49);
    assert!(waits.iter().all(|wait| (1000..=1501).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < 1150) && waits.iter().any(|wait| *wait > 1350), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_an_error_asks_for_is_kept() {
    let asks = Error::new(Kind::Throttled, "later").tried(1).after(Duration::from_secs(7));
    let inner = StandIn::new([Step::Fails(asks)], Step::Sent);
    let config = json!({"type": "retry", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "1s"}});
    wrap(config, inner.clone()).send(&seconds(60), message()).await.unwrap();
    assert_eq!(inner.times(), [0, 7000]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_past_the_deadline_is_not_begun() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let config = json!({"type": "retry", "max_attempts": 9, "backoff": {"type": "fixed", "wait": "4s"}});
    let started = Instant::now();
    let error = wrap(config, inner.clone()).send(&seconds(10), message()).await.unwrap_err();
    assert_eq!((inner.count(), started.elapsed().as_secs()), (3, 8), "no wait that cannot help");
    assert_eq!((error.kind(), error.attempts()), (Kind::Unavailable, 3));
    assert!(error.message().contains("deadline"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_between_attempts_it_ends_at_once() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let config = json!({"type": "retry", "max_attempts": 9, "backoff": {"type": "fixed", "wait": "4s"}});
    let producer = wrap(config, inner.clone());
    let token = tokio_util::sync::CancellationToken::new();
    let ctx = seconds(60).cancelled_by(token.clone());
    let send = tokio::spawn(async move { producer.send(&ctx, message()).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    token.cancel();
    let error = send.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), inner.count()), (Kind::Cancelled, 2));
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_it_goes_on_or_stops_as_told() {
    let inner = StandIn::new([unknown(Kind::Unavailable)], Step::Sent);
    retry(2, &inner).send(&seconds(9), message()).await.unwrap();
    let inner = StandIn::new([unknown(Kind::Unavailable)], Step::Sent);
    let config = json!({"type": "retry", "max_attempts": 2, "on_unknown": "stop"});
    let error = wrap(config, inner.clone()).send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.outcome(), inner.count()), (Outcome::Unknown, 1));
}

#[tokio::test(start_paused = true)]
async fn one_unknown_attempt_makes_the_whole_unknown() {
    let inner = StandIn::new([unknown(Kind::Unavailable)], fails(Kind::Unavailable));
    let error = retry(3, &inner).send(&seconds(9), message()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "the first may have arrived");
}

#[tokio::test(start_paused = true)]
async fn a_delay_counts_from_the_acceptance() {
    let inner = StandIn::new([fails(Kind::Unavailable), fails(Kind::Unavailable)], Step::Sent);
    let config = json!({"type": "retry", "max_attempts": 3, "backoff": {"type": "fixed", "wait": "4s"}});
    let delayed = Arc::new(Message::new("text").with_delay(Duration::from_secs(6)));
    wrap(config, inner.clone()).send(&seconds(60), delayed).await.unwrap();
    let delays: Vec<u64> = inner.messages().iter().map(|message| message.delay().as_secs()).collect();
    assert_eq!(delays, [6, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_bounds_the_share_of_retries() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let config = json!({"type": "retry", "max_attempts": 4, "budget": {"share": 0.1, "reserve": 5}});
    let producer = wrap(config, inner.clone());
    for _ in 0..1000 {
        producer.send(&seconds(9), message()).await.unwrap_err();
    }
    let retries = inner.count() - 1000;
    assert!((99..=105).contains(&retries), "{retries} retries for 1000 sends");
    let state = strategies(&producer).remove(0);
    assert_eq!(state["retries"], retries);
    assert!(state["refused_by_budget"].as_u64().unwrap() >= 890, "{state}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_longer_than_any_clock_is_not_begun() {
    for wait in [Duration::MAX, Duration::from_secs(10_u64.pow(19)), Duration::from_secs(367 * 86_400)] {
        let asks = Error::new(Kind::Throttled, "much later").tried(1).after(wait);
        let inner = StandIn::new([Step::Fails(asks)], Step::Sent);
        let error = retry(2, &inner).send(&Context::unbounded(), message()).await.unwrap_err();
        assert_eq!((error.kind(), inner.count()), (Kind::Throttled, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_while_it_waits_takes_nothing_of_the_budget() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let config = json!({"type": "retry", "max_attempts": 2, "budget": {"share": 0.001, "reserve": 1},
        "backoff": {"type": "fixed", "wait": "1s"}});
    let producer = wrap(config, inner.clone());
    let ctx = seconds(60);
    let dropped = tokio::time::timeout(Duration::from_millis(500), producer.send(&ctx, message())).await;
    assert!(dropped.is_err());
    assert_eq!((inner.count(), strategies(&producer)[0]["budget_left"].as_u64()), (1, Some(1)));
    producer.send(&ctx, message()).await.unwrap_err();
    assert_eq!(inner.count(), 3, "the one that was left was there for the next");
}

#[test]
fn what_cannot_be_is_refused_at_open() {
    assert!(refused(json!({"type": "retry", "max_attempts": 0})).contains("max_attempts"));
    assert!(refused(json!({"type": "retry", "max_attempts": 101})).contains("1 to 100"));
    assert!(refused(json!({"type": "retry"})).contains("max_attempts"));
    assert!(refused(json!({"type": "retry", "max_attempts": 2, "backof": {}})).contains("`backoff`"));
    assert!(refused(json!({"type": "retri", "max_attempts": 2})).contains("did you mean `retry`"));
    assert!(refused(json!({"max_attempts": 2})).contains("`type`"));
    let wrong = json!({"type": "exponential", "base": "2s", "max": "1s"});
    assert!(refused(json!({"type": "retry", "max_attempts": 2, "backoff": wrong})).contains("backoff.base"));
}
