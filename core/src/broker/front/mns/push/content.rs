//! A message as a subscriber gets it.

use super::super::ACCOUNT;
use super::super::note::Note;
use crate::broker::depot::{Delivery, Shelf};
use crate::wire::mns::{Notice, body_md5};

/// Whether this is the name of a format.
pub(in super::super) fn is_format(name: &str) -> bool {
    matches!(name, "XML" | "SIMPLIFIED" | "JSON")
}

/// See the module.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) body: String,
    pub(super) kind: &'static str,
    pub(super) message_id: String,
    pub(super) tag: Option<String>,
}

impl Content {
    pub(super) fn of(shelf: &Shelf, Delivery { stored, .. }: &Delivery, format: Option<&str>) -> Content {
        let note = Note::read(stored.key.as_deref());
        let message_id = note.id.unwrap_or_default();
        let text = String::from_utf8_lossy(&stored.body);
        let (topic, name) = shelf.name.split_once('/').unwrap_or_default();
        let digest = body_md5(&stored.body);
        let notice = Notice {
            topic_owner: ACCOUNT,
            topic_name: topic,
            subscriber: ACCOUNT,
            subscription_name: name,
            message_id: &message_id,
            message: &text,
            message_md5: &digest,
            message_tag: note.tag.as_deref(),
            publish_time: stored.created_ms.max(0).unsigned_abs(),
        };
        let (body, kind) = match format {
            Some("SIMPLIFIED") => (text.clone().into_owned(), "text/plain;charset=utf-8"),
            Some("JSON") => (notice.encode_json(), "application/json;charset=utf-8"),
            _ => (notice.encode_xml(), "text/xml;charset=utf-8"),
        };
        Content { body, kind, tag: note.tag, message_id }
    }
}
