//! Config -> provider -> strategies: the one place that sees both.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::client::{Consumer, Producer};
use crate::config::{self, ClientConfig, Role, nearest};
use crate::error::{Error, Kind, Result};
use crate::provider::{Setup, dpmq, kapokmq, memory};

/// The providers by the `type` in a config.
pub const PROVIDERS: [&str; 3] = ["dpmq", "kapokmq", "memory"];

/// The strategies by the `type` in a config.
pub const STRATEGIES: [&str; 0] = [];

/// Checks a config as far as that goes without a connection: keys, types and names.
pub fn check(config: &ClientConfig) -> Result<()> {
    let (name, section) = config.provider_section()?;
    strategies(config)?;
    match name.as_str() {
        "dpmq" => dpmq::check(section, config.role.unwrap_or_default()),
        "kapokmq" => kapokmq::check(section, config.role.unwrap_or_default()),
        "memory" => memory::check(section),
        other => Err(unknown_provider(other)),
    }
}

/// The clients of a file, or the one whose config is all of it; each is checked as by [`check`], and no two of a role
/// have the same id.
///
/// # Errors
/// `invalid_config` and what else a check says; `already_open` for an id that is there twice.
pub fn file(text: &str) -> Result<Vec<ClientConfig>> {
    let clients = config::parse_file(text)?;
    let mut ids = HashSet::new();
    for client in &clients {
        let (role, id) = (client.role.unwrap_or_default(), client.id.as_deref().unwrap_or_default());
        let place = format!("the client `{id}` of the file");
        check(client).map_err(|error| error.at(&place))?;
        if !ids.insert((role == Role::Producer, id)) {
            let text = "its id names a client of the same role above: each needs its own";
            return Err(Error::new(Kind::AlreadyOpen, text).at(&place));
        }
    }
    Ok(clients)
}

/// Opens a producer.
pub async fn producer(id: &str, config: &ClientConfig, topics: &memory::Topics) -> Result<Arc<dyn Producer>> {
    role_is(config, Role::Producer)?;
    let (name, section) = config.provider_section()?;
    strategies(config)?;
    let setup = Setup::from_config(id, config);
    match name.as_str() {
        "dpmq" => dpmq::open_producer(&setup, section).await,
        "kapokmq" => kapokmq::open_producer(&setup, section).await,
        "memory" => memory::open_producer(&setup, section, topics),
        other => Err(unknown_provider(other)),
    }
}

/// Opens a consumer.
pub async fn consumer(id: &str, config: &ClientConfig, topics: &memory::Topics) -> Result<Arc<dyn Consumer>> {
    role_is(config, Role::Consumer)?;
    let (name, section): (String, Map<String, Value>) = config.provider_section()?;
    if !config.strategies.is_empty() {
        return Err(Error::new(Kind::InvalidConfig, "`strategies` are for producers: a consumer takes none"));
    }
    let setup = Setup::from_config(id, config);
    match name.as_str() {
        "dpmq" => dpmq::open_consumer(&setup, section).await,
        "kapokmq" => kapokmq::open_consumer(&setup, section).await,
        "memory" => memory::open_consumer(&setup, section, topics),
        other => Err(unknown_provider(other)),
    }
}

fn role_is(config: &ClientConfig, role: Role) -> Result<()> {
    match config.role {
        Some(named) if named != role => Err(Error::new(
            Kind::InvalidConfig,
            format!("`role` says {named:?}, and the call opens a {role:?}").to_lowercase(),
        )),
        _ => Ok(()),
    }
}

fn strategies(config: &ClientConfig) -> Result<()> {
    let Some(first) = config.strategies.first() else { return Ok(()) };
    let name = first.get("type").and_then(Value::as_str).unwrap_or_default();
    Err(Error::new(
        Kind::InvalidConfig,
        format!("unknown strategy `{name}`: this version has no strategies yet, leave `strategies` out"),
    ))
}

fn unknown_provider(name: &str) -> Error {
    let mut text = format!("unknown provider `{name}`; known are: {}", PROVIDERS.join(", "));
    if let Some(name) = nearest(name, &PROVIDERS) {
        text.push_str(&format!(" (did you mean `{name}`?)"));
    }
    Error::new(Kind::InvalidConfig, text)
}
