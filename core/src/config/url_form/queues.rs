//! `kapokmq://:SECRET@HOST:PORT/TOPIC`, `dpmq://HOST:PORT/TOPIC`, both with an `s` for TLS, and `memory://TOPIC`.

use serde_json::{Map, Value, json};
use url::Url;

use super::{decode, wrong};
use crate::error::Result;

pub(super) fn kapokmq(url: &Url) -> Result<Map<String, Value>> {
    with_login(url, "ws")
}

pub(super) fn kapokmqs(url: &Url) -> Result<Map<String, Value>> {
    with_login(url, "wss")
}

fn with_login(url: &Url, transport: &str) -> Result<Map<String, Value>> {
    let mut section = at_host(url, "kapokmq", transport, 8011)?;
    if !url.username().is_empty() {
        return Err(wrong("has a user name; a secret is written as kapokmq://:SECRET@HOST"));
    }
    if let Some(secret) = url.password() {
        let secret = decode(secret).ok_or_else(|| wrong("has a secret that is not UTF-8"))?;
        section.insert("secret_key".into(), json!(secret));
    }
    Ok(section)
}

pub(super) fn dpmq(url: &Url) -> Result<Map<String, Value>> {
    without_login(url, "http", 80)
}

pub(super) fn dpmqs(url: &Url) -> Result<Map<String, Value>> {
    without_login(url, "https", 443)
}

fn without_login(url: &Url, transport: &str, port: u16) -> Result<Map<String, Value>> {
    let section = at_host(url, "dpmq", transport, port)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user name or a secret; a DPMQ server has no login"));
    }
    Ok(section)
}

fn at_host(url: &Url, provider: &str, transport: &str, standard_port: u16) -> Result<Map<String, Value>> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    let port = url.port().unwrap_or(standard_port);
    let mut section = Map::new();
    section.insert("type".into(), json!(provider));
    section.insert("url".into(), json!(format!("{transport}://{host}:{port}")));
    let topic = url.path().trim_start_matches('/');
    if !topic.is_empty() {
        section.insert("topic".into(), json!(decode(topic).ok_or_else(topic_is_no_text)?));
    }
    Ok(section)
}

pub(super) fn memory(url: &Url) -> Result<Map<String, Value>> {
    let topic = decode(url.host_str().unwrap_or_default()).ok_or_else(topic_is_no_text)?;
    let mut section = Map::new();
    section.insert("type".into(), json!("memory"));
    section.insert("topic".into(), json!(topic));
    Ok(section)
}

fn topic_is_no_text() -> crate::error::Error {
    wrong("has a topic that is not UTF-8")
}
