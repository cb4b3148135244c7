//! Strict parsing of configurations: from JSON text, and from a URL for the short form.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod level;
mod strict;
mod url_form;
mod value;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};

pub use strict::from_value;
pub use value::{Span, deserialize_secret, deserialize_secret_option, named_span};

/// Whether a client sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It sends.
    #[default]
    Producer,
    /// It receives.
    Consumer,
}

/// When open returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// After the first connection, or with its error.
    #[default]
    Eager,
    /// At once; `status` tells the state.
    Lazy,
}

/// What a send does while there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum WhenDisconnected {
    /// Waits for it within its deadline.
    #[default]
    Wait,
    /// Fails at once as `unavailable`.
    Fail,
}

/// One client, as configured. Keys not listed here are errors.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The id in the registry; may be given by the call instead.
    #[serde(default)]
    pub id: Option<String>,
    /// Producer or consumer, in files.
    #[serde(default)]
    pub role: Option<Role>,
    /// The provider section: its `type`, and the keys of that provider. Left out only where the innermost strategy
    /// has members.
    #[serde(default)]
    pub provider: Map<String, Value>,
    /// Strategies, the first listed outermost.
    #[serde(default)]
    pub strategies: Vec<Map<String, Value>>,
    /// The deadline of a call that names none.
    #[serde(default = "default_deadline")]
    pub deadline: Span,
    /// Whether open waits for the first connection: `eager`, and `lazy` for members of a strategy.
    #[serde(default)]
    pub connect: Option<Connect>,
    /// How long open waits for it.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// What a send does while there is no connection: `wait`, and `fail` for members of a strategy.
    #[serde(default)]
    pub when_disconnected: Option<WhenDisconnected>,
    /// Sends that may be under way at once.
    #[serde(default = "default_max_pending")]
    pub max_pending: u64,
    /// Bytes of bodies that may be under way at once.
    #[serde(default = "default_max_pending_bytes")]
    pub max_pending_bytes: u64,
}

fn default_deadline() -> Span {
    Span(Duration::from_secs(30))
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn default_max_pending() -> u64 {
    65_536
}

fn default_max_pending_bytes() -> u64 {
    256 << 20
}

// The sections hold secrets as plain text until their provider has read them: only their keys are shown.
impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("provider", &self.provider.keys().collect::<Vec<_>>())
            .field("strategies", &self.strategies.len())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Parses a JSON object, or the URL form when the text does not start with `{`.
    pub fn parse(text: &str) -> Result<ClientConfig> {
        let trimmed = text.trim_start();
        let value = if trimmed.starts_with('{') {
            json(text)?
        } else if trimmed.contains("://") {
            url_form::to_json(trimmed.trim_end())?
        } else {
            return Err(Error::new(
                Kind::InvalidConfig,
                "a config is a JSON object or a URL such as kapokmq://:SECRET@HOST:PORT/TOPIC",
            ));
        };
        ClientConfig::from_json(value)
    }

    /// Reads one from a JSON value.
    pub fn from_json(value: Value) -> Result<ClientConfig> {
        let config: ClientConfig = level::read(value)?;
        if config.max_pending == 0 || config.max_pending_bytes == 0 {
            return Err(Error::new(
                Kind::InvalidConfig,
                "`max_pending` and `max_pending_bytes` must be at least 1",
            ));
        }
        if config.deadline.0.is_zero() || config.connect_timeout.0.is_zero() {
            return Err(Error::new(
                Kind::InvalidConfig,
                "`deadline` and `connect_timeout` must be longer than 0",
            ));
        }
        Ok(config)
    }

    /// The provider's `type`, and its section without it.
    pub fn provider_section(&self) -> Result<(String, Map<String, Value>)> {
        let mut section = self.provider.clone();
        match section.remove("type") {
            Some(Value::String(name)) => Ok((name, section)),
            Some(other) => Err(Error::new(
                Kind::InvalidConfig,
                format!("`provider.type` must be a string, not {}", value::describe(&other)),
            )),
            None => Err(Error::new(Kind::InvalidConfig, "`provider.type` is missing")),
        }
    }

    /// What the intake of this client may hold.
    pub fn limits(&self) -> crate::intake::Limits {
        crate::intake::Limits {
            calls: self.max_pending,
            bytes: self.max_pending_bytes,
            deadline: self.deadline.0,
            of: crate::intake::Whose::Client,
        }
    }
}

const NO_ID: &str = "the key `id` is missing or empty: a client of a file is opened under it";

/// A file with many clients: `{"clients": [{"id": …, "role": …, …}, …]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    clients: Vec<Value>,
}

/// Parses a file's text: many clients, or the config of one. Each must name its `id`; `role` defaults to producer.
pub fn parse_file(text: &str) -> Result<Vec<ClientConfig>> {
    let value = if text.trim_start().starts_with('{') { json(text)? } else { Value::Null };
    if value.get("clients").is_none() {
        let client =
            if value.is_null() { ClientConfig::parse(text)? } else { ClientConfig::from_json(value)? };
        if client.id.as_deref().unwrap_or_default().is_empty() {
            return Err(Error::new(Kind::InvalidConfig, NO_ID));
        }
        return Ok(vec![client]);
    }
    let file: FileConfig = from_value(value)?;
    let mut clients = Vec::with_capacity(file.clients.len());
    for (index, value) in file.clients.into_iter().enumerate() {
        let client = ClientConfig::from_json(value)
            .map_err(|error| Error::new(error.kind(), format!("clients[{index}]: {}", error.message())))?;
        if client.id.as_deref().unwrap_or_default().is_empty() {
            return Err(Error::new(Kind::InvalidConfig, format!("clients[{index}]: {NO_ID}")));
        }
        clients.push(client);
    }
    Ok(clients)
}

/// Parses JSON; the error says where it is wrong and why.
pub(crate) fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        let mut wrong =
            format!("the config is not valid JSON at line {}, column {}", error.line(), error.column());
        // What is wrong with the grammar is said in fixed words. Any other text could quote the input, which may
        // hold a secret.
        if error.is_syntax() || error.is_eof() {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            wrong.push_str(": ");
            wrong.push_str(&reason.replace("EOF while parsing", "the text ends within"));
        }
        Error::new(Kind::InvalidConfig, wrong)
    })
}

/// The known name nearest to `wrong`, for messages.
pub fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .filter(|(distance, name)| *distance <= name.len().max(wrong.len()).div_ceil(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let text = r#"{"id": "a", "provider": {"type": "memory"}, "dedline": "2s"}"#;
        let error = ClientConfig::parse(text).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(error.message().contains("`dedline`"), "{error}");
        assert!(error.message().contains("`deadline`"), "{error}");
    }

    #[test]
    fn durations_need_a_unit_and_errors_name_the_path() {
        let text = r#"{"provider": {"type": "memory"}, "deadline": 2}"#;
        let error = ClientConfig::parse(text).unwrap_err();
        assert!(error.message().contains("deadline"), "{error}");
        assert!(error.message().contains("unit"), "{error}");
    }

    #[test]
    fn the_url_form_equals_the_json_form() {
        let config = ClientConfig::parse(
            "kapokmq://:s%20x@127.0.0.1:8011/orders?window=5&deadline=2s&resend_unacked=true",
        )
        .unwrap();
        let (name, section) = config.provider_section().unwrap();
        assert_eq!(name, "kapokmq");
        assert_eq!(
            Value::Object(section),
            serde_json::json!({"url": "ws://127.0.0.1:8011", "topic": "orders", "secret_key": "s x",
                               "window": 5, "resend_unacked": true})
        );
        assert_eq!(config.deadline.0, Duration::from_secs(2));
    }

    #[test]
    fn a_url_names_common_strategies() {
        let config =
            ClientConfig::parse("memory://t?retry=3&timeout=2s&rate_limit=100/1s&deadline=9s").unwrap();
        let kinds: Vec<_> = config.strategies.iter().map(|section| section["type"].clone()).collect();
        assert_eq!(kinds, ["rate_limit", "retry", "timeout"], "a limit first, a timeout for each attempt");
        assert_eq!(config.strategies[1]["max_attempts"], 3);
        for wrong in ["retry=x", "retry=-1", "rate_limit=100", "rate_limit=x/1s", "retry=1&retry=2"] {
            ClientConfig::parse(&format!("memory://t?{wrong}")).unwrap_err();
        }
    }

    #[test]
    fn broken_json_does_not_quote_the_text() {
        let error = ClientConfig::parse(r#"{"provider": {"secret_key": "hunter2"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        assert!(error.message().ends_with("line 1, column 36: the text ends within a string"), "{error}");
        for (text, why) in [
            (r#"{"id": "hunter2" "role": 1}"#, "expected `,` or `}`"),
            ("{'id': 1}", "key must be a string"),
            ("{\"id\": hunter2}", "expected value"),
            ("{} hunter2", "trailing characters"),
        ] {
            let error = ClientConfig::parse(text).unwrap_err();
            assert!(error.message().ends_with(&format!(": {why}")), "{error}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_debug_form_holds_no_secret() {
        let config = ClientConfig::parse("kapokmq://:hunter2@127.0.0.1:8011/t").unwrap();
        let text = format!("{config:?}");
        assert!(!text.contains("hunter2") && text.contains("secret_key"), "{text}");
    }

    #[test]
    fn numbers_in_a_url_are_text_where_text_is_wanted() {
        let config = ClientConfig::parse("kapokmq://127.0.0.1/t?id=7&client_id=42&secret_key=123").unwrap();
        assert_eq!(config.id.as_deref(), Some("7"));
        assert_eq!(config.provider["client_id"], "42");
        assert_eq!(config.provider["secret_key"], "123");
    }

    #[test]
    fn a_file_holds_many_clients() {
        let text = r#"{"clients": [{"id": "a", "provider": {"type": "memory"}},
                       {"id": "b", "role": "consumer", "provider": {"type": "memory"}}]}"#;
        let clients = parse_file(text).unwrap();
        assert_eq!(clients[1].role, Some(Role::Consumer));
        let error = parse_file(r#"{"clients": [{"provider": {"type": "memory"}}]}"#).unwrap_err();
        assert!(error.message().contains("clients[0]"));
    }

    #[test]
    fn a_file_may_hold_one_client_alone() {
        for text in [r#" {"id": "a", "provider": {"type": "memory", "topic": "t"}}"#, "memory://t?id=a\n"] {
            let clients = parse_file(text).unwrap();
            assert_eq!((clients.len(), clients[0].id.as_deref()), (1, Some("a")));
        }
        for (text, named) in [
            (r#"{"provider": {"type": "memory"}}"#, "`id` is missing"),
            (r#"{"id": "", "provider": {"type": "memory"}}"#, "`id` is missing"),
            ("memory://t", "`id` is missing"),
            ("[]", "a JSON object or a URL"),
            ("", "a JSON object or a URL"),
        ] {
            let error = parse_file(text).unwrap_err();
            assert!(error.message().contains(named), "{error}");
        }
    }
}
