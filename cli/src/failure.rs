//! How a command ends: the exit code, and the one line on stderr.

use std::io::Write;
use std::process::ExitCode;

use ceiba_core::error::{Error, Kind};
use ceiba_core::log_line::printable;
use serde_json::json;

/// The exit codes, as `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error and what would be right.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    kind: &'static str,
    text: String,
    error: Option<Error>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, kind: &'static str, text: impl Into<String>) -> Failure {
        Failure { exit, kind, text: text.into(), error: None }
    }

    /// Wrong arguments or a wrong config.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, "usage", text)
    }

    /// An error of the core in the middle of the work.
    pub(crate) fn of(error: Error) -> Failure {
        Failure { exit: Exit::Failed, kind: error.kind().name(), text: error.text(), error: Some(error) }
    }

    /// An error of the core in what was given.
    pub(crate) fn of_input(error: Error) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::of(error) }
    }

    /// An error of the core before the work began.
    pub(crate) fn at_open(error: Error) -> Failure {
        let exit = match error.kind() {
            Kind::InvalidConfig | Kind::InvalidArgument | Kind::Unsupported => Exit::Usage,
            _ => Exit::Unreachable,
        };
        Failure { exit, ..Failure::of(error) }
    }

    /// An error of the core when a broker starts.
    pub(crate) fn at_start(error: Error) -> Failure {
        let text = match error.kind() {
            Kind::Unavailable => {
                format!("{} (the address is that of --listen)", error.text())
            }
            _ => error.text(),
        };
        Failure { text, ..Failure::at_open(error) }
    }

    /// Says where it happened.
    pub(crate) fn at(mut self, place: &str) -> Failure {
        self.text = format!("{place}: {}", self.text);
        self
    }

    /// Writes the line. A stderr that is gone is no news.
    pub(crate) fn print(&self, as_json: bool) {
        let _ = writeln!(std::io::stderr(), "{}", self.line(as_json));
    }

    /// The line without its end.
    pub(crate) fn line(&self, as_json: bool) -> String {
        if as_json {
            let mut object = json!({"kind": self.kind, "message": one_line(&self.text)});
            if let (Some(error), Some(object)) = (&self.error, object.as_object_mut()) {
                object.insert("code".into(), json!(error.kind().code()));
                object.insert("outcome".into(), json!(error.outcome().name()));
                object.insert("retryable".into(), json!(error.retryable()));
            }
            json!({ "error": object }).to_string()
        } else {
            format!("error: {}: {}", self.kind, one_line(&self.text))
        }
    }
}

fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect();
    printable(&parts.join("; ")).into_owned()
}

/// The one line of a usage error: clap's first paragraph and its tips, without the usage text.
pub(crate) fn of_clap(error: &clap::Error) -> Failure {
    let rendered = error.render().to_string();
    let mut parts = Vec::new();
    for line in rendered.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if !line.is_empty() {
            parts.push(line.trim_start_matches("error: "));
        }
    }
    parts.push("see `ceiba --help`");
    Failure::usage(parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::usage("first\n  second\r\n\nthird");
        assert_eq!(failure.line(false), "error: usage: first; second; third");
        assert_eq!(Failure::usage("a\u{1b}[2J\u{2028}b").line(false), r"error: usage: a\x1b[2J\u2028b");
        assert!(!failure.line(true).contains('\n'));
    }

    #[test]
    fn config_errors_at_open_are_usage_and_the_rest_is_unreachable() {
        assert_eq!(Failure::at_open(Error::new(Kind::InvalidConfig, "x")).exit, Exit::Usage);
        assert_eq!(Failure::at_open(Error::new(Kind::Authentication, "x")).exit, Exit::Unreachable);
    }
}
