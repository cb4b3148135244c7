//! Checks of the codecs against any bytes, for fuzzing. Another reader of JSON sees what they see, what was
//! encoded is decoded again, and nothing panics.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

mod dpmq;
mod json;
mod kapokmq;
mod notices;

pub(crate) use dpmq::{dpmq_push, dpmq_reply, wire_paths};
pub(crate) use json::{json_escape, json_value};
pub(crate) use kapokmq::{kapokmq_answer, kapokmq_nodes, kapokmq_push, kapokmq_send};
pub(crate) use notices::{dingtalk_answer, sms_aliyun, sms_tencent, smtp_reply};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::json::names;

/// Inputs with more brackets may be nested deeper than we read.
const BRACKETS: usize = 5_000;

/// An object as another reader of JSON sees it.
enum Seen {
    /// No JSON, or no object.
    Bad,
    /// That reader refuses what we take: bytes that are no UTF-8, lone surrogates, numbers past its range, depth.
    Unclear,
    /// Its members in their order; none for `null`.
    Members(Vec<(String, Value)>),
}

struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object or null")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Members, E> {
                Ok(Members(Vec::new()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_any(Object)
    }
}

impl Seen {
    fn of(text: &[u8]) -> Seen {
        if let Ok(Members(members)) = serde_json::from_slice(text) {
            return Seen::Members(members);
        }
        let first = text.iter().find(|byte| !b" \t\r\n".contains(byte));
        if !is_json(text).unwrap_or(true) || !matches!(first, Some(b'{' | b'n')) {
            return Seen::Bad;
        }
        Seen::Unclear
    }
}

/// Whether these bytes keep the grammar of JSON; `None` where depth may matter.
fn is_json(text: &[u8]) -> Option<bool> {
    let brackets = text.iter().filter(|byte| b"[{".contains(byte)).count();
    (brackets < BRACKETS).then(|| serde_json::from_slice::<IgnoredAny>(text).is_ok())
}

/// The string that the last of these members has; the error for one that is something else. `null` changes nothing.
fn last_text(members: &[(String, Value)], field: &str) -> Result<Option<String>, ()> {
    let mut found = None;
    for (_, value) in members.iter().filter(|(key, _)| names(key, field)) {
        match value {
            Value::String(text) => found = Some(text.clone()),
            Value::Null => {}
            _ => return Err(()),
        }
    }
    Ok(found)
}

/// The same for a whole number.
fn last_integer(members: &[(String, Value)], field: &str) -> Result<Option<i64>, ()> {
    let mut found = None;
    for (_, value) in members.iter().filter(|(key, _)| names(key, field)) {
        match value {
            // The other reader takes `-0` for a fraction.
            Value::Number(number) if number.as_f64() == Some(0.0) => found = Some(0),
            Value::Number(number) => found = Some(number.as_i64().ok_or(())?),
            Value::Null => {}
            _ => return Err(()),
        }
    }
    Ok(found)
}

/// Whether a number in these members is a zero with a sign, a fraction or an exponent, which the other reader
/// does not tell from the plain one.
fn has_odd_zero(members: &[(String, Value)]) -> bool {
    members.iter().any(|(_, value)| value.as_f64() == Some(0.0) && value.as_i64().is_none())
}
