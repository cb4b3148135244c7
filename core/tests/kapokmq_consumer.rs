//! The KapokMQ consumer against a server that does what the test says.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod peer;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ceiba_core::client::{Consumer, Context};
use ceiba_core::config::WhenDisconnected;
use ceiba_core::error::{Kind, Result};
use ceiba_core::message::Delivery;
use ceiba_core::provider::Setup;
use futures_util::SinkExt;
use peer::*;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::CancellationToken;

fn ctx() -> Context {
    Context::within(Duration::from_secs(10))
}

fn short() -> Context {
    Context::within(Duration::from_millis(50))
}

/// Receives this many, in as many steps as it takes.
async fn receive(consumer: &Arc<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = consumer.receive(&ctx(), count - all.len()).await.expect("received");
        assert!(!some.is_empty(), "{} of {count} came", all.len());
        all.extend(some);
    }
    all
}

async fn ack(consumer: &Arc<dyn Consumer>, codes: &[&str]) -> Vec<Result<()>> {
    consumer.ack(&ctx(), codes.iter().map(|code| Arc::from(*code)).collect()).await
}

fn codes(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.code).collect()
}

#[tokio::test]
async fn deliveries_come_whole_and_are_acked_in_any_order() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({"client_id": "c1"})).await;
    assert_eq!(session.path, "/Consumers/Conn/t1/c1");
    session.push("code1", "hello <b> \"x\" 木").await;
    session.push("code2", "").await;
    session.push("code3", "three").await;
    let deliveries = receive(&consumer, 3).await;
    assert_eq!(codes(&deliveries), ["code1", "code2", "code3"]);
    let first = &deliveries[0];
    assert_eq!(text(first.message.body()), "hello <b> \"x\" 木");
    assert_eq!(&*first.topic, "t1");
    assert_eq!(first.created, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_250_913)));
    assert_eq!(first.attempt, None);
    assert!(deliveries[1].message.body().is_empty());
    assert!(ack(&consumer, &["code3", "code1"]).await.iter().all(Result::is_ok));
    assert_eq!(session.next_text().await, "code3");
    assert_eq!(session.next_text().await, "code1");
    let status = consumer.status();
    assert_eq!(
        (&status["state"], &status["received"], &status["acked"]),
        (&json!("connected"), &json!(3), &json!(2))
    );
    assert!(!status.to_string().contains(KEY));
}

#[tokio::test]
async fn receive_ends_empty_at_its_deadline_and_with_errors_otherwise() {
    let peer = Peer::start().await;
    let (consumer, _session) = peer.consumer(&setup("c"), json!({})).await;
    let started = Instant::now();
    assert!(consumer.receive(&short(), 5).await.unwrap().is_empty());
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(consumer.receive(&short(), 0).await.unwrap_err().kind(), Kind::InvalidArgument);
    let token = CancellationToken::new();
    let cancelled = ctx().cancelled_by(token.clone());
    let (received, ()) = tokio::join!(consumer.receive(&cancelled, 1), async {
        tokio::task::yield_now().await;
        token.cancel();
    });
    assert_eq!(received.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test]
async fn close_ends_receives_and_writes_what_was_acked() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({})).await;
    session.push("a", "x").await;
    receive(&consumer, 1).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let consumer = consumer.clone();
            tokio::spawn(async move { consumer.receive(&ctx(), 1).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(ack(&consumer, &["a"]).await[0].is_ok());
    let (closed, ()) = tokio::join!(soon(async { consumer.close(&ctx()).await }), async {
        assert_eq!(session.next_text().await, "a");
        assert_eq!(session.ends().await, Seen::Closed);
    });
    closed.unwrap();
    for receive in waiting {
        assert_eq!(soon(receive).await.unwrap().unwrap_err().kind(), Kind::Closed);
    }
    assert_eq!(consumer.receive(&ctx(), 1).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(ack(&consumer, &["a"]).await[0].as_ref().unwrap_err().kind(), Kind::Closed);
    assert_eq!(consumer.status()["state"], "closed");
    consumer.close(&ctx()).await.unwrap();
}

#[tokio::test]
async fn codes_that_no_broker_gives_are_refused() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({})).await;
    let long = "x".repeat(2000);
    let results = ack(&consumer, &["", "good", "a\nb", "\u{7f}", &long]).await;
    let kinds: Vec<_> =
        results.iter().map(|result| result.as_ref().err().map(|error| error.kind())).collect();
    let bad = Some(Kind::InvalidArgument);
    assert_eq!(kinds, [bad, None, bad, bad, bad]);
    assert_eq!(session.next_text().await, "good");
    let nacked = consumer.nack(&ctx(), vec!["good".into(), "b".into()], Duration::ZERO).await;
    assert_eq!(nacked.len(), 2);
    assert!(nacked.iter().all(|result| result.as_ref().unwrap_err().kind() == Kind::Unsupported));
}

#[tokio::test]
async fn after_a_loss_acks_wait_for_the_reconnect_and_duplicates_are_passed_on() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({"client_id": "c1"})).await;
    session.push("a", "1").await;
    session.push("b", "2").await;
    receive(&consumer, 1).await;
    drop(session);
    until("the loss", || consumer.status()["state"] != "connected").await;
    // The login is held up: there is no live connection to ack to.
    let mut again = Session::handshake(peer.accept_tcp().await).await;
    assert_eq!(again.path, "/Consumers/Conn/t1/c1");
    let late = consumer.ack(&short(), vec!["a".into()]).await;
    assert_eq!(late[0].as_ref().unwrap_err().kind(), Kind::Timeout);
    let (acked, ()) = tokio::join!(ack(&consumer, &["a"]), async {
        again.log_in().await;
        assert_eq!(again.next_text().await, "a");
    });
    assert!(acked[0].is_ok());
    again.push("b", "2").await;
    // What was prefetched before the loss is still there, and comes again.
    assert_eq!(codes(&receive(&consumer, 2).await), ["b", "b"]);
    // One connection per consumer, however often it was lost.
    assert!(peer.quiet(Duration::from_millis(200)).await);
    for _ in 0..3 {
        drop(again);
        again = peer.accept().await;
    }
    assert!(peer.quiet(Duration::from_millis(200)).await);
    assert_eq!(consumer.status()["reconnects"], 4);
}

#[tokio::test]
async fn with_when_disconnected_fail_an_ack_does_not_wait() {
    let peer = Peer::start().await;
    let setup = Setup { when_disconnected: WhenDisconnected::Fail, ..lazy("c") };
    let consumer = consumer(&setup, peer.section(json!({}))).await.unwrap();
    assert_eq!(ack(&consumer, &["a"]).await[0].as_ref().unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn past_its_bound_of_bytes_it_disconnects_and_comes_back_when_drained() {
    let peer = Peer::start().await;
    let (consumer, mut session) =
        peer.consumer(&setup("c"), json!({"prefetch": 2, "prefetch_bytes": 20_000})).await;
    let body = "x".repeat(1_000);
    let mut pushed = 0;
    // Nobody receives: the server can push until the consumer goes.
    let end = soon(async {
        loop {
            match session.wire.send(Frame::text(push_text(&format!("c{pushed}"), &body))).await {
                Ok(()) => pushed += 1,
                Err(_) => break,
            }
            if pushed == 100_000 {
                panic!("no bound");
            }
        }
    });
    end.await;
    until("the pause", || consumer.status()["state"] == "paused").await;
    let status = consumer.status();
    let held = status["prefetched_bytes"].as_u64().unwrap();
    assert!((20_000..22_000).contains(&held), "{status}");
    // Far past the bound of messages, which is no bound of reading.
    let waiting = status["prefetched"].as_u64().unwrap() as usize;
    assert!((17..=19).contains(&waiting), "{status}");
    assert!(peer.quiet(Duration::from_millis(200)).await);
    // Receiving and acking in turn goes on while it is disconnected.
    for _ in 0..waiting - 3 {
        let delivery = receive(&consumer, 1).await.remove(0);
        assert!(ack(&consumer, &[&delivery.code]).await[0].is_ok());
    }
    assert!(peer.quiet(Duration::from_millis(100)).await);
    let last = receive(&consumer, 1).await.remove(0);
    let mut session = peer.accept().await;
    for number in 0..waiting - 3 {
        assert_eq!(session.next_text().await, format!("c{number}"));
    }
    session.push("fresh", "x").await;
    assert_eq!(&*last.code, format!("c{}", waiting - 3));
    assert_eq!(receive(&consumer, 3).await[2].code.as_ref(), "fresh");
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_skipped_and_counted() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({})).await;
    session.text("not a push").await;
    session.push("", "a phantom without a code").await;
    session.push("a", "fine").await;
    assert_eq!(codes(&receive(&consumer, 1).await), ["a"]);
    assert_eq!(consumer.status()["unreadable"], 2);
    until("the error", || consumer.status()["last_error"]["kind"] == "protocol").await;
    assert_eq!(consumer.status()["state"], "connected");
}

#[tokio::test]
async fn several_consumers_and_several_receivers_share_a_process() {
    let peer = Peer::start().await;
    let (first, mut first_session) = peer.consumer(&setup("c1"), json!({})).await;
    let (second, mut second_session) = peer.consumer(&setup("c2"), json!({})).await;
    assert_ne!(first_session.path, second_session.path);
    let receivers: Vec<_> = (0..8)
        .map(|_| {
            let consumer = first.clone();
            tokio::spawn(async move { receive(&consumer, 1).await.remove(0).code.to_string() })
        })
        .collect();
    tokio::task::yield_now().await;
    for number in 0..8 {
        first_session.push(&format!("a{number}"), "x").await;
    }
    second_session.push("b", "y").await;
    let mut got = Vec::new();
    for receiver in receivers {
        got.push(soon(receiver).await.unwrap());
    }
    got.sort();
    assert_eq!(got, (0..8).map(|number| format!("a{number}")).collect::<Vec<_>>());
    assert_eq!(codes(&receive(&second, 1).await), ["b"]);
}

#[tokio::test]
async fn open_fails_with_a_wrong_key_and_a_dropped_consumer_disconnects() {
    let peer = Peer::start().await;
    let setup = setup("c");
    let (opened, _) = tokio::join!(soon(consumer(&setup, peer.section(json!({})))), peer.refuse());
    assert_eq!(opened.err().expect("refused").kind(), Kind::Authentication);
    let (consumer, mut session) = peer.consumer(&setup, json!({})).await;
    drop(consumer);
    session.ends().await;
    assert!(peer.quiet(Duration::from_millis(100)).await);
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let peer = Peer::start().await;
    let (consumer, silent) = peer.consumer(&setup("c"), json!({"check_time": "150ms"})).await;
    let mut answering = peer.accept().await;
    assert!(consumer.status()["last_error"]["message"].to_string().contains("answered no ping"));
    drop(silent);
    for _ in 0..5 {
        assert_eq!(answering.seen().await, Seen::Ping);
    }
    assert_eq!(consumer.status()["reconnects"], 1);
}

#[tokio::test]
async fn bodies_larger_than_a_frame_of_the_defaults_arrive() {
    let peer = Peer::start().await;
    let (consumer, mut session) = peer.consumer(&setup("c"), json!({})).await;
    let body = "x".repeat(17 << 20);
    let (deliveries, ()) = tokio::join!(receive(&consumer, 1), session.push("big", &body));
    assert_eq!(deliveries[0].message.body().len(), body.len());
}
