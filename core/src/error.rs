//! The one error type: what kind it is, whether the message may have been sent, and whether to try again.

mod part;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use part::{COPIES, Part, Whole};
use text::Text;

/// What went wrong. The numbers are the C ABI's return codes: fixed for ever, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Kind {
    /// An argument of the call is wrong.
    InvalidArgument = 1,
    /// The configuration is wrong; the message names the key.
    InvalidConfig = 2,
    /// No client with this id is open.
    UnknownId = 3,
    /// A client with this id is open already.
    AlreadyOpen = 4,
    /// The client is held by another one.
    InUse = 5,
    /// The client was closed.
    Closed = 6,
    /// The other side refused the credentials.
    Authentication = 7,
    /// The credentials do not allow this.
    Permission = 8,
    /// The queue, topic or message does not exist on the other side.
    NotFound = 9,
    /// The provider cannot honour this; nothing was dropped in silence.
    Unsupported = 10,
    /// The message is over a limit of size.
    TooLarge = 11,
    /// The deadline passed.
    Timeout = 12,
    /// The caller cancelled.
    Cancelled = 13,
    /// The other side cannot be reached or does not answer.
    Unavailable = 14,
    /// The other side asked for fewer calls.
    Throttled = 15,
    /// A rate limit of the configuration was met.
    Limited = 16,
    /// Some recipients failed; the others were sent.
    Partial = 17,
    /// Every member of a failover failed.
    AllFailed = 18,
    /// The circuit breaker is open.
    CircuitOpen = 19,
    /// A bounded queue stayed full until the deadline.
    QueueFull = 20,
    /// The local store failed.
    Storage = 21,
    /// The other side broke the protocol.
    Protocol = 22,
    /// A blocking call was made on a thread of the runtime.
    WouldDeadlock = 23,
    /// The client belongs to the parent process.
    Forked = 24,
    /// A fault of this library.
    Internal = 25,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub const ALL: [Kind; 25] = [
        Kind::InvalidArgument,
        Kind::InvalidConfig,
        Kind::UnknownId,
        Kind::AlreadyOpen,
        Kind::InUse,
        Kind::Closed,
        Kind::Authentication,
        Kind::Permission,
        Kind::NotFound,
        Kind::Unsupported,
        Kind::TooLarge,
        Kind::Timeout,
        Kind::Cancelled,
        Kind::Unavailable,
        Kind::Throttled,
        Kind::Limited,
        Kind::Partial,
        Kind::AllFailed,
        Kind::CircuitOpen,
        Kind::QueueFull,
        Kind::Storage,
        Kind::Protocol,
        Kind::WouldDeadlock,
        Kind::Forked,
        Kind::Internal,
    ];

    /// The number of this kind, as the C ABI returns it.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The kind with this number.
    pub fn from_code(code: i32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name in snake case, as in the documents.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::InvalidArgument => "invalid_argument",
            Kind::InvalidConfig => "invalid_config",
            Kind::UnknownId => "unknown_id",
            Kind::AlreadyOpen => "already_open",
            Kind::InUse => "in_use",
            Kind::Closed => "closed",
            Kind::Authentication => "authentication",
            Kind::Permission => "permission",
            Kind::NotFound => "not_found",
            Kind::Unsupported => "unsupported",
            Kind::TooLarge => "too_large",
            Kind::Timeout => "timeout",
            Kind::Cancelled => "cancelled",
            Kind::Unavailable => "unavailable",
            Kind::Throttled => "throttled",
            Kind::Limited => "limited",
            Kind::Partial => "partial",
            Kind::AllFailed => "all_failed",
            Kind::CircuitOpen => "circuit_open",
            Kind::QueueFull => "queue_full",
            Kind::Storage => "storage",
            Kind::Protocol => "protocol",
            Kind::WouldDeadlock => "would_deadlock",
            Kind::Forked => "forked",
            Kind::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    const fn retryable(self) -> bool {
        matches!(
            self,
            Kind::Timeout
                | Kind::Unavailable
                | Kind::Throttled
                | Kind::Limited
                | Kind::CircuitOpen
                | Kind::QueueFull
                | Kind::Protocol
                | Kind::AllFailed
                | Kind::Partial
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the message of a failed send may have reached the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not.
    NotSent,
    /// It may have: it was written, and no answer came.
    Unknown,
}

impl Outcome {
    /// The name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::NotSent => "not_sent",
            Outcome::Unknown => "unknown",
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error. Cloning costs one atomic: many calls can end with the same one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    outcome: Outcome,
    retryable: bool,
    retry_after: Option<Duration>,
    provider: Option<&'static str>,
    attempts: u32,
    text: Text,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    parts: Vec<Part>,
}

impl Error {
    /// An error whose message was not sent, retryable as its kind usually is.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error::told(kind, Text::Given(message.into()))
    }

    /// An error of several members, with the parts yet to come: its text names each that failed, and is made when it
    /// is read first.
    pub(crate) fn of_members(kind: Kind, all: usize, why: impl Into<Cow<'static, str>>) -> Error {
        Error::told(kind, Text::members(all, why.into()))
    }

    fn told(kind: Kind, text: Text) -> Error {
        Error(Arc::new(Inner {
            kind,
            outcome: Outcome::NotSent,
            retryable: kind.retryable(),
            retry_after: None,
            provider: None,
            attempts: 0,
            text,
            source: None,
            parts: Vec::new(),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Says whether the message may have been sent.
    #[must_use]
    pub fn outcome_is(self, outcome: Outcome) -> Error {
        self.with(|inner| inner.outcome = outcome)
    }

    /// Overrides whether a retry may help.
    #[must_use]
    pub fn retryable_is(self, retryable: bool) -> Error {
        self.with(|inner| inner.retryable = retryable)
    }

    /// Names the least time to wait before a retry.
    #[must_use]
    pub fn after(self, wait: Duration) -> Error {
        self.with(|inner| inner.retry_after = Some(wait))
    }

    /// Names the provider.
    #[must_use]
    pub fn by(self, provider: &'static str) -> Error {
        self.with(|inner| inner.provider = Some(provider))
    }

    /// Says where it happened, in front of the message.
    #[must_use]
    pub fn at(self, place: &str) -> Error {
        self.with(|inner| {
            let text = format!("{place}: {}", inner.text.read(&inner.parts));
            inner.text = Text::Given(text);
        })
    }

    /// Says how many attempts were made.
    #[must_use]
    pub fn tried(self, attempts: u32) -> Error {
        self.with(|inner| inner.attempts = attempts)
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.with(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Adds how each attempt, member or recipient ended.
    #[must_use]
    pub fn made_of(self, parts: Vec<Part>) -> Error {
        self.with(|inner| inner.parts = parts)
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the message may have been sent.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// The least time to wait before a retry, where the other side named one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The provider that failed, where one did.
    pub fn provider(&self) -> Option<&'static str> {
        self.0.provider
    }

    /// Attempts made: 0 when the call failed before the first.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How each attempt, member or recipient ended; empty where there was one alone.
    pub fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// Everything but the causes' own types, as JSON: `kind`, `code`, `outcome`, `retryable`, `retry_after_ms`,
    /// `provider`, `attempts`, `message` and `parts`; keys without a value are left out.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "kind": self.kind().name(),
            "code": self.kind().code(),
            "outcome": self.outcome().name(),
            "retryable": self.retryable(),
            "attempts": self.attempts(),
            "message": self.text(),
        });
        if let Some(object) = value.as_object_mut() {
            if let Some(wait) = self.retry_after() {
                let wait = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                object.insert("retry_after_ms".into(), json!(wait));
            }
            if let Some(provider) = self.provider() {
                object.insert("provider".into(), json!(provider));
            }
            if !self.parts().is_empty() {
                object.insert("parts".into(), self.parts().iter().map(Part::to_json).collect());
            }
        }
        value
    }

    /// The message without the kind and the causes.
    pub fn message(&self) -> &str {
        self.0.text.read(&self.0.parts)
    }

    /// The whole text on one line: message, then each cause.
    pub fn text(&self) -> String {
        let mut text = self.message().to_owned();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            // Of ours the message is enough: kind and provider are those of the whole.
            let line = match source.downcast_ref::<Error>() {
                Some(error) => error.message().to_owned(),
                None => source.to_string(),
            };
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            next = source.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = self.0.provider {
            write!(f, "{provider}: ")?;
        }
        write!(f, "{}: {}", self.0.kind, self.message())?;
        if self.0.outcome == Outcome::Unknown {
            f.write_str(" (whether the message was sent is unknown)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("outcome", &self.0.outcome)
            .field("retryable", &self.0.retryable)
            .field("provider", &self.0.provider)
            .field("attempts", &self.0.attempts)
            .field("message", &self.text())
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_ledger() {
        let codes: Vec<i32> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, (1..=25).collect::<Vec<_>>());
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(Kind::from_code(0), None);
    }

    #[test]
    fn text_names_each_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let error = Error::new(Kind::Unavailable, "cannot connect").caused_by(io).by("kapokmq").tried(2);
        assert_eq!(error.text(), "cannot connect: refused");
        assert_eq!(error.to_string(), "kapokmq: unavailable: cannot connect");
        let outer = Error::new(Kind::Unavailable, "no connection").caused_by(error.clone()).at("`a`");
        assert_eq!(outer.text(), "`a`: no connection: cannot connect: refused");
        assert!(error.retryable());
        assert_eq!(error.clone().outcome_is(Outcome::Unknown).outcome(), Outcome::Unknown);
        assert_eq!(error.outcome(), Outcome::NotSent);
    }
}
