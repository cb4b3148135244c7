//! Connections: how many there are, that they are used again, and what a close does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::config::WhenDisconnected;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use futures_util::future::join_all;
use serde_json::json;

use crate::server::{Act, Port, Server, ok};
use crate::{open, refused, send, setup, within};

#[tokio::test]
async fn there_are_no_more_than_configured_and_they_are_used_again() {
    let server = Server::start([ok("{}")]).await;
    let section = json!({"type": "webhook", "url": server.url(), "connections": 3});
    let producer = open(&setup(), section).await.unwrap();
    for _ in 0..3 {
        let sends = (0..40).map(|_| send(&producer, Message::new("x")));
        join_all(sends).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    assert_eq!(server.seen().len(), 120);
    assert!(server.most_at_once() <= 3, "{}", server.most_at_once());
    // A connection whose answer is still drained is not free at once.
    assert!(server.connections() <= 12, "{}", server.connections());
}

#[tokio::test]
async fn who_finds_no_free_connection_waits_until_the_deadline() {
    let server = Server::start([Act::AtGate]).await;
    let section = json!({"type": "webhook", "url": server.url(), "connections": 1});
    let producer = open(&setup(), section).await.unwrap();
    let first = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Message::new("x")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ctx = Context::within(Duration::from_millis(100));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    // A send that is dropped while it waits leaves no place behind it.
    for _ in 0..100 {
        let waits = send(&producer, Message::new("x"));
        let _ = tokio::time::timeout(Duration::from_millis(1), waits).await;
    }
    server.open_gate();
    first.await.unwrap().unwrap();
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!(server.most_at_once(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_ended_meanwhile_is_replaced() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
    let server = Server::start([Act::Raw(answer)]).await;
    let producer = open(&setup(), json!({"type": "webhook", "url": server.url()})).await.unwrap();
    for _ in 0..10 {
        send(&producer, Message::new("x")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((server.seen().len(), server.connections()), (10, 10));
}

#[tokio::test]
async fn a_close_waits_for_what_is_under_way_and_then_ends_it() {
    let server = Server::start([Act::AtGate]).await;
    let producer = open(&setup(), json!({"type": "webhook", "url": server.url()})).await.unwrap();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Message::new("x")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(producer.status()["pending"], 1);
    let error = producer.flush(&Context::within(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    let began = Instant::now();
    let error = producer.close(&Context::within(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(1));
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Closed, Outcome::Unknown));
    assert_eq!(send(&producer, Message::new("x")).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(producer.status()["state"], "closed");

    let producer = open(&setup(), json!({"type": "webhook", "url": server.url()})).await.unwrap();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Message::new("x")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.open_gate();
    producer.close(&within(5)).await.unwrap();
    sending.await.unwrap().unwrap();
}

/// `max_pending` and `max_pending_bytes` hold for all that is under way, however many connections there are.
#[tokio::test]
async fn more_sends_than_there_is_room_for_wait_until_their_deadline() {
    for (calls, bytes, body) in [(2, 1 << 30, 1), (1000, 20 << 10, 10 << 10)] {
        let server = Server::start([Act::AtGate]).await;
        let mut limited = setup();
        limited.limits.calls = calls;
        limited.limits.bytes = bytes;
        let section = json!({"type": "webhook", "url": server.url()});
        let producer = open(&limited, section).await.unwrap();
        let sends: Vec<_> = (0..2)
            .map(|_| {
                let producer = producer.clone();
                tokio::spawn(async move { send(&producer, Message::new(vec![b'x'; body])).await })
            })
            .collect();
        let begun = Instant::now();
        while server.seen().len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ctx = Context::within(Duration::from_millis(200));
        let error = producer.send(&ctx, Arc::new(Message::new(vec![b'x'; body]))).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent), "{error}");
        assert_eq!((error.attempts(), error.provider()), (0, Some("webhook")));
        server.open_gate();
        for send in sends {
            send.await.unwrap().unwrap();
        }
        assert_eq!(server.seen().len(), 2);
    }
}

/// Who does not wait for a connection waits neither for room nor for a place behind those who do.
#[tokio::test]
async fn without_a_server_the_hasty_fail_at_once_behind_those_who_wait() {
    for calls in [1, 1000] {
        let port = Port::free();
        let mut waits = setup();
        waits.when_disconnected = WhenDisconnected::Wait;
        waits.limits.calls = calls;
        let section = json!({"type": "webhook", "url": port.url(), "connections": 1});
        let producer = open(&waits, section).await.unwrap();
        let waiting = tokio::spawn({
            let producer = producer.clone();
            async move { producer.send(&within(60), Arc::new(Message::new("x"))).await }
        });
        let began = Instant::now();
        while producer.status()["requests"] == 0 {
            assert!(began.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let began = Instant::now();
        let hasty = within(30).failing_when_disconnected();
        let error = producer.send(&hasty, Arc::new(Message::new("x"))).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // Where there is no room it does not come to look for a connection.
        let kind = if calls == 1 { Kind::QueueFull } else { Kind::Unavailable };
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotSent), "{error}");
        assert!(calls == 1 || error.text().contains("cannot be reached"), "{error}");
        assert!(!waiting.is_finished());
        // With a server there they wait for their turn, as everybody, and for room not at all.
        let server = Server::on(port.listen(), [Act::AtGate]);
        while server.seen().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let hasty = within(30).failing_when_disconnected();
        if calls == 1 {
            let error = producer.send(&hasty, Arc::new(Message::new("x"))).await.unwrap_err();
            assert_eq!(error.kind(), Kind::QueueFull);
            server.open_gate();
            waiting.await.unwrap().unwrap();
            producer.send(&hasty, Arc::new(Message::new("x"))).await.unwrap();
            continue;
        }
        let second = tokio::spawn({
            let producer = producer.clone();
            async move { producer.send(&hasty, Arc::new(Message::new("x"))).await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!second.is_finished(), "it did not wait for its turn");
        for sending in [waiting, second] {
            server.open_gate();
            sending.await.unwrap().unwrap();
        }
    }
}

/// A server that takes no more connections is still there: who is hasty waits for one of those that it has.
#[tokio::test]
async fn one_refused_connection_ends_nobody_while_another_is_at_work() {
    for (by_config, connections) in [(false, 2), (true, 2), (false, 8)] {
        let mut server = Server::start([Act::AtGate]).await;
        let mut waits = setup();
        waits.when_disconnected = if by_config { WhenDisconnected::Fail } else { WhenDisconnected::Wait };
        let section = json!({"type": "webhook", "url": server.url(), "connections": connections});
        let producer = open(&waits, section).await.unwrap();
        let hasty = || {
            let producer = producer.clone();
            let ctx = if by_config { within(30) } else { within(30).failing_when_disconnected() };
            tokio::spawn(async move { producer.send(&ctx, Arc::new(Message::new("x"))).await })
        };
        let mut sends = vec![hasty()];
        let began = Instant::now();
        while server.seen().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.is_full().await;
        // One finds out, and the others wait for their turn.
        sends.extend((0..20).map(|_| hasty()));
        while producer.status()["not_written"] == 0 {
            assert!(began.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(sends.iter().all(|send| !send.is_finished()));
        server.open_gate();
        for send in sends {
            send.await.unwrap().unwrap();
        }
        assert_eq!((server.seen().len(), server.connections()), (21, 1));
    }
}

/// The last connection is gone, and there is no other: they hear of it at once.
#[tokio::test]
async fn the_hasty_fail_once_the_last_connection_is_gone() {
    let mut server = Server::start([Act::UntilGate]).await;
    let producer =
        open(&setup(), json!({"type": "webhook", "url": server.url(), "connections": 2})).await.unwrap();
    let sending = || {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send(&within(30), Arc::new(Message::new("x"))).await })
    };
    let mut sends = vec![sending()];
    let began = Instant::now();
    while server.seen().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.is_full().await;
    sends.extend((0..5).map(|_| sending()));
    while producer.status()["not_written"] == 0 {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.open_gate();
    for send in sends {
        assert_eq!(send.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The sends of a producer that fails at once without a connection do not each wait for the one before it to fail.
#[tokio::test]
async fn one_try_to_connect_tells_all_who_wait_for_it() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut fails = setup();
    fails.connect_timeout = Duration::from_secs(1);
    let section = json!({"type": "webhook", "url": format!("https://{}", silent.local_addr().unwrap()), "connections": 1});
    let producer = open(&fails, section).await.unwrap();
    let began = Instant::now();
    for sent in join_all((0..8).map(|_| send(&producer, Message::new("x")))).await {
        let error = sent.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// What is refused before a request is made was no attempt.
#[tokio::test]
async fn an_attempt_is_a_request_that_was_made() {
    let server = Server::start([Act::Answer(500, Vec::new(), String::new())]).await;
    let producer =
        open(&setup(), json!({"type": "webhook", "url": server.url(), "max_body": 1})).await.unwrap();
    assert_eq!(refused(&producer, Message::new("too long")).await.attempts(), 0);
    assert_eq!(refused(&producer, Message::new("x")).await.attempts(), 1);
}
