//! The short form of a config: `kapokmq://:SECRET@HOST:PORT/TOPIC?KEY=VALUE`, `dpmq://HOST:PORT/TOPIC?KEY=VALUE`.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{Error, Kind, Result};

/// Keys of the query that belong to the client; the others are the provider's.
const CLIENT_KEYS: [&str; 7] =
    ["id", "deadline", "connect", "connect_timeout", "when_disconnected", "max_pending", "max_pending_bytes"];

/// Keys that take a number.
const NUMBERS: [&str; 7] =
    ["window", "connections", "prefetch", "prefetch_bytes", "capacity", "max_pending", "max_pending_bytes"];

/// Keys that take a boolean.
const SWITCHES: [&str; 2] = ["resend_unacked", "discard"];

/// The JSON form of a URL.
pub(super) fn to_json(text: &str) -> Result<Value> {
    // The text may hold a secret: no error quotes it.
    let wrong = |what: &str| Error::new(Kind::InvalidConfig, format!("the config URL {what}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not valid: {error}")))?;
    let mut provider = Map::new();
    let (name, transport) = match url.scheme() {
        "kapokmq" => ("kapokmq", Some(("ws", 8011))),
        "kapokmqs" => ("kapokmq", Some(("wss", 8011))),
        "dpmq" => ("dpmq", Some(("http", 80))),
        "dpmqs" => ("dpmq", Some(("https", 443))),
        "memory" => ("memory", None),
        other => {
            let known = ["kapokmq", "kapokmqs", "dpmq", "dpmqs", "memory"];
            let hint = super::nearest(other, &known).map(|name| format!(" (did you mean `{name}`?)"));
            return Err(wrong(&format!(
                "has the unknown scheme `{other}`; known are: {}{}",
                known.join(", "),
                hint.unwrap_or_default()
            )));
        }
    };
    provider.insert("type".into(), json!(name));
    if let Some((transport, standard_port)) = transport {
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        let port = url.port().unwrap_or(standard_port);
        provider.insert("url".into(), json!(format!("{transport}://{host}:{port}")));
        if name == "dpmq" && (!url.username().is_empty() || url.password().is_some()) {
            return Err(wrong("has a user name or a secret; a DPMQ server has no login"));
        }
        if !url.username().is_empty() {
            return Err(wrong("has a user name; a secret is written as kapokmq://:SECRET@HOST"));
        }
        if let Some(secret) = url.password() {
            provider.insert(
                "secret_key".into(),
                json!(decode(secret).ok_or_else(|| wrong("has a secret that is not UTF-8"))?),
            );
        }
        let topic = url.path().trim_start_matches('/');
        if !topic.is_empty() {
            provider.insert(
                "topic".into(),
                json!(decode(topic).ok_or_else(|| wrong("has a topic that is not UTF-8"))?),
            );
        }
    } else {
        let topic = url.host_str().unwrap_or_default();
        provider.insert(
            "topic".into(),
            json!(decode(topic).ok_or_else(|| wrong("has a topic that is not UTF-8"))?),
        );
    }
    let mut client = Map::new();
    for (key, value) in url.query_pairs() {
        let target = if CLIENT_KEYS.contains(&key.as_ref()) { &mut client } else { &mut provider };
        if target.contains_key(key.as_ref()) {
            return Err(wrong(&format!("sets `{key}` twice")));
        }
        let value = typed(&key, &value);
        target.insert(key.into_owned(), value);
    }
    client.insert("provider".into(), Value::Object(provider));
    Ok(Value::Object(client))
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// A query holds texts: those of keys that take a number or a boolean become one where they can.
fn typed(key: &str, text: &str) -> Value {
    let value = if NUMBERS.contains(&key) {
        text.parse::<u64>().ok().map(|number| json!(number))
    } else if SWITCHES.contains(&key) {
        text.parse::<bool>().ok().map(Value::Bool)
    } else {
        None
    };
    value.unwrap_or_else(|| json!(text))
}
