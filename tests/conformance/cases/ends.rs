//! Deadlines and cancellation, with the other side silent, away or well: the outcome says what may have happened.

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{Context, Producer};
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::message::Receipt;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Verdict};
use crate::stage::{Stage, Submitter, message, nothing_comes, pending, receive, seconds, text, until};
use crate::table::Trait;

/// How much later than its deadline a call may end on a loaded machine.
const GRACE: Duration = Duration::from_secs(3);

fn send(producer: &Arc<dyn Producer>, ctx: Context, body: &'static str) -> JoinHandle<Result<Receipt>> {
    let producer = producer.clone();
    tokio::spawn(async move { producer.send(&ctx, message(body)).await })
}

// An error says whose it is; of a stack of strategies also that of the producer below.
fn names(harness: &dyn Harness, error: &Error) {
    let names = [Some(harness.provider()), Some(harness.sender())];
    assert!(names.contains(&error.provider()), "{error:?}");
}

// The result of a call that must end by now.
async fn ended<T>(call: JoinHandle<T>, within: Duration) -> T {
    tokio::time::timeout(within, call).await.expect("the call hangs").unwrap()
}

pub(crate) async fn a_deadline_that_passed_sends_nothing(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let past = Context::until(Instant::now());
    let error = producer.send(&past, message("late")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error}");
    assert!(error.retryable());
    let batch = producer.send_batch(&past, vec![message("a"), message("b")]).await;
    assert_eq!(batch.len(), 2);
    for result in batch {
        assert_eq!(result.unwrap_err().kind(), Kind::Timeout);
    }
    assert!(consumer.receive(&past, 1).await.unwrap().is_empty());
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn receive_is_empty_at_its_deadline(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let consumer = stage.consumer().await;
    for wait in [0.05, 0.7] {
        let started = Instant::now();
        assert!(consumer.receive(&seconds(wait), 10).await.unwrap().is_empty());
        let (took, wait) = (started.elapsed(), Duration::from_secs_f64(wait));
        assert!(took >= wait && took < wait + GRACE, "a deadline of {wait:?} took {took:?}");
    }
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_silent_other_side_ends_in_timeout_and_unknown(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::silent(harness).await else { return Verdict::Excluded(Trait::NeverSilent) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    producer.send(&seconds(10.0), message("before")).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "before");
    stage.line().silence();
    let started = Instant::now();
    let error = producer.send(&seconds(0.5), message("into silence")).await.unwrap_err();
    let took = started.elapsed();
    let written = stage.peer().written_ahead() > 0;
    let outcome = if written { Outcome::Unknown } else { Outcome::NotSent };
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, outcome), "{error}");
    assert!(error.retryable());
    assert_eq!(error.attempts(), u32::from(written));
    names(harness, &error);
    assert!(took >= Duration::from_millis(490) && took < Duration::from_millis(500) + GRACE, "took {took:?}");
    // A consumer that hears nothing is no error: it has nothing at its deadline.
    assert!(consumer.receive(&seconds(0.3), 1).await.unwrap().is_empty());
    stage.end().await;
    if written { Verdict::Held } else { Verdict::Excluded(Trait::AsksFirst) }
}

pub(crate) async fn an_absent_other_side_ends_in_not_sent(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else { return Verdict::Excluded(Trait::NoConnection) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    stage.line().cut().await;
    stage.lost(&producer).await;
    let started = Instant::now();
    let error = producer.send(&seconds(0.5), message("to nobody")).await.unwrap_err();
    let took = started.elapsed();
    assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
    assert!(matches!(error.kind(), Kind::Timeout | Kind::Unavailable), "{error}");
    assert!(error.retryable());
    assert_eq!(error.attempts(), u32::from(stage.has(Trait::ConnectsForEach)), "{error}");
    names(harness, &error);
    assert!(took < Duration::from_millis(500) + GRACE, "took {took:?}");
    assert!(consumer.receive(&seconds(0.3), 1).await.unwrap().is_empty());
    // What was told to be not sent is not sent later.
    stage.line().mend().await;
    producer.send(&seconds(20.0), message("after")).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 20.0).await[0].1), "after");
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn when_disconnected_fail_fails_at_once(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else { return Verdict::Excluded(Trait::NoConnection) };
    let producer = stage.try_producer(json!({"when_disconnected": "fail"})).await.unwrap();
    producer.send(&seconds(10.0), message("before")).await.unwrap();
    stage.line().cut().await;
    stage.lost(&producer).await;
    let started = Instant::now();
    let error = stage.cause(producer.send(&seconds(20.0), message("to nobody")).await.unwrap_err());
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent), "{error}");
    assert!(started.elapsed() < GRACE, "took {:?}", started.elapsed());
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_send_waits_for_the_reconnect(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else { return Verdict::Excluded(Trait::NoConnection) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    stage.line().cut().await;
    stage.lost(&producer).await;
    let waiting = send(&producer, seconds(30.0), "waited");
    pending(&producer, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    stage.line().mend().await;
    let receipt = ended(waiting, Duration::from_secs(20)).await.unwrap();
    assert_eq!(receipt.attempts, 1, "it was written once");
    assert_eq!(text(&receive(&consumer, 1, 20.0).await[0].1), "waited");
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn cancelled_before_it_is_written_is_not_sent(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else {
        // Without a connection there is only: cancelled before the call.
        let stage = Stage::plain(harness).await;
        let (consumer, producer) = (stage.consumer().await, stage.producer().await);
        let token = CancellationToken::new();
        token.cancel();
        let error = producer.send(&seconds(10.0).cancelled_by(token), message("no")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::NotSent), "{error}");
        nothing_comes(&consumer, 0.3).await;
        stage.end().await;
        return Verdict::Held;
    };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let token = CancellationToken::new();
    token.cancel();
    let error = producer.send(&seconds(10.0).cancelled_by(token), message("no")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::NotSent), "{error}");

    stage.line().cut().await;
    stage.lost(&producer).await;
    let token = CancellationToken::new();
    let waiting = send(&producer, seconds(30.0).cancelled_by(token.clone()), "cancelled");
    let submitter = Submitter::new(&producer, 16);
    submitter.intake.submit(1, b"cancelled too", Duration::ZERO).unwrap();
    submitter.intake.submit(2, b"waits", Duration::ZERO).unwrap();
    pending(&producer, 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    token.cancel();
    submitter.intake.cancel(ceiba_core::intake::Ticket::Token(1));
    let error = ended(waiting, GRACE).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::NotSent), "{error}");
    let error = submitter.completions(1, 20.0).await.remove(&1).expect("token 1").result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::NotSent), "{error}");
    stage.line().mend().await;
    submitter.completions(1, 20.0).await.remove(&2).expect("token 2").result.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 20.0).await[0].1), "waits");
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn cancelled_after_it_was_written_is_unknown(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::silent(harness).await else { return Verdict::Excluded(Trait::NeverSilent) };
    let producer = stage.producer().await;
    stage.line().silence();
    let token = CancellationToken::new();
    let written = send(&producer, seconds(30.0).cancelled_by(token.clone()), "written");
    until("the write", || stage.line().swallowing() > 0).await;
    token.cancel();
    let error = ended(written, GRACE).await.unwrap_err();
    let written = stage.peer().written_ahead() > 0;
    let outcome = if written { Outcome::Unknown } else { Outcome::NotSent };
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, outcome), "{error}");
    assert_eq!((error.attempts(), error.retryable()), (u32::from(written), false));
    stage.end().await;
    if written { Verdict::Held } else { Verdict::Excluded(Trait::AsksFirst) }
}

pub(crate) async fn cancelling_a_receive(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let token = CancellationToken::new();
    let waiting = tokio::spawn({
        let (consumer, ctx) = (consumer.clone(), seconds(60.0).cancelled_by(token.clone()));
        async move { consumer.receive(&ctx, 1).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    token.cancel();
    assert_eq!(ended(waiting, GRACE).await.unwrap_err().kind(), Kind::Cancelled);
    // A receive that is dropped takes nothing with it.
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(1), consumer.receive(&seconds(60.0), 1)).await;
    }
    for number in 0..20 {
        producer.send(&seconds(10.0), message(format!("{number}"))).await.unwrap();
    }
    assert_eq!(receive(&consumer, 20, 10.0).await.len(), 20);
    stage.end().await;
    Verdict::Held
}

// Of two members each holds four; the ninth finds out at once that there is no room.
async fn full_members(stage: Stage) -> Verdict {
    let consumer = stage.consumer().await;
    let producer = stage.try_producer(json!({"max_pending": 4})).await.unwrap();
    stage.line().cut().await;
    stage.lost(&producer).await;
    let mut held = Vec::new();
    for count in 1..=8 {
        held.push(send(&producer, seconds(30.0), "held"));
        pending(&producer, count).await;
    }
    let started = Instant::now();
    let error = producer.send(&seconds(30.0), message("no room")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::AllFailed, Outcome::NotSent), "{error}");
    assert!(error.retryable());
    assert_eq!(stage.cause(error).kind(), Kind::QueueFull);
    assert!(started.elapsed() < GRACE, "it waited for {:?}", started.elapsed());
    assert!(held.iter().all(|call| !call.is_finished()));
    stage.line().mend().await;
    for call in held {
        ended(call, Duration::from_secs(25)).await.unwrap();
    }
    receive(&consumer, 8, 20.0).await;
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Excluded(Trait::BoundedByItsMembers)
}

pub(crate) async fn a_full_producer_gives_back_pressure(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::failing(harness).await else { return Verdict::Excluded(Trait::NoConnection) };
    if stage.has(Trait::BoundedByItsMembers) {
        return full_members(stage).await;
    }
    let consumer = stage.consumer().await;
    let producer = stage.try_producer(json!({"max_pending": 4})).await.unwrap();
    stage.line().cut().await;
    stage.lost(&producer).await;
    let held: Vec<_> = (0..4).map(|_| send(&producer, seconds(30.0), "held")).collect();
    pending(&producer, 4).await;
    let started = Instant::now();
    let error = producer.send(&seconds(0.5), message("no room")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(490), "refused before its deadline");
    let waits = send(&producer, seconds(30.0), "held");
    stage.line().mend().await;
    for call in held.into_iter().chain([waits]) {
        ended(call, Duration::from_secs(25)).await.unwrap();
    }
    // The consumer, which has its own waits between tries, may reconnect later than the producer.
    receive(&consumer, 5, 20.0).await;
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn flush_honours_its_deadline(harness: &dyn Harness) -> Verdict {
    let Some(stage) = Stage::silent(harness).await else { return Verdict::Excluded(Trait::NeverSilent) };
    let producer = stage.producer().await;
    stage.line().silence();
    let call = send(&producer, seconds(1.5), "into silence");
    until("the write", || stage.line().swallowing() > 0).await;
    let started = Instant::now();
    let error = producer.flush(&seconds(0.5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(started.elapsed() < Duration::from_millis(500) + GRACE);
    // The send it waited for has its own end, and then there is nothing left to wait for.
    ended(call, Duration::from_millis(1500) + GRACE).await.unwrap_err();
    producer.flush(&seconds(5.0)).await.unwrap();
    stage.end().await;
    Verdict::Held
}
