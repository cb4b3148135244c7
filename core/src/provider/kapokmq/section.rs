//! The provider's section of a client's config.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::{PROVIDER, SERVER};
use crate::config::{Role, Span, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{
    Offer, Pace, Prefetch, Target, bracketed, default_client_id, plain_url, refuse_foreign,
};
use crate::secret::Secret;
use crate::wire::kapokmq::{
    DURABLE, EXTENSION_HEADER, EXTENSION_VERSION, SUBSCRIPTION_HEADER, consumer_path, producer_path,
};

/// The schemes of a broker, plain and encrypted.
const SCHEMES: [&str; 2] = ["ws", "wss"];

/// The transport between a cluster's producer and its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum NodeProtocol {
    /// WebSocket.
    #[default]
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// How a cluster's producer spreads messages over its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Each to a node drawn at random.
    #[default]
    Random,
    /// Each to the next node.
    RoundRobin,
    /// Each to the node with the fewest unacknowledged messages.
    LeastPending,
}

/// `"provider": {"type": "kapokmq", …}`. Keys not listed here are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The broker: `ws://HOST:PORT` or `wss://HOST:PORT`; a path in front of the broker's own is allowed.
    /// Without a port it is 80 or 443, as for any such URL. Either this or `registry`.
    pub url: Option<String>,
    /// The registry of a cluster, `http://HOST:PORT` or `https://HOST:PORT`. Producers only.
    pub registry: Option<String>,
    /// How the nodes of a cluster are reached: `ws` (default) or `wss`. With `registry` only.
    pub node_protocol: Option<NodeProtocol>,
    /// `random` (default), `round_robin` or `least_pending`. With `registry` only.
    pub spread: Option<Spread>,
    /// The topic.
    pub topic: String,
    /// The secret that the broker asks for: a text, `{"env": NAME}` or `{"file": PATH}`.
    /// Required.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub secret_key: Option<Secret>,
    /// The id that the broker knows this client by; default `<id>-<host>-<pid>-<random>`.
    pub client_id: Option<String>,
    /// Whether the topic keeps what comes while this consumer is away, where every consumer gets every message;
    /// default false. It needs `client_id`, and a broker of ours. Consumers only.
    pub durable: Option<bool>,
    /// Time between two pings, and between two requests to the registry; default `10s`.
    pub check_time: Option<Span>,
    /// Messages of one connection that may wait for their ack; default 1024. Producers only.
    pub window: Option<u32>,
    /// Whether messages that were written and not acknowledged are sent again after a loss of the
    /// connection, which may deliver them twice; default false. Producers only.
    pub resend_unacked: Option<bool>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Deliveries not yet received: below this many, a consumer that had to disconnect because of
    /// `prefetch_bytes` connects again; default 1000. Consumers only.
    pub prefetch: Option<u64>,
    /// Bytes of deliveries not yet received; at this many the consumer disconnects; default 67108864.
    pub prefetch_bytes: Option<u64>,
    /// The wait before the second try to connect is up to this; it doubles from try to try; default `100ms`.
    pub reconnect_base: Option<Span>,
    /// The longest wait between two tries to connect; default `5s`.
    pub reconnect_max: Option<Span>,
}

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) enum Place {
    One(Target),
    Cluster { registry: Url, node_protocol: NodeProtocol, spread: Spread },
}

/// The section, checked, with its defaults.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) place: Place,
    pub(super) topic: Arc<str>,
    pub(super) secret: Secret,
    /// Where the endpoint is on a broker, percent-encoded.
    pub(super) path: String,
    pub(super) window: usize,
    pub(super) resend_unacked: bool,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) prefetch: Prefetch,
    pub(super) pace: Pace,
}

impl Settings {
    pub(super) fn read(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        Settings::check(id, role, section).map_err(|error| error.by(PROVIDER))
    }

    fn check(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        let section: Section = from_value(Value::Object(section))?;
        let wrong = |text: String| Err(Error::new(Kind::InvalidConfig, text));
        let of_producers =
            [("window", section.window.is_some()), ("resend_unacked", section.resend_unacked.is_some())];
        let of_consumers = [
            ("prefetch", section.prefetch.is_some()),
            ("prefetch_bytes", section.prefetch_bytes.is_some()),
            ("durable", section.durable.is_some()),
        ];
        refuse_foreign(role, &of_producers, &of_consumers)?;
        if section.topic.is_empty() {
            return wrong("`topic` is empty".to_owned());
        }
        let Some(secret) = section.secret_key else {
            let text = "the key `secret_key` is missing; in a URL it is the SECRET of \
                        kapokmq://:SECRET@HOST:PORT/TOPIC";
            return wrong(text.to_owned());
        };
        let durable = section.durable.unwrap_or(false);
        if durable && section.client_id.is_none() {
            let text = "`durable` needs `client_id`: by it the broker knows whose subscription it keeps";
            return wrong(text.to_owned());
        }
        let client_id = section.client_id.unwrap_or_else(|| default_client_id(id));
        let path = match role {
            Role::Producer => producer_path(&section.topic, &client_id)?,
            Role::Consumer => consumer_path(&section.topic, &client_id)?,
        };
        let place = match (section.url, section.registry) {
            (Some(url), None) => {
                for (name, set) in
                    [("node_protocol", section.node_protocol.is_some()), ("spread", section.spread.is_some())]
                {
                    if set {
                        return wrong(format!("`{name}` needs `registry` in place of `url`"));
                    }
                }
                Place::One(Target::parse(SERVER, &url, SCHEMES, &path)?.offering(offer(durable)))
            }
            (None, Some(_)) if role == Role::Consumer => {
                let text =
                    "a consumer of a cluster cannot be had on the kapokmq wire: name one node by `url`";
                return Err(Error::new(Kind::Unsupported, text));
            }
            (None, Some(registry)) => Place::Cluster {
                registry: plain_url(SERVER, "registry", &registry, &["http", "https"])?,
                node_protocol: section.node_protocol.unwrap_or_default(),
                spread: section.spread.unwrap_or_default(),
            },
            _ => return wrong("name either `url` or `registry`".to_owned()),
        };
        let settings = Settings {
            place,
            topic: section.topic.into(),
            secret,
            path,
            window: section.window.map_or(1024, |window| window as usize),
            resend_unacked: section.resend_unacked.unwrap_or(false),
            ca_file: section.ca_file,
            prefetch: Prefetch::read(section.prefetch, section.prefetch_bytes)?,
            pace: Pace::read(section.check_time, section.reconnect_base, section.reconnect_max)?,
        };
        if settings.window == 0 {
            return wrong("`window` must be at least 1".to_owned());
        }
        Ok(settings)
    }

    /// Whether some connection of this client is encrypted.
    pub(super) fn uses_tls(&self) -> bool {
        match &self.place {
            Place::One(target) => target.tls,
            Place::Cluster { registry, node_protocol, .. } => {
                registry.scheme() == "https" || *node_protocol == NodeProtocol::Wss
            }
        }
    }

    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }
}

/// The target of a cluster's node.
pub(super) fn node_target(addr: &str, port: &str, protocol: NodeProtocol, path: &str) -> Result<Target> {
    let scheme = match protocol {
        NodeProtocol::Ws => "ws",
        NodeProtocol::Wss => "wss",
    };
    let bad = || Error::new(Kind::Protocol, "the registry named a node whose address cannot be used");
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    let url = format!("{scheme}://{}:{port}", bracketed(addr));
    let target = Target::parse(SERVER, &url, SCHEMES, path).map_err(|_| bad())?;
    // An address with a slash in it would take the port for a piece of the path.
    if target.port != port || target.uri != format!("{}{path}", target.label) {
        return Err(bad());
    }
    Ok(target.offering(offer(false)))
}

/// Every connection offers the extension; servers that do not know it ignore the header.
fn offer(durable: bool) -> Offer {
    Offer {
        extension: (EXTENSION_HEADER, EXTENSION_VERSION),
        needing: durable.then_some((SUBSCRIPTION_HEADER, DURABLE, "durable")),
    }
}
