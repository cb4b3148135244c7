//! A message that was accepted once and is sent in several attempts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Part, Whole};
use crate::message::Message;

/// A message and when it was accepted: its delay counts from then, so each attempt sends what remains of it.
pub(super) struct Accepted {
    message: Arc<Message>,
    // None without a delay: reading the clock costs more than the rest.
    at: Option<Instant>,
}

impl Accepted {
    /// Accepted now.
    pub(super) fn new(message: Arc<Message>) -> Accepted {
        let at = (!message.delay().is_zero()).then(Instant::now);
        Accepted { message, at }
    }

    /// As it is to be sent now.
    pub(super) fn now(&self) -> Arc<Message> {
        match self.at {
            None => self.message.clone(),
            Some(at) => self.delayed(self.message.delay().saturating_sub(at.elapsed())),
        }
    }

    fn delayed(&self, delay: Duration) -> Arc<Message> {
        if delay == self.message.delay() {
            return self.message.clone();
        }
        let mut message = Message::clone(&self.message);
        message.set_delay(delay);
        Arc::new(message)
    }

    /// Leaves only the recipients that failed in a `partial` error's parts. False when that would leave none or
    /// all: the next attempt is for the message as it is.
    pub(super) fn keep_failed(&mut self, parts: &[Part]) -> bool {
        let Some(fields) = self.message.fields() else { return false };
        let failed: std::collections::HashSet<&str> = parts
            .iter()
            .filter(|part| part.of == Whole::Recipient && part.error.is_some())
            .map(|part| &*part.name)
            .collect();
        let left: Vec<String> =
            fields.recipients.iter().filter(|name| failed.contains(name.as_str())).cloned().collect();
        if left.is_empty() || left.len() == fields.recipients.len() {
            return false;
        }
        let mut message = Message::clone(&self.message);
        message.fields_mut().recipients = left;
        self.message = Arc::new(message);
        true
    }
}

/// How each recipient ended over several attempts: the last word about each counts.
#[derive(Default)]
pub(super) struct Recipients(Vec<Part>);

impl Recipients {
    /// Adds what an attempt says of its recipients.
    pub(super) fn add(&mut self, parts: &[Part]) {
        if self.0.is_empty() {
            self.0 = parts.iter().filter(|part| part.of == Whole::Recipient).cloned().collect();
            return;
        }
        let mut places: std::collections::HashMap<Arc<str>, usize> =
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

    /// Marks those that had failed as sent: an attempt for them went well.
    pub(super) fn rest_sent(&mut self, parts: Option<&[Part]>) {
        self.add(parts.unwrap_or_default());
        for part in &mut self.0 {
            part.error = None;
        }
    }

    /// Whether the message reached some of them.
    pub(super) fn any_sent(&self) -> bool {
        self.0.iter().any(|part| part.error.is_none())
    }

    /// Whether anything is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts.
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.0
    }
}
