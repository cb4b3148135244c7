//! The provider's section of a client's config.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::{Host, Url};

use super::PROVIDER;
use crate::config::{Role, Span, deserialize_secret, from_value};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::kapokmq::{consumer_path, producer_path};

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
    #[serde(deserialize_with = "deserialize_secret")]
    pub secret_key: Secret,
    /// The id that the broker knows this client by; default `<id>-<host>-<pid>-<random>`.
    pub client_id: Option<String>,
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

/// What a connection is made to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Scheme, host and port: for people.
    pub(super) label: Arc<str>,
    /// The whole address of the WebSocket.
    pub(super) uri: String,
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
    pub(super) check_time: Duration,
    pub(super) window: usize,
    pub(super) resend_unacked: bool,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) prefetch: usize,
    pub(super) prefetch_bytes: usize,
    pub(super) reconnect_base: Duration,
    pub(super) reconnect_max: Duration,
}

impl Settings {
    pub(super) fn read(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        Settings::check(id, role, section).map_err(|error| error.by(PROVIDER))
    }

    fn check(id: &str, role: Role, section: Map<String, Value>) -> Result<Settings> {
        let section: Section = from_value(Value::Object(section))?;
        let wrong = |text: String| Err(Error::new(Kind::InvalidConfig, text));
        let foreign: &[(&str, bool)] = match role {
            Role::Producer => &[
                ("prefetch", section.prefetch.is_some()),
                ("prefetch_bytes", section.prefetch_bytes.is_some()),
            ],
            Role::Consumer => {
                &[("window", section.window.is_some()), ("resend_unacked", section.resend_unacked.is_some())]
            }
        };
        if let Some((name, _)) = foreign.iter().find(|(_, set)| *set) {
            let (own, other) = match role {
                Role::Producer => ("producer", "consumers"),
                Role::Consumer => ("consumer", "producers"),
            };
            return wrong(format!("`{name}` is a key of {other}: this is a {own}"));
        }
        if section.topic.is_empty() {
            return wrong("`topic` is empty".to_owned());
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
                Place::One(Target::parse(&url, &path)?)
            }
            (None, Some(_)) if role == Role::Consumer => {
                let text =
                    "a consumer of a cluster cannot be had on the kapokmq wire: name one node by `url`";
                return Err(Error::new(Kind::Unsupported, text));
            }
            (None, Some(registry)) => Place::Cluster {
                registry: plain_url("registry", &registry, &["http", "https"])?,
                node_protocol: section.node_protocol.unwrap_or_default(),
                spread: section.spread.unwrap_or_default(),
            },
            _ => return wrong("name either `url` or `registry`".to_owned()),
        };
        let settings = Settings {
            place,
            topic: section.topic.into(),
            secret: section.secret_key,
            path,
            check_time: section.check_time.map_or(Duration::from_secs(10), |span| span.0),
            window: section.window.map_or(1024, |window| window as usize),
            resend_unacked: section.resend_unacked.unwrap_or(false),
            ca_file: section.ca_file,
            prefetch: whole("prefetch", section.prefetch, 1000)?,
            prefetch_bytes: whole("prefetch_bytes", section.prefetch_bytes, 64 << 20)?,
            reconnect_base: section.reconnect_base.map_or(Duration::from_millis(100), |span| span.0),
            reconnect_max: section.reconnect_max.map_or(Duration::from_secs(5), |span| span.0),
        };
        if settings.window == 0 || settings.prefetch == 0 || settings.prefetch_bytes == 0 {
            return wrong("`window`, `prefetch` and `prefetch_bytes` must be at least 1".to_owned());
        }
        // Shorter ones would be a busy loop.
        let shortest = Duration::from_millis(10);
        if settings.check_time < shortest || settings.reconnect_base < shortest {
            return wrong("`check_time` and `reconnect_base` must be at least 10ms".to_owned());
        }
        if settings.reconnect_max < settings.reconnect_base {
            return wrong("`reconnect_max` must not be shorter than `reconnect_base`".to_owned());
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

impl Target {
    /// Reads the `url` of a broker; `path` is the endpoint on it.
    pub(super) fn parse(url: &str, path: &str) -> Result<Target> {
        let url = plain_url("url", url, &["ws", "wss"])?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(Error::new(Kind::InvalidConfig, "`url` names no host")),
        };
        let tls = url.scheme() == "wss";
        let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        let label = format!("{}://{}:{port}", url.scheme(), bracketed(&host));
        let uri = format!("{label}{}{path}", url.path().trim_end_matches('/'));
        Ok(Target { host, port, tls, label: label.into(), uri })
    }

    /// The target of a cluster's node.
    pub(super) fn of_node(addr: &str, port: &str, protocol: NodeProtocol, path: &str) -> Result<Target> {
        let scheme = match protocol {
            NodeProtocol::Ws => "ws",
            NodeProtocol::Wss => "wss",
        };
        let bad = || Error::new(Kind::Protocol, "the registry named a node whose address cannot be used");
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Target::parse(&format!("{scheme}://{}:{port}", bracketed(addr)), path).map_err(|_| bad())
    }
}

fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

fn whole(name: &str, value: Option<u64>, default: usize) -> Result<usize> {
    value.map_or(Ok(default), |value| {
        usize::try_from(value).map_err(|_| Error::new(Kind::InvalidConfig, format!("`{name}` is too large")))
    })
}

/// Parses a URL that has a host and neither user, query nor fragment. Errors quote nothing of it: it may
/// hold a secret in the wrong place.
fn plain_url(name: &str, text: &str, schemes: &[&str]) -> Result<Url> {
    let wrong = |what: &str| Error::new(Kind::InvalidConfig, format!("`{name}` {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    if !schemes.contains(&url.scheme()) {
        return Err(wrong(&format!("must start with {}", schemes.join(":// or ") + "://")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user or a password: the secret goes into `secret_key`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or a fragment"));
    }
    if url.host_str().unwrap_or_default().is_empty() {
        return Err(wrong("names no host"));
    }
    Ok(url)
}

fn default_client_id(id: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "host".to_owned());
    // The wire cannot carry a `/`.
    format!("{id}-{host}-{}-{:08x}", std::process::id(), rand::random::<u32>()).replace('/', "_")
}
