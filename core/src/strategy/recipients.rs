//! How each recipient of a message ended over several attempts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Part, Whole};

/// The last word about each recipient counts.
#[derive(Default)]
pub(super) struct Recipients(Vec<Part>);

impl Recipients {
    /// Adds how an attempt failed that was made for the recipients `asked`. An error that tells of no recipient is
    /// that of all who were asked, once anything is known of them.
    pub(super) fn failed(&mut self, asked: &[String], error: &Error) {
        if error.parts().iter().any(|part| part.of == Whole::Recipient) {
            if error.kind() == Kind::Partial {
                // Who is not named among them has it.
                self.sent(asked, None);
            }
            self.add(error.parts());
        } else if !self.0.is_empty() {
            let parts: Vec<Part> = asked
                .iter()
                .map(|name| Part::failed(Whole::Recipient, name.as_str(), error.clone()))
                .collect();
            self.add(&parts);
        }
    }

    /// Marks as sent those that an attempt which went well was made for.
    pub(super) fn sent(&mut self, asked: &[String], parts: Option<&[Part]>) {
        let told: Vec<Part> =
            asked.iter().map(|name| Part::sent(Whole::Recipient, name.as_str(), None)).collect();
        self.add(&told);
        self.add(parts.unwrap_or_default());
    }

    fn add(&mut self, parts: &[Part]) {
        let mut places: HashMap<Arc<str>, usize> =
            self.0.iter().enumerate().map(|(place, part)| (part.name.clone(), place)).collect();
        for part in parts.iter().filter(|part| part.of == Whole::Recipient) {
            match places.get(&part.name).and_then(|place| self.0.get_mut(*place)) {
                Some(known) => *known = part.clone(),
                None => {
                    places.insert(part.name.clone(), self.0.len());
                    self.0.push(part.clone());
                }
            }
        }
    }

    /// Whether the message reached some of them.
    pub(super) fn any_sent(&self) -> bool {
        self.0.iter().any(|part| part.error.is_none())
    }

    /// Those that it did not reach.
    pub(super) fn unsent(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(|part| part.error.is_some())
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The parts.
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.0
    }
}
