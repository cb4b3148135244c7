use super::*;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

const WINDOW: &str = r#"{"type": "rate_limit", "limiter": "sliding_window", "rate": 3, "per": "1s"}"#;

fn with(base: &str, more: Value) -> Value {
    let mut config: Value = serde_json::from_str(base).unwrap();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn waiting(limiter: &str, more: Value) -> Value {
    let base = json!({"type": "rate_limit", "limiter": limiter, "when_limited": "wait"}).to_string();
    with(&base, more)
}

/// Sends so many at once and waits for all.
async fn crowd(producer: &Arc<dyn Producer>, number: usize, ctx: &Context) -> Vec<Result<Receipt>> {
    let sends = (0..number).map(|n| producer.send(ctx, Arc::new(Message::new(Bytes::from(n.to_string())))));
    futures_util::future::join_all(sends).await
}

fn bodies(inner: &StandIn) -> Vec<String> {
    inner.messages().iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn over_the_rate_it_fails_at_once_with_the_time_to_wait() {
    let inner = StandIn::good();
    let producer = wrap(with(WINDOW, json!({})), inner.clone());
    for pause in [100, 200, 300] {
        producer.send(&seconds(9), message()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.retryable()), (Kind::Limited, Outcome::NotSent, true));
    assert_eq!(error.retry_after(), Some(Duration::from_millis(400)));
    assert_eq!((error.provider(), error.attempts(), inner.count()), (Some("script"), 0, 3));
    tokio::time::sleep(Duration::from_millis(400)).await;
    producer.send(&seconds(9), message()).await.unwrap();
    let state = &strategies(&producer)[0];
    assert_eq!(state["granted"], 4);
    assert_eq!((state["limited"].clone(), state["used"].clone()), (json!(1), json!(3)));
    assert_eq!((state["rate"].clone(), state["per_ms"].clone()), (json!(3), json!(1000)));
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_go_in_their_order_each_at_its_time() {
    let slow = || StandIn::new([], after(100, Step::Sent));
    for (config, times) in [
        (waiting("sliding_window", json!({"rate": 3, "per": "1s"})), vec![0, 0, 0, 1000, 1000, 1000, 2000]),
        (waiting("fixed_window", json!({"rate": 2, "per": "500ms"})), vec![0, 0, 500, 500, 1000, 1000, 1500]),
        (waiting("token_bucket", json!({"rate": 2, "per": "1s"})), vec![0, 0, 500, 1000, 1500, 2000, 2500]),
        (
            waiting("token_bucket", json!({"rate": 2, "per": "1s", "burst": 4})),
            vec![0, 0, 0, 0, 500, 1000, 1500],
        ),
        (waiting("leaky_bucket", json!({"rate": 4, "per": "1s"})), vec![0, 250, 500, 750, 1000, 1250, 1500]),
        (waiting("concurrent", json!({"rate": 2})), vec![0, 0, 100, 100, 200, 200, 300]),
    ] {
        let inner = slow();
        let producer = wrap(config.clone(), inner.clone());
        let sent = crowd(&producer, 7, &seconds(60)).await;
        assert!(sent.iter().all(Result::is_ok), "{config}: {sent:?}");
        // The timer is as fine as a millisecond, and never early.
        let late: Vec<u64> = inner.times().iter().zip(&times).map(|(is, should)| is - should).collect();
        assert!(late.iter().all(|late| *late <= 7), "{config}: {:?}", inner.times());
        assert_eq!(bodies(&inner), ["0", "1", "2", "3", "4", "5", "6"], "{config}");
        assert_eq!(strategies(&producer)[0]["waiting"], 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_pass_the_deadline_is_refused_at_once_also_behind_others() {
    for (config, allowed) in [
        (waiting("sliding_window", json!({"rate": 2, "per": "1s"})), 6),
        (waiting("fixed_window", json!({"rate": 2, "per": "1s"})), 6),
        (waiting("token_bucket", json!({"rate": 2, "per": "1s"})), 6),
        (waiting("leaky_bucket", json!({"rate": 2, "per": "1s"})), 5),
    ] {
        let inner = StandIn::good();
        let producer = wrap(config.clone(), inner.clone());
        let started = Instant::now();
        let ends = futures_util::future::join_all((0..10).map(|_| async {
            let ended = producer.send(&Context::within(Duration::from_millis(2300)), message()).await;
            (started.elapsed(), ended)
        }))
        .await;
        assert_eq!(inner.count(), allowed, "{config}: {:?}", inner.times());
        for (took, ended) in ends {
            if let Err(error) = ended {
                assert_eq!((error.kind(), took), (Kind::Limited, Duration::ZERO), "{config}");
                assert!(error.retry_after().unwrap() >= Duration::from_millis(2300), "{error:?}");
            }
        }
        assert_eq!(strategies(&producer)[0]["limited"], 10 - allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_knows_when_a_slot_is_free_so_it_is_waited_for_till_the_deadline() {
    let inner = StandIn::new([], after(5000, Step::Sent));
    let producer = wrap(waiting("concurrent", json!({"rate": 1})), inner.clone());
    let started = Instant::now();
    let (long, short) = (seconds(60), seconds(2));
    let (sent, limited) = tokio::join!(producer.send(&long, message()), async {
        let ended = producer.send(&short, message()).await;
        (ended, started.elapsed())
    });
    sent.unwrap();
    let error = limited.0.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), limited.1.as_secs()), (Kind::Limited, Outcome::NotSent, 2));
    producer.send(&seconds(60), message()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_are_under_way() {
    let inner = StandIn::new([], after(70, Step::Sent));
    let producer = wrap(waiting("concurrent", json!({"rate": 5})), inner.clone());
    crowd(&producer, 200, &seconds(600)).await;
    assert_eq!((inner.count(), inner.most_under_way.load(Ordering::SeqCst)), (200, 5));
    let failing = wrap(json!({"type": "rate_limit", "limiter": "concurrent", "rate": 5}), inner.clone());
    let sent = crowd(&failing, 200, &seconds(600)).await;
    assert_eq!(sent.iter().filter(|sent| sent.is_ok()).count(), 5);
    let error = sent.into_iter().find_map(Result::err).unwrap();
    assert_eq!((error.kind(), error.retry_after()), (Kind::Limited, None));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_ends_as_cancelled_and_the_next_has_its_turn() {
    for limiter in ["sliding_window", "fixed_window", "token_bucket", "leaky_bucket"] {
        let inner = StandIn::good();
        let producer = wrap(waiting(limiter, json!({"rate": 1, "per": "1s"})), inner.clone());
        producer.send(&seconds(9), message()).await.unwrap();
        let token = CancellationToken::new();
        let (head, next) = (seconds(60).cancelled_by(token.clone()), seconds(60));
        let (cancelled, sent, ()) =
            tokio::join!(producer.send(&head, message()), producer.send(&next, message()), async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                token.cancel();
            });
        assert_eq!(cancelled.unwrap_err().kind(), Kind::Cancelled, "{limiter}");
        sent.unwrap();
        assert!(
            inner.times()[1] <= 1001,
            "{limiter}: the place of the one that left is taken: {:?}",
            inner.times()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_loses_no_token_and_no_slot() {
    for (limiter, settings) in [
        ("sliding_window", json!({"rate": 2, "per": "1s"})),
        ("fixed_window", json!({"rate": 2, "per": "1s"})),
        ("token_bucket", json!({"rate": 2, "per": "1s"})),
        ("leaky_bucket", json!({"rate": 2, "per": "1s"})),
        ("concurrent", json!({"rate": 2})),
    ] {
        // Which of four waiters is dropped, and after how many polls.
        for (victim, polls) in (0..4).flat_map(|victim| (0..80).map(move |polls| (victim, polls))) {
            let inner = StandIn::new([], after(150, Step::Sent));
            let producer = wrap(waiting(limiter, settings.clone()), inner.clone());
            let ctx = seconds(600);
            let mut sends: Vec<_> = (0..4).map(|_| Some(producer.send(&ctx, message()))).collect();
            let mut dropped = false;
            for round in 0..500 {
                if round == polls {
                    dropped = sends[victim].take().is_some();
                }
                for place in &mut sends {
                    let Some(send) = place else { continue };
                    let done =
                        std::future::poll_fn(|cx| std::task::Poll::Ready(send.as_mut().poll(cx))).await;
                    if done.is_ready() {
                        *place = None;
                    }
                }
                if round > polls && sends.iter().all(Option::is_none) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let context = format!("{limiter}, {victim} dropped: {dropped} after {polls}");
            assert!(sends.iter().all(Option::is_none), "{context}: some never ended");
            assert_eq!(strategies(&producer)[0]["waiting"], 0, "{context}");
            assert_eq!(inner.under_way.load(Ordering::SeqCst), 0, "{context}");
            // Nobody took one who did not send.
            assert_eq!(strategies(&producer)[0]["granted"], inner.count(), "{context}");
            // All that there is can be had again.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let before = inner.count();
            crowd(&producer, 2, &Context::within(Duration::from_millis(900))).await;
            assert_eq!(inner.count(), before + 2, "{context}");
        }
    }
}

/// Nothing listens there, and the clock is the real one because the connection is.
#[cfg(feature = "redis")]
#[tokio::test]
async fn with_open_there_is_no_limit_of_slots_while_redis_is_away() {
    for (on_failure, at_once) in [("open", 8), ("local", 2)] {
        for when_limited in ["fail", "wait"] {
            let inner = StandIn::new([], after(200, Step::Sent));
            let config = json!({"type": "rate_limit", "limiter": "concurrent", "rate": 2, "when_limited": when_limited,
                "url": "redis://127.0.0.1:1", "on_failure": on_failure, "store_timeout": "5s"});
            let producer = wrap(config, inner.clone());
            // Until it is known to be away.
            while strategies(&producer)[0]["store"]["state"] != "down" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let ends = crowd(&producer, 8, &seconds(20)).await;
            let sent = ends.iter().filter(|end| end.is_ok()).count();
            let most = inner.most_under_way.load(Ordering::SeqCst);
            assert_eq!(most, at_once, "{on_failure}, {when_limited}");
            assert_eq!(
                sent,
                if when_limited == "wait" { 8 } else { at_once },
                "{on_failure}, {when_limited}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_counts_while_a_send_waits_in_line() {
    for (limiter, settings) in
        [("sliding_window", json!({"rate": 1, "per": "2s"})), ("concurrent", json!({"rate": 1}))]
    {
        let inner = StandIn::new([], after(2000, Step::Sent));
        let producer = wrap(waiting(limiter, settings), inner.clone());
        let delayed = || Arc::new(Message::new("x").with_delay(Duration::from_secs(3)));
        let ctx = seconds(60);
        let sends = (0..3).map(|_| producer.send(&ctx, delayed()));
        assert!(futures_util::future::join_all(sends).await.iter().all(Result::is_ok));
        let delays: Vec<u64> =
            inner.messages().iter().map(|message| message.delay().as_millis() as u64).collect();
        assert_eq!(delays[0], 3000);
        assert!((995..=1000).contains(&delays[1]) && delays[2] == 0, "{limiter}: {delays:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_the_line() {
    let key = json!({"key": "nobody_overtakes", "rate": 1, "per": "1s"});
    let inner = StandIn::good();
    let patient = wrap(waiting("sliding_window", key.clone()), inner.clone());
    let hasty = wrap(with(WINDOW, key), inner.clone());
    patient.send(&seconds(9), message()).await.unwrap();
    let ctx = seconds(60);
    let (sent, ()) = tokio::join!(patient.send(&ctx, message()), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        for _ in 0..99 {
            let error = hasty.send(&seconds(9), message()).await.unwrap_err();
            // Behind the one that waits.
            assert!(error.retry_after().unwrap() >= Duration::from_secs(1), "{error:?}");
            tokio::time::sleep(Duration::from_millis(9)).await;
        }
    });
    sent.unwrap();
    assert!(inner.times()[1] <= 1001);
}

#[tokio::test(start_paused = true)]
async fn one_key_is_one_limit_with_one_setting() {
    let inner = StandIn::good();
    let key = json!({"key": "one_key"});
    let one = wrap(with(WINDOW, key.clone()), inner.clone());
    let other = wrap(with(WINDOW, key.clone()), inner.clone());
    let alone = wrap(with(WINDOW, json!({})), inner.clone());
    one.send(&seconds(9), message()).await.unwrap();
    other.send(&seconds(9), message()).await.unwrap();
    one.send(&seconds(9), message()).await.unwrap();
    assert_eq!(other.send(&seconds(9), message()).await.unwrap_err().kind(), Kind::Limited);
    alone.send(&seconds(9), message()).await.unwrap();
    assert_eq!(strategies(&one)[0]["key"], "one_key");

    for more in [json!({"rate": 4}), json!({"per": "2s"}), json!({"limiter": "fixed_window"})] {
        let mut more = more;
        more.as_object_mut().unwrap().insert("key".into(), json!("one_key"));
        let section = section(with(WINDOW, more.clone()));
        let error = section.wrap(&setup("rate_limit"), inner.clone()).err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(error.message().contains("`key`"), "{more}: {error}");
    }
    // How a client waits is its own affair.
    wrap(with(WINDOW, json!({"key": "one_key", "when_limited": "wait"})), inner.clone());
    drop((one, other));
    wrap(with(WINDOW, json!({"key": "one_key", "rate": 4})), inner);
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_takes_nothing() {
    for limiter in ["sliding_window", "token_bucket", "leaky_bucket", "fixed_window"] {
        let inner = StandIn::good();
        let producer = wrap(waiting(limiter, json!({"rate": 1, "per": "1h"})), inner.clone());
        let error = producer.send(&Context::within(Duration::ZERO), message()).await.unwrap_err();
        assert_eq!((error.kind(), inner.count()), (Kind::Timeout, 0), "{limiter}");
        producer.send(&seconds(1), message()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_around_it_waits_as_long_as_it_says() {
    let inner = StandIn::good();
    let limited = wrap(with(WINDOW, json!({"rate": 1})), inner.clone());
    let producer = wrap(json!({"type": "retry", "max_attempts": 2}), limited);
    producer.send(&seconds(9), message()).await.unwrap();
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!(inner.count(), 2);
    assert!((1000..=1002).contains(&inner.times()[1]), "{:?}", inner.times());
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_whoever_comes() {
    let inner = StandIn::good();
    let producer = wrap(waiting("concurrent", json!({"rate": 1})), StandIn::new([], Step::Hangs));
    let ctx = seconds(600);
    let mut sends: Vec<_> = (0..65_537).map(|_| producer.send(&ctx, message())).collect();
    for send in &mut sends {
        let ended = std::future::poll_fn(|cx| std::task::Poll::Ready(send.as_mut().poll(cx))).await;
        assert!(ended.is_pending());
    }
    let error = producer.send(&ctx, message()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limited);
    drop(sends);
    assert_eq!((strategies(&producer)[0]["waiting"].clone(), inner.count()), (json!(0), 0));
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refused(with(WINDOW, json!({"rate": 0}))).contains("`rate`"));
    assert!(refused(with(WINDOW, json!({"raet": 1}))).contains("`rate`"));
    assert!(refused(with(WINDOW, json!({"limiter": "token_bucket", "url": "redis://h"}))).contains("`url`"));
}
