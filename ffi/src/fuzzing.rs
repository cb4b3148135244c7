//! What the fuzz targets and the replay of their corpus call: this library's own parser, with any bytes.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use ceiba_core::settings::broker as parse;

/// A target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: &[Target] = &[("config_broker", config_broker)];

/// What no error and no debug form may hold.
const CANARY: &str = "hunter2canary";

/// The config of an embedded broker.
pub fn config_broker(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if ceiba_core::fuzzing::names_a_file(text) {
        // Reading what an input names would try files of this machine.
        return;
    }
    for text in [text.to_owned(), format!(r#"{{"secret_key": "{CANARY}", {text}"#)] {
        match parse(&text) {
            Ok(config) => {
                assert!(!config.secret.expose().is_empty());
                assert!(!format!("{config:?}").contains(CANARY) || text.matches(CANARY).count() > 1);
                for topic in config.topics.values().chain([&config.topic]) {
                    assert!(
                        topic.max_attempts != Some(0)
                            && topic.max_messages != Some(0)
                            && topic.push_burst > 0
                    );
                }
            }
            Err(error) => {
                assert!(text.matches(CANARY).count() > 1 || !error.to_string().contains(CANARY), "{error}")
            }
        }
    }
}
