//! DPMQ clients: a producer over HTTP and a consumer over a WebSocket.
//!
//! `section` is the config; `http` is one connection of a producer, `pool` keeps them, `producer` is its task and
//! what callers see; `consumer` is what is this wire's own of a consumer.

mod consumer;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
mod pool;
mod producer;
mod section;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use super::socket::{Dialer, Server};
use crate::client::{Consumer, Producer};
use crate::config::Role;
use crate::error::Result;
use section::Settings;

pub use section::Section;

/// The provider's name.
pub(crate) const PROVIDER: &str = "dpmq";
const SERVER: Server = Server {
    provider: PROVIDER,
    name: "DPMQ server",
    no_login: "a DPMQ server has no login",
    start: "`ceiba broker --dpmq`",
    missing: "is it a DPMQ server? One of ceiba is when it was started with `--dpmq` (`dpmq: true`)",
};

/// The longest body, in bytes: what the original reads of one part of a form with something to spare.
const MAX_BODY: usize = 32 << 20;
/// The largest frame that a consumer reads: each byte of a body of 64 MiB may have been escaped to six.
const MAX_PUSH_FRAME: usize = 6 * (64 << 20) + (64 << 10);

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>, role: Role) -> Result<()> {
    Settings::read("check", role, section).map(drop)
}

/// Opens a producer, on the current runtime.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `unavailable` when no server answered within
/// `connect_timeout`, `not_found` or `protocol` when what answers is no DPMQ server.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    let settings = Settings::read(&setup.id, Role::Producer, section)?;
    let dialer = dialer(setup, &settings).await?;
    producer::open(setup, settings, dialer).await
}

/// Opens a consumer, on the current runtime.
///
/// # Errors
/// As [`open_producer`].
pub async fn open_consumer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Consumer>> {
    let settings = Settings::read(&setup.id, Role::Consumer, section)?;
    let dialer = dialer(setup, &settings).await?;
    consumer::open(setup, settings, dialer).await
}

async fn dialer(setup: &Setup, settings: &Settings) -> Result<Arc<Dialer>> {
    let dialer = Dialer::new(setup, settings.target.tls, settings.ca_file.as_deref(), MAX_PUSH_FRAME, None);
    dialer.await.map_err(|error| error.by(PROVIDER))
}
