//! What the fuzz targets and the replay of their corpus call: the program's own parsers, with any bytes.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use serde_norway::Value;

use crate::application::Application;

/// A target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: &[Target] =
    &[("application_yaml", application_yaml), ("input_lines", crate::lines::fuzzing)];

/// What no error and no warning may hold.
const CANARY: &str = "hunter2canary";

/// Whether a value holds it elsewhere than as the secret of a KapokMQ server.
fn is_misplaced(value: &Value) -> bool {
    match value {
        Value::Mapping(members) => members.iter().any(|(key, value)| {
            is_misplaced(key) || (!(key == "secretKey" && value.is_string()) && is_misplaced(value))
        }),
        Value::Sequence(items) => items.iter().any(is_misplaced),
        Value::String(text) => text.contains(CANARY),
        Value::Tagged(tagged) => tagged.tag.to_string().contains(CANARY) || is_misplaced(&tagged.value),
        _ => false,
    }
}

/// The file of a KapokMQ or DPMQ server.
pub fn application_yaml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    file(text, false);
    let text = text.replace("SECRET", CANARY);
    // What is no YAML at all is not quoted either.
    file(&text, serde_norway::from_str(&text).map_or(true, |value| !is_misplaced(&value)));
}

fn file(text: &str, secret: bool) {
    let quiet = |shown: &str| assert!(!(secret && shown.contains(CANARY)), "{shown}");
    match Application::parse(text) {
        Ok(application) => {
            quiet(&application.warnings.join("\n"));
            assert!(!application.dpmq || application.secret.is_none());
            assert!(application.topic.max_messages != Some(0) && application.topic.push_burst > 0);
            assert!(application.listen.is_none_or(|listen| listen.starts_with("0.0.0.0:")));
        }
        Err(error) => quiet(&error),
    }
}
