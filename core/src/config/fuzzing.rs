//! Checks of configurations against any text, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use serde_json::Value;

use super::{Span, named_span};

/// Whether a config names a file that a secret is to be read from.
pub fn names_a_file(text: &str) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(within),
            Value::Object(members) => members.iter().any(|(key, value)| key == "file" || within(value)),
            _ => false,
        }
    }
    serde_json::from_str(text).is_ok_and(|value| within(&value))
}

/// A span of time: the sum of its parts, whatever their order, and bounded.
pub(crate) fn config_span(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let span = Span::parse(text);
    if let Ok(Span(span)) = &span {
        let micros = span.as_micros();
        assert!(micros <= 3650 * 86_400 * 1_000_000);
        let again = Span::parse(&format!("{micros}us")).expect("our own span");
        assert_eq!(again.0, *span);
        let (whole, rest) = (span.as_secs(), span.subsec_micros());
        assert_eq!(Span::parse(&format!("{rest}us{whole}s")).expect("our own span").0, *span);
        assert_eq!(named_span(&format!("interval:{text}")), Ok(("interval", Some(*span))));
    }
    if let Ok((name, span)) = named_span(text) {
        assert!(!name.contains(':') && (span.is_some() == text.contains(':')));
    }
}
