//! Mail over SMTP.
//!
//! `section` is the config; `address` reads addresses; `letter` makes a mail of a message; `link` is one connection
//! with its dialog, `pool` keeps them; `producer` is what callers see.

mod address;
mod letter;
mod link;
mod pool;
mod producer;
mod section;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use crate::client::Producer;
use crate::error::Result;
use section::Settings;

pub use section::{Section, TemplateSection, Tls};

/// The provider's name.
pub(crate) const PROVIDER: &str = "smtp";

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>) -> Result<()> {
    Settings::read(section).map(drop)
}

/// Opens a producer, on the current runtime. Unless `connect` is lazy it logs in once.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `unavailable` when no server answered within `connect_timeout` or
/// its certificate is not trusted, and `authentication`.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    let settings = Settings::read(section)?;
    producer::open(setup, settings).await.map_err(|error| error.by(PROVIDER))
}
