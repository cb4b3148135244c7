//! The embedded broker.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::path::PathBuf;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode, Durability, LogHealth, TopicConfig, WhenFull};
use ceiba_core::config::{Span, deserialize_secret, from_value, named_span};
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::runtime;
use ceiba_core::secret::Secret;
use ceiba_core::wire::kapokmq::Node;
use serde::Deserialize;
use serde_json::Value;

use crate::boundary::{asked_for, give, needed, put, take_back, text, view};
use crate::error::ceiba_error;
use crate::runtime::timeout;
use crate::text::{ceiba_slice, ceiba_string};

/// How long a stop that names no time may take.
const STOP: Duration = Duration::from_secs(5);

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

fn durability(text: &str) -> Result<Durability> {
    let wrong = |text: String| Error::new(Kind::InvalidConfig, format!("at `durability`: {text}"));
    let (name, every) = named_span(text).map_err(wrong)?;
    if every.is_some_and(|every| every.is_zero()) {
        return Err(wrong("the interval must be more than 0".to_owned()));
    }
    Durability::from_name(name, every).ok_or_else(|| {
        wrong("known are: fsync, interval, interval:SPAN (as in interval:200ms), memory".to_owned())
    })
}

pub(crate) fn parse(config: &str) -> Result<BrokerConfig> {
    let value: Value = serde_json::from_str(config).map_err(|error| {
        // The parser's text can quote the input, which holds a secret: only the place is told.
        Error::new(
            Kind::InvalidConfig,
            format!("the config is not valid JSON at line {}, column {}", error.line(), error.column()),
        )
    })?;
    let config: Config = from_value(value)?;
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
        data: config.data,
        durability: config.durability.as_deref().map_or(Ok(standard.durability), durability)?,
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

/// A running broker and the text of its address.
pub(crate) struct HeldBroker {
    broker: Broker,
    address: String,
    generation: u32,
}

opaque! {
    /// An embedded broker. It runs until ceiba_broker_stop() or ceiba_broker_free(). Any number of threads may
    /// use it; one may free it, when no other does.
    ceiba_broker => HeldBroker
}

/// Starts a broker in this process, which speaks the KapokMQ protocol on loopback or wherever it is told to
/// listen. `config` is a JSON object with `secret_key`, and where wanted `listen` ("127.0.0.1:0" takes a free
/// port, and is the default), `delivery` ("work_queue" or "publish_subscribe"), `data` (a folder for the messages;
/// without one they are in memory), `durability` ("fsync", the default, "interval:200ms" or "memory"),
/// `redeliver_after` ("300s"), `nodes` (other brokers that the registry names: a list of "HOST:PORT"), `advertise`
/// (the host that the registry names for this one) and `dpmq` (true: the DPMQ protocol too, which has no login). Of
/// all topics: `max_attempts` (then a message goes to the dead letters, the topic NAME.dead), `expire_after` ("24h";
/// dead letters too), `push_every` ("1s") and `push_count` (messages that go together), `max_messages`, `max_bytes`,
/// `when_full` ("wait" or "refuse"), `deduplicate` ("10m": how long a key is remembered) and `compat`
/// (publish-subscribe: the first ack consumes for all); `topics` has objects of the same keys for single topics.
/// `broker` gets the broker; the caller frees it.
///
/// Any thread; blocks until it listens. Errors: CEIBA_ERR_INVALID_CONFIG, CEIBA_ERR_UNAVAILABLE (the address
/// cannot be listened on), CEIBA_ERR_IN_USE and CEIBA_ERR_STORAGE (the folder), CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_start(
    config: *const c_char,
    config_len: usize,
    broker: *mut *mut ceiba_broker,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let config = parse(text("config", config, config_len)?)?;
        asked_for("broker", broker)?;
        let started = runtime::block_on(Broker::start(config))?;
        let address = started.address().to_string();
        let held = HeldBroker { broker: started, address, generation: runtime::generation() };
        put(broker, || give(held));
        Ok(())
    })
}

/// The address it listens on, such as "127.0.0.1:41234": a view, valid until the broker is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_address(broker: *const ceiba_broker) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        view(broker).map_or_else(ceiba_slice::empty, |held| ceiba_slice::of(&held.address))
    })
}

/// Gives counts of what the broker did and holds as a JSON object, which the caller frees. New keys may come.
///
/// Any thread; does not block. CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_status(
    broker: *const ceiba_broker,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let held = own(needed("broker", broker)?)?;
        asked_for("json", json)?;
        let status = held.broker.status();
        let log = match &status.log {
            LogHealth::Serving => serde_json::json!({"state": "serving"}),
            LogHealth::Short(why) => serde_json::json!({"state": "short", "error": why}),
            LogHealth::Failed(why) => serde_json::json!({"state": "failed", "error": why}),
        };
        put(json, || {
            let status = serde_json::json!({
                "address": held.address,
                "accepted": status.accepted,
                "pushed": status.pushed,
                "redelivered": status.redelivered,
                "acknowledged": status.acknowledged,
                "bad_frames": status.bad_frames,
                "failed_logins": status.failed_logins,
                "waiting": status.waiting,
                "delayed": status.delayed,
                "unacked": status.unacked,
                "stored_bytes": status.stored_bytes,
                "topics": status.topics,
                "producers": status.producers,
                "consumers": status.consumers,
                "dead": status.dead,
                "durability": status.durability.name(),
                "log": log,
                "segments": status.segments,
                "log_bytes": status.log_bytes,
                "live_bytes": status.live_bytes,
            });
            give(status.to_string())
        });
        Ok(())
    })
}

/// Stops the broker: it accepts no more, answers what it has read, and closes every connection within
/// `timeout_ms` (negative: 5 seconds). Stopping it again does nothing. The caller still frees it.
///
/// Any thread; blocks. Errors: CEIBA_ERR_TIMEOUT (some connections were cut off; it is stopped all the same),
/// CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_stop(
    broker: *const ceiba_broker,
    timeout_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let held = own(needed("broker", broker)?)?;
        let deadline = timeout(timeout_ms).unwrap_or(STOP);
        runtime::block_on(async {
            if held.broker.stop(deadline).await {
                return Ok(());
            }
            Err(Error::new(Kind::Timeout, "connections were cut off at the deadline of the stop")
                .outcome_is(Outcome::Unknown))
        })
    })
}

/// Frees a broker. One that still runs is stopped at once, as a crash would. NULL does nothing.
///
/// Any thread; does not block.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_free(broker: *mut ceiba_broker) {
    ffi_call!(else (), {
        let Some(held) = take_back(broker) else { return };
        if own(&held).is_err() {
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(held);
        }
    })
}

fn own(held: &HeldBroker) -> Result<&HeldBroker> {
    if held.generation != runtime::generation() {
        return Err(Error::new(
            Kind::Forked,
            "the broker was started before the fork and belongs to the parent process",
        ));
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(more: &str) -> Result<BrokerConfig> {
        parse(&format!(r#"{{"secret_key": "canary"{more}}}"#))
    }

    #[test]
    #[allow(clippy::unwrap_used, reason = "a test may")]
    fn every_key_has_its_effect() {
        let plain = parsed("").unwrap();
        assert_eq!((plain.topic, plain.durability), (TopicConfig::default(), Durability::Fsync));
        let config = parsed(
            r#", "durability": "interval:200ms", "max_attempts": 5, "expire_after": "1h", "push_every": "2s",
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
    #[allow(clippy::unwrap_used, reason = "a test may")]
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
        ] {
            let error = parsed(more).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig, "{more}");
            assert!(error.text().contains(named), "{more}: {error}");
            assert!(!error.text().contains("canary"), "{error}");
        }
    }
}
