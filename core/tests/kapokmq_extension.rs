//! The extension of the KapokMQ wire, the client's side: against a peer written down by the test, and against the
//! broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, WhenFull};
use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::{Delivery, Message};
use ceiba_core::provider::kapokmq;
use peer::{Peer, Session, lazy, object, setup, soon, text};
use serde_json::{Value, json};
use socket::until;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};

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
