//! Which store, and whose rows in it.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ceiba_core::calls;
use ceiba_core::config::{ClientConfig, Role, deserialize_secret};
use ceiba_core::error::{Error, Kind};
use ceiba_core::outbox::{Address, TYPE};
use ceiba_core::secret::Secret;
use serde_json::{Map, Value, json};

use super::arguments::{ConfigArgs, RowsArgs, StoreArgs};
use crate::failure::Failure;

/// No config is longer: a file that is one was named by mistake.
const LONGEST: u64 = 16 << 20;

/// Whether a store may be made by looking at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Never,
    IfNeedBe,
}

/// A store by its address.
#[derive(Debug)]
pub(super) struct Target {
    /// Not to be printed: it may hold a password.
    pub(super) address: Secret,
    /// Whose rows; none for all.
    pub(super) producer: Option<String>,
}

impl Target {
    pub(super) fn of(args: &StoreArgs) -> Result<Target, Failure> {
        Target::named(args.store.as_deref(), &args.config, args.producer.as_deref(), Make::Never)
    }

    /// The store, and the numbers of rows after it.
    pub(super) fn of_rows<'a>(
        args: &'a RowsArgs,
        producer: Option<&str>,
    ) -> Result<(Target, &'a [String]), Failure> {
        let (store, rows) = match args.words.split_first() {
            Some((first, rest)) if args.config.config.is_none() => (Some(first.as_str()), rest),
            _ => (None, args.words.as_slice()),
        };
        if let Some(row) = rows.iter().find(|row| row.parse::<u64>().is_err()) {
            return Err(Failure::usage(format!(
                "`{row}` is not the number of a row: `ceiba outbox ls` lists them"
            )));
        }
        Ok((Target::named(store, &args.config, producer, Make::Never)?, rows))
    }

    pub(super) fn named(
        store: Option<&str>,
        config: &ConfigArgs,
        producer: Option<&str>,
        make: Make,
    ) -> Result<Target, Failure> {
        if config.config.is_none() && config.id.is_some() {
            return Err(Failure::usage("--id names a producer of --config FILE: give that, or --producer"));
        }
        let target = match (&config.config, store) {
            (Some(file), _) => Chosen::read(file, config.id.as_deref())?.target,
            (None, Some(store)) => {
                Target { address: Secret::new(store), producer: producer.map(str::to_owned) }
            }
            (None, None) => {
                return Err(Failure::usage(
                    "no store: give its address, as in sqlite:FILE, or --config FILE",
                ));
            }
        };
        // Looking at what is not there must not make it.
        match Address::parse(target.address.expose()).map_err(Failure::of_input)? {
            Address::Sqlite(path) if make == Make::Never && !path.exists() => {
                Err(Failure::usage(format!("{} is not there: name the file of an outbox", path.display())))
            }
            _ => Ok(target),
        }
    }

    /// Options of a call, for its rows.
    pub(super) fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        if let Some(producer) = &self.producer {
            options.insert("producer".to_owned(), json!(producer));
        }
        options
    }
}

/// A producer of a config file that has an outbox.
pub(super) struct Chosen {
    pub(super) target: Target,
    pub(super) id: String,
    /// What is to be opened: those that it names, and itself as the last.
    pub(super) clients: Vec<ClientConfig>,
}

impl Chosen {
    pub(super) fn read(file: &Path, id: Option<&str>) -> Result<Chosen, Failure> {
        let name = format!("--config {}", file.display());
        let wrong = |why: &str| Failure::usage(format!("{name}: {why}"));
        let mut text = String::new();
        File::open(file)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(|error| wrong(&format!("it cannot be read as text: {error}")))?;
        if text.len() as u64 > LONGEST {
            return Err(wrong(&format!("it is longer than {LONGEST} bytes")));
        }
        let clients = calls::read_file(&text).map_err(|error| Failure::of_input(error).at(&name))?;
        let mut with_outbox =
            clients.iter().filter(|client| is_producer(client) && section(client).is_some());
        let chosen = match id {
            Some(id) => {
                let of_id = |client: &&ClientConfig| is_producer(client) && client.id.as_deref() == Some(id);
                clients.iter().find(of_id).ok_or_else(|| wrong(&format!("it has no producer `{id}`")))?
            }
            None => match (with_outbox.next(), with_outbox.next()) {
                (Some(only), None) => only,
                (None, _) => return Err(wrong("none of its producers has an outbox")),
                _ => return Err(wrong("several of its producers have an outbox: say which with --id")),
            },
        };
        let id = chosen.id.clone().unwrap_or_default();
        let Some(section) = section(chosen) else {
            return Err(wrong(&format!("the producer `{id}` has no outbox")));
        };
        // The address itself, or where it is read from: it may hold a password.
        let address = section.get("url").cloned().unwrap_or_default();
        let address = deserialize_secret(address)
            .map_err(|why| wrong(&format!("the `url` of the outbox of `{id}`: {why}")))?;
        let target = Target { address, producer: Some(id.clone()) };
        let clients = needed(&clients, chosen);
        Ok(Chosen { target, id, clients })
    }
}

fn is_producer(client: &ClientConfig) -> bool {
    client.role.unwrap_or_default() == Role::Producer
}

fn section(client: &ClientConfig) -> Option<&Map<String, Value>> {
    client.strategies.iter().find(|section| section.get("type").and_then(Value::as_str) == Some(TYPE))
}

/// The client with those that it names, in the order of the file: they stand before it.
fn needed(clients: &[ClientConfig], chosen: &ClientConfig) -> Vec<ClientConfig> {
    let mut ids = HashSet::from([chosen.id.clone().unwrap_or_default()]);
    let mut needed = Vec::new();
    for client in clients.iter().rev().filter(|client| is_producer(client)) {
        if client.id.as_ref().is_some_and(|id| ids.contains(id)) {
            client.strategies.iter().for_each(|section| names(section, &mut ids));
            needed.push(client.clone());
        }
    }
    needed.reverse();
    needed
}

/// The ids that a section names: whom it notifies, and members.
fn names(section: &Map<String, Value>, ids: &mut HashSet<String>) {
    if let Some(Value::String(id)) = section.get("notify") {
        ids.insert(id.clone());
    }
    for member in section.get("members").and_then(Value::as_array).into_iter().flatten() {
        match member {
            Value::String(id) => {
                ids.insert(id.clone());
            }
            Value::Object(member) => {
                let strategies = member.get("strategies").and_then(Value::as_array);
                strategies
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object)
                    .for_each(|section| names(section, ids));
            }
            _ => {}
        }
    }
}

/// An error of a call on a store.
pub(super) fn failure(error: Error) -> Failure {
    match error.kind() {
        Kind::InvalidArgument
        | Kind::InvalidConfig
        | Kind::Unsupported
        | Kind::Unavailable
        | Kind::Authentication
        | Kind::Permission => Failure::at_open(error),
        _ => Failure::of(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(text: &str) -> Vec<ClientConfig> {
        calls::read_file(text).unwrap()
    }

    #[test]
    fn a_drain_opens_the_producer_and_whom_it_names() {
        let memory = r#""provider": {"type": "memory", "topic": "t"}"#;
        let clients = clients(&format!(
            r#"{{"clients": [
                {{"id": "ops", {memory}}},
                {{"id": "other", {memory}}},
                {{"id": "member", {memory}}},
                {{"id": "ops", "role": "consumer", {memory}}},
                {{"id": "orders", {memory}, "strategies": [
                    {{"type": "outbox", "url": "sqlite:o.db", "notify": "ops"}},
                    {{"type": "failover", "members": [{{{memory}, "strategies":
                        [{{"type": "failover", "members": ["member"]}}]}}]}}]}},
                {{"id": "late", {memory}}}]}}"#
        ));
        let chosen = clients.iter().find(|client| client.id.as_deref() == Some("orders")).unwrap();
        let ids: Vec<_> = needed(&clients, chosen).into_iter().map(|client| client.id.unwrap()).collect();
        assert_eq!(ids, ["ops", "member", "orders"]);
    }
}
