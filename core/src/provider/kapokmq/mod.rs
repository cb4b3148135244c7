//! KapokMQ clients: a producer of one broker or of a cluster, and a consumer.
//!
//! Each client has one task that owns its connections, which are the shared ones of `provider/socket` with the
//! `login` of this wire. `section` is the config; `engine` is a producer's task over `lane`s, `jobs` and the
//! `registry`; `producer` is what callers see of it, `consumer` what is this wire's own of a consumer.

mod consumer;
mod engine;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod jobs;
mod lane;
mod login;
mod producer;
mod registry;
mod section;
mod spread;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use super::socket::{Dialer, LogIn, Server};
use crate::client::{Consumer, Producer};
use crate::config::Role;
use crate::error::Result;
use section::Settings;

pub use section::{NodeProtocol, Section, Spread};

/// The provider's name.
pub(crate) const PROVIDER: &str = "kapokmq";
const SERVER: Server = Server {
    provider: PROVIDER,
    name: "KapokMQ broker",
    no_login: "the secret goes into `secret_key`",
    start: "`ceiba broker`",
    missing: "is it a KapokMQ broker?",
};

/// The largest frame that a broker takes, in bytes.
const MAX_FRAME: usize = 64 << 20;
/// The largest frame that a producer reads: a broker says `ok` and little else.
const MAX_ANSWER_FRAME: usize = 64 << 10;
/// The largest frame that a consumer reads: each byte of the largest message may have been escaped to six.
const MAX_PUSH_FRAME: usize = MAX_FRAME * 6 + (64 << 10);

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key; `unsupported` for a consumer of a cluster.
pub fn check(section: Map<String, Value>, role: Role) -> Result<()> {
    Settings::read("check", role, section).map(drop)
}

/// Opens a producer, on the current runtime.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `authentication` for a refused key, `unavailable` when no
/// connection was made within `connect_timeout`, or what else stands in its way.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    let settings = Settings::read(&setup.id, Role::Producer, section)?;
    let dialer = dialer(setup, &settings, MAX_ANSWER_FRAME).await.map_err(|error| error.by(PROVIDER))?;
    producer::open(setup, settings, dialer).await
}

/// Opens a consumer, on the current runtime.
///
/// # Errors
/// As [`open_producer`]; `unsupported` for a consumer of a cluster.
pub async fn open_consumer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Consumer>> {
    let settings = Settings::read(&setup.id, Role::Consumer, section)?;
    let dialer = dialer(setup, &settings, MAX_PUSH_FRAME).await.map_err(|error| error.by(PROVIDER))?;
    consumer::open(setup, settings, dialer).await
}

async fn dialer(setup: &Setup, settings: &Settings, largest_frame: usize) -> Result<Arc<Dialer>> {
    let secret = settings.secret.clone();
    let log_in: LogIn = Box::new(move |wire, target| {
        let secret = secret.clone();
        Box::pin(async move { login::log_in(wire, target, &secret).await })
    });
    Dialer::new(setup, settings.uses_tls(), settings.ca_file(), largest_frame, Some(log_in)).await
}
