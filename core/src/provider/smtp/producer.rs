//! What callers see of the mail provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::task::unconstrained;

use super::PROVIDER;
use super::letter::Letter;
use super::link::{Mail, Taken};
use super::pool::{Place, Pool};
use super::section::{Settings, Style};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::Connect;
use crate::error::{Error, Kind, Outcome, Part, Result, Whole};
use crate::intake::{Room, Roomed, UnderWay};
use crate::message::{Message, Receipt};
use crate::provider::Setup;

/// Bytes of a message from which on making the mail is too long a work for a thread of the runtime.
const LARGE: usize = 1 << 20;

struct Smtp {
    style: Arc<Style>,
    pool: Arc<Pool>,
    // What the config says, or fewer where the server takes fewer.
    recipients_per_mail: AtomicUsize,
    // Sends that may be under way at once.
    room: Room,
    sends: Arc<UnderWay>,
    closed: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    last_error: parking_lot::Mutex<Option<Error>>,
}

/// Opens a producer; unless open is lazy it logs in once.
pub(super) async fn open(setup: &Setup, settings: Settings) -> Result<Arc<dyn Producer>> {
    let Settings { site, mut style, ca_file, connections, idle_time, recipients_per_mail } = settings;
    style.clock = setup.clock.clone();
    let pool = Pool::new(setup, site, ca_file.as_deref(), connections, idle_time).await?;
    if setup.connect == Connect::Eager {
        let place = pool.place(false).await?;
        let link = pool.dial().await?;
        pool.give_back(link, place);
    }
    Ok(Arc::new(Smtp {
        style: Arc::new(style),
        pool,
        recipients_per_mail: AtomicUsize::new(recipients_per_mail),
        room: Room::new(&setup.limits),
        sends: Arc::default(),
        closed: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        last_error: parking_lot::Mutex::new(None),
    }))
}

impl Smtp {
    async fn write(&self, message: Arc<Message>) -> Result<Letter> {
        let attached =
            message.fields().map_or(0, |fields| fields.attachments.iter().map(|file| file.body.len()).sum());
        // With one connection messages keep their order, which a thread of its own would not.
        if self.pool.most == 1 || message.body().len().saturating_add(attached) < LARGE {
            return Letter::write(&self.style, &message);
        }
        let style = self.style.clone();
        match tokio::task::spawn_blocking(move || Letter::write(&style, &message)).await {
            Ok(letter) => letter,
            Err(error) => Err(Error::new(Kind::Internal, "the mail could not be made").caused_by(error)),
        }
    }

    async fn send_one(&self, ctx: &Context, message: Arc<Message>) -> Result<Receipt> {
        let _entered = self.sends.enter()?;
        ctx.check()?;
        // Whoever comes first is served first only when nothing makes this pause: the runtime would, for a task that
        // polls many sends.
        let (_room, letter, mut place) = unconstrained(async {
            let room = self.room(ctx, &message).await?;
            let letter = tokio::select! {
                biased;
                letter = self.write(message.clone()) => letter?,
                end = self.ended(ctx) => return Err(end),
            };
            Ok((room, letter, Some(self.place(ctx).await)))
        })
        .await?;
        let mut results: Vec<Option<Error>> = vec![None; letter.addresses.len()];
        let mut waiting: Vec<usize> = (0..letter.addresses.len()).rev().collect();
        while !waiting.is_empty() {
            let place = match place.take() {
                Some(place) => place,
                None => self.place(ctx).await,
            };
            let most = self.recipients_per_mail.load(Ordering::Relaxed).clamp(1, waiting.len());
            let mail = waiting.split_off(waiting.len() - most);
            let to: Vec<String> =
                mail.iter().rev().filter_map(|at| letter.addresses.get(*at)).cloned().collect();
            let answers = match place {
                Ok(place) => self.deliver(ctx, &letter, &to, place).await,
                Err(error) => everyone(&to, error),
            };
            let ended = answers.iter().filter(|answer| !matches!(answer, Taken::Next(_))).count();
            let mut next = Vec::new();
            for (at, answer) in mail.into_iter().rev().zip(answers) {
                let result = match answer {
                    Taken::Yes => None,
                    // Of a mail that has its recipients the rest go with the next; each has fewer left.
                    Taken::Next(_) if ended > 0 => {
                        next.push(at);
                        continue;
                    }
                    Taken::No(error) | Taken::Next(error) => Some(error),
                };
                if let Some(place) = results.get_mut(at) {
                    *place = result;
                }
            }
            if !next.is_empty() {
                self.recipients_per_mail.fetch_min(ended, Ordering::Relaxed);
                waiting.extend(next.into_iter().rev());
            }
        }
        let summed = summary(&letter, &results);
        if summed.is_ok() {
            message.forget_number();
        }
        summed
    }

    /// The end of a call that comes from outside.
    async fn ended(&self, ctx: &Context) -> Error {
        tokio::select! {
            biased;
            error = ctx.ended() => error,
            () = self.sends.stop().cancelled() => Error::new(Kind::Closed, "the producer was closed"),
        }
    }

    async fn room(&self, ctx: &Context, message: &Message) -> Result<Roomed> {
        tokio::select! {
            biased;
            room = self.pool.unless_disconnected(ctx.fails_when_disconnected(), self.room.enter(ctx, message)) => room.flatten(),
            end = self.ended(ctx) => Err(if end.kind() == Kind::Timeout { self.room.full() } else { end }),
        }
    }

    async fn place(&self, ctx: &Context) -> Result<Place<'_>> {
        ctx.check()?;
        let place = tokio::select! {
            biased;
            place = self.pool.place(ctx.fails_when_disconnected()) => place?,
            end = self.ended(ctx) => return Err(self.never_connected(end)),
        };
        // It may have come after the deadline.
        ctx.check().map_err(|end| self.never_connected(end))?;
        Ok(place)
    }

    /// The end of a call that had no connection: a passed deadline has the trouble of connecting as its cause.
    fn never_connected(&self, end: Error) -> Error {
        match self.pool.trouble() {
            Some(cause) if end.kind() == Kind::Timeout => end.caused_by(cause),
            _ => end,
        }
    }

    /// Sends a mail to some of its recipients: how each ended.
    async fn deliver(&self, ctx: &Context, letter: &Letter, to: &[String], place: Place<'_>) -> Vec<Taken> {
        // Each idle connection may turn out to be dead, and a new one after them.
        for _ in 0..=self.pool.most {
            let mut link = tokio::select! {
                biased;
                link = self.pool.link(&place, ctx.fails_when_disconnected()) => match link {
                    Ok(link) => link,
                    Err(error) => return everyone(to, error),
                },
                end = self.ended(ctx) => return everyone(to, self.never_connected(end)),
            };
            let was_used = link.used;
            let written = AtomicBool::new(false);
            let mail = Mail { from: &letter.from, to, data: &letter.data };
            let sent = tokio::select! {
                biased;
                sent = link.send(mail, &written) => sent,
                // With the connection goes the answer, should it still come.
                end = self.ended(ctx) => {
                    let attempts = u32::from(written.load(Ordering::Relaxed));
                    return everyone(to, outcome(end, &written).tried(attempts));
                }
            };
            match sent {
                Ok(results) => {
                    self.pool.give_back(link, place);
                    return results;
                }
                Err(failed) if failed.before_data && was_used => {
                    tracing::debug!(server = %self.pool.site.label, error = %failed.error, "an idle connection was gone");
                    drop(link);
                    if failed.silent {
                        self.pool.forget_idle();
                    }
                }
                Err(failed) => {
                    self.pool.give_back(link, place);
                    let error = outcome(failed.error, &written).tried(1);
                    let each = |refused: Option<Error>| Taken::No(refused.unwrap_or_else(|| error.clone()));
                    return failed.refused.into_iter().map(each).collect();
                }
            }
        }
        let text = format!("{} closed one connection after the other", self.pool.site.label);
        everyone(to, Error::new(Kind::Unavailable, text))
    }
}

/// One error for all recipients.
fn everyone(to: &[String], error: Error) -> Vec<Taken> {
    let error = error.by(PROVIDER);
    to.iter().map(|_| Taken::No(error.clone())).collect()
}

/// Unknown when the server may have the mail.
fn outcome(error: Error, written: &AtomicBool) -> Error {
    let outcome = if written.load(Ordering::Relaxed) { Outcome::Unknown } else { Outcome::NotSent };
    error.outcome_is(outcome)
}

/// What the results of the recipients, copies among them, make together.
fn summary(letter: &Letter, results: &[Option<Error>]) -> Result<Receipt> {
    let result = |place: usize| results.get(place).and_then(Option::as_ref);
    let sent = |name: &Arc<str>| Part::sent(Whole::Recipient, name.clone(), Some(letter.message_id.clone()));
    let parts: Vec<Part> = letter
        .named
        .iter()
        .map(|(name, place)| match result(*place) {
            None => sent(name),
            Some(error) => Part::failed(Whole::Recipient, name.clone(), error.clone()),
        })
        .collect();
    let failed: Vec<&Error> = parts.iter().filter_map(|part| part.error.as_ref()).collect();
    if let Some(first) = failed.first() {
        if parts.len() == 1 {
            return Err(Error::clone(first));
        }
        let retryable = failed.iter().find(|error| error.retryable());
        let some_sent = u32::from(failed.len() < parts.len());
        let attempts = failed.iter().map(|error| error.attempts()).max().unwrap_or(0).max(some_sent);
        let unknown = failed.iter().any(|error| error.outcome() == Outcome::Unknown);
        let (kind, text) = if failed.len() == parts.len() {
            // A retry sends to all of them: it helps when it helps one.
            let shown = retryable.unwrap_or(first);
            let others = if failed.iter().all(|error| error.message() == shown.message()) {
                ""
            } else {
                ", and others"
            };
            (
                shown.kind(),
                format!("none of {} recipients was reached: {}{others}", parts.len(), shown.message()),
            )
        } else {
            let text = format!(
                "{} of {} recipients were not reached: {}",
                failed.len(),
                parts.len(),
                first.message()
            );
            (Kind::Partial, text)
        };
        let error = Error::new(kind, text)
            .by(PROVIDER)
            .tried(attempts)
            .retryable_is(retryable.is_some())
            .outcome_is(if unknown { Outcome::Unknown } else { Outcome::NotSent });
        return Err(error.made_of(parts));
    }
    Ok(Receipt {
        message_id: Some(letter.message_id.clone()),
        parts: (parts.len() > 1).then(|| parts.into()),
        ..Receipt::sent(PROVIDER)
    })
}

impl Producer for Smtp {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        Capability { message_id: true, ordered: self.pool.most == 1, ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let sent = self.send_one(ctx, message).await.map_err(|error| error.by(PROVIDER));
            match &sent {
                Ok(_) => self.sent.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    *self.last_error.lock() = Some(error.clone());
                    self.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            sent
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.sends.drained(ctx).await.map_err(|error| error.by(PROVIDER)) })
    }

    fn status(&self) -> Value {
        let idle = self.pool.idle();
        let state = if self.closed.load(Ordering::Relaxed) { "closed" } else { self.pool.state() };
        json!({
            "state": state,
            "server": self.pool.site.label,
            "tls": self.pool.site.tls.name(),
            "connections": {"most": self.pool.most, "busy": self.pool.busy(), "idle": idle},
            "connects": self.pool.connects.load(Ordering::Relaxed),
            "pending": self.sends.count(),
            "sent": self.sent.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
            "last_error": self.last_error.lock().as_ref().map(|error| error.to_string()),
        })
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Relaxed);
            let ended = self.sends.close(ctx).await;
            self.pool.close().await;
            ended.map_err(|error| {
                let text = "sends were ended by the close with their outcome";
                Error::new(error.kind(), text).by(PROVIDER)
            })
        })
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.sends.stop().cancel();
    }
}
