//! What an error or a receipt is made of: the attempts of a retry, the members of a failover, the recipients of
//! a message.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Error;

/// What a part is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whole {
    /// One attempt of several; its name is its number, from 1.
    Attempt,
    /// One member of a strategy that has several.
    Member,
    /// One recipient of the message.
    Recipient,
}

impl Whole {
    /// The name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Whole::Attempt => "attempt",
            Whole::Member => "member",
            Whole::Recipient => "recipient",
        }
    }
}

/// In front of the name of a recipient that gets a copy of a mail, openly or in secret: so it is none that the message
/// names.
pub const COPIES: [&str; 2] = ["cc:", "bcc:"];

/// How one part of a send ended.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is a part of.
    pub of: Whole,
    /// Number of the attempt, name of the member, or the recipient.
    pub name: Arc<str>,
    /// The other side's id, where it went well and the wire gives one.
    pub message_id: Option<Arc<str>>,
    /// Why it failed; `None` when it went well.
    pub error: Option<Error>,
}

impl Part {
    /// A part that went well.
    pub fn sent(of: Whole, name: impl Into<Arc<str>>, message_id: Option<Arc<str>>) -> Part {
        Part { of, name: name.into(), message_id, error: None }
    }

    /// A part that failed.
    pub fn failed(of: Whole, name: impl Into<Arc<str>>, error: Error) -> Part {
        Part { of, name: name.into(), message_id: None, error: Some(error) }
    }

    /// Whether it is of a recipient that gets a copy.
    pub fn is_copy(&self) -> bool {
        self.of == Whole::Recipient && COPIES.iter().any(|mark| self.name.starts_with(mark))
    }

    /// As JSON: `of`, `name`, and where there is one `message_id` or `error`.
    pub fn to_json(&self) -> Value {
        let mut value = json!({"of": self.of.name(), "name": &*self.name});
        if let Some(object) = value.as_object_mut() {
            if let Some(id) = &self.message_id {
                object.insert("message_id".into(), json!(&**id));
            }
            if let Some(error) = &self.error {
                object.insert("error".into(), error.to_json());
            }
        }
        value
    }
}
