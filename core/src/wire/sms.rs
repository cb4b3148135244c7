//! Wires of short message services: requests with their signatures, answers, and what their codes mean.

pub mod aliyun;
pub mod tencent;
#[cfg(test)]
mod vectors;

use crate::error::{Error, Kind, Outcome};

/// What a service's code says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the error.
    pub kind: Kind,
    /// Whether the same message may go through later.
    pub retryable: bool,
    /// Whether the service may have sent it all the same.
    pub unknown: bool,
}

impl Fault {
    const fn lasting(kind: Kind) -> Fault {
        Fault { kind, retryable: false, unknown: false }
    }

    const fn passing(kind: Kind) -> Fault {
        Fault { kind, retryable: true, unknown: false }
    }

    // The service failed at something of its own, perhaps after the message was on its way.
    const fn of_service() -> Fault {
        Fault { kind: Kind::Unavailable, retryable: true, unknown: true }
    }

    /// The error with this text.
    pub fn error(self, text: String) -> Error {
        let error = Error::new(self.kind, text).retryable_is(self.retryable);
        if self.unknown { error.outcome_is(Outcome::Unknown) } else { error }
    }
}
