//! The clients of MNS, against a small server on loopback that reads their requests by the other side of the codec.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod admin;
mod consumer;
mod directory;
mod faults;
mod http;
mod keys;
mod producer;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::error::{Error, Result};
use ceiba_core::intake::{Limits, Whose};
use ceiba_core::message::{Delivery, Message, Receipt};
use ceiba_core::provider::{Setup, mns};
use serde_json::{Map, Value, json};

use crate::server::Server;

/// Opens nothing until it is needed, and fails at once without a connection.
pub(crate) fn setup() -> Setup {
    Setup {
        id: "test".into(),
        limits: Limits { calls: 1000, bytes: 1 << 30, deadline: Duration::from_secs(10), of: Whose::Client },
        connect: Connect::Lazy,
        connect_timeout: Duration::from_secs(5),
        when_disconnected: WhenDisconnected::Fail,
        clock: ceiba_core::clock::Clock::from_system(),
        random: ceiba_core::random::Random::from_system(),
    }
}

/// The section of a client of the queue `q`, with these keys over it; `null` takes one out.
pub(crate) fn section(server: &Server, more: Value) -> Map<String, Value> {
    let mut section =
        json!({"url": server.url(), "queue": "q", "access_key_id": "id", "access_key_secret": "secret"});
    let section = section.as_object_mut().unwrap();
    for (key, value) in more.as_object().unwrap() {
        section.insert(key.clone(), value.clone());
    }
    section.retain(|_, value| !value.is_null());
    section.clone()
}

pub(crate) async fn producer(server: &Server, more: Value) -> Arc<dyn Producer> {
    mns::open_producer(&setup(), section(server, more)).await.unwrap()
}

pub(crate) async fn consumer(server: &Server, more: Value) -> Arc<dyn Consumer> {
    mns::open_consumer(&setup(), section(server, more)).await.unwrap()
}

pub(crate) fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

pub(crate) async fn send(producer: &Arc<dyn Producer>, message: Message) -> Result<Receipt> {
    producer.send(&within(10), Arc::new(message)).await
}

pub(crate) async fn refused(producer: &Arc<dyn Producer>, message: Message) -> Error {
    send(producer, message).await.err().unwrap_or_else(|| panic!("it was sent"))
}

/// The next delivery, within five seconds.
pub(crate) async fn next(consumer: &Arc<dyn Consumer>) -> Delivery {
    let mut came = consumer.receive(&within(5), 1).await.unwrap();
    came.pop().unwrap_or_else(|| panic!("nothing came"))
}

pub(crate) async fn ack(consumer: &Arc<dyn Consumer>, codes: &[&Delivery]) -> Vec<Result<()>> {
    let codes = codes.iter().map(|delivery| delivery.code.clone()).collect();
    consumer.ack(&within(5), codes).await
}

/// Waits until something is so, five seconds at most.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !so() {
        assert!(Instant::now() < end, "it is not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
