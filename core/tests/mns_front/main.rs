//! MNS as the embedded broker serves it: by our own clients, and by requests that are written here.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod call;
mod client;
mod directory;
mod push;
mod queues;
mod raw;
mod refusals;
mod restart;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::broker::{Broker, BrokerConfig, MnsConfig};
use ceiba_core::client::Context;
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::intake::{Limits, Whose};
use ceiba_core::provider::Setup;
use ceiba_core::secret::Secret;
use serde_json::{Map, Value, json};

pub(crate) fn config() -> BrokerConfig {
    let mut mns = MnsConfig::new("id", Secret::new("secret"));
    mns.private_endpoints = true;
    BrokerConfig { mns: Some(mns), ..BrokerConfig::new(Secret::new("test")) }
}

pub(crate) async fn start() -> Broker {
    Broker::start(config()).await.unwrap()
}

/// A folder that is removed at the end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ceiba-mns-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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
pub(crate) fn section(broker: &Broker, more: Value) -> Map<String, Value> {
    let url = format!("http://{}", broker.mns_address().unwrap());
    let mut section = json!({"url": url, "queue": "q", "access_key_id": "id", "access_key_secret": "secret"});
    let section = section.as_object_mut().unwrap();
    for (key, value) in more.as_object().unwrap() {
        section.insert(key.clone(), value.clone());
    }
    section.retain(|_, value| !value.is_null());
    section.clone()
}

pub(crate) fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

/// Waits until something is so, ten seconds at most.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < end, "it is not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) type Shared<T> = Arc<parking_lot::Mutex<T>>;
