//! Status, secrets, and opening against what is not there.

use std::time::Duration;

use ceiba_core::error::{Error, Kind, Outcome};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Harness, Verdict};
use crate::stage::{Stage, message, receive, seconds};
use crate::table::Trait;

fn check(status: &Value, secret: Option<&str>) {
    let object = status.as_object().unwrap_or_else(|| panic!("status is no object: {status}"));
    assert!(object.get("state").is_some_and(Value::is_string), "{status}");
    if let Some(secret) = secret {
        assert!(!status.to_string().contains(secret), "the secret is in the status");
    }
}

pub(crate) async fn status_is_json_without_the_secret(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let secret = stage.peer().secret().map(str::to_owned);
    let secret = secret.as_deref();
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    check(&producer.status(), secret);
    check(&consumer.status(), secret);
    producer.send(&seconds(10.0), message("x")).await.unwrap();
    receive(&consumer, 1, 10.0).await;
    check(&producer.status(), secret);
    check(&consumer.status(), secret);
    let refused = producer.control(&json!({"no such command": 1})).unwrap_err();
    let named = if stage.has(Trait::Strategies) { Kind::InvalidArgument } else { Kind::Unsupported };
    assert_eq!(refused.kind(), named);
    producer.close(&seconds(5.0)).await.unwrap();
    consumer.close(&seconds(5.0)).await.unwrap();
    check(&producer.status(), secret);
    check(&consumer.status(), secret);
    stage.end().await;
    Verdict::Held
}

// What opening says, or where nobody is asked then, the first send.
async fn refusals(stage: &Stage, keys: &Value) -> Vec<Error> {
    if stage.has(Trait::ConnectsForEach) {
        let producer = stage.try_producer(keys.clone()).await.unwrap();
        let error = producer.send(&seconds(3.0), message("of nobody")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        return vec![error];
    }
    stage.opens(keys).await.into_iter().map(|opened| opened.unwrap_err()).collect()
}

pub(crate) async fn a_wrong_secret_is_refused(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(right) = stage.peer().secret().map(str::to_owned) else {
        stage.end().await;
        return Verdict::Excluded(Trait::NoSecret);
    };
    let short: String = right.chars().skip(1).collect();
    for wrong in ["canary-wrong-7c1b", &short, &format!("{right}x"), "\u{1f333}"] {
        let keys = json!({"connect_timeout": "4s", "provider": stage.peer().with_secret(wrong)});
        let started = Instant::now();
        for error in refusals(&stage, &keys).await {
            assert_eq!(error.kind(), Kind::Authentication, "{error}");
            assert!(!error.retryable(), "{error}");
            for shown in [error.to_string(), format!("{error:?}"), error.text()] {
                assert!(!shown.contains(wrong) && !shown.contains(&right), "a secret is in {shown}");
            }
        }
        // It is told at once, not when the time for connecting is over.
        assert!(started.elapsed() < Duration::from_secs(4), "took {:?}", started.elapsed());
    }
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    producer.send(&seconds(10.0), message("x")).await.unwrap();
    receive(&consumer, 1, 10.0).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn nobody_at_the_address_fails_open(harness: &dyn Harness) -> Verdict {
    for silent in [false, true] {
        let Some(stage) = Stage::failing(harness).await else {
            return Verdict::Excluded(Trait::NoConnection);
        };
        if silent {
            stage.line().silence();
        } else {
            stage.line().cut().await;
        }
        let keys = json!({"connect_timeout": "1s"});
        let started = Instant::now();
        let results = stage.opens(&keys).await;
        let took = started.elapsed();
        for result in results {
            if silent && stage.has(Trait::ConnectsForEach) {
                // Somebody took the connection, and more is not asked.
                result.unwrap();
                continue;
            }
            let error = result.unwrap_err();
            assert!(matches!(error.kind(), Kind::Unavailable | Kind::Timeout), "{error}");
            assert!(error.retryable(), "{error}");
        }
        assert!(took < Duration::from_secs(5), "two opens of 1 s each took {took:?}");
        stage.line().mend().await;
        stage.try_producer(json!({})).await.unwrap();
        stage.end().await;
    }
    Verdict::Held
}

pub(crate) async fn lazy_open_returns_at_once(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else { return Verdict::Excluded(Trait::NoConnection) };
    stage.line().cut().await;
    let started = Instant::now();
    let producer = stage.try_producer(json!({"connect": "lazy"})).await.unwrap();
    let consumer = stage.try_consumer(json!({"connect": "lazy"})).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    check(&producer.status(), None);
    check(&consumer.status(), None);
    tokio::time::sleep(Duration::from_millis(400)).await;
    stage.line().mend().await;
    producer.send(&seconds(20.0), message("x")).await.unwrap();
    receive(&consumer, 1, 20.0).await;
    stage.end().await;
    Verdict::Held
}
