//! Sends one operation to the service, and says what its answer means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::PROVIDER;
use super::clock::ServiceClock;
use super::credentials::{Credentials, Keys};
use super::link::{Failed, Link, Ready};
use super::section::{Account, Place};
use crate::client::Context;
use crate::config::{Connect, WhenDisconnected};
use crate::error::{Error, Kind, Outcome, Result};
use crate::log_line::printable;
use crate::provider::Setup;
use crate::provider::socket::{Backoff, Dialer};
use crate::random::Random;
use crate::wire::mns::{self, Code, Operation, Refusal};

/// Characters of a server's reason that are shown.
const SHOWN: usize = 200;

/// An answer that is no refusal: of success, or of a batch of which some failed.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The service's time when it answered, as far as it is known.
    pub(super) time: SystemTime,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What is asked of the service, as it is when it can be sent.
pub(super) trait Asked {
    fn operation(&self) -> &Operation<'_>;

    /// Makes it what it is to be now; whether it is another than before.
    fn changed(&mut self) -> bool;
}

impl Asked for &Operation<'_> {
    fn operation(&self) -> &Operation<'_> {
        self
    }

    fn changed(&mut self) -> bool {
        false
    }
}

// Why an operation was not done, and the service's own word for it.
struct Fault {
    error: Error,
    code: Option<Code>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { error, code: None }
    }
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    not_written: AtomicU64,
    lost: AtomicU64,
    // The number of the kind of the last error; 0 for none.
    last: AtomicI32,
}

/// See the module.
pub(super) struct Service {
    link: Link,
    credentials: Arc<dyn Credentials>,
    pub(super) clock: ServiceClock,
    pub(super) random: Random,
    id: String,
    places: Semaphore,
    waits: bool,
    counts: Counts,
    stop: CancellationToken,
}

impl Service {
    /// Makes one for so many requests at once, which all end when `stop` is cancelled, and unless open is lazy makes sure
    /// that the service knows the keys and the queue or the topic, where it is about one.
    ///
    /// # Errors
    /// `invalid_config`; `unavailable`, `authentication` and `not_found` of the service.
    pub(super) async fn open(
        setup: &Setup,
        account: &Account,
        place: Option<&Place>,
        places: usize,
        stop: CancellationToken,
    ) -> Result<Service> {
        let target = account.target.clone();
        let dialer = Dialer::new(setup, target.tls, account.ca_file.as_deref(), 0, None).await;
        let link = Link::new(target, dialer.map_err(|error| error.by(PROVIDER))?)?;
        let service = Service {
            link,
            credentials: account.credentials.clone(),
            clock: ServiceClock::new(setup.clock.clone()),
            random: setup.random.clone(),
            id: setup.id.clone(),
            places: Semaphore::new(places),
            waits: setup.when_disconnected == WhenDisconnected::Wait,
            counts: Counts::default(),
            stop,
        };
        if let (Connect::Eager, Some(place)) = (setup.connect, place) {
            service.reach(setup.connect_timeout, place).await?;
        }
        Ok(service)
    }

    async fn reach(&self, timeout: Duration, place: &Place) -> Result<()> {
        let ctx = Context::within(timeout).failing_when_disconnected();
        let asked = match place {
            Place::Queue(name) => Operation::GetQueue { queue: name.as_ref().into() },
            Place::Topic(name) => Operation::GetTopic { topic: name.as_ref().into() },
        };
        match self.call(&ctx, &asked).await {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                Kind::Unavailable | Kind::Authentication | Kind::NotFound | Kind::Protocol => {
                    Err(error.outcome_is(Outcome::NotSent))
                }
                Kind::Timeout => {
                    let text = format!("{} does not answer within {timeout:?}", self.label());
                    Err(Error::new(Kind::Unavailable, text).by(PROVIDER))
                }
                // Keys may be allowed to send and not to look.
                _ => Ok(()),
            },
        }
    }

    /// Scheme, host and port of the service.
    pub(super) fn label(&self) -> &str {
        &self.link.target.label
    }

    /// Sends an operation. It is signed anew for each try: one that never reached the service, one that it refused because
    /// of the clock, and one that it refused because of keys that have changed since.
    ///
    /// # Errors
    /// `timeout`, `cancelled` and `closed`; `unavailable` and `protocol` where no answer came; what the service refuses.
    /// All are `not_sent` unless it may have been done.
    pub(super) async fn call(&self, ctx: &Context, operation: &Operation<'_>) -> Result<Answer> {
        self.sent(ctx, &mut { operation }).await
    }

    /// The same for what may be another operation when it can be sent.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub(super) async fn sent(&self, ctx: &Context, asked: &mut (dyn Asked + Send)) -> Result<Answer> {
        self.called(ctx, asked).await.map_err(|fault| {
            self.note(&fault.error);
            fault.error.by(PROVIDER)
        })
    }

    /// The same for a receive: none where the queue has no message.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub(super) async fn receive(&self, ctx: &Context, operation: &Operation<'_>) -> Result<Option<Answer>> {
        match self.called(ctx, &mut { operation }).await {
            Ok(answer) => Ok(Some(answer)),
            Err(fault) if fault.code == Some(Code::MessageNotExist) => Ok(None),
            Err(fault) => {
                self.note(&fault.error);
                Err(fault.error.by(PROVIDER))
            }
        }
    }

    async fn called(&self, ctx: &Context, asked: &mut (dyn Asked + Send)) -> Result<Answer, Fault> {
        ctx.check()?;
        let place = self.stopping(ctx, self.places.acquire()).await?;
        let _place = place.map_err(|_| closed())?;
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(5), self.random.number());
        let (mut set_right, mut renewed) = (false, false);
        let mut encoded = None;
        loop {
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let http = match self.stopping(ctx, self.link.connection()).await {
                Ok(Ok(http)) => http,
                Ok(Err(error)) => {
                    self.disconnected(ctx, &mut backoff, error).await?;
                    continue;
                }
                Err(ended) => return Err(self.unanswered(&ended).into()),
            };
            let keys = self.stopping(ctx, self.credentials.keys()).await??;
            // From here on nothing is waited for but the answer.
            if asked.changed() || encoded.is_none() {
                let mut request = asked.operation().encode();
                let body = Bytes::from(std::mem::take(&mut request.body));
                encoded = Some((request, body));
            }
            let Some((request, body)) = &encoded else {
                return Err(Error::new(Kind::Internal, "an operation was not written").into());
            };
            let ahead = self.clock.ahead_ms();
            let headers = mns::headers(keys.account(), request, body, self.clock.now());
            let ready = Ready::new(request.method, &request.resource, headers, body.clone())?;
            let begun = AtomicBool::new(false);
            let raw = match self.stopping(ctx, self.link.exchange(http, ready, &begun)).await {
                Ok(Ok(raw)) => raw,
                Ok(Err(Failed::Disconnected(error))) => {
                    self.disconnected(ctx, &mut backoff, error).await?;
                    continue;
                }
                Ok(Err(Failed::NotWritten(error))) => {
                    self.counts.not_written.fetch_add(1, Ordering::Relaxed);
                    return Err(error.into());
                }
                Ok(Err(Failed::Lost(error))) => {
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    return Err(error.outcome_is(Outcome::Unknown).into());
                }
                Err(ended) => {
                    let error = self.unanswered(&ended);
                    if !begun.load(Ordering::Acquire) {
                        return Err(error.into());
                    }
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    return Err(error.outcome_is(Outcome::Unknown).into());
                }
            };
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
            let time = raw.date.unwrap_or_else(|| self.clock.now());
            let answer = Answer { status: raw.status, time, body: raw.body };
            if answer.is_success() {
                return Ok(answer);
            }
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            let Ok(refusal) = Refusal::decode(&answer.body) else {
                if tells_of_each(asked.operation(), &answer.body) {
                    return Ok(answer);
                }
                let text = format!("{} answers with HTTP status {}", self.label(), answer.status);
                return Err(mns::status_error(answer.status, text).into());
            };
            // What was refused was not done: it may be sent again. Others may have put the clock right since it was signed.
            if refusal.code == Code::TimeExpired.name()
                && !set_right
                && let Some(date) = raw.date
            {
                if self.clock.correct(date) {
                    tracing::warn!(id = %self.id, ahead_ms = self.clock.ahead_ms(),
                        "this machine's clock is not the service's: requests are signed with the service's time");
                }
                if self.clock.ahead_ms() != ahead {
                    set_right = true;
                    continue;
                }
            }
            let error = self.refusal(&refusal, answer.status, &keys);
            if error.kind() == Kind::Authentication && !renewed {
                renewed = true;
                self.credentials.refused(&keys);
                let others = self.stopping(ctx, self.credentials.keys()).await;
                if matches!(others, Ok(Ok(others)) if *others != *keys) {
                    tracing::info!(id = %self.id, "the service refused keys that have changed since");
                    continue;
                }
            }
            return Err(Fault { error, code: Code::find(&refusal.code) });
        }
    }

    // Waits for the next try, where there is one.
    async fn disconnected(&self, ctx: &Context, backoff: &mut Backoff, error: Error) -> Result<()> {
        self.counts.not_written.fetch_add(1, Ordering::Relaxed);
        if !self.waits || ctx.fails_when_disconnected() || !error.retryable() {
            return Err(error);
        }
        self.note(&error);
        let slept = self.stopping(ctx, tokio::time::sleep(backoff.next())).await;
        slept.map_err(|ended| ended.caused_by(error))
    }

    fn unanswered(&self, ended: &Error) -> Error {
        Error::new(ended.kind(), format!("{}: {} has not answered", ended.message(), self.label()))
    }

    fn refusal(&self, refusal: &Refusal, status: u16, keys: &Keys) -> Error {
        let mut said = format!("{} ({}", refusal.text, refusal.code);
        if !refusal.request_id.is_empty() {
            said.push_str(&format!(", request {}", refusal.request_id));
        }
        said.push(')');
        let text = format!("{} refuses it: {}", self.label(), shown(said, keys));
        mns::error(&refusal.code, status, text)
    }

    /// A server's words as they may be shown: on one line, not long, and without our secrets.
    pub(super) async fn shown(&self, text: &str) -> String {
        match self.credentials.keys().await {
            Ok(keys) => shown(text.to_owned(), &keys),
            Err(_) => String::new(),
        }
    }

    /// Keeps the kind of an error for `status`.
    pub(super) fn note(&self, error: &Error) {
        self.counts.last.store(error.kind().code(), Ordering::Relaxed);
    }

    /// Runs a future until it ends, the context does, or the client is closed.
    pub(super) async fn stopping<T>(&self, ctx: &Context, future: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            result = ctx.run(future) => result,
            () = self.stop.cancelled() => Err(closed()),
        }
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        self.stop.cancel();
        self.places.close();
        self.link.close();
    }

    /// What every client shows in `status`.
    pub(super) fn status(&self) -> Map<String, Value> {
        let count = |counter: &AtomicU64| json!(counter.load(Ordering::Relaxed));
        let counts = &self.counts;
        let last = Kind::from_code(counts.last.load(Ordering::Relaxed)).map(Kind::name);
        [
            ("server", json!(self.label())),
            ("requests", count(&counts.requests)),
            ("answered", count(&counts.answered)),
            ("refused", count(&counts.refused)),
            ("not_written", count(&counts.not_written)),
            ("lost", count(&counts.lost)),
            ("connections_made", json!(self.link.dialed())),
            ("clock_ahead_ms", json!(self.clock.ahead_ms())),
            ("last_error", json!(last)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the client was closed").by(PROVIDER)
}

// What stands between us and the service answers a batch in other words.
fn tells_of_each(operation: &Operation<'_>, body: &[u8]) -> bool {
    match operation {
        Operation::SendBatch { .. } => mns::decode_batch(body).is_ok(),
        Operation::DeleteBatch { .. } => mns::decode_failures(body).is_ok(),
        _ => false,
    }
}

fn shown(mut text: String, keys: &Keys) -> String {
    for secret in keys.secrets() {
        text = text.replace(secret, "***");
    }
    let short: String = text.chars().take(SHOWN).collect();
    printable(&short).into_owned()
}
