//! A call on its way: who is told how it ended, and telling many at once.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Intake;
use crate::completion::Completion;
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// Who is told how a call ended.
#[derive(Debug)]
pub(super) enum Reply {
    Queue(u64),
    Once(u64, Waiter),
    Done,
}

/// Who waits for a result, and whether he would rather have an error than wait for a connection.
#[derive(Debug)]
pub(super) struct Waiter {
    sender: oneshot::Sender<Result<Receipt>>,
    hasty: bool,
}

impl Waiter {
    pub(super) fn new(sender: oneshot::Sender<Result<Receipt>>, hasty: bool) -> Waiter {
        Waiter { sender, hasty }
    }

    pub(super) fn send(self, result: Result<Receipt>) -> Result<(), Result<Receipt>> {
        self.sender.send(result)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Names a call, to cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ticket {
    /// A submit, by the caller's token.
    Token(u64),
    /// A send that waits, by a number of the intake.
    Wait(u64),
}

/// A call that the task took. It ends by [`Call::end`] or, when it is dropped unfinished, with an
/// `internal` error: each call has exactly one result.
#[derive(Debug)]
pub struct Call {
    /// The message.
    pub message: Message,
    /// When it must have ended.
    pub deadline: Instant,
    /// When it was taken: delays count from here.
    pub accepted: Instant,
    pub(super) size: u64,
    pub(super) epoch: u64,
    pub(super) reply: Reply,
    pub(super) intake: Arc<Intake>,
}

impl Call {
    /// Its ticket.
    pub fn ticket(&self) -> Ticket {
        match &self.reply {
            Reply::Queue(token) => Ticket::Token(*token),
            Reply::Once(number, _) => Ticket::Wait(*number),
            Reply::Done => Ticket::Wait(u64::MAX),
        }
    }

    /// Whether nobody waits for it any more: it need not be sent.
    pub fn abandoned(&self) -> bool {
        matches!(&self.reply, Reply::Once(_, sender) if sender.is_closed())
    }

    /// Whether it fails without a connection, whatever the config says; see [`Context::failing_when_disconnected`].
    ///
    /// [`Context::failing_when_disconnected`]: crate::client::Context::failing_when_disconnected
    pub fn fails_when_disconnected(&self) -> bool {
        matches!(&self.reply, Reply::Once(_, waiter) if waiter.hasty)
    }

    /// Ends it.
    pub fn end(self, result: Result<Receipt>) {
        let mut ended = Ended::default();
        ended.push(self, result);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !matches!(self.reply, Reply::Done) {
            let reply = std::mem::replace(&mut self.reply, Reply::Done);
            let error = Error::new(Kind::Internal, "the task of the producer ended with the call under way")
                .outcome_is(Outcome::Unknown);
            self.intake.settle(reply, Err(error), self.size, self.epoch);
        }
    }
}

/// Calls that ended, told in one go: one append to the completion queue for many calls.
#[derive(Debug, Default)]
pub struct Ended {
    finished: Vec<Completion>,
    calls: u64,
    bytes: u64,
    epoch: u64,
    intake: Option<Arc<Intake>>,
}

impl Ended {
    /// Adds a call.
    pub fn push(&mut self, mut call: Call, result: Result<Receipt>) {
        match std::mem::replace(&mut call.reply, Reply::Done) {
            Reply::Queue(token) => {
                if self.epoch != call.epoch {
                    self.tell();
                    self.epoch = call.epoch;
                }
                self.finished.push(Completion { token, result });
                self.calls += 1;
                self.bytes += call.size;
                if self.intake.is_none() {
                    self.intake = Some(call.intake.clone());
                }
            }
            reply => call.intake.settle(reply, result, call.size, call.epoch),
        }
    }

    /// Tells.
    pub fn tell(&mut self) {
        if let Some(intake) = &self.intake
            && self.calls > 0
        {
            intake.free(self.calls, self.bytes);
            if let Some(queue) = intake.queue.get() {
                queue.complete(&mut self.finished);
            }
            self.finished.clear();
            intake.over(self.calls, self.epoch);
            self.calls = 0;
            self.bytes = 0;
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What the task took.
#[derive(Debug, Default)]
pub struct Taken {
    /// New calls, in the order they were pushed.
    pub calls: Vec<Call>,
    /// Calls taken earlier that should end as cancelled.
    pub cancels: Vec<Ticket>,
    /// No call comes any more.
    pub closed: bool,
}
