//! A send whose failure has a sequel, as a future written out: an async block would copy the receipt of every send on its
//! way out, which costs about as much as the rest of a strategy.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use super::accepted::Accepted;
use crate::client::BoxFuture;
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// Sends with `first`; what that fails with is for `then`, which is boxed apart so that the future of each send stays
/// small.
pub(super) struct OrElse<'a, S, T> {
    // Until the first poll, for a future that is never polled does nothing.
    first: Option<S>,
    then: Option<(T, Accepted)>,
    sending: Option<BoxFuture<'a, Result<Receipt>>>,
}

impl<'a, S, T> OrElse<'a, S, T>
where
    S: FnOnce(Arc<Message>) -> BoxFuture<'a, Result<Receipt>>,
    T: FnOnce(Accepted, Error) -> BoxFuture<'a, Result<Receipt>>,
{
    /// Not begun.
    pub(super) fn new(message: Arc<Message>, first: S, then: T) -> OrElse<'a, S, T> {
        OrElse { first: Some(first), then: Some((then, Accepted::new(message))), sending: None }
    }
}

// Nothing in it is pinned but what is in the box.
impl<S, T> Unpin for OrElse<'_, S, T> {}

impl<'a, S, T> Future for OrElse<'a, S, T>
where
    S: FnOnce(Arc<Message>) -> BoxFuture<'a, Result<Receipt>>,
    T: FnOnce(Accepted, Error) -> BoxFuture<'a, Result<Receipt>>,
{
    type Output = Result<Receipt>;

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Result<Receipt>> {
        let this = self.get_mut();
        loop {
            if let Some(sending) = &mut this.sending {
                match (sending.as_mut().poll(task), this.then.is_some()) {
                    (Poll::Ready(Err(error)), true) => {
                        // It has ended and is not polled again.
                        this.sending = this.then.take().map(|(then, accepted)| then(accepted, error));
                    }
                    (result, _) => return result,
                }
                continue;
            }
            match (this.first.take(), &this.then) {
                (Some(first), Some((_, accepted))) => this.sending = Some(first(accepted.now())),
                _ => return Poll::Ready(Err(Error::new(Kind::Internal, "a send was polled after its end"))),
            }
        }
    }
}
