//! KapokMQ clients: a producer of one broker or of a cluster, and a consumer.
//!
//! Each client has one task that owns its connections. `section` is the config, `dial` makes a connection,
//! `link` is a live one, `connection` one that comes back; `engine` is a producer's task over `lane`s, `jobs`
//! and the `registry`; `producer` and `consumer` are what callers see, `receiver` is a consumer's task.

mod backoff;
mod board;
mod connection;
mod consumer;
mod dial;
mod engine;
mod inbox;
mod jobs;
mod lane;
mod link;
mod producer;
mod receiver;
mod registry;
mod section;
mod spread;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use crate::client::{Consumer, Producer};
use crate::config::Role;
use crate::error::{Error, Result};
use crate::tls;
use dial::Dialer;
use section::Settings;

pub use section::{NodeProtocol, Section, Spread};

/// The provider's name.
pub(crate) const PROVIDER: &str = "kapokmq";

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
    let tls =
        if settings.uses_tls() { Some(tls::load_client_config(settings.ca_file()).await?) } else { None };
    Ok(Arc::new(Dialer {
        secret: settings.secret.clone(),
        tls,
        timeout: setup.connect_timeout,
        largest_frame,
    }))
}

/// Whether trying again without a change would end the same.
fn permanent(error: &Error) -> bool {
    !error.retryable() || error.kind() == crate::error::Kind::Protocol
}
