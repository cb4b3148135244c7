//! Connections: how many there are, that they are used again, and what a close does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use futures_util::future::join_all;
use serde_json::json;

use crate::server::{Act, Server, ok};
use crate::{open, send, setup, within};

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
