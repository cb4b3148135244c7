//! A deserializer over a JSON value whose errors name the path, and for an unknown key the nearest one.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::nearest;
use crate::error::{Error, Kind, Result};

/// Reads `T` from a JSON value: `invalid_config`, naming the path, when it does not fit.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(Strict(value)).map_err(|fault| Error::new(Kind::InvalidConfig, fault.to_string()))
}

/// What is wrong and where.
#[derive(Debug)]
struct Fault {
    path: Vec<String>,
    text: String,
}

impl Fault {
    fn within(mut self, step: String) -> Fault {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            let mut path = String::new();
            for step in self.path.iter().rev() {
                if !path.is_empty() && !step.starts_with('[') {
                    path.push('.');
                }
                path.push_str(step);
            }
            write!(f, "at `{path}`: ")?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Fault {
        Fault { path: Vec::new(), text: text.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Fault {
        let text = match nearest(field, expected) {
            Some(name) => format!("unknown key `{field}`; did you mean `{name}`?"),
            None => format!("unknown key `{field}`; known are: {}", expected.join(", ")),
        };
        serde::de::Error::custom(text)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Fault {
        let mut text = format!("unknown value `{variant}`; known are: {}", expected.join(", "));
        if let Some(name) = nearest(variant, expected) {
            text.push_str(&format!(" (did you mean `{name}`?)"));
        }
        serde::de::Error::custom(text)
    }

    fn missing_field(field: &'static str) -> Fault {
        serde::de::Error::custom(format!("the key `{field}` is missing"))
    }

    fn invalid_type(unexpected: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Fault {
        use serde::de::Unexpected;
        // The value itself may be a secret in the wrong place: only its type is told.
        let found = match unexpected {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Str(_) => "a string",
            Unexpected::Unit | Unexpected::Option => "null",
            Unexpected::Seq => "an array",
            Unexpected::Map => "an object",
            _ => "another value",
        };
        serde::de::Error::custom(format!("expected {}, not {found}", plain(expected)))
    }

    fn invalid_value(unexpected: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Fault {
        use serde::de::Unexpected;
        let expected = plain(expected);
        let text = match unexpected {
            Unexpected::Unsigned(number) => format!("expected {expected}, not {number}"),
            Unexpected::Signed(number) => format!("expected {expected}, not {number}"),
            _ => format!("expected {expected}"),
        };
        serde::de::Error::custom(text)
    }
}

/// What is wanted, in the words of a reader who knows JSON and no Rust.
fn plain(expected: &dyn serde::de::Expected) -> String {
    let text = expected.to_string();
    let most = match text.as_str() {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        "a boolean" => return "true or false".to_owned(),
        "a map" => return "an object".to_owned(),
        "a sequence" => return "an array".to_owned(),
        name if name.starts_with("struct ") => return "an object".to_owned(),
        name if name.starts_with("internally tagged enum ") => {
            return "an object with the key `type`".to_owned();
        }
        _ => return text,
    };
    format!("a whole number from 0 to {most}")
}

struct Strict(Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0 }),
            Value::Object(entries) => {
                visitor.visit_map(Entries { entries: entries.into_iter(), value: None, key: String::new() })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(Variant(text)),
            other => {
                let _ = name;
                Strict(other).deserialize_any(NotAVariant(variants, std::marker::PhantomData))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

// Produces the error for a value that is no string where the name of a variant was expected.
struct NotAVariant<T>(&'static [&'static str], std::marker::PhantomData<T>);

impl<T> Visitor<'_> for NotAVariant<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.0.join(", "))
    }
}

struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Fault;
    type Variant = Unit;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Unit), Fault> {
        Ok((seed.deserialize(self.0.into_deserializer())?, Unit))
    }
}

struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value, Fault> {
        Err(serde::de::Error::custom("this value takes no content"))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Fault> {
        Err(serde::de::Error::custom("this value takes no content"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Fault> {
        Err(serde::de::Error::custom("this value takes no content"))
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Strict(item)).map(Some).map_err(|fault| fault.within(format!("[{index}]")))
    }
}

struct Entries {
    entries: serde_json::map::IntoIter,
    value: Option<Value>,
    key: String,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        self.key.clone_from(&key);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let value = self.value.take().unwrap_or(Value::Null);
        seed.deserialize(Strict(value)).map_err(|fault| fault.within(std::mem::take(&mut self.key)))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Keys {
        #[serde(default)]
        small: u32,
        #[serde(default)]
        large: u64,
        #[serde(default)]
        maybe: Option<u32>,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        name: String,
        #[serde(default)]
        list: Vec<String>,
        #[serde(default)]
        map: std::collections::BTreeMap<String, u32>,
        #[serde(default)]
        inner: Option<Box<Keys>>,
        #[serde(default)]
        choice: Option<Choice>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Choice {
        One,
    }

    #[test]
    fn what_was_expected_is_said_in_plain_words() {
        let number = "expected a whole number from 0 to 4294967295, not";
        for (value, text) in [
            (json!({"small": -1}), format!("at `small`: {number} -1")),
            (json!({"small": 4294967296u64}), format!("at `small`: {number} 4294967296")),
            (json!({"small": "hunter2"}), format!("at `small`: {number} a string")),
            (json!({"maybe": 1.5}), format!("at `maybe`: {number} a number with a fraction")),
            (
                json!({"large": -1}),
                "at `large`: expected a whole number from 0 to 18446744073709551615, not -1".into(),
            ),
            (json!({"on": 1}), "at `on`: expected true or false, not a number".into()),
            (json!({"name": 1}), "at `name`: expected a string, not a number".into()),
            (json!({"list": 1}), "at `list`: expected an array, not a number".into()),
            (json!({"map": []}), "at `map`: expected an object, not an array".into()),
            (
                json!({"inner": {"inner": "hunter2"}}),
                "at `inner.inner`: expected an object, not a string".into(),
            ),
            (json!("hunter2"), "expected an object, not a string".into()),
            (
                json!({"choice": "one"}),
                "at `choice`: expected an object with the key `type`, not a string".into(),
            ),
        ] {
            assert_eq!(from_value::<Keys>(value).unwrap_err().message(), text);
        }
    }
}
