//! Keys that stand beside `provider` and keys that stand in it: one at the other's place is told where it belongs.

use serde_json::Value;

use super::{ClientConfig, from_value};
use crate::error::{Error, Kind, Result};

/// The keys of a client.
const CLIENT: [&str; 10] = [
    "id",
    "role",
    "provider",
    "strategies",
    "deadline",
    "connect",
    "connect_timeout",
    "when_disconnected",
    "max_pending",
    "max_pending_bytes",
];

/// Reads a client.
pub(super) fn read(value: Value) -> Result<ClientConfig> {
    if let Some(key) = in_provider(&value) {
        let text = format!("at `provider`: unknown key `{key}`; it stands beside `provider`, not in it");
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    let beside = value.as_object().into_iter().flatten().any(|(key, _)| !CLIENT.contains(&key.as_str()));
    from_value(value).map_err(|error| {
        if beside && error.message().starts_with("unknown key") {
            let text = format!("{}; a key of the provider stands in `provider`", error.message());
            return Error::new(error.kind(), text);
        }
        error
    })
}

fn in_provider(value: &Value) -> Option<&'static str> {
    let section = value.get("provider")?.as_object()?;
    CLIENT.into_iter().find(|key| section.contains_key(*key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_keys_are_those_of_a_client() {
        let error = from_value::<ClientConfig>(json!({"zzzzzzzzzzzzzzzzzzzzzzzzzzzz": 1})).unwrap_err();
        assert!(error.message().ends_with(&format!("known are: {}", CLIENT.join(", "))), "{error}");
    }

    #[test]
    fn a_key_at_the_wrong_level_is_told_its_place() {
        for (value, parts) in [
            (
                json!({"provider": {"type": "memory", "topic": "t", "deadline": "2s"}}),
                ["at `provider`: unknown key `deadline`", "beside `provider`"],
            ),
            (
                json!({"provider": {"type": "memory"}, "topic": "t"}),
                ["unknown key `topic`", "a key of the provider stands in `provider`"],
            ),
            (
                json!({"type": "memory", "topic": "t"}),
                ["unknown key `t", "a key of the provider stands in `provider`"],
            ),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            for part in parts {
                assert!(error.message().contains(part), "{error}");
            }
        }
    }
}
