//! The providers that send by HTTP requests, against servers on loopback whose every step is written down by the test.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod certificates;
mod connections;
mod crowds;
mod dingtalk;
mod faults;
mod pinned;
mod secrets;
mod server;
mod sms;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{Context, Producer};
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::error::{Error, Result};
use ceiba_core::intake::Limits;
use ceiba_core::message::{Fields, Message, Receipt};
use ceiba_core::provider::{
    Setup, dingtalk as dingtalk_provider, sms as sms_provider, webhook as webhook_provider,
};
use serde_json::Value;

/// Opens nothing until it is needed, and fails at once without a connection.
pub(crate) fn setup() -> Setup {
    Setup {
        id: "test".into(),
        limits: Limits {
            calls: 1000,
            bytes: 1 << 30,
            deadline: Duration::from_secs(10),
            ..Limits::default()
        },
        connect: Connect::Lazy,
        connect_timeout: Duration::from_secs(5),
        when_disconnected: WhenDisconnected::Fail,
        clock: ceiba_core::clock::Clock::from_system(),
        random: ceiba_core::random::Random::from_system(),
    }
}

/// Opens the producer of a section, which names its `type`.
pub(crate) async fn open(setup: &Setup, section: Value) -> Result<Arc<dyn Producer>> {
    let Value::Object(mut section) = section else { panic!("no section") };
    match section.remove("type").unwrap().as_str().unwrap() {
        "webhook" => webhook_provider::open_producer(setup, section).await,
        "sms" => sms_provider::open_producer(setup, section).await,
        "dingtalk" => dingtalk_provider::open_producer(setup, section).await,
        other => panic!("{other}"),
    }
}

pub(crate) fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

pub(crate) fn message(body: &str, change: impl FnOnce(&mut Fields)) -> Message {
    Message::new(body.to_owned()).with(change)
}

/// Sends with ten seconds of time.
pub(crate) async fn send(producer: &Arc<dyn Producer>, message: Message) -> Result<Receipt> {
    producer.send(&within(10), Arc::new(message)).await
}

pub(crate) async fn refused(producer: &Arc<dyn Producer>, message: Message) -> Error {
    send(producer, message).await.err().unwrap_or_else(|| panic!("it was sent"))
}
