//! Who gets a message, when, and what happens to it when it is not acknowledged.

mod socket;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ceiba_core::broker::{BrokerConfig, DeliveryMode};
use socket::{Ended, Socket, start, until};

fn publish_subscribe(config: &mut BrokerConfig) {
    config.delivery = DeliveryMode::PublishSubscribe;
}

#[tokio::test]
async fn messages_of_a_topic_without_consumers_are_held() {
    for mode in [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe] {
        let broker = start(|config| config.delivery = mode).await;
        let mut producer = Socket::producer(broker.address(), "t").await;
        producer.produce("a", 0).await;
        producer.produce("b", 0).await;
        let mut other = Socket::consumer(broker.address(), "other", "c").await;
        let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
        assert_eq!((consumer.consume().await, consumer.consume().await), ("a".to_owned(), "b".to_owned()));
        other.quiet(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_work_queue_gives_each_message_to_one_and_shares_fairly() {
    let broker = start(|_| {}).await;
    let mut one = Socket::consumer(broker.address(), "t", "c1").await;
    let mut two = Socket::consumer(broker.address(), "t", "c2").await;
    until("both are there", || broker.status().consumers == 2).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    for number in 0..100 {
        producer.produce(&number.to_string(), 0).await;
    }
    until("all are pushed", || broker.status().pushed == 100).await;
    let drain = async |socket: &mut Socket| {
        let mut bodies = Vec::new();
        while let Ok(body) = tokio::time::timeout(Duration::from_secs(1), socket.consume()).await {
            bodies.push(body);
        }
        bodies
    };
    let (ones, twos) = tokio::join!(drain(&mut one), drain(&mut two));
    let counts = [ones.len(), twos.len()];
    assert_eq!(counts[0] + counts[1], 100);
    assert_eq!(BTreeSet::from_iter(ones.into_iter().chain(twos)).len(), 100);
    assert!(counts.iter().all(|&count| count >= 30), "{counts:?}");
}

#[tokio::test]
async fn publish_subscribe_gives_each_message_to_all_who_are_there() {
    let broker = start(publish_subscribe).await;
    let mut one = Socket::consumer(broker.address(), "t", "c1").await;
    let mut two = Socket::consumer(broker.address(), "t", "c2").await;
    until("both are there", || broker.status().consumers == 2).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.produce("a", 0).await;
    assert_eq!(one.consume().await, "a");
    until("the first ack", || broker.status().acknowledged == 1).await;
    assert_eq!(broker.status().waiting, 1);
    let mut late = Socket::consumer(broker.address(), "t", "c3").await;
    assert_eq!(two.consume().await, "a");
    until("both acks", || broker.status().waiting == 0).await;
    late.quiet(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_ack_counts_only_from_a_consumer_it_was_pushed_to() {
    let broker = start(|config| config.redeliver_after = Duration::from_secs(5)).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut holder = Socket::consumer(broker.address(), "t", "c1").await;
    producer.produce("a", 0).await;
    let code = holder.push().await["MessageCode"].as_str().unwrap().to_owned();
    let mut other = Socket::consumer(broker.address(), "t", "c2").await;
    let mut stranger = Socket::consumer(broker.address(), "u", "c3").await;
    for socket in [&mut other, &mut stranger] {
        socket.send(&code).await;
        socket.send("no code").await;
        socket.send("").await;
        socket.handled().await;
    }
    assert_eq!((broker.status().acknowledged, broker.status().unacked), (0, 1));
    holder.send(&code).await;
    holder.send(&code).await;
    until("the ack", || broker.status().acknowledged == 1).await;
    // Nothing is left that could come again.
    assert_eq!((broker.status().waiting, broker.status().unacked), (0, 0));
    other.quiet(Duration::from_millis(500)).await;
    assert_eq!(broker.status().redelivered, 0);
}

#[tokio::test]
async fn a_lost_consumer_s_deliveries_go_back_at_once_in_order() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut lost = Socket::consumer(broker.address(), "t", "c1").await;
    for body in ["a", "b", "c"] {
        producer.produce(body, 0).await;
    }
    let first = lost.push().await;
    lost.push().await;
    lost.push().await;
    let mut next = Socket::consumer(broker.address(), "t", "c2").await;
    next.quiet(Duration::from_millis(50)).await;
    drop(lost);
    let again = next.push().await;
    assert_eq!(
        (&again["MessageData"], &again["MessageCode"]),
        (&first["MessageData"], &first["MessageCode"])
    );
    assert_eq!(again["Status"], -1);
    producer.produce("d", 0).await;
    for body in ["b", "c", "d"] {
        assert_eq!(next.consume().await, body);
    }
}

#[tokio::test]
async fn an_unacknowledged_message_comes_again_with_its_age() {
    let broker = start(|config| config.redeliver_after = Duration::from_millis(1200)).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let sent = Instant::now();
    producer.produce("a", 0).await;
    let first = consumer.push().await;
    assert_eq!(first["DelayTime"], 0);
    let again = consumer.push().await;
    assert!(sent.elapsed() >= Duration::from_millis(1200));
    assert_eq!((&again["MessageCode"], &again["Status"]), (&first["MessageCode"], &first["Status"]));
    assert!((1..=10).contains(&again["DelayTime"].as_i64().unwrap()), "{again}");
    consumer.send(again["MessageCode"].as_str().unwrap()).await;
    consumer.quiet(Duration::from_millis(1500)).await;
}

#[tokio::test]
async fn delays_are_never_early() {
    let broker = start(|_| {}).await;
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut sent = Vec::new();
    for number in 0..20 {
        sent.push(Instant::now());
        producer.produce(&number.to_string(), 3 + number % 2).await;
    }
    producer.produce("now", 0).await;
    producer.produce("past", -3).await;
    assert_eq!(consumer.consume().await, "now");
    assert_eq!(consumer.push().await["DelayTime"], -3);
    for _ in 0..20 {
        let push = consumer.push().await;
        let number: usize = push["MessageData"].as_str().unwrap().parse().unwrap();
        let delay = push["DelayTime"].as_u64().unwrap();
        assert_eq!(delay, 3 + number as u64 % 2);
        let waited = sent[number].elapsed();
        assert!(waited >= Duration::from_secs(delay), "{number} came after {waited:?}");
        // How late is a matter of the machine; this is only a bound against waiting for some other event.
        assert!(waited < Duration::from_secs(delay + 5), "{number} came after {waited:?}");
    }
}

#[tokio::test]
async fn of_two_equal_ids_the_newest_stays() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut old = Socket::consumer(broker.address(), "t", "c").await;
    producer.produce("a", 0).await;
    assert_eq!(old.push().await["MessageData"], "a");
    let mut new = Socket::consumer(broker.address(), "t", "c").await;
    assert_eq!(new.consume().await, "a");
    assert_eq!(old.ended().await, Ended::Closed(1000));
    // The same id on another topic, and as a producer, is another one.
    let _elsewhere = Socket::consumer(broker.address(), "u", "c").await;
    let mut again = Socket::producer(broker.address(), "t").await;
    assert_eq!(producer.ended().await, Ended::Closed(1000));
    again.produce("b", 0).await;
    assert_eq!(new.consume().await, "b");
    assert_eq!((broker.status().consumers, broker.status().producers), (2, 1));
}
