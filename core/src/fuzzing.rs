//! What the fuzz targets and the replay of their corpus call: one function for each parser, which takes any bytes
//! and panics when the parser breaks a promise. No part of the API, and only there with the feature `fuzzing`.

use serde_json::Value;

use crate::config::ClientConfig;
use crate::{broker, config, log_line, open, provider, wire};

pub use crate::config::fuzzing::names_a_file;

/// A target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: &[Target] = &[
    ("json_value", wire::fuzzing::json_value),
    ("json_escape", wire::fuzzing::json_escape),
    ("kapokmq_send", wire::fuzzing::kapokmq_send),
    ("kapokmq_push", wire::fuzzing::kapokmq_push),
    ("kapokmq_answer", wire::fuzzing::kapokmq_answer),
    ("kapokmq_nodes", wire::fuzzing::kapokmq_nodes),
    ("dpmq_push", wire::fuzzing::dpmq_push),
    ("dpmq_reply", wire::fuzzing::dpmq_reply),
    ("wire_paths", wire::fuzzing::wire_paths),
    ("smtp_reply", wire::fuzzing::smtp_reply),
    ("sms_aliyun", wire::fuzzing::sms_aliyun),
    ("sms_tencent", wire::fuzzing::sms_tencent),
    ("dingtalk_answer", wire::fuzzing::dingtalk_answer),
    ("config_client", config_client),
    ("config_span", config::fuzzing::config_span),
    ("provider_texts", provider_texts),
    ("broker_code", broker::fuzzing::broker_code),
    ("broker_form", broker::fuzzing::broker_form),
    ("ws_frames", broker::fuzzing::ws_frames),
    ("log_record", broker::fuzzing::log_record),
    ("log_segments", broker::fuzzing::log_segments),
    ("log_queues", broker::fuzzing::log_queues),
    ("log_text", log_text),
];

/// Runs the target of this name out of these.
///
/// # Panics
/// When there is none, or when the input breaks it.
pub fn run(targets: &[Target], name: &str, input: &[u8]) {
    let target = targets.iter().find(|(known, _)| *known == name);
    assert!(target.is_some(), "no target is named {name}");
    if let Some((_, check)) = target {
        check(input);
    }
}

/// What no error and no debug form may hold.
const CANARY: &str = "hunter2canary";

/// Whether a JSON value holds it elsewhere than as a `secret_key`, where no secret belongs.
pub fn is_misplaced(canary: &str, value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            key.contains(canary)
                || (!(key == "secret_key" && value.is_string()) && is_misplaced(canary, value))
        }),
        Value::Array(items) => items.iter().any(|item| is_misplaced(canary, item)),
        Value::String(text) => text.contains(canary),
        _ => false,
    }
}

/// The config of a client, in all its forms, as far as it is read without a connection.
fn config_client(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Reading what an input names would try files of this machine; and the fuzzer may have learned the secret.
    if names_a_file(text) || text.contains(CANARY) {
        return;
    }
    client(text, None);
    client(&format!("kapokmq://:{CANARY}@{text}"), Some(CANARY));
    let text = text.replace("SECRET", CANARY);
    if serde_json::from_str(&text).is_ok_and(|value| !is_misplaced(CANARY, &value)) {
        client(&text, Some(CANARY));
    }
}

fn client(text: &str, secret: Option<&str>) {
    let quiet = |shown: &str| assert!(secret.is_none_or(|secret| !shown.contains(secret)), "{shown}");
    let clients = match (ClientConfig::parse(text), config::parse_file(text)) {
        (Ok(client), _) => vec![client],
        (Err(error), Ok(clients)) => {
            quiet(&error.to_string());
            clients
        }
        (Err(error), Err(of_file)) => {
            quiet(&error.to_string());
            quiet(&of_file.to_string());
            return;
        }
    };
    for client in clients {
        quiet(&format!("{client:?}"));
        assert!(client.max_pending > 0 && !client.deadline.0.is_zero());
        if let Err(error) = open::check(&client) {
            quiet(&error.to_string());
        }
    }
}

/// What servers tell their clients: a pushed frame as it becomes a delivery, and the address of a node, as a registry
/// tells it.
fn provider_texts(input: &[u8]) {
    provider::kapokmq::fuzzing::node(input);
    provider::kapokmq::fuzzing::delivery(input);
    provider::dpmq::fuzzing::delivery(input);
}

/// What a peer says, as a log shows it: on one line, without what moves a terminal's cursor.
fn log_text(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let shown = log_line::printable(&text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}
