//! From Python exceptions to errors of the core.

use std::fmt;
use std::time::Duration;

use ceiba_core::error::{Error, Kind, Outcome, Part, Whole};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;

const PROVIDER: &str = "callback";

/// The longest text of an exception that is kept.
const TEXT: usize = 1000;

/// How deep parts may have parts.
const DEPTH: usize = 8;

/// The attempt of a decorated function that an error comes from. Its text is that of the error, which names it once.
#[derive(Debug)]
pub(crate) struct Raised {
    pub(crate) number: u32,
    text: String,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Raised {}

/// The attempt whose exception is behind an error, where one is.
pub(crate) fn attempt_behind(error: &Error) -> Option<u32> {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(raised) = source.downcast_ref::<Raised>() {
            return Some(raised.number);
        }
        next = source.source();
    }
    None
}

/// The error of an exception that a callable of the host raised.
pub(crate) fn error_of(value: &Bound<'_, PyAny>, retryable: Option<bool>, number: u32) -> Error {
    let mut error = read(value, DEPTH).by(PROVIDER).tried(1);
    if let Some(retryable) = retryable {
        error = error.retryable_is(retryable);
    }
    if number > 0 {
        let text = error.message().to_owned();
        error = error.caused_by(Raised { number, text });
    }
    error
}

fn text_of(value: &Bound<'_, PyAny>) -> String {
    let text = value.str().map_or_else(|_| "it has no text".to_owned(), |text| text.to_string_lossy().into());
    if text.chars().count() > TEXT { text.chars().take(TEXT).collect() } else { text }
}

// An exception of this package keeps what it says. Of any other nobody knows whether it came before or after the
// message was sent.
fn read(value: &Bound<'_, PyAny>, depth: usize) -> Error {
    let text = text_of(value);
    let code = value.getattr("code").and_then(|code| code.extract::<i32>()).ok();
    let kind = if is_ours(value) { code.and_then(Kind::from_code) } else { None };
    let Some(kind) = kind else {
        let class = value.get_type().name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
        let kind = if value.is_instance_of::<PyTimeoutError>() { Kind::Timeout } else { Kind::Unavailable };
        let text = if text.is_empty() { class } else { format!("{class}: {text}") };
        return Error::new(kind, text).outcome_is(Outcome::Unknown);
    };
    let mut error = Error::new(kind, text);
    if told::<String>(value, "outcome").is_some_and(|outcome| outcome == Outcome::Unknown.name()) {
        error = error.outcome_is(Outcome::Unknown);
    }
    if let Some(retryable) = told(value, "retryable") {
        error = error.retryable_is(retryable);
    }
    if let Some(wait) = told(value, "retry_after").and_then(|wait| Duration::try_from_secs_f64(wait).ok()) {
        error = error.after(wait);
    }
    match depth.checked_sub(1) {
        Some(depth) => error.made_of(parts(value, depth)),
        None => error,
    }
}

fn told<'py, T>(value: &Bound<'py, PyAny>, name: &str) -> Option<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.getattr(name).ok()?.extract::<Option<T>>().ok().flatten()
}

fn is_ours(value: &Bound<'_, PyAny>) -> bool {
    let class = value.py().import("ceiba._errors").and_then(|module| module.getattr("Error"));
    class.and_then(|class| value.is_instance(&class)).unwrap_or(false)
}

fn parts(value: &Bound<'_, PyAny>, depth: usize) -> Vec<Part> {
    let Some(listed) = value.getattr("parts").ok().and_then(|parts| parts.try_iter().ok()) else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    for part in listed.flatten() {
        let of = match told::<String>(&part, "of").as_deref() {
            Some("attempt") => Whole::Attempt,
            Some("member") => Whole::Member,
            Some("recipient") => Whole::Recipient,
            _ => continue,
        };
        let Some(name) = told::<String>(&part, "name") else { continue };
        parts.push(match part.getattr("error").ok().filter(|error| !error.is_none()) {
            Some(error) => Part::failed(of, name, read(&error, depth)),
            None => Part::sent(of, name, told::<String>(&part, "message_id").map(Into::into)),
        });
    }
    parts
}
