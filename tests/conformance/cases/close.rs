//! Closing while calls are under way: each call has its one result, nothing hangs, nothing accepted is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::Consumer;
use ceiba_core::error::{Kind, Outcome, Result};
use ceiba_core::message::Receipt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Harness, Verdict};
use crate::stage::{Stage, Submitter, message, pending, receive, rest, seconds, shown, text, until};
use crate::table::Trait;

/// How much later than its bound a call may end on a loaded machine.
const GRACE: Duration = Duration::from_secs(2);

// Holds what senders were told against what comes: a message for each receipt, and then silence.
async fn compare(told: &[(String, Result<Receipt>)], consumer: &Arc<dyn Consumer>) {
    let receipts = told.iter().filter(|(_, result)| result.is_ok()).count();
    let mut came: Vec<String> =
        receive(consumer, receipts, 30.0).await.iter().map(|(_, delivery)| text(delivery)).collect();
    came.extend(rest(consumer, 0.5).await.iter().map(text));
    let distinct: HashSet<&String> = came.iter().collect();
    assert_eq!(distinct.len(), came.len(), "a message came twice");
    for (body, result) in told {
        match result {
            Ok(_) => assert!(distinct.contains(body), "{body} has a receipt and never came"),
            Err(error) if error.outcome() == Outcome::NotSent => {
                assert!(!distinct.contains(body), "{body} was not sent ({error}), and came");
            }
            Err(_) => {}
        }
    }
}

pub(crate) async fn close_during_sends(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let each = stage.most(usize::MAX) / 32;
    let senders: Vec<_> = (0..stage.most(32))
        .map(|sender| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let mut told = Vec::new();
                for number in 0..each.max(1) {
                    let body = format!("{sender}-{number}");
                    let result = producer.send(&seconds(20.0), message(body.clone())).await;
                    let refused = result.is_err();
                    told.push((body, result));
                    if refused {
                        break;
                    }
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let started = Instant::now();
    // With this much time all that was taken is sent: none has to be ended.
    producer.close(&seconds(10.0)).await.unwrap();
    let mut told = Vec::new();
    for sender in senders {
        told.extend(tokio::time::timeout(GRACE, sender).await.expect("a send hangs after close").unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(10) + GRACE);
    for (body, result) in &told {
        if let Err(error) = result {
            let error = stage.cause(error.clone());
            assert_eq!(error.kind(), Kind::Closed, "{body}: {error}");
            assert_eq!(error.outcome(), Outcome::NotSent, "{body}: {error}");
        }
    }
    assert!(told.iter().any(|(_, result)| result.is_ok()));
    compare(&told, &consumer).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn close_during_receives(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let consumer = stage.consumer().await;
    let receivers: Vec<_> = (0..8)
        .map(|_| {
            let consumer = consumer.clone();
            tokio::spawn(async move { consumer.receive(&seconds(60.0), 1).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    consumer.close(&seconds(5.0)).await.unwrap();
    for receiver in receivers {
        let result =
            tokio::time::timeout(GRACE, receiver).await.expect("a receive hangs after close").unwrap();
        assert_eq!(result.unwrap_err().kind(), Kind::Closed);
    }
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn close_during_submits(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let all = stage.most(20_000) as u64;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let mut submitter = Submitter::new(&producer, all as usize);
    let (intake, closed) = (submitter.intake.clone(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let begun = closed.clone();
    let submits = tokio::task::spawn_blocking(move || {
        let mut accepted = Vec::new();
        for token in 0..all {
            if token == all / 10 {
                begun.notify_one();
            }
            match intake.submit(token, format!("{token}").as_bytes(), Duration::ZERO) {
                Ok(()) => accepted.push(token),
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Closed | Kind::QueueFull), "{error}");
                    assert_eq!(error.outcome(), Outcome::NotSent);
                }
            }
        }
        accepted
    });
    closed.notified().await;
    // Each of them is a request where there is one connection: many seconds on a loaded machine.
    submitter.close(&producer, &seconds(120.0)).await.unwrap();
    let accepted = submits.await.unwrap();
    let mut completions = submitter.completions(accepted.len(), 20.0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut more = Vec::new();
    assert_eq!(submitter.queue.poll(usize::MAX, &mut more), 0, "more completions than accepted submits");
    assert!(submitter.queue.is_empty());
    let told: Vec<_> = accepted
        .iter()
        .map(|token| (token.to_string(), completions.remove(token).expect("no completion").result))
        .collect();
    compare(&told, &consumer).await;
    stage.end().await;
    Verdict::Held
}

/// The other side is gone: close ends what cannot be sent, by its own deadline.
pub(crate) async fn close_during_an_outage(harness: &dyn Harness) -> Verdict {
    for silent in [false, true] {
        let Some(stage) = Stage::failing(harness).await else {
            return Verdict::Excluded(Trait::NoConnection);
        };
        let (consumer, producer) = (stage.consumer().await, stage.producer().await);
        if silent {
            stage.line().silence();
        } else {
            stage.line().cut().await;
            stage.lost(&producer).await;
        }
        let sends: Vec<_> = (0..20)
            .map(|number| {
                let producer = producer.clone();
                tokio::spawn(async move { producer.send(&seconds(60.0), message(format!("{number}"))).await })
            })
            .collect();
        let receive = tokio::spawn({
            let consumer = consumer.clone();
            async move { consumer.receive(&seconds(60.0), 1).await }
        });
        let ahead = if silent { stage.peer().written_ahead().min(20) } else { 0 };
        let ahead_shown = ahead as u64;
        if ahead > 0 && stage.has(Trait::ConnectsForEach) {
            until("the writes", || stage.line().swallowing() == ahead_shown).await;
        } else if ahead > 0 {
            until("the writes", || shown(&producer, "unacked") == ahead_shown).await;
        }
        if ahead < 20 {
            until("the calls", || shown(&producer, "pending") + ahead_shown >= 20).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        let ctx = seconds(0.5);
        let (ended, received) = tokio::join!(producer.close(&ctx), consumer.close(&ctx));
        assert!(started.elapsed() < Duration::from_millis(500) + GRACE, "close took {:?}", started.elapsed());
        assert_eq!(ended.unwrap_err().kind(), Kind::Timeout, "sends had to be ended");
        // Whether it could say good-bye is its own affair; that it returned is ours.
        let _ = received;
        let mut written = 0;
        for send in join_all(sends).await {
            let error = stage.cause(send.unwrap().unwrap_err());
            assert_eq!(error.kind(), Kind::Closed, "{error}");
            let unknown = error.outcome() == Outcome::Unknown;
            // A try to connect is an attempt of which nothing was written.
            let tried = error.attempts() > 0 && (unknown || !stage.has(Trait::ConnectsForEach));
            assert_eq!(unknown, tried, "{error}");
            written += usize::from(unknown);
        }
        assert_eq!(written, ahead);
        let result =
            tokio::time::timeout(GRACE, receive).await.expect("a receive hangs after close").unwrap();
        assert_eq!(result.unwrap_err().kind(), Kind::Closed);
        stage.end().await;
    }
    Verdict::Held
}

/// Closed before it ever had a connection.
pub(crate) async fn close_while_connecting(harness: &dyn Harness) -> Verdict {
    for silent in [false, true] {
        let Some(stage) = Stage::failing(harness).await else {
            return Verdict::Excluded(Trait::NoConnection);
        };
        if silent {
            stage.line().silence();
        } else {
            stage.line().cut().await;
        }
        let producer = stage.try_producer(json!({"connect": "lazy"})).await.unwrap();
        let consumer = stage.try_consumer(json!({"connect": "lazy"})).await.unwrap();
        let send = tokio::spawn({
            let producer = producer.clone();
            async move { producer.send(&seconds(60.0), message("never")).await }
        });
        pending(&producer, 1).await;
        if silent && stage.has(Trait::ConnectsForEach) {
            until("the write", || stage.line().swallowing() == 1).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let started = Instant::now();
        let ctx = seconds(0.5);
        let (ended, received) = tokio::join!(producer.close(&ctx), consumer.close(&ctx));
        assert!(started.elapsed() < Duration::from_millis(500) + GRACE, "close took {:?}", started.elapsed());
        assert_eq!(ended.unwrap_err().kind(), Kind::Timeout, "a send had to be ended");
        received.unwrap();
        let error =
            tokio::time::timeout(GRACE, send).await.expect("a send hangs after close").unwrap().unwrap_err();
        let error = stage.cause(error);
        let written = silent && stage.has(Trait::ConnectsForEach);
        let outcome = if written { Outcome::Unknown } else { Outcome::NotSent };
        assert_eq!((error.kind(), error.outcome()), (Kind::Closed, outcome), "{error}");
        stage.end().await;
    }
    Verdict::Held
}

pub(crate) async fn use_after_close(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    producer.send(&seconds(10.0), message("held")).await.unwrap();
    let held = consumer.receive(&seconds(10.0), 1).await.unwrap();
    let codes: Vec<Arc<str>> = held.iter().map(|delivery| delivery.code.clone()).collect();
    consumer.close(&seconds(5.0)).await.unwrap();
    producer.close(&seconds(5.0)).await.unwrap();

    let error = stage.cause(producer.send(&seconds(5.0), message("late")).await.unwrap_err());
    assert_eq!((error.kind(), error.outcome()), (Kind::Closed, Outcome::NotSent), "{error}");
    let batch = producer.send_batch(&seconds(5.0), vec![message("a"), message("b")]).await;
    assert_eq!(batch.len(), 2);
    for result in batch {
        assert_eq!(stage.cause(result.unwrap_err()).kind(), Kind::Closed);
    }
    assert_eq!(consumer.receive(&seconds(5.0), 1).await.unwrap_err().kind(), Kind::Closed);
    if consumer.capability().ack {
        for result in consumer.ack(&seconds(5.0), codes.clone()).await {
            assert_eq!(result.unwrap_err().kind(), Kind::Closed);
        }
    }
    for result in consumer.nack(&seconds(5.0), codes, Duration::ZERO).await {
        assert!(matches!(result.unwrap_err().kind(), Kind::Closed | Kind::Unsupported));
    }
    // Neither a second close nor a flush hangs or breaks anything, whatever it returns.
    let started = Instant::now();
    for result in [
        producer.close(&seconds(2.0)).await,
        consumer.close(&seconds(2.0)).await,
        producer.flush(&seconds(2.0)).await,
    ] {
        assert!(
            result.is_ok() || result.as_ref().is_err_and(|error| error.kind() == Kind::Closed),
            "{result:?}"
        );
    }
    assert!(started.elapsed() < GRACE);
    assert!(producer.status().is_object() && consumer.status().is_object());
    stage.end().await;
    Verdict::Held
}
