//! What is stored of a message beside its body: JSON, and nothing where there is nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::wire::mns::{Outgoing, Property};

/// The longest that is stored.
pub(super) const MAX_NOTE: usize = 64 << 10;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// The id that all subscriptions of a topic know the message by.
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
    #[serde(rename = "g", skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    /// Name, value and type.
    #[serde(rename = "p", skip_serializing_if = "Vec::is_empty")]
    properties: Vec<[String; 3]>,
    #[serde(rename = "s", skip_serializing_if = "Vec::is_empty")]
    system: Vec<[String; 3]>,
}

fn kept(properties: &[Property<'_>]) -> Vec<[String; 3]> {
    let text = |text: &Cow<'_, str>| text.clone().into_owned();
    properties.iter().map(|one| [text(&one.name), text(&one.value), text(&one.kind)]).collect()
}

fn told(properties: Vec<[String; 3]>) -> Vec<Property<'static>> {
    let each = properties.into_iter();
    each.map(|[name, value, kind]| Property { name: name.into(), value: value.into(), kind: kind.into() })
        .collect()
}

impl Note {
    pub(super) fn of(message: &Outgoing<'_>) -> Note {
        let text = |text: &Option<Cow<'_, str>>| text.clone().map(Cow::into_owned);
        Note {
            id: None,
            tag: text(&message.tag),
            group: text(&message.group),
            properties: kept(&message.properties),
            system: kept(&message.system_properties),
        }
    }

    pub(super) fn write(&self) -> String {
        let plain = self.id.is_none() && self.tag.is_none() && self.group.is_none();
        if plain && self.properties.is_empty() && self.system.is_empty() {
            return String::new();
        }
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn read(text: Option<&str>) -> Note {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The values of the sender's own, and those of the service.
    pub(super) fn into_properties(self) -> (Vec<Property<'static>>, Vec<Property<'static>>) {
        (told(self.properties), told(self.system))
    }
}
