//! The calls of an intake that wait: for room and the result of a message, and for what is under way.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::Intake;
use super::call::{Reply, Waiter};
use crate::client::Context;
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

impl Intake {
    /// Pushes a message and waits for its result: for room first, within the context, unless the caller or the member
    /// that this is of has somewhere else to go.
    pub async fn send(&self, ctx: &Context, message: Message) -> Result<Receipt> {
        ctx.check().map_err(|error| error.by(self.provider))?;
        let (sender, mut receiver) = oneshot::channel();
        let (waits_for_room, counted) = (self.limits.waits(ctx), self.limits.counted(ctx));
        let mut hand = Some((message, Waiter::new(sender, ctx.fails_when_disconnected())));
        let ticket = loop {
            let Some((message, sender)) = hand.take() else {
                return Err(Error::new(Kind::Internal, "a message was pushed twice").by(self.provider));
            };
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let waits = Waiting::new(&self.waiting);
            let mut sender = Some(sender);
            let pushed = self.push(message, ctx.remaining(), counted, |number| match sender.take() {
                Some(sender) => Reply::Once(number, sender),
                None => Reply::Done,
            });
            match pushed {
                Ok(ticket) => break ticket,
                Err((error, message)) if waits_for_room && error.kind() == Kind::QueueFull => {
                    let Some(sender) = sender.take() else { return Err(error) };
                    hand = Some((message, sender));
                    ctx.run(room).await.map_err(|ended| match ended.kind() {
                        // The queue stayed full until the deadline: that is the news, not the time.
                        Kind::Timeout => error,
                        _ => ended.by(self.provider),
                    })?;
                    // Room may have come after the deadline.
                    ctx.check().map_err(|error| error.by(self.provider))?;
                }
                Err((error, _)) => return Err(error),
            }
            drop(waits);
        };
        // The task ends the call at its deadline; only a cancellation has to be passed on.
        let result = tokio::select! {
            biased;
            result = &mut receiver => result,
            error = ctx.ended() => {
                if error.kind() == Kind::Cancelled {
                    self.cancel(ticket);
                }
                receiver.await
            }
        };
        result.unwrap_or_else(|_| {
            Err(Error::new(Kind::Internal, "the producer dropped the call")
                .outcome_is(Outcome::Unknown)
                .by(self.provider))
        })
    }

    /// Waits until every call pushed before this one has ended. A send that still waits for room is none.
    pub async fn drained(&self, ctx: &Context) -> Result<()> {
        let sealed = {
            let mut pending = self.pending.0.lock();
            let sealed = pending.epoch;
            let accepted = std::mem::take(&mut pending.epoch_calls);
            pending.epoch += 1;
            self.count(sealed, accepted as i64);
            sealed
        };
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let _waits = Waiting::new(&self.waiting);
            if self.open_epochs.lock().keys().next().is_none_or(|first| *first > sealed) {
                return Ok(());
            }
            ctx.run(room).await.map_err(|error| error.by(self.provider))?;
        }
    }
}

struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Waiting<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
