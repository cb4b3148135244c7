//! Why a limiter did not let a send through.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Context;
use crate::error::{Error, Kind};

/// Timers are as fine as this: a wait that is shorter ends no earlier.
const SHORTEST: Duration = Duration::from_millis(1);

/// The rate is met. The time to wait, where it is known.
pub(super) fn limited(wait: Option<Duration>) -> Error {
    match wait {
        Some(wait) => Error::new(Kind::Limited, "the rate limit is met").after(wait),
        None => Error::new(Kind::Limited, "the rate limit is met"),
    }
}

/// Others wait, and whoever comes has to stand behind them.
pub(super) fn behind_others(wait: Duration) -> Error {
    limited(Some(wait.max(SHORTEST)))
}

/// The line is full.
pub(super) fn line_full() -> Error {
    Error::new(Kind::Limited, "the rate limit is met, and too many sends wait already")
}

/// The wait would end after the deadline.
pub(super) fn too_late(wait: Duration) -> Error {
    Error::new(Kind::Limited, "the rate limit is met, and the wait would pass the deadline").after(wait)
}

/// The end of a context while a send waited for its turn: the passed deadline means that the rate was met till then.
pub(super) fn ended(error: Error) -> Error {
    match error.kind() {
        Kind::Timeout => Error::new(Kind::Limited, "the rate limit was met until the deadline"),
        _ => error,
    }
}

/// An error when the wait till `ready` passes the deadline.
pub(super) fn check_wait(ctx: &Context, now: Instant, wait: Duration) -> Result<(), Error> {
    match ctx.deadline() {
        Some(deadline) if deadline.saturating_duration_since(now) <= wait => Err(too_late(wait)),
        _ => Ok(()),
    }
}
