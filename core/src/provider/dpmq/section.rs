//! The provider's section of a client's config.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{PROVIDER, SERVER};
use crate::config::{Role, Span, from_value};
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{Pace, Prefetch, Target, default_client_id, refuse_foreign};
use crate::wire::dpmq::consumer_path;

/// The most connections of a producer.
const MAX_CONNECTIONS: u32 = 1024;

/// `"provider": {"type": "dpmq", …}`. Keys not listed here are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The server: `http://HOST:PORT` or `https://HOST:PORT`, for producers and consumers; a path in front of
    /// the server's own is allowed.
    pub url: String,
    /// The topic, without `|` and `/`.
    pub topic: String,
    /// The id that the server knows the consumer by; default `<id>-<host>-<pid>-<random>`. Consumers only.
    pub client_id: Option<String>,
    /// Connections, each with one message on its way; default 8. With 1 messages are sent in the order of
    /// their calls. Producers only.
    pub connections: Option<u32>,
    /// Time between two checks of an idle connection; default `10s`.
    pub check_time: Option<Span>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Deliveries not yet received: below this many, a consumer that stopped reading because of
    /// `prefetch_bytes` reads on; default 1000. Consumers only.
    pub prefetch: Option<u64>,
    /// Bytes of deliveries not yet received; at this many the consumer stops reading; default 67108864.
    pub prefetch_bytes: Option<u64>,
    /// The wait before the second try to connect is up to this; it doubles from try to try; default `100ms`.
    pub reconnect_base: Option<Span>,
    /// The longest wait between two tries to connect; default `5s`.
    pub reconnect_max: Option<Span>,
}

/// The section, checked, with its defaults.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// A consumer's endpoint; of a producer the server alone.
    pub(super) target: Target,
    pub(super) topic: Arc<str>,
    pub(super) connections: usize,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) pace: Pace,
    pub(super) prefetch: Prefetch,
}

impl Settings {
    pub(super) fn read(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        Settings::check(id, role, section).map_err(|error| error.by(PROVIDER))
    }

    fn check(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        let section: Section = from_value(Value::Object(section))?;
        let of_producers = [("connections", section.connections.is_some())];
        let of_consumers = [
            ("client_id", section.client_id.is_some()),
            ("prefetch", section.prefetch.is_some()),
            ("prefetch_bytes", section.prefetch_bytes.is_some()),
        ];
        refuse_foreign(role, &of_producers, &of_consumers)?;
        let client_id = section.client_id.unwrap_or_else(|| default_client_id(id).replace('|', "_"));
        // A topic that no consumer could name is refused to producers too.
        let path = consumer_path(&section.topic, &client_id)?;
        let path = match role {
            Role::Producer => "",
            Role::Consumer => &path,
        };
        let mut target = Target::parse(SERVER, &section.url, ["http", "https"], path)?;
        if role == Role::Consumer {
            // A WebSocket has schemes of its own: `ws` and `wss`.
            target.uri = target.uri.replacen("http", "ws", 1);
        }
        let connections = section.connections.unwrap_or(8);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            let text = format!("`connections` must be from 1 to {MAX_CONNECTIONS}");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        Ok(Settings {
            target,
            topic: section.topic.into(),
            connections: connections as usize,
            ca_file: section.ca_file,
            pace: Pace::read(section.check_time, section.reconnect_base, section.reconnect_max)?,
            prefetch: Prefetch::read(section.prefetch, section.prefetch_bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(role: Role, more: Value) -> Result<Settings> {
        let mut section = json!({"url": "http://127.0.0.1:80/mq/", "topic": "t"});
        for (key, value) in more.as_object().unwrap() {
            section[key] = value.clone();
        }
        Settings::read("id", role, section.as_object().unwrap().clone())
    }

    #[test]
    fn a_consumer_has_an_endpoint_and_a_producer_a_server() {
        let settings = read(Role::Consumer, json!({"client_id": "a b"})).unwrap();
        assert_eq!(settings.target.uri, "ws://127.0.0.1:80/mq/ConsumersConn/t/a%20b");
        assert_eq!(&*settings.target.label, "http://127.0.0.1:80");
        let settings = read(Role::Producer, json!({"url": "https://mq.example.com"})).unwrap();
        assert_eq!((settings.target.uri.as_str(), settings.connections), ("https://mq.example.com:443", 8));
        assert!(settings.target.tls);
    }

    #[test]
    fn wrong_sections_name_the_key() {
        for (role, more, hint) in [
            (Role::Producer, json!({"topic": ""}), "`topic` is empty"),
            (Role::Producer, json!({"topic": "a|b"}), "`topic`"),
            (Role::Producer, json!({"topic": "a/b"}), "`topic`"),
            (Role::Producer, json!({"url": "ws://127.0.0.1"}), "`url` must start with http:// or https://"),
            (Role::Producer, json!({"url": "http://:x@127.0.0.1"}), "no login"),
            (Role::Producer, json!({"secret_key": "x"}), "`secret_key`"),
            (Role::Producer, json!({"client_id": "x"}), "`client_id` is a key of consumers"),
            (Role::Producer, json!({"connections": 0}), "`connections`"),
            (Role::Producer, json!({"conections": 1}), "`connections`"),
            (Role::Consumer, json!({"connections": 1}), "`connections` is a key of producers"),
            (Role::Consumer, json!({"client_id": "a|b"}), "`client_id`"),
            (Role::Consumer, json!({"prefetch": 0}), "`prefetch`"),
            (Role::Consumer, json!({"check_time": "1ms"}), "`check_time`"),
        ] {
            let error = read(role, more.clone()).err().unwrap_or_else(|| panic!("{more} was taken"));
            assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some("dpmq")), "{error}");
            assert!(error.message().contains(hint), "{error}");
        }
    }
}
