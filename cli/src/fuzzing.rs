//! What the fuzz targets and the replay of their corpus call: the program's own parsers, with any bytes.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use crate::application::Application;

/// A target: its name, which is that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: &[Target] =
    &[("application_yaml", application_yaml), ("input_lines", crate::lines::fuzzing)];

/// What no error and no warning may hold.
const CANARY: &str = "hunter2canary";

/// The file of a KapokMQ or DPMQ server.
pub fn application_yaml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for text in [text.to_owned(), text.replace("SECRET", CANARY)] {
        // In the place of a name it is no secret.
        let misplaced =
            text.lines().any(|line| line.contains(CANARY) && !line.contains("secretKey: hunter2canary"));
        match Application::parse(&text) {
            Ok(application) => {
                let shown = format!("{:?}", application.warnings);
                assert!(misplaced || !shown.contains(CANARY), "{shown}");
                assert!(!application.dpmq || application.secret.is_none());
                assert!(application.topic.max_messages != Some(0) && application.topic.push_burst > 0);
                assert!(application.listen.is_none_or(|listen| listen.starts_with("0.0.0.0:")));
            }
            Err(error) => assert!(misplaced || !error.contains(CANARY), "{error}"),
        }
    }
}
