//! The extension of the KapokMQ wire: the broker against raw sockets, the client against a peer written down by
//! the test, and both together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer;
mod socket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode, WhenFull};
use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::{Delivery, Message};
use ceiba_core::provider::kapokmq;
use peer::{Peer, Session, lazy, object, setup, soon, text};
use serde_json::{Value, json};
use socket::{Socket, post, send_frame, start, until};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};

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

// ---- The broker.

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

// ---- The client.

fn agreeing() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("ceiba-wire", HeaderValue::from_static("1"));
    headers
}

async fn accept(peer: &Peer) -> Session<TcpStream> {
    let mut session = Session::answering(peer.accept_tcp().await, agreeing()).await;
    assert_eq!(session.headers["ceiba-wire"], "1");
    session.log_in().await;
    session
}

async fn producer_of(peer: &Peer, more: Value) -> (Arc<dyn Producer>, Session<TcpStream>) {
    let setup = setup("p");
    let (opened, session) = tokio::join!(peer::producer(&setup, peer.section(more)), accept(peer));
    (opened.unwrap(), session)
}

async fn consumer_of(peer: &Peer, more: Value) -> (Arc<dyn Consumer>, Session<TcpStream>) {
    let setup = setup("c");
    let (opened, session) = tokio::join!(peer::consumer(&setup, peer.section(more)), accept(peer));
    (opened.unwrap(), session)
}

fn keyed_message(body: &'static str, key: &str) -> Arc<Message> {
    Arc::new(Message::new(body).with(|fields| fields.key = Some(key.to_owned())))
}

fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

#[tokio::test]
async fn receipts_have_ids_and_refusals_are_not_sent() {
    let peer = Peer::start().await;
    let (producer, mut session) = producer_of(&peer, json!({})).await;
    let capability = producer.capability();
    assert!(capability.message_id && capability.nack && capability.attempt);
    let ctx = within(10);
    let (plain, full, disk, with_key, strange) = (
        Arc::new(Message::new("a")),
        Arc::new(Message::new("b")),
        Arc::new(Message::new("c")),
        keyed_message("d", "k\"1"),
        Arc::new(Message::new("e")),
    );
    let sends = async {
        tokio::join!(
            producer.send(&ctx, plain),
            producer.send(&ctx, full),
            producer.send(&ctx, disk),
            producer.send(&ctx, with_key),
            producer.send(&ctx, strange)
        )
    };
    let answers = async {
        let mut frames = Vec::new();
        for _ in 0..5 {
            frames.push(session.next_text().await);
        }
        assert_eq!(frames[0], r#"{"MessageData":"a","DelayTime":0}"#);
        assert_eq!(frames[3], r#"{"MessageData":"d","DelayTime":0,"Key":"k\"1"}"#);
        for answer in [
            "ok 6f31",
            "no queue_full the topic is full",
            "no storage the disk is full",
            "ok 6f32",
            "no new_kind x",
        ] {
            session.text(answer).await;
        }
        session
    };
    let ((plain, full, disk, with_key, strange), _session) = tokio::join!(sends, answers);
    assert_eq!(plain.unwrap().message_id.as_deref(), Some("6f31"));
    assert_eq!(with_key.unwrap().message_id.as_deref(), Some("6f32"));
    let full = full.unwrap_err();
    assert_eq!((full.kind(), full.outcome(), full.retryable()), (Kind::QueueFull, Outcome::NotSent, true));
    assert_eq!((full.attempts(), full.provider()), (1, Some("kapokmq")));
    let disk = disk.unwrap_err();
    assert_eq!((disk.kind(), disk.outcome(), disk.retryable()), (Kind::Storage, Outcome::NotSent, true));
    assert!(disk.text().contains("the disk is full"), "{disk}");
    assert_eq!(strange.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_refusal_after_an_earlier_write_is_unknown() {
    let peer = Peer::start().await;
    let (producer, mut session) = producer_of(&peer, json!({"resend_unacked": true})).await;
    let ctx = within(10);
    let server = async {
        session.next_text().await;
        drop(session);
        let mut session = accept(&peer).await;
        session.next_text().await;
        session.text("no queue_full the topic is full").await;
        session
    };
    let (sent, _session) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), server);
    let error = sent.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.attempts()), (Kind::QueueFull, Outcome::Unknown, 2));
}

#[tokio::test]
async fn another_answer_on_such_a_connection_drops_it() {
    for answer in ["ok", "okay 1", "", "{}"] {
        let peer = Peer::start().await;
        let (producer, mut session) = producer_of(&peer, json!({})).await;
        let ctx = within(10);
        let server = async {
            session.next_text().await;
            session.text(answer).await;
            session.ends().await
        };
        let (sent, _) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), server);
        let error = sent.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown), "{answer}");
    }
}

#[tokio::test]
async fn a_server_without_the_extension_gets_no_word_of_it() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    assert_eq!(session.headers["ceiba-wire"], "1");
    assert!(!producer.capability().message_id);
    let ctx = within(10);
    let error = producer.send(&ctx, keyed_message("x", "k")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent));
    assert!(error.text().contains("`key`"), "{error}");
    let server = async {
        assert_eq!(session.next_text().await, r#"{"MessageData":"y","DelayTime":0}"#);
        session.ok(1).await;
    };
    let (sent, ()) = tokio::join!(producer.send(&ctx, keyed_message("y", "")), server);
    assert_eq!(sent.unwrap().message_id, None);

    let (consumer, mut session) = peer.consumer(&setup("c"), json!({})).await;
    assert!(!consumer.capability().nack && !consumer.capability().attempt);
    session.push("6f31", "x").await;
    let delivery = consumer.receive(&ctx, 1).await.unwrap().remove(0);
    assert_eq!((delivery.attempt, delivery.message.fields()), (None, None));
    let refused = consumer.nack(&ctx, vec![delivery.code.clone()], Duration::ZERO).await.remove(0);
    assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    consumer.ack(&ctx, vec![delivery.code]).await.remove(0).unwrap();
    assert_eq!(session.next_text().await, "6f31");
}

#[tokio::test]
async fn a_consumer_tells_attempts_and_keys_and_gives_back() {
    let peer = Peer::start().await;
    let (consumer, mut session) = consumer_of(&peer, json!({})).await;
    assert!(!session.headers.contains_key("ceiba-subscription"));
    assert!(consumer.capability().nack && consumer.capability().attempt);
    let line = peer::push_text("6f31", "x").replace("}\n", ",\"Attempt\":4,\"Key\":\"k<1\"}\n");
    session.text(&line).await;
    let ctx = within(10);
    let delivery = consumer.receive(&ctx, 1).await.unwrap().remove(0);
    assert_eq!((delivery.attempt, text(delivery.message.body())), (Some(4), "x"));
    assert_eq!(delivery.message.fields().unwrap().key.as_deref(), Some("k<1"));
    let code = || vec![delivery.code.clone()];
    // Rounded up: never back earlier than asked for.
    for (delay, frame) in [
        (Duration::ZERO, "nack 6f31 0"),
        (Duration::from_micros(1_500_001), "nack 6f31 1501"),
        (Duration::from_secs(7), "nack 6f31 7000"),
        (Duration::MAX, "nack 6f31 18446744073709551615"),
    ] {
        consumer.nack(&ctx, code(), delay).await.remove(0).unwrap();
        assert_eq!(session.next_text().await, frame);
    }
    // No ack can be taken for another frame.
    let refused = consumer.ack(&ctx, vec!["nack 6f31 0".into()]).await.remove(0);
    assert_eq!(refused.unwrap_err().kind(), Kind::InvalidArgument);
    let refused = consumer.nack(&ctx, vec!["a b".into(), "6f31".into()], Duration::ZERO).await;
    assert!(refused[0].is_err() && refused[1].is_ok());
    assert_eq!(session.next_text().await, "nack 6f31 0");
}

#[tokio::test]
async fn a_nack_waits_for_a_connection_and_is_not_written_to_a_server_without_it() {
    let peer = Peer::start().await;
    let consumer = peer::consumer(&lazy("c"), peer.section(json!({}))).await.unwrap();
    let late =
        consumer.nack(&Context::within(Duration::from_millis(50)), vec!["a".into()], Duration::ZERO).await;
    assert!(matches!(late[0].as_ref().unwrap_err().kind(), Kind::Timeout | Kind::Unavailable), "{late:?}");
    let ctx = within(10);
    let (given_back, mut session) =
        tokio::join!(consumer.nack(&ctx, vec!["6f31".into()], Duration::ZERO), accept(&peer));
    given_back.into_iter().next().unwrap().unwrap();
    assert_eq!(session.next_text().await, "nack 6f31 0");
    // It comes back as another server.
    drop(session);
    let mut session = peer.accept().await;
    until("the capability", || !consumer.capability().nack).await;
    let refused = consumer.nack(&ctx, vec!["6f31".into()], Duration::ZERO).await.remove(0);
    assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    consumer.ack(&ctx, vec!["6f32".into()]).await.remove(0).unwrap();
    assert_eq!(session.next_text().await, "6f32");
}

#[tokio::test]
async fn durable_is_told_and_needs_an_id_and_such_a_broker() {
    let peer = Peer::start().await;
    let more = json!({"durable": true, "client_id": "billing"});
    let (_consumer, session) = consumer_of(&peer, more.clone()).await;
    assert_eq!(session.headers["ceiba-subscription"], "durable");
    assert_eq!(session.path, "/Consumers/Conn/t1/billing");

    let again = setup("c");
    let (refused, _) = tokio::join!(peer::consumer(&again, peer.section(more)), async {
        let stream = peer.accept_tcp().await;
        drop(Session::handshake(stream).await);
    });
    let error = refused.err().unwrap();
    assert_eq!((error.kind(), error.retryable()), (Kind::Unsupported, false));
    assert!(error.text().contains("`durable`"), "{error}");

    let section = |more| object(peer.section(more));
    let check = |more, role| kapokmq::check(section(more), role).unwrap_err();
    let nameless = check(json!({"durable": true}), ceiba_core::config::Role::Consumer);
    assert_eq!(nameless.kind(), Kind::InvalidConfig);
    assert!(nameless.text().contains("`client_id`"), "{nameless}");
    let foreign = check(json!({"durable": false}), ceiba_core::config::Role::Producer);
    assert!(foreign.text().contains("`durable`"), "{foreign}");
}

// ---- Both.

async fn clients(config: BrokerConfig, more: Value) -> (Broker, Arc<dyn Producer>, Arc<dyn Consumer>) {
    let broker = Broker::start(config).await.unwrap();
    let section = |more: Value| {
        let mut section =
            json!({"url": format!("ws://{}", broker.address()), "topic": "t", "secret_key": "test"});
        section.as_object_mut().unwrap().extend(object(more));
        section
    };
    let consumer = peer::consumer(&setup("c"), section(more)).await.unwrap();
    let producer = peer::producer(&setup("p"), section(json!({}))).await.unwrap();
    (broker, producer, consumer)
}

async fn one(consumer: &Arc<dyn Consumer>) -> Delivery {
    soon(consumer.receive(&within(10), 1)).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_full_topic_is_an_error_of_that_message_alone() {
    let mut config = BrokerConfig::new(ceiba_core::secret::Secret::new("test"));
    config.topic.max_messages = Some(2);
    config.topic.when_full = WhenFull::Refuse;
    let (broker, producer, consumer) = clients(config, json!({})).await;
    let ctx = within(10);
    let messages = (0..4).map(|number| Arc::new(Message::new(number.to_string()))).collect();
    let results = producer.send_batch(&ctx, messages).await;
    let ids: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()?.message_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    for result in &results[2..] {
        let error = result.as_ref().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
    }
    for id in &ids {
        let delivery = one(&consumer).await;
        assert_eq!(&delivery.code, id);
        consumer.ack(&ctx, vec![delivery.code]).await.remove(0).unwrap();
    }
    until("both acks", || broker.status().acknowledged == 2).await;
    assert!(producer.send(&ctx, Arc::new(Message::new("late"))).await.unwrap().message_id.is_some());
    assert_eq!(producer.status()["reconnects"], 0);
}

#[tokio::test]
async fn a_repeated_key_is_one_message() {
    let mut config = BrokerConfig::new(ceiba_core::secret::Secret::new("test"));
    config.topic.deduplicate = Some(Duration::from_secs(60));
    let (broker, producer, consumer) = clients(config, json!({})).await;
    let ctx = within(10);
    let first = producer.send(&ctx, keyed_message("x", "order-7")).await.unwrap();
    let second = producer.send(&ctx, keyed_message("x", "order-7")).await.unwrap();
    assert!(first.message_id.is_some());
    assert_eq!(first.message_id, second.message_id);
    let delivery = one(&consumer).await;
    assert_eq!(delivery.message.fields().unwrap().key.as_deref(), Some("order-7"));
    assert_eq!((delivery.attempt, Some(delivery.code)), (Some(1), first.message_id));
    assert_eq!(broker.status().accepted, 1);
}
