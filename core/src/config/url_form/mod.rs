//! The short form of a config: `kapokmq://:SECRET@HOST:PORT/TOPIC?KEY=VALUE`, and the like for other schemes.
//!
//! Each file turns the part before the `?` of its schemes into the section of a provider; the query is read here.

mod http;
mod mail;
mod queues;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{Error, Kind, Result};

/// Keys of the query that belong to the client; the others are the provider's.
const CLIENT_KEYS: [&str; 7] =
    ["id", "deadline", "connect", "connect_timeout", "when_disconnected", "max_pending", "max_pending_bytes"];

/// Keys that stand for a strategy each.
const STRATEGY_KEYS: [&str; 3] = ["retry", "timeout", "rate_limit"];

/// Keys that take a number.
const NUMBERS: [&str; 10] = [
    "batch",
    "max_body",
    "recipients_per_mail",
    "window",
    "connections",
    "prefetch",
    "prefetch_bytes",
    "capacity",
    "max_pending",
    "max_pending_bytes",
];

/// Keys that take a boolean.
const SWITCHES: [&str; 2] = ["resend_unacked", "discard"];

/// What makes the section of a provider of a URL.
type Reader = fn(&Url) -> Result<Map<String, Value>>;

/// The schemes.
const SCHEMES: [(&str, Reader); 12] = [
    ("kapokmq", queues::kapokmq),
    ("kapokmqs", queues::kapokmqs),
    ("dpmq", queues::dpmq),
    ("dpmqs", queues::dpmqs),
    ("memory", queues::memory),
    ("http", http::webhook),
    ("https", http::webhook),
    ("sms+aliyun", http::aliyun),
    ("sms+tencent", http::tencent),
    ("dingtalk", http::dingtalk),
    ("smtp", mail::smtp),
    ("smtps", mail::smtp),
];

// The text may hold a secret: no error quotes it.
fn wrong(what: &str) -> Error {
    Error::new(Kind::InvalidConfig, format!("the config URL {what}"))
}

/// The JSON form of a URL.
pub(super) fn to_json(text: &str) -> Result<Value> {
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not valid: {error}")))?;
    let scheme = url.scheme();
    let Some((_, reader)) = SCHEMES.iter().find(|(known, _)| *known == scheme) else {
        let known = SCHEMES.map(|(known, _)| known);
        let hint = super::nearest(scheme, &known).map(|name| format!(" (did you mean `{name}`?)"));
        return Err(wrong(&format!(
            "has the unknown scheme `{scheme}`; known are: {}{}",
            known.join(", "),
            hint.unwrap_or_default()
        )));
    };
    let mut provider = reader(&url)?;
    let mut client = Map::new();
    let mut strategies = Map::new();
    // The query of an address is its own.
    let keys = if matches!(scheme, "http" | "https") { url.fragment() } else { url.query() };
    for (key, value) in url::form_urlencoded::parse(keys.unwrap_or_default().as_bytes()) {
        if http::WHERE_SECRETS_ARE.contains(&key.as_ref()) && http::has_login(scheme) {
            continue;
        }
        let target = match key.as_ref() {
            key if CLIENT_KEYS.contains(&key) => &mut client,
            key if STRATEGY_KEYS.contains(&key) => &mut strategies,
            _ => &mut provider,
        };
        if target.contains_key(key.as_ref()) {
            return Err(wrong(&format!("sets `{key}` twice")));
        }
        let value = typed(&key, &value);
        target.insert(key.into_owned(), value);
    }
    let strategies = stack(&strategies)?;
    if !strategies.is_empty() {
        client.insert("strategies".into(), Value::Array(strategies));
    }
    client.insert("provider".into(), Value::Object(provider));
    Ok(Value::Object(client))
}

/// The strategies of a query: a rate limit outermost, then a retry, and a timeout for each of its attempts.
fn stack(query: &Map<String, Value>) -> Result<Vec<Value>> {
    let text = |key: &str| query.get(key).and_then(Value::as_str);
    let mut stack = Vec::new();
    if let Some(limit) = text("rate_limit") {
        let parts = limit.split_once('/').and_then(|(rate, per)| Some((rate.parse::<u64>().ok()?, per)));
        let (rate, per) = parts.ok_or_else(|| wrong("has a `rate_limit` that is not like 100/1s"))?;
        stack.push(json!({"type": "rate_limit", "limiter": "sliding_window", "rate": rate, "per": per}));
    }
    if let Some(attempts) = text("retry") {
        let attempts: u32 =
            attempts.parse().map_err(|_| wrong("has a `retry` that is no number of attempts"))?;
        let backoff = json!({"type": "exponential"});
        stack.push(json!({"type": "retry", "max_attempts": attempts, "backoff": backoff}));
    }
    if let Some(after) = text("timeout") {
        stack.push(json!({"type": "timeout", "after": after}));
    }
    Ok(stack)
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
