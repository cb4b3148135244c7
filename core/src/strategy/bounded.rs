//! A send that ends by a moment of its own, whatever the producer does.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::client::{Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// How long a producer may take to say how its send ended once the time is over. Ours say so at once; a callback
/// of the host may not.
const GRACE: Duration = Duration::from_millis(50);

/// Sends, until the context ends or `until` has come. Its own timeout, no sooner than the context's, is told to
/// `late`.
pub(super) async fn send(
    inner: &Arc<dyn Producer>,
    ctx: &Context,
    until: impl FnOnce() -> Instant,
    message: Arc<Message>,
    late: impl Fn(&Error),
) -> Result<Receipt> {
    let mut until = until();
    let own = ctx.deadline().is_none_or(|deadline| until < deadline);
    if let Some(deadline) = ctx.deadline().filter(|_| !own) {
        until = deadline;
    }
    let bounded = ctx.clone().ending_at(until);
    let mut sending = inner.send(&bounded, message);
    // What ends at once needs no timer.
    let mut grace = pin!(None::<Unconstrained<Sleep>>);
    poll_fn(|task| {
        let mut ended = sending.as_mut().poll(task);
        if ended.is_pending() {
            if grace.is_none() {
                // A producer that uses up its task's turn at each poll is ended all the same.
                grace.set(Some(unconstrained(sleep_until(until + GRACE))));
            }
            ended = grace.as_mut().as_pin_mut().map_or(Poll::Ready(()), |grace| grace.poll(task)).map(|()| {
                Err(Error::new(Kind::Timeout, "the producer did not end in time")
                    .outcome_is(Outcome::Unknown)
                    .by(inner.provider())
                    .tried(1))
            });
        }
        if let Poll::Ready(Err(error)) = &ended
            && own
            && error.kind() == Kind::Timeout
            && ctx.check().is_ok()
        {
            late(error);
        }
        ended
    })
    .await
}
