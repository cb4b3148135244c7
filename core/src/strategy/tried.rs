//! What several attempts at one message came to, by one producer or by several.

use std::borrow::Cow;
use std::sync::Arc;

use super::accepted::{Accepted, Again};
use super::recipients::Recipients;
use crate::error::{Error, Kind, Outcome, Part, Result, Whole};
use crate::message::{Message, Receipt};

/// A message with the attempts that failed so far. None of what they said is lost: a message of which some recipients
/// have it never ends as one that was not sent.
pub(super) struct Tried {
    accepted: Accepted,
    parts: Vec<Part>,
    recipients: Recipients,
    attempts: u32,
    unknown: bool,
    // Somebody has the message, whether or not it is known who.
    partly: bool,
}

impl Tried {
    pub(super) fn new(accepted: Accepted) -> Tried {
        Tried {
            accepted,
            parts: Vec::new(),
            recipients: Recipients::default(),
            attempts: 0,
            unknown: false,
            partly: false,
        }
    }

    /// The message as the next attempt sends it.
    pub(super) fn now(&self) -> Arc<Message> {
        self.accepted.now()
    }

    /// Adds an attempt that failed.
    pub(super) fn failed(&mut self, of: Whole, name: impl Into<Arc<str>>, error: &Error) {
        self.attempts = self.attempts.saturating_add(error.attempts().max(1));
        self.unknown |= error.outcome() == Outcome::Unknown;
        self.partly |= error.kind() == Kind::Partial;
        self.recipients.failed(self.accepted.recipients(), error);
        self.parts.push(Part::failed(of, name, error.clone()));
    }

    /// Makes ready for another attempt after this error: when some recipients have the message, only the others get
    /// it again.
    ///
    /// # Errors
    /// Why there must be no other.
    pub(super) fn go_on(&mut self, error: &Error, again: Again) -> Result<(), &'static str> {
        if error.kind() != Kind::Partial {
            return Ok(());
        }
        self.accepted.keep_failed(error.parts(), again)
    }

    /// How many failed.
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// The errors of those that failed.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.parts.iter().filter_map(|part| part.error.as_ref().map(|error| (&*part.name, error)))
    }

    /// Whether only one failed, with an error of the kind of this one: that error says it all.
    pub(super) fn is_only(&self, last: &Error) -> bool {
        matches!(self.parts.as_slice(), [Part { error: Some(only), .. }] if only.kind() == last.kind())
    }

    /// An attempt went well. Recipients that it was not for may have failed for good: that is `partial`.
    pub(super) fn sent(mut self, mut receipt: Receipt) -> Result<Receipt> {
        receipt.attempts = receipt.attempts.saturating_add(self.attempts);
        if self.recipients.is_empty() {
            return Ok(receipt);
        }
        self.recipients.sent(self.accepted.recipients(), receipt.parts.as_deref());
        let unsent: Vec<String> = self
            .recipients
            .unsent()
            .filter_map(|part| part.error.as_ref().map(|error| format!("{}: {error}", part.name)))
            .collect();
        if !unsent.is_empty() {
            let text = format!(
                "{} of {} recipients failed: {}",
                unsent.len(),
                self.recipients.len(),
                unsent.join("; ")
            );
            let error = Error::new(Kind::Partial, text).by(receipt.provider).retryable_is(false);
            return Err(Tried { attempts: receipt.attempts, ..self }.make(error));
        }
        receipt.parts = Some(self.recipients.into_parts().into());
        Ok(receipt)
    }

    /// The error of them all. Its kind is `partial` where some recipients have the message; its outcome is unknown
    /// when that of any attempt was.
    pub(super) fn into_error(self, kind: Kind, text: String, last: &Error) -> Error {
        let error = Error::new(self.kind(kind), text);
        self.finish(error, last)
    }

    /// The same of several members, whose text names each that failed. `why` says why the rest of `all` were not
    /// tried; empty where they were.
    pub(super) fn into_members_error(
        self,
        kind: Kind,
        all: usize,
        why: impl Into<Cow<'static, str>>,
        last: &Error,
    ) -> Error {
        let error = Error::of_members(self.kind(kind), all, why);
        self.finish(error, last)
    }

    fn kind(&self, kind: Kind) -> Kind {
        if self.partly || self.recipients.any_sent() { Kind::Partial } else { kind }
    }

    fn finish(self, mut error: Error, last: &Error) -> Error {
        error = error.retryable_is(last.retryable());
        if let Some(provider) = last.provider() {
            error = error.by(provider);
        }
        self.make(error)
    }

    fn make(self, mut error: Error) -> Error {
        error = error.tried(self.attempts);
        if self.unknown || error.kind() == Kind::Partial {
            error = error.outcome_is(Outcome::Unknown);
        }
        let mut parts = self.parts;
        parts.extend(self.recipients.into_parts());
        error.made_of(parts)
    }
}
