//! Receiving: redelivery, nack, several consumers, acks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ceiba_core::client::Consumer;
use ceiba_core::error::Kind;
use ceiba_core::message::Delivery;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::harness::{Harness, Needs, Verdict};
use crate::stage::{Stage, acknowledge, message, nothing_comes, receive, seconds, text};
use crate::table::Trait;

fn codes(deliveries: &[Delivery]) -> Vec<Arc<str>> {
    deliveries.iter().map(|delivery| delivery.code.clone()).collect()
}

pub(crate) async fn what_is_not_acknowledged_comes_again(harness: &dyn Harness) -> Verdict {
    let after = Duration::from_secs(3);
    let stage = Stage::start(harness, Needs { redeliver_after: after, ..Needs::default() }).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let capability = consumer.capability();
    let before = Instant::now();
    producer.send(&seconds(10.0), message("again")).await.unwrap();
    let mut times = Vec::new();
    for attempt in 1..=3 {
        // What never comes again is not waited for as long as what does.
        let within = if attempt == 1 || capability.redelivery { 10.0 } else { 5.0 };
        let deliveries = consumer.receive(&seconds(within), 10).await.unwrap();
        if attempt > 1 && !capability.redelivery {
            assert!(deliveries.is_empty());
            stage.end().await;
            return Verdict::Excluded(Trait::NoAcks);
        }
        assert_eq!(deliveries.iter().map(text).collect::<Vec<_>>(), ["again"], "attempt {attempt}");
        times.push(before.elapsed());
        assert_eq!(deliveries[0].attempt, capability.attempt.then_some(attempt));
        if attempt == 3 {
            acknowledge(&consumer, &deliveries).await;
        }
    }
    assert!(times[1] >= after && times[2] >= after * 2, "came again too soon: {times:?}");
    nothing_comes(&consumer, 4.0).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_lost_consumers_messages_go_to_the_next(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (first, producer) = (stage.consumer().await, stage.producer().await);
    for number in 0..10 {
        producer.send(&seconds(10.0), message(format!("{number}"))).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 10 {
        let deliveries = first.receive(&seconds(10.0), 10).await.unwrap();
        assert!(!deliveries.is_empty());
        held.extend(deliveries);
    }
    let kept: HashSet<String> = held[..4].iter().map(text).collect();
    acknowledge(&first, &held[..4]).await;
    let redelivery = first.capability().redelivery;
    first.close(&seconds(5.0)).await.unwrap();
    let next = stage.consumer().await;
    if redelivery {
        // Long before the time after which they would come again anyway.
        let bodies: HashSet<String> = receive(&next, 6, 10.0).await.iter().map(|(_, d)| text(d)).collect();
        assert_eq!(bodies.len(), 6);
        assert!(bodies.is_disjoint(&kept), "acknowledged, and came again: {bodies:?}");
    }
    nothing_comes(&next, 0.5).await;
    stage.end().await;
    if redelivery { Verdict::Held } else { Verdict::Excluded(Trait::NoAcks) }
}

pub(crate) async fn nack_gives_back_after_its_delay(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    producer.send(&seconds(10.0), message("given back")).await.unwrap();
    let deliveries = consumer.receive(&seconds(10.0), 10).await.unwrap();
    let nack = consumer.capability().nack;
    let acks = consumer.capability().ack;
    let delay = Duration::from_millis(1200);
    let before = Instant::now();
    let mut results = consumer.nack(&seconds(5.0), codes(&deliveries), delay).await;
    assert_eq!(results.len(), 1);
    let result = results.remove(0);
    if nack {
        result.unwrap();
        let again = consumer.receive(&seconds(10.0), 10).await.unwrap();
        let took = before.elapsed();
        assert_eq!(again.iter().map(text).collect::<Vec<_>>(), ["given back"]);
        assert!(took >= delay && took < delay + Duration::from_millis(2500), "came again after {took:?}");
        assert_eq!(again[0].attempt, consumer.capability().attempt.then_some(2));
        // Without a delay it comes again at once.
        let before = Instant::now();
        for result in consumer.nack(&seconds(5.0), codes(&again), Duration::ZERO).await {
            result.unwrap();
        }
        let (at, _) = receive(&consumer, 1, 10.0).await.remove(0);
        assert!(at - before < Duration::from_secs(2));
    } else {
        assert_eq!(result.unwrap_err().kind(), Kind::Unsupported);
        // It is still this consumer's to acknowledge.
        acknowledge(&consumer, &deliveries).await;
    }
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    match (nack, acks) {
        (true, _) => Verdict::Held,
        (false, true) => Verdict::Excluded(Trait::NoNack),
        (false, false) => Verdict::Excluded(Trait::NoAcks),
    }
}

// The bodies that one of several receivers gets, until `all` came to them together and then nothing more.
async fn share(consumer: Arc<dyn Consumer>, max: usize, came: Arc<AtomicUsize>, all: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(30);
    let mut bodies = Vec::new();
    loop {
        let last = came.load(Ordering::Acquire) >= all;
        let deliveries = consumer.receive(&seconds(0.7), max).await.unwrap();
        if deliveries.is_empty() && (last || Instant::now() > until) {
            return bodies;
        }
        assert!(deliveries.len() <= max, "more came than was asked for");
        came.fetch_add(deliveries.len(), Ordering::AcqRel);
        acknowledge(&consumer, &deliveries).await;
        bodies.extend(deliveries.iter().map(text));
    }
}

pub(crate) async fn several_consumers_share_as_the_mode_says(harness: &dyn Harness) -> Verdict {
    const COUNT: usize = 300;
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(stage.consumer().await);
    }
    let producer = stage.producer().await;
    let batch = (0..COUNT).map(|number| message(format!("{number}"))).collect();
    for result in producer.send_batch(&seconds(20.0), batch).await {
        result.unwrap();
    }
    let each = if stage.peer().everyone() { 3 } else { 1 };
    let came = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = consumers
        .into_iter()
        .map(|consumer| tokio::spawn(share(consumer, 1000, came.clone(), COUNT * each)))
        .collect();
    let mut times: HashMap<String, usize> = HashMap::new();
    for task in tasks {
        let bodies = task.await.unwrap();
        let distinct: HashSet<&String> = bodies.iter().collect();
        assert_eq!(distinct.len(), bodies.len(), "one consumer got a message twice");
        if stage.peer().everyone() {
            assert_eq!(bodies.len(), COUNT, "a consumer missed messages");
        }
        for body in bodies {
            *times.entry(body).or_default() += 1;
        }
    }
    assert_eq!(times.len(), COUNT, "messages were lost");
    assert!(times.values().all(|count| *count == each), "{times:?}");
    stage.end().await;
    Verdict::Held
}

/// Many tasks receive from one consumer: each message goes to one of them.
pub(crate) async fn receivers_of_one_consumer_share(harness: &dyn Harness) -> Verdict {
    const COUNT: usize = 400;
    let stage = Stage::plain(harness).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let came = Arc::new(AtomicUsize::new(0));
    let receivers: Vec<_> =
        (1..=8).map(|max| tokio::spawn(share(consumer.clone(), max, came.clone(), COUNT))).collect();
    let batch = (0..COUNT).map(|number| message(format!("{number}"))).collect();
    for result in producer.send_batch(&seconds(20.0), batch).await {
        result.unwrap();
    }
    let mut all = Vec::new();
    for receiver in receivers {
        all.extend(receiver.await.unwrap());
    }
    assert_eq!(all.len(), COUNT);
    assert_eq!(HashSet::<String>::from_iter(all).len(), COUNT);
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn many_acks_outstanding_in_any_order(harness: &dyn Harness) -> Verdict {
    const COUNT: usize = 500;
    let needs = Needs { redeliver_after: Duration::from_secs(6), ..Needs::default() };
    let stage = Stage::start(harness, needs).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    if !consumer.capability().ack {
        let results = consumer.ack(&seconds(1.0), vec!["code".into()]).await;
        assert_eq!(results[0].as_ref().unwrap_err().kind(), Kind::Unsupported);
        stage.end().await;
        return Verdict::Excluded(Trait::NoAcks);
    }
    let batch = (0..COUNT).map(|number| message(format!("{number}"))).collect();
    for result in producer.send_batch(&seconds(20.0), batch).await {
        result.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < COUNT {
        let deliveries = consumer.receive(&seconds(5.0), COUNT).await.unwrap();
        assert!(!deliveries.is_empty(), "{} of {COUNT} came without an ack", held.len());
        held.extend(deliveries);
    }
    let mut random = StdRng::seed_from_u64(7);
    held.shuffle(&mut random);
    let mut rest = held.as_slice();
    while !rest.is_empty() {
        let (some, others) = rest.split_at(random.random_range(1..=rest.len().min(40)));
        acknowledge(&consumer, some).await;
        rest = others;
    }
    nothing_comes(&consumer, 8.0).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn an_unknown_code_harms_nothing(harness: &dyn Harness) -> Verdict {
    let needs = Needs { redeliver_after: Duration::from_secs(2), ..Needs::default() };
    let stage = Stage::start(harness, needs).await;
    let Some(stage) = stage.refuses_consumers().await else { return Verdict::Excluded(Trait::SendsOnly) };
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    for body in ["a", "b"] {
        producer.send(&seconds(10.0), message(body)).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(consumer.receive(&seconds(10.0), 2).await.unwrap());
    }
    if !consumer.capability().ack {
        stage.end().await;
        return Verdict::Excluded(Trait::NoAcks);
    }
    let strange = ["6f31966c0b5e6f3163737b30c1955396", "", "no\ncode", "木", "{\"a\":1}"];
    let mut codes: Vec<Arc<str>> = strange.iter().map(|code| Arc::from(*code)).collect();
    codes.insert(2, held[0].code.clone());
    codes.push(held[1].code.clone());
    let results = consumer.ack(&seconds(5.0), codes).await;
    assert_eq!(results.len(), 7);
    for (place, result) in results.iter().enumerate() {
        match result {
            Ok(()) => {}
            // A provider that knows its codes may say so; one that does not tells the other side, which ignores it.
            Err(error) => {
                assert!(![2, 6].contains(&place), "a known code was refused: {error}");
                assert!(matches!(error.kind(), Kind::NotFound | Kind::InvalidArgument), "{error}");
            }
        }
    }
    assert!(consumer.ack(&seconds(5.0), Vec::new()).await.is_empty());
    // A second ack of one message is an unknown code by then.
    assert_eq!(consumer.ack(&seconds(5.0), vec![held[0].code.clone()]).await.len(), 1);
    nothing_comes(&consumer, 3.0).await;
    producer.send(&seconds(10.0), message("after")).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "after");
    stage.end().await;
    Verdict::Held
}
