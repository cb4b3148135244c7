//! A send that keeps a pace, as a future written out: an async block would copy the receipt twice on its way out,
//! which costs as much as the limiter itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use super::super::accepted::Accepted;
use super::RateLimit;
use super::pace::Paced;
use crate::client::{BoxFuture, Context, Producer};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// See the module.
pub(super) struct Sending<'a> {
    strategy: &'a RateLimit,
    paced: &'a Paced,
    inner: &'a Arc<dyn Producer>,
    ctx: &'a Context,
    message: Option<Accepted>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Begins,
    Waits(BoxFuture<'a, Result<()>>),
    Sends(BoxFuture<'a, Result<Receipt>>),
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        strategy: &'a RateLimit,
        paced: &'a Paced,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> Sending<'a> {
        Sending { strategy, paced, inner, ctx, message: Some(Accepted::new(message)), stage: Stage::Begins }
    }
}

impl Future for Sending<'_> {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<Receipt>> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Sends(send) => return send.as_mut().poll(cx),
                Stage::Begins => {
                    if let Err(refusal) = this.paced.take(this.ctx) {
                        let wait = this.strategy.wait_for_pace(this.paced, this.inner, this.ctx, refusal);
                        this.stage = Stage::Waits(wait);
                        continue;
                    }
                }
                Stage::Waits(wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {}
                },
            }
            let Some(message) = this.message.take() else {
                return Poll::Ready(Err(Error::new(Kind::Internal, "a send was polled after its end")));
            };
            this.stage = Stage::Sends(this.inner.send(this.ctx, message.into_now()));
        }
    }
}
