//! What every client is: the traits `Producer` and `Consumer`, and the context of a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::intake::Intake;
use crate::message::{Delivery, Message, Receipt};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Until when a call may take, and how it is cancelled. Every wait in this crate honours both.
#[derive(Debug, Clone, Default)]
pub struct Context {
    deadline: Option<Instant>,
    cancel: Option<CancellationToken>,
    fails_when_disconnected: bool,
    has_room: bool,
}

impl Context {
    /// No deadline, never cancelled.
    pub fn unbounded() -> Context {
        Context::default()
    }

    /// Ends after `timeout` from now.
    pub fn within(timeout: Duration) -> Context {
        // A timeout too large for the clock is no deadline.
        Context { deadline: Instant::now().checked_add(timeout), ..Context::default() }
    }

    /// Ends at this instant.
    pub fn until(deadline: Instant) -> Context {
        Context { deadline: Some(deadline), ..Context::default() }
    }

    /// The same, cancelled by this token.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Context {
        self.cancel = Some(token);
        self
    }

    /// The same with another deadline.
    #[must_use]
    pub fn ending_at(mut self, deadline: Instant) -> Context {
        self.deadline = Some(deadline);
        self
    }

    /// The same, ending after `most` from now where it would not have ended by then.
    #[must_use]
    pub fn at_most(mut self, most: Duration) -> Context {
        if let Some(end) = Instant::now().checked_add(most) {
            self.deadline = Some(self.deadline.map_or(end, |deadline| deadline.min(end)));
        }
        self
    }

    /// The same, failing at once where there is no connection or no room, whatever the client's config says: whoever
    /// calls has somewhere else to go.
    #[must_use]
    pub fn failing_when_disconnected(mut self) -> Context {
        self.fails_when_disconnected = true;
        self
    }

    /// Whether a send without a connection or room fails though the client's config says to wait.
    pub fn fails_when_disconnected(&self) -> bool {
        self.fails_when_disconnected
    }

    /// The same, of a submit: it counts among those that its client took, and is not bounded a second time.
    #[must_use]
    pub fn with_room(mut self) -> Context {
        self.has_room = true;
        self
    }

    /// The same, of a send through a client that has not counted it.
    #[must_use]
    pub fn without_room(mut self) -> Context {
        self.has_room = false;
        self
    }

    /// Whether its client has room for this call, and counts it.
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is left until the deadline; zero when it has passed, `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// An error if the call should not go on.
    pub fn check(&self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Err(Error::new(Kind::Cancelled, "the call was cancelled"));
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::new(Kind::Timeout, "the deadline passed"));
        }
        Ok(())
    }

    /// Resolves when the call should stop, with the reason: `cancelled` or `timeout`.
    pub async fn ended(&self) -> Error {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let cancel = async {
            match &self.cancel {
                Some(token) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel => Error::new(Kind::Cancelled, "the call was cancelled"),
            () = deadline => Error::new(Kind::Timeout, "the deadline passed"),
        }
    }

    /// Runs a future until it ends or the context does.
    pub async fn run<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            value = future => Ok(value),
            error = self.ended() => Err(error),
        }
    }
}

/// What a provider can do. The conformance suite is gated by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capability {
    /// A delay is honoured, with this unit. Finer delays are rounded up to it.
    pub delay_unit: Option<Duration>,
    /// Bodies may be any bytes; otherwise UTF-8 text.
    pub binary_body: bool,
    /// Messages of one producer arrive in the order sent.
    pub ordered: bool,
    /// Receipts carry the message id.
    pub message_id: bool,
    /// Deliveries are acknowledged; otherwise they count as consumed when received.
    pub ack: bool,
    /// `nack` gives a delivery back.
    pub nack: bool,
    /// Deliveries tell their attempt.
    pub attempt: bool,
    /// What is not acknowledged comes again.
    pub redelivery: bool,
    /// Largest body in bytes, where there is a limit.
    pub max_body: Option<u64>,
}

/// Anything that can send a message.
///
/// Implementations are called from any number of tasks at once.
pub trait Producer: Send + Sync + 'static {
    /// The provider's name, as in the config.
    fn provider(&self) -> &'static str;

    /// What it can do.
    fn capability(&self) -> Capability;

    /// Sends one message: a receipt, or an error whose outcome says whether it may have been sent.
    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>>;

    /// Sends several; a result for each, in their order.
    fn send_batch<'a>(
        &'a self,
        ctx: &'a Context,
        messages: Vec<Arc<Message>>,
    ) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        Box::pin(async move { join_all(messages.into_iter().map(|message| self.send(ctx, message))).await })
    }

    /// Waits until every earlier send has ended. One that still waits for room in the producer is not waited
    /// for.
    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>>;

    /// Its live state, as JSON.
    fn status(&self) -> serde_json::Value;

    /// Changes its live state.
    fn control(&self, command: &serde_json::Value) -> Result<serde_json::Value> {
        let _ = command;
        Err(Error::new(
            Kind::Unsupported,
            "nothing of that name takes commands here: `status` shows the strategies",
        )
        .by(self.provider()))
    }

    /// Takes no more sends, lets those under way end until the context does, and ends the rest with
    /// their outcome. An error `timeout` says that some had to be ended.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>>;

    /// Whether it keeps what it cannot send. Such a one also takes calls whose deadline has passed, and is no member
    /// of another's strategies.
    fn keeps_messages(&self) -> bool {
        false
    }

    /// Where submits go straight to its task. Without one the client puts an intake in front.
    fn intake(&self) -> Option<&Arc<Intake>> {
        None
    }
}

/// Anything that messages can be received from and acknowledged to.
pub trait Consumer: Send + Sync + 'static {
    /// The provider's name, as in the config.
    fn provider(&self) -> &'static str;

    /// What it can do.
    fn capability(&self) -> Capability;

    /// Waits for at least one delivery and returns up to `max`; none when the deadline passes.
    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>>;

    /// Acknowledges; a result for each code, in their order.
    fn ack<'a>(&'a self, ctx: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>>;

    /// Gives back, to come again after `delay`; a result for each code.
    fn nack<'a>(
        &'a self,
        ctx: &'a Context,
        codes: Vec<Arc<str>>,
        delay: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>>;

    /// Its live state, as JSON.
    fn status(&self) -> serde_json::Value;

    /// Ends it: receives under way return `closed`, acks queued are written until the context ends.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>>;
}
