//! The extension of the KapokMQ wire, the broker's side: what it answers to raw sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod socket;

use std::time::{Duration, Instant};

use ceiba_core::broker::{DeliveryMode, WhenFull};
use serde_json::{Value, json};
use socket::{Socket, post, send_frame, start, until};
use tokio_tungstenite::tungstenite::Message as Frame;

const PRODUCER: &str = "/Producers/Conn/t/p";
const CONSUMER: &str = "/Consumers/Conn/t/c";

fn keyed(body: &str, key: &str) -> String {
    json!({"MessageData": body, "DelayTime": 0, "Key": key}).to_string()
}

/// The code of an answer `ok <code>`.
fn code(answer: &str) -> String {
    let code = answer.strip_prefix("ok ").unwrap_or_else(|| panic!("no `ok`: {answer}"));
    assert_eq!(code.len(), 32, "{code}");
    code.to_owned()
}

#[tokio::test]
async fn the_header_is_answered_only_where_it_asks_for_this_version() {
    let broker = start(|_| {}).await;
    for (path, offer, agreed) in [
        (PRODUCER, Some("1"), true),
        (CONSUMER, Some("1"), true),
        (PRODUCER, None, false),
        (CONSUMER, None, false),
        (PRODUCER, Some("2"), false),
        (CONSUMER, Some("1, 2"), false),
    ] {
        let headers: Vec<_> = offer.map(|version| ("ceiba-wire", version)).into_iter().collect();
        let (_socket, answer) = Socket::offering(broker.address(), path, &headers).await.unwrap();
        assert_eq!(answer.get("ceiba-wire").is_some(), agreed, "{path} {offer:?}");
    }
    let plain = start(|config| config.extension = false).await;
    let (_socket, answer) =
        Socket::offering(plain.address(), PRODUCER, &[("ceiba-wire", "1")]).await.unwrap();
    assert!(!answer.contains_key("ceiba-wire"));
}

#[tokio::test]
async fn without_the_header_all_is_the_original_s_byte_by_byte() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.send(&keyed("x", "k")).await;
    assert_eq!(producer.text().await, "ok");
    producer.send(r#"{"MessageData":"y","DelayTime":0,"Key":5}"#).await;
    assert_eq!(producer.text().await, "ok");
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let (first, second) = (consumer.text().await, consumer.text().await);
    for line in [&first, &second] {
        assert!(line.ends_with(",\"ConsumedTime\":0,\"DelayTime\":0,\"Status\":-1}\n"), "{line}");
    }
    let push: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(push["MessageData"], "x");
    // No word of this wire: it is ignored.
    consumer.send(&format!("nack {} 0", push["MessageCode"].as_str().unwrap())).await;
    consumer.quiet(Duration::from_millis(300)).await;
    assert_eq!(broker.status().unacked, 2);
}

#[tokio::test]
async fn an_answer_names_the_code_that_is_pushed_and_that_the_console_knows() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::extended(broker.address(), PRODUCER, &[]).await;
    let mut codes = Vec::new();
    for number in 0..200 {
        producer.0.send_all_of(&send_frame(&number.to_string(), 0)).await;
    }
    for _ in 0..200 {
        codes.push(code(&producer.text().await));
    }
    let found = post(broker.address(), "/Console/GetMessage", &format!("messageCode={}", codes[7])).await;
    assert!(found.contains(r#""MessageData":"7""#), "{found}");
    let mut consumer = Socket::extended(broker.address(), CONSUMER, &[]).await;
    for (number, code) in codes.iter().enumerate() {
        let push = consumer.push().await;
        assert_eq!((push["MessageCode"].as_str(), push["Attempt"].as_u64()), (Some(&**code), Some(1)));
        assert_eq!(push["MessageData"], number.to_string());
        assert!(push.get("Key").is_none());
        consumer.send(code).await;
    }
    until("all acks", || broker.status().acknowledged == 200).await;
}

#[tokio::test]
async fn a_key_that_came_before_is_the_same_message() {
    let broker = start(|config| config.topic.deduplicate = Some(Duration::from_secs(60))).await;
    let mut producer = Socket::extended(broker.address(), PRODUCER, &[]).await;
    let mut codes = Vec::new();
    for (body, key) in [("one", "a<1"), ("again", "a<1"), ("two", "b"), ("none", ""), ("none", "")] {
        producer.send(&keyed(body, key)).await;
        codes.push(code(&producer.text().await));
    }
    assert_eq!(codes[0], codes[1]);
    assert_eq!(broker.status().accepted, 4);
    let mut consumer = Socket::extended(broker.address(), CONSUMER, &[]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let push = consumer.push().await;
        seen.push((
            push["MessageData"].as_str().unwrap().to_owned(),
            push["Key"].as_str().map(str::to_owned),
        ));
    }
    let expected = [("one", Some("a<1")), ("two", Some("b")), ("none", None), ("none", None)];
    assert_eq!(seen, expected.map(|(body, key)| (body.to_owned(), key.map(str::to_owned))));
    consumer.quiet(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_full_topic_refuses_in_the_message_s_place_and_the_connection_stays() {
    let broker = start(|config| {
        config.topic.max_messages = Some(3);
        config.topic.when_full = WhenFull::Refuse;
    })
    .await;
    let mut producer = Socket::extended(broker.address(), PRODUCER, &[]).await;
    for number in 0..5 {
        producer.0.send_all_of(&send_frame(&number.to_string(), 0)).await;
    }
    for number in 0..5 {
        let answer = producer.text().await;
        match number {
            0..3 => drop(code(&answer)),
            _ => assert_eq!(answer, "no queue_full the topic is full"),
        }
    }
    let mut consumer = Socket::extended(broker.address(), CONSUMER, &[]).await;
    assert_eq!(consumer.consume().await, "0");
    until("the ack", || broker.status().acknowledged == 1).await;
    producer.send(&send_frame("late", 0)).await;
    code(&producer.text().await);
    // The original's clients know no refusal: their connection ends.
    let mut plain = Socket::open(broker.address(), "/Producers/Conn/t/plain").await;
    plain.send(&send_frame("x", 0)).await;
    assert_eq!(plain.ended().await, socket::Ended::Closed(1013));
}

#[tokio::test]
async fn nack_gives_back_at_once_or_later_and_attempts_count() {
    for mode in [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe] {
        let broker = start(|config| config.delivery = mode).await;
        let mut consumer = Socket::extended(broker.address(), CONSUMER, &[]).await;
        let mut producer = Socket::extended(broker.address(), PRODUCER, &[]).await;
        producer.send(&send_frame("x", 0)).await;
        code(&producer.text().await);
        let first = consumer.push().await;
        let id = first["MessageCode"].as_str().unwrap().to_owned();
        consumer.send(&format!("nack {id} 0")).await;
        let second = consumer.push().await;
        assert_eq!((second["MessageCode"].as_str(), second["Attempt"].as_u64()), (Some(&*id), Some(2)));
        let given_back = Instant::now();
        consumer.send(&format!("nack {id} 700")).await;
        let third = consumer.push().await;
        let away = given_back.elapsed();
        assert!(away >= Duration::from_millis(700), "{mode:?}: {away:?}");
        assert!(away < Duration::from_secs(5), "{mode:?}: {away:?}");
        assert_eq!((third["MessageCode"].as_str(), third["Attempt"].as_u64()), (Some(&*id), Some(3)));
        // What is none harms nothing, and neither does one for a message that another consumer has.
        for strange in ["nack", "nack  1", "nack 6f31966c0b5e6f3163737b30c1955396 5", "nack x -1"] {
            consumer.send(strange).await;
        }
        let mut other = Socket::extended(broker.address(), "/Consumers/Conn/t/other", &[]).await;
        other.send(&format!("nack {id} 0")).await;
        other.quiet(Duration::from_millis(200)).await;
        consumer.send(&id).await;
        until("the ack", || broker.status().acknowledged == 1).await;
        until("nothing is left", || broker.status().waiting == 0).await;
    }
}

#[tokio::test]
async fn a_durable_subscription_keeps_what_comes_while_its_consumer_is_away() {
    let broker = start(|config| {
        config.delivery = DeliveryMode::PublishSubscribe;
        config.redeliver_after = Duration::from_millis(200);
    })
    .await;
    let durable = [("ceiba-subscription", "durable")];
    let mut kept = Socket::extended(broker.address(), "/Consumers/Conn/t/kept", &durable).await;
    let mut passing = Socket::extended(broker.address(), "/Consumers/Conn/t/passing", &[]).await;
    let mut there = Socket::consumer(broker.address(), "t", "there").await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.produce("first", 0).await;
    assert_eq!((kept.consume().await, passing.consume().await), ("first".into(), "first".into()));
    assert_eq!(there.consume().await, "first");
    until("three acks", || broker.status().acknowledged == 3).await;
    drop((kept, passing));
    until("two left", || broker.status().consumers == 1).await;
    producer.produce("second", 0).await;
    assert_eq!(there.consume().await, "second");
    // Longer than a lost consumer is waited for.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut passing = Socket::extended(broker.address(), "/Consumers/Conn/t/passing", &[]).await;
    passing.quiet(Duration::from_millis(200)).await;
    let mut kept = Socket::extended(broker.address(), "/Consumers/Conn/t/kept", &durable).await;
    assert_eq!(kept.consume().await, "second");
}

trait SendAll {
    async fn send_all_of(&mut self, text: &str);
}

impl<S> SendAll for tokio_tungstenite::WebSocketStream<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    async fn send_all_of(&mut self, text: &str) {
        futures_util::SinkExt::feed(self, Frame::text(text)).await.unwrap();
        futures_util::SinkExt::flush(self).await.unwrap();
    }
}
