//! What the embedded broker is told, as JSON: the same text in every language.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json as object};

use crate::broker::{BrokerConfig, DeliveryMode, Durability, MnsConfig, TopicConfig, WhenFull};
use crate::config::{Span, deserialize_secret, from_value, json, named_span};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::kapokmq::Node;

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Delivery {
    WorkQueue,
    PublishSubscribe,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Full {
    Wait,
    Refuse,
}

/// The keys of topics, for one alone.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Topic {
    max_attempts: Option<u32>,
    expire_after: Option<Span>,
    push_every: Option<Span>,
    push_count: Option<u32>,
    max_messages: Option<u64>,
    max_bytes: Option<u64>,
    when_full: Option<Full>,
    deduplicate: Option<Span>,
    compat: Option<bool>,
}

/// The MNS front.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mns {
    #[serde(default)]
    listen: Option<String>,
    /// Secrets by ids.
    keys: BTreeMap<String, Value>,
    #[serde(default)]
    private_endpoints: bool,
    #[serde(default)]
    endpoints: Vec<String>,
}

impl Mns {
    fn checked(self) -> Result<MnsConfig> {
        let wrong = |text: String| Error::new(Kind::InvalidConfig, format!("at `mns`: {text}"));
        let mut keys = BTreeMap::new();
        for (id, secret) in self.keys {
            #[derive(Deserialize)]
            struct One {
                #[serde(deserialize_with = "deserialize_secret")]
                secret: Secret,
            }
            let at = |error: Error| wrong(format!("`keys.{id}`: {}", error.message()));
            let One { secret } = from_value(object!({ "secret": secret })).map_err(at)?;
            if id.is_empty() || secret.expose().is_empty() {
                return Err(wrong("an id or a secret of `keys` is empty".to_owned()));
            }
            keys.insert(id, secret);
        }
        if keys.is_empty() {
            return Err(wrong("`keys` has none: write {\"ID\": \"SECRET\"}".to_owned()));
        }
        Ok(MnsConfig {
            listen: self.listen.unwrap_or_else(|| "127.0.0.1:0".to_owned()),
            keys,
            private_endpoints: self.private_endpoints,
            endpoints: self
                .endpoints
                .iter()
                .map(|network| network.parse().map_err(|text| wrong(format!("`endpoints`: {text}"))))
                .collect::<Result<_>>()?,
        })
    }
}

/// The settings of a broker's MNS front, as they stand under `mns`.
///
/// # Errors
/// `invalid_config`, naming the key and never quoting a secret.
pub fn mns(text: &str) -> Result<MnsConfig> {
    let mns: Mns = from_value(json(text)?)?;
    mns.checked()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    listen: Option<String>,
    #[serde(deserialize_with = "deserialize_secret")]
    secret_key: Secret,
    #[serde(default)]
    delivery: Option<Delivery>,
    #[serde(default)]
    dpmq: bool,
    #[serde(default)]
    mns: Option<Mns>,
    #[serde(default)]
    data: Option<PathBuf>,
    #[serde(default)]
    durability: Option<String>,
    #[serde(default)]
    advertise: Option<String>,
    #[serde(default)]
    redeliver_after: Option<Span>,
    #[serde(default)]
    nodes: Vec<String>,
    // Those of `Topic`, for all topics; a flattened struct would take unknown keys.
    #[serde(default)]
    max_attempts: Option<u32>,
    #[serde(default)]
    expire_after: Option<Span>,
    #[serde(default)]
    push_every: Option<Span>,
    #[serde(default)]
    push_count: Option<u32>,
    #[serde(default)]
    max_messages: Option<u64>,
    #[serde(default)]
    max_bytes: Option<u64>,
    #[serde(default)]
    when_full: Option<Full>,
    #[serde(default)]
    deduplicate: Option<Span>,
    #[serde(default)]
    compat: Option<bool>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

impl Topic {
    /// These keys over what holds without them; `place` is where they stand.
    fn over(&self, base: &TopicConfig, place: &str) -> Result<TopicConfig> {
        let wrong = |text: String| Error::new(Kind::InvalidConfig, format!("{place}{text}"));
        let mut topic = base.clone();
        for (name, zero) in [
            ("max_attempts", self.max_attempts == Some(0)),
            ("push_count", self.push_count == Some(0)),
            ("max_messages", self.max_messages == Some(0)),
            ("expire_after", is_zero(self.expire_after)),
            ("push_every", is_zero(self.push_every)),
            ("deduplicate", is_zero(self.deduplicate)),
        ] {
            if zero {
                return Err(wrong(format!("`{name}` must be more than 0: leave it out for none")));
            }
        }
        topic.max_attempts = self.max_attempts.or(topic.max_attempts);
        topic.expire_after = self.expire_after.map(|span| span.0).or(topic.expire_after);
        match (self.push_every, self.push_count) {
            (Some(every), count) => topic.push_batches(count.unwrap_or(1), every.0),
            (None, Some(_)) => return Err(wrong("`push_count` needs `push_every`".to_owned())),
            (None, None) => {}
        }
        topic.max_messages = self.max_messages.map(whole).or(topic.max_messages);
        topic.max_bytes = self.max_bytes.map(whole).or(topic.max_bytes);
        topic.when_full = match self.when_full {
            Some(Full::Wait) => WhenFull::Wait,
            Some(Full::Refuse) => WhenFull::Refuse,
            None => topic.when_full,
        };
        topic.deduplicate = self.deduplicate.map(|span| span.0).or(topic.deduplicate);
        topic.compat = self.compat.unwrap_or(topic.compat);
        Ok(topic)
    }
}

fn is_zero(span: Option<Span>) -> bool {
    span.is_some_and(|span| span.0.is_zero())
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether a durability that was asked for can be had: it speaks of the folder of the messages.
///
/// # Errors
/// `invalid_config` for one that promises a disk where there is no folder.
pub fn on_disk(asked: Durability, data: Option<&Path>) -> Result<()> {
    if data.is_some() || asked == Durability::Memory {
        return Ok(());
    }
    let text = format!(
        "at `durability`: `{}` needs a folder for the messages: name one in `data`, or leave `durability` out to \
         keep them in memory",
        asked.name()
    );
    Err(Error::new(Kind::InvalidConfig, text))
}

fn durability(text: &str, data: Option<&Path>) -> Result<Durability> {
    let wrong = |text: String| Error::new(Kind::InvalidConfig, format!("at `durability`: {text}"));
    let (name, every) = named_span(text).map_err(wrong)?;
    if every.is_some_and(|every| every.is_zero()) {
        return Err(wrong("the interval must be more than 0".to_owned()));
    }
    let known = Durability::from_name(name, every).ok_or_else(|| {
        wrong("known are: fsync, interval, interval:SPAN (as in interval:200ms), memory".to_owned())
    })?;
    on_disk(known, data)?;
    Ok(known)
}

/// The settings of one topic, an object of the keys that hold for all, over `base`.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn topic(base: &TopicConfig, text: &str) -> Result<TopicConfig> {
    let keys: Topic = from_value(json(text)?)?;
    keys.over(base, "")
}

/// A broker's settings: an object with `secret_key`; include/ceiba.h names the other keys.
///
/// # Errors
/// `invalid_config`, naming the key and never quoting a secret.
pub fn broker(text: &str) -> Result<BrokerConfig> {
    let config: Config = from_value(json(text)?)?;
    if config.secret_key.expose().is_empty() {
        return Err(Error::new(Kind::InvalidConfig, "`secret_key` is empty"));
    }
    let standard = BrokerConfig::new(config.secret_key);
    let all = Topic {
        max_attempts: config.max_attempts,
        expire_after: config.expire_after,
        push_every: config.push_every,
        push_count: config.push_count,
        max_messages: config.max_messages,
        max_bytes: config.max_bytes,
        when_full: config.when_full,
        deduplicate: config.deduplicate,
        compat: config.compat,
    };
    let topic = all.over(&standard.topic, "")?;
    let mut topics = BTreeMap::new();
    for (name, keys) in &config.topics {
        topics.insert(name.clone(), keys.over(&topic, &format!("at `topics.{name}`: "))?);
    }
    Ok(BrokerConfig {
        listen: config.listen.unwrap_or(standard.listen),
        delivery: match config.delivery {
            Some(Delivery::PublishSubscribe) => DeliveryMode::PublishSubscribe,
            Some(Delivery::WorkQueue) => DeliveryMode::WorkQueue,
            None => standard.delivery,
        },
        dpmq: config.dpmq,
        mns: config.mns.map(Mns::checked).transpose()?,
        durability: match &config.durability {
            Some(text) => durability(text, config.data.as_deref())?,
            None => standard.durability,
        },
        data: config.data,
        topic,
        topics,
        redeliver_after: config.redeliver_after.map_or(standard.redeliver_after, |span| span.0),
        nodes: config.nodes.iter().map(|node| other(node)).collect::<Result<_>>()?,
        advertise: config.advertise,
        ..standard
    })
}

// Another broker, as HOST:PORT; an IPv6 host stands in brackets.
fn other(node: &str) -> Result<Node> {
    let wrong = || {
        Error::new(Kind::InvalidConfig, format!("at `nodes`: `{node}` is no address such as 127.0.0.1:8011"))
    };
    let (host, port) = node.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(wrong());
    }
    Ok(Node::at(host, port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_topic_has_its_own_over_what_holds_for_all() {
        let text = r#"{"secret_key": "s", "max_attempts": 5, "expire_after": "1h",
                       "topics": {"orders": {"max_attempts": 9, "compat": true}}}"#;
        let config = broker(text).unwrap();
        assert_eq!(config.topic.max_attempts, Some(5));
        let orders = &config.topics["orders"];
        assert_eq!((orders.max_attempts, orders.compat), (Some(9), true));
        assert_eq!(orders.expire_after, Some(Duration::from_secs(3600)));
    }

    fn parsed(more: &str) -> Result<BrokerConfig> {
        broker(&format!(r#"{{"secret_key": "canary"{more}}}"#))
    }

    #[test]
    fn every_key_has_its_effect() {
        let plain = parsed("").unwrap();
        assert_eq!((plain.topic, plain.durability), (TopicConfig::default(), Durability::Fsync));
        let config = parsed(
            r#", "data": "d", "durability": "interval:200ms", "max_attempts": 5, "expire_after": "1h", "push_every": "2s",
                "push_count": 4, "max_messages": 10, "max_bytes": 1000, "when_full": "refuse",
                "deduplicate": "10m", "compat": true, "topics": {"a": {"max_attempts": 9, "when_full": "wait"}}"#,
        )
        .unwrap();
        let all = TopicConfig {
            max_attempts: Some(5),
            expire_after: Some(Duration::from_secs(3600)),
            push_interval: Some(Duration::from_millis(500)),
            push_burst: 4,
            max_messages: Some(10),
            max_bytes: Some(1000),
            when_full: WhenFull::Refuse,
            deduplicate: Some(Duration::from_secs(600)),
            compat: true,
        };
        let one = TopicConfig { max_attempts: Some(9), when_full: WhenFull::Wait, ..all.clone() };
        assert_eq!((&config.topic, config.topics.get("a")), (&all, Some(&one)));
        assert_eq!(config.durability, Durability::Interval(Duration::from_millis(200)));
        assert_eq!(parsed(r#", "durability": "memory""#).unwrap().durability, Durability::Memory);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, named) in [
            (r#", "max_attempt": 5"#, "`max_attempts`"),
            (r#", "topics": {"a": {"max_byte": 5}}"#, "`max_bytes`"),
            (r#", "topics": {"a": {"push_count": 5}}"#, "at `topics.a`: `push_count` needs `push_every`"),
            (r#", "push_count": 5"#, "`push_count` needs `push_every`"),
            (r#", "max_attempts": 0"#, "`max_attempts` must be more than 0"),
            (r#", "expire_after": "0s""#, "`expire_after` must be more than 0"),
            (r#", "expire_after": 5"#, "`expire_after`"),
            (r#", "when_full": "refused""#, "`refuse`"),
            (r#", "durability": "fsyn""#, "at `durability`"),
            (r#", "durability": "fsync:1s""#, "at `durability`"),
            (r#", "durability": "interval:0s""#, "at `durability`"),
            (r#", "durability": "interval:x""#, "at `durability`"),
            (r#", "durability": "fsync""#, "at `durability`: `fsync` needs a folder"),
            (r#", "durability": "interval:200ms""#, "at `durability`: `interval` needs a folder"),
            (r#", "durability": "fsync""#, "name one in `data`, or leave `durability` out"),
        ] {
            let error = parsed(more).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig, "{more}");
            assert!(error.text().contains(named), "{more}: {error}");
            assert!(!error.text().contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_front_of_mns() {
        let text = r#", "mns": {"listen": "127.0.0.1:8012", "keys": {"id": "canary", "other": {"env": "HOME"}},
                          "endpoints": ["10.0.0.0/8"]}"#;
        let mns = parsed(text).unwrap().mns.unwrap();
        assert_eq!(
            (mns.listen.as_str(), mns.keys.len(), mns.private_endpoints),
            ("127.0.0.1:8012", 2, false)
        );
        assert_eq!(
            (mns.keys["id"].expose(), mns.endpoints[0].to_string()),
            ("canary", "10.0.0.0/8".to_owned())
        );
        for (more, named) in [
            (r#"{}"#, "keys"),
            (r#"{"keys": {}}"#, "`keys` has none"),
            (r#"{"keys": {"id": ""}}"#, "is empty"),
            (r#"{"keys": {"id": 7}}"#, "`keys.id`"),
            (r#"{"keys": {"id": "canary"}, "endpoints": ["here"]}"#, "`here` is no network"),
            (r#"{"keys": {"id": "canary"}, "endpoint": []}"#, "`endpoints`"),
        ] {
            let error = parsed(&format!(r#", "mns": {more}"#)).unwrap_err();
            assert!(error.text().contains(named) && !error.text().contains("canary"), "{more}: {error}");
        }
    }

    #[test]
    fn broken_text_and_an_empty_secret_are_named() {
        for (text, named) in
            [(r#"{"secret_key": "hunter2""#, "line 1"), (r#"{"secret_key": ""}"#, "secret_key")]
        {
            let error = broker(text).unwrap_err();
            assert!(error.message().contains(named) && !error.to_string().contains("hunter2"), "{error}");
        }
        assert!(topic(&TopicConfig::default(), r#"{"deduplicate": "0s"}"#).is_err());
    }
}
