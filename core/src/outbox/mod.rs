//! The outbox: a strategy, always the outermost, that keeps messages on disk until they are sent.
//!
//! A row is pending until somebody claims it. A claim is a lease with a token: who holds it sends the row and ends the
//! lease, and once it ends by itself another may claim the row, so several processes share one outbox. `producer` is
//! what the host's sends go through, `runner` sends what is stored, `desk` is for who looks into it.

mod attempt;
mod backoff;
mod chores;
mod config;

mod desk;
mod files;
mod kept;
#[cfg(feature = "mongodb")]
pub mod mongodb;
mod producer;
pub mod row;
mod runner;
mod schedule;
mod shared;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod store;
mod stored;
mod untold;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::client::Producer;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::random::Random;

pub use config::Address;
pub use desk::Desk;
pub(crate) use desk::read;
pub(crate) use kept::{Lent, close_idle, lend};
pub use producer::Outbox;
use store::Store;

/// The `type` in a config.
pub const TYPE: &str = "outbox";

/// What an outbox is opened with, beside its own section of the config.
pub struct Setup {
    /// The id of the client: rows are its.
    pub id: Arc<str>,
    /// How long a send may take that names no deadline.
    pub deadline: Duration,
    /// The time of day.
    pub clock: Clock,
    /// Where waits are drawn from.
    pub random: Random,
    /// Who is told of what was given up: found by the id that the config names.
    pub notifier: Option<Arc<dyn Producer>>,
}

/// A section of a config, read.
pub struct Section {
    name: Arc<str>,
    terms: config::Terms,
}

impl Section {
    /// Whether this is the section of an outbox.
    pub fn is_one(section: &Map<String, Value>) -> bool {
        section.get("type").and_then(Value::as_str) == Some(TYPE)
    }

    /// Reads a section.
    ///
    /// # Errors
    /// `invalid_config`, naming the key.
    pub fn parse(mut section: Map<String, Value>, deadline: Duration) -> Result<Section> {
        section.remove("type");
        let name = match section.remove("name") {
            None => TYPE.into(),
            Some(Value::String(name)) if !name.is_empty() => name.into(),
            Some(_) => return Err(Error::new(Kind::InvalidConfig, "`name` of the outbox must be a text")),
        };
        let terms = config::Terms::parse(section).and_then(|terms| terms.lease(deadline).map(|_| terms));
        let terms = terms.map_err(|error| error.at(&format!("strategy `{name}`")))?;
        Ok(Section { name, terms })
    }

    /// The id of the producer that is told of what was given up.
    pub fn notify(&self) -> Option<&str> {
        self.terms.config.notify.as_deref()
    }

    /// Opens the store, and puts the outbox around a producer.
    ///
    /// # Errors
    /// `storage`.
    pub async fn wrap(self, setup: Setup, inner: Arc<dyn Producer>) -> Result<Arc<Outbox>> {
        let store = open_store(&self.terms.address, true).await?;
        self.wrap_over(setup, inner, store)
    }

    /// The same over a store that is open.
    ///
    /// # Errors
    /// `invalid_config`.
    pub fn wrap_over(
        self,
        setup: Setup,
        inner: Arc<dyn Producer>,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Outbox>> {
        let lease = self.terms.lease(setup.deadline)?;
        let notifier = self.terms.config.notify.as_deref().zip(setup.notifier);
        let notifier = notifier.map(|(id, producer)| chores::Notifier { id: id.into(), producer });
        let time = (setup.clock, setup.random);
        let shared = shared::Shared::new(setup.id, self.terms, setup.deadline, lease, store, time);
        Ok(Arc::new(Outbox::new(self.name, shared, inner, notifier)))
    }
}

/// Opens a store by its address; a file that is missing is made if told.
///
/// # Errors
/// `storage`, `not_found`, `forked`, and `unsupported` where this build has no such store.
pub async fn open_store(address: &Address, create: bool) -> Result<Arc<dyn Store>> {
    match address {
        #[cfg(feature = "sqlite")]
        Address::Sqlite(path) => Ok(sqlite::SqliteStore::open(path, create).await?),
        #[cfg(not(feature = "sqlite"))]
        Address::Sqlite(_) => Err(Error::new(Kind::Unsupported, "this build has no SQLite")),
        #[cfg(feature = "mongodb")]
        Address::Mongo(target) => Ok(mongodb::MongoStore::open(target).await?),
    }
}

#[cfg(test)]
mod tests;
