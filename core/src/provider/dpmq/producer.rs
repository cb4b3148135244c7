//! A producer: its task, which gives each call a connection, and what callers see.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::consumer::CAPABILITY;
use super::http::{Failed, Form, Site};
use super::pool::Pool;
use super::section::Settings;
use super::{MAX_BODY, PROVIDER};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::Connect;
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Call, Intake, Taken, Ticket};
use crate::message::{Message, Receipt};
use crate::provider::Setup;
use crate::provider::socket::{Dialer, Front, Phase, opened};
use crate::wire::dpmq::{LONG_MESSAGE, NO_DISK, NO_ROOM, Reply, TOO_MANY_TOPICS, decode_reply, encode_send};

/// Connections that may close before a byte of a message was written, one after the other.
const TRIES: usize = 3;
/// Characters of a server's reason that are shown.
const SHOWN: usize = 200;

struct DpmqProducer {
    front: Front,
    pool: Arc<Pool>,
    topic: Arc<str>,
    ordered: bool,
}

/// Starts the task, and unless open is lazy waits for the server.
pub(super) async fn open(
    setup: &Setup,
    settings: Settings,
    dialer: Arc<Dialer>,
) -> Result<Arc<dyn Producer>> {
    let label = settings.target.label.clone();
    let site = Site::new(settings.target)?;
    let (phase, mut opening) = watch::channel(Phase::Starting(None));
    let pool = Pool::new(setup, site, dialer, settings.pace, settings.connections, phase);
    let producer = Arc::new(DpmqProducer {
        front: Front::new(PROVIDER, setup.limits),
        pool: Arc::new(pool),
        topic: settings.topic,
        ordered: settings.connections == 1,
    });
    let task = Task {
        intake: producer.front.intake.clone(),
        pool: producer.pool.clone(),
        topic: producer.topic.clone(),
        stop: producer.front.stop.clone(),
    };
    producer.front.run(task.run());
    if setup.connect == Connect::Eager {
        // Dropped on failure, and also when the caller gives up: that stops the task.
        opened(&mut opening, PROVIDER, &label, setup.connect_timeout).await?;
    }
    Ok(producer)
}

struct Task {
    intake: Arc<Intake>,
    pool: Arc<Pool>,
    topic: Arc<str>,
    stop: CancellationToken,
}

impl Task {
    /// Runs until the intake is closed and every call has ended.
    async fn run(self) {
        let guard = self.intake.task_guard();
        tokio::select! {
            biased;
            () = self.serve() => {}
            () = async { self.pool.keep().await; std::future::pending().await } => {}
        }
        drop(guard);
        self.pool.board.shown.lock().closed = true;
    }

    async fn serve(&self) {
        let mut taken = Taken::default();
        let mut running = FuturesUnordered::new();
        let mut cancels: HashMap<Ticket, CancellationToken> = HashMap::new();
        while !(taken.closed && running.is_empty()) {
            tokio::select! {
                () = self.intake.take(&mut taken), if !taken.closed => {
                    for ticket in taken.cancels.drain(..) {
                        if let Some(token) = cancels.get(&ticket) {
                            token.cancel();
                        }
                    }
                    for call in taken.calls.drain(..) {
                        let token = CancellationToken::new();
                        cancels.insert(call.ticket(), token.clone());
                        running.push(self.end(call, token));
                    }
                }
                Some(ticket) = running.next(), if !running.is_empty() => {
                    cancels.remove(&ticket);
                }
                // Closed: what was cancelled before the close still ends as cancelled.
                else => return,
            }
        }
    }

    async fn end(&self, call: Call, cancelled: CancellationToken) -> Ticket {
        let ticket = call.ticket();
        let result = self.send(&call, &cancelled).await;
        if result.is_ok() {
            self.pool.board.acked.fetch_add(1, Ordering::Relaxed);
        }
        call.end(result);
        ticket
    }

    async fn send(&self, call: &Call, cancelled: &CancellationToken) -> Result<Receipt> {
        check(&call.message, &self.topic)?;
        // Not sent as long as no connection has the message.
        let fails = |kind, text: &str| Error::new(kind, text).by(PROVIDER);
        let ended = async {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => (Kind::Cancelled, "the call was cancelled"),
                () = self.stop.cancelled() => (Kind::Closed, "the producer was closed"),
                () = tokio::time::sleep_until(call.deadline) => (Kind::Timeout, "the deadline passed"),
            }
        };
        let mut ended = pin!(ended);
        let mut form = None;
        let mut tries = 0;
        let not_sent = |(kind, text)| {
            let error = fails(kind, text);
            Err(match self.pool.trouble() {
                Some(cause) if kind == Kind::Timeout => error.caused_by(cause),
                _ => error,
            })
        };
        let place = tokio::select! {
            biased;
            end = &mut ended => return not_sent(end),
            place = self.pool.place(call.fails_when_disconnected()) => place?,
        };
        loop {
            let mut http = tokio::select! {
                biased;
                end = &mut ended => return not_sent(end),
                http = self.pool.connection(&place, call.fails_when_disconnected()) => http?,
            };
            if call.abandoned() {
                self.pool.give_back(http, place);
                return Err(fails(Kind::Cancelled, "nobody waits for the call any more"));
            }
            let form = match &mut form {
                Some(form) => form,
                none => none.insert(self.form(call)?),
            };
            let _busy = self.pool.busy();
            let answer = tokio::select! {
                biased;
                answer = http.send(form, &self.pool.site) => answer,
                // With the connection goes the answer, should it still come.
                (kind, text) = &mut ended => return Err(unknown(fails(kind, text))),
            };
            match answer {
                Ok((status, body)) => {
                    let result = self.receipt(status, &body);
                    self.pool.give_back(http, place);
                    return result.inspect_err(|error| self.pool.note(error));
                }
                Err(Failed::NotWritten(error)) => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                }
                Err(Failed::Lost(cause)) => {
                    let text = format!("the message was written, but no answer came: {}", cause.text());
                    self.pool.note(&cause);
                    return Err(unknown(fails(cause.kind(), &text)));
                }
            }
        }
    }

    fn form(&self, call: &Call) -> Result<Form> {
        let body: &Bytes = call.message.body();
        // Checked before.
        let data = std::str::from_utf8(body).unwrap_or_default();
        Form::new(encode_send(data, &self.topic, || format!("{:032x}", self.pool.random.nonce())))
    }

    /// What the answer says.
    fn receipt(&self, status: u16, body: &[u8]) -> Result<Receipt> {
        let target = &self.pool.site.target;
        if status != 200 {
            let error = target.refused(status).tried(1);
            // A gateway that gave up says nothing of who stands behind it.
            return Err(if error.kind() == Kind::Unavailable { unknown(error) } else { error });
        }
        match decode_reply(body) {
            Ok(Reply::Taken(code)) => Ok(Receipt { message_id: Some(code), ..Receipt::sent(PROVIDER) }),
            Ok(Reply::Refused(reason)) => {
                let kind = match &*reason {
                    NO_ROOM => Kind::QueueFull,
                    NO_DISK => Kind::Storage,
                    TOO_MANY_TOPICS => Kind::Limited,
                    LONG_MESSAGE => Kind::TooLarge,
                    _ => Kind::InvalidArgument,
                };
                let reason: String = reason.chars().take(SHOWN).collect();
                let text = format!("{} refused the message: {reason}", target.label);
                let error = Error::new(kind, text).by(PROVIDER).tried(1);
                // There may be room later.
                Err(if kind == Kind::Storage { error.retryable_is(true) } else { error })
            }
            Err(cause) => {
                Err(unknown(target.strange("answered a message with something else").caused_by(cause)))
            }
        }
    }
}

/// The message was written once.
fn unknown(error: Error) -> Error {
    error.outcome_is(Outcome::Unknown).tried(1)
}

/// Refuses what the wire cannot carry.
fn check(message: &Message, topic: &str) -> Result<()> {
    message.allow_only(PROVIDER, &[], Some(topic))?;
    let refuse = |kind, text: String| Err(Error::new(kind, text).by(PROVIDER));
    if !message.delay().is_zero() {
        return refuse(Kind::Unsupported, "a delay cannot be carried by the dpmq wire".to_owned());
    }
    let body = message.body();
    if body.len() > MAX_BODY {
        let text = format!("the body of {} bytes is longer than {MAX_BODY}", body.len());
        return refuse(Kind::TooLarge, text);
    }
    if std::str::from_utf8(body).is_err() {
        let text = "the body is not UTF-8: the dpmq wire carries text only";
        return refuse(Kind::Unsupported, text.to_owned());
    }
    Ok(())
}

impl Producer for DpmqProducer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        Capability { ordered: self.ordered, ..CAPABILITY }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(self.front.intake.send(ctx, Message::clone(&message)))
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.front.intake.drained(ctx).await })
    }

    fn status(&self) -> Value {
        self.pool.board.producer(PROVIDER, &self.topic, self.front.intake.under_way())
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.front.close(ctx))
    }

    fn intake(&self) -> Option<&Arc<Intake>> {
        Some(&self.front.intake)
    }
}
