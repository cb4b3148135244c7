//! A message that was accepted once and is sent in several attempts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Part, Whole};
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

    /// The same, for a send that is made once.
    pub(super) fn into_now(self) -> Arc<Message> {
        match self.at {
            None => self.message,
            Some(_) => self.now(),
        }
    }

    /// The recipients that the message names.
    pub(super) fn recipients(&self) -> &[String] {
        self.message.fields().map_or(&[], |fields| fields.recipients.as_slice())
    }

    /// After a `partial` error: leaves only the recipients that failed and that another attempt may help. A message
    /// that names none, because its provider's config does, names them from now on.
    ///
    /// # Errors
    /// Why no other attempt is to be made: it would send to somebody twice, or to nobody who can be helped.
    pub(super) fn keep_failed(&mut self, parts: &[Part], again: Again) -> Result<(), &'static str> {
        let failed = |part: &&Part| part.of == Whole::Recipient && part.error.is_some();
        if !parts.iter().any(|part| failed(&part)) {
            return Err("some have it, and nobody says which");
        }
        let helped: Vec<&str> = parts
            .iter()
            .filter(failed)
            .filter(|part| again == Again::Any || part.error.as_ref().is_some_and(Error::retryable))
            .map(|part| &*part.name)
            .collect();
        if helped.is_empty() {
            return Err("no attempt more can help those that failed");
        }
        let named = self.recipients();
        let left: Vec<String> = if named.is_empty() {
            helped.into_iter().map(str::to_owned).collect()
        } else {
            let copies = parts.iter().filter(|part| part.is_copy()).map(|part| &*part.name);
            let copies: HashSet<&str> = copies.collect();
            let copies: Vec<String> =
                helped.iter().filter(|name| copies.contains(*name)).map(|name| (*name).to_owned()).collect();
            let helped: HashSet<&str> = helped.into_iter().collect();
            let named = named.iter().filter(|name| helped.contains(name.as_str()) && !copies.contains(name));
            named.cloned().chain(copies.iter().cloned()).collect()
        };
        if left.is_empty() {
            return Err("some have it, and those that failed are none of the message's recipients");
        }
        // Even for all whom it names: copies that are not among those that failed have been sent.
        if left != named || !self.message.is_rest() {
            let mut message = Message::clone(&self.message);
            message.fields_mut().recipients = left;
            message.set_rest();
            self.message = Arc::new(message);
        }
        Ok(())
    }
}

/// Whom another attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Those whose error says that it may help.
    Retryable,
    /// All that failed.
    Any,
}
