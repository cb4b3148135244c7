//! Values of configurations: spans of time with a unit, and secrets.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::secret::Secret;

/// A span of time, written with a unit: `250ms`, `2s`, `10m`, `1h`, `7d`; also `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Ten years: far from where sums with the clock overflow.
const MAX_SPAN: Duration = Duration::from_secs(3650 * 86_400);

impl Span {
    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Span, String> {
        let wrong = || {
            format!(
                "`{text}` is not a span of time: write a number with a unit, such as 250ms, 2s, 10m or 1h"
            )
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let part = match unit {
                "us" => Some(Duration::from_micros(number)),
                "ms" => Some(Duration::from_millis(number)),
                "s" => Some(Duration::from_secs(number)),
                "m" => number.checked_mul(60).map(Duration::from_secs),
                "h" => number.checked_mul(3_600).map(Duration::from_secs),
                "d" => number.checked_mul(86_400).map(Duration::from_secs),
                _ => None,
            };
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = tail;
        }
        if total > MAX_SPAN {
            return Err(format!("`{text}` is too long: a span of time is at most 3650d"));
        }
        Ok(Span(total))
    }
}

/// Splits `NAME` or `NAME:SPAN`.
///
/// # Errors
/// What is wrong with the span.
pub fn named_span(text: &str) -> Result<(&str, Option<Duration>), String> {
    match text.split_once(':') {
        Some((name, span)) => Ok((name, Some(Span::parse(span)?.0))),
        None => Ok((text, None)),
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a span of time as a string with a unit, such as \"2s\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SpanVisitor)
    }
}

/// What kind of JSON value this is, for messages: never its content.
pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<String>,
}

/// No secret is longer: a file that is was named by mistake.
const LONGEST_SECRET: u64 = 64 << 10;

fn secret_file(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_SECRET + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_SECRET {
        return Err(std::io::Error::other(format!("it is longer than {LONGEST_SECRET} bytes")));
    }
    Ok(text)
}

/// Reads a secret: a string, `{"env": "NAME"}` or `{"file": "PATH"}` (trailing line ends are cut).
///
/// For `#[serde(deserialize_with)]`. Errors never hold the secret.
pub fn deserialize_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let value = Value::deserialize(deserializer)?;
    match value {
        Value::String(text) => Ok(Secret::new(text)),
        Value::Object(_) => {
            let source: Source =
                super::from_value(value).map_err(|error| D::Error::custom(error.message()))?;
            match (source.env, source.file) {
                (Some(name), None) => std::env::var(&name).map(Secret::new).map_err(|_| {
                    D::Error::custom(format!("the environment variable `{name}` is not set to a text"))
                }),
                (None, Some(path)) => match secret_file(&path) {
                    Ok(text) => Ok(Secret::new(text.trim_end_matches(['\r', '\n']))),
                    Err(error) => {
                        Err(D::Error::custom(format!("the secret file `{path}` cannot be read: {error}")))
                    }
                },
                _ => Err(D::Error::custom("a secret names either `env` or `file`")),
            }
        }
        other => Err(D::Error::custom(format!(
            "a secret is a string, {{\"env\": NAME}} or {{\"file\": PATH}}, not {}",
            describe(&other)
        ))),
    }
}

/// The same for a key that may be left out; use with `#[serde(default)]`.
pub fn deserialize_secret_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    deserialize_secret(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_no_secret() {
        let read = |path: &str| deserialize_secret(serde_json::json!({"file": path}));
        let error = read("/dev/zero").unwrap_err().to_string();
        assert!(error.contains("`/dev/zero` cannot be read: it is longer than 65536 bytes"), "{error}");
        let path = std::env::temp_dir().join(format!("ceiba-secret-{:x}", rand::random::<u64>()));
        std::fs::write(&path, "s3cret\r\n").unwrap();
        let secret = read(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.unwrap().expose(), "s3cret");
    }

    #[test]
    fn spans() {
        assert_eq!(Span::parse("1m30s").unwrap().0, Duration::from_secs(90));
        assert_eq!(Span::parse("250ms").unwrap().0, Duration::from_millis(250));
        for wrong in
            ["", "5", "s", "5 s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615d", "3651d"]
        {
            Span::parse(wrong).unwrap_err();
        }
    }
}
