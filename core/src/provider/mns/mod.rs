//! Clients of MNS: a producer for a queue or a topic, a consumer of a queue, and the administration of all three.
//!
//! `section` is the config; `credentials` is whose name requests are sent in, `clock` the time they are signed with;
//! `link` has the connections, `service` sends one operation over them and says what its answer means. `content` makes
//! of a message what the wire carries and back; `producer` and `consumer` are what callers see. Behind a consumer
//! `poll` asks for messages, `held` is the table of those not yet acknowledged, `settle` deletes and gives back,
//! `renew` keeps them hidden from others.

mod admin;
mod clock;
mod consumer;
mod content;
mod credentials;
mod held;
mod link;
mod poll;
mod producer;
mod renew;
mod section;
mod service;
mod settle;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use super::socket::Server;
use crate::client::{Consumer, Producer};
use crate::config::Role;
use crate::error::Result;
use section::Settings;

pub use admin::{Admin, Created, Page, Peeked};
pub use credentials::{Credentials, Keys};
pub use section::{BodyEncoding, Section};

pub use crate::wire::mns::{
    Listed, Listing, QueueAttributes, QueueMeta, SubscriptionAttributes, SubscriptionMeta, TopicAttributes,
    TopicMeta,
};

/// The provider's name.
pub(crate) const PROVIDER: &str = "mns";
const SERVER: Server = Server {
    provider: PROVIDER,
    name: "MNS server",
    no_login: "keys stand under `access_key_id` and `access_key_secret`",
    start: "`ceiba broker --mns`",
    missing: "is it an MNS server?",
};

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>, role: Role) -> Result<()> {
    Settings::read(role, section).map(drop)
}

/// Opens a producer, on the current runtime.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `unavailable` when the service cannot be reached within
/// `connect_timeout`, `authentication` when it refuses the keys, `not_found` when the queue or the topic does not exist.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    producer::open(setup, Settings::read(Role::Producer, section)?).await
}

/// The same in the name of keys that come from elsewhere than the section, which must name none.
///
/// # Errors
/// As [`open_producer`].
pub async fn open_producer_as(
    setup: &Setup,
    section: Map<String, Value>,
    credentials: Arc<dyn Credentials>,
) -> Result<Arc<dyn Producer>> {
    producer::open(setup, Settings::read_as(Role::Producer, section, credentials)?).await
}

/// Opens a consumer, on the current runtime.
///
/// # Errors
/// As [`open_producer`].
pub async fn open_consumer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Consumer>> {
    consumer::open(setup, Settings::read(Role::Consumer, section)?).await
}

/// The same in the name of keys that come from elsewhere than the section, which must name none.
///
/// # Errors
/// As [`open_producer`].
pub async fn open_consumer_as(
    setup: &Setup,
    section: Map<String, Value>,
    credentials: Arc<dyn Credentials>,
) -> Result<Arc<dyn Consumer>> {
    consumer::open(setup, Settings::read_as(Role::Consumer, section, credentials)?).await
}
