//! A send that ends by a moment of its own, whatever the producer does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// How long a producer may take to say how its send ended once the time is over. Ours say so at once; a callback
/// of the host may not.
const GRACE: Duration = Duration::from_millis(50);

/// Sends, until the context ends or `until` has come.
pub(super) async fn send(
    inner: &Arc<dyn Producer>,
    ctx: &Context,
    until: Instant,
    message: Arc<Message>,
) -> Result<Receipt> {
    let until = ctx.deadline().map_or(until, |deadline| deadline.min(until));
    let bounded = ctx.clone().ending_at(until);
    match tokio::time::timeout_at(until + GRACE, inner.send(&bounded, message)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Kind::Timeout, "the producer did not end in time")
            .outcome_is(Outcome::Unknown)
            .by(inner.provider())
            .tried(1)),
    }
}
