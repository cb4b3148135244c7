//! Sends requests and reads their answers, within bounds of time, size and number.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, USER_AGENT as AGENT};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::Url;

use super::USER_AGENT;
use super::answer::{Answer, retry_after};
use super::options::Options;
use super::site::Site;
use super::written::{Begun, Watched};
use crate::client::Context;
use crate::clock::Clock;
use crate::config::{Connect, WhenDisconnected};
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Room, UnderWay};
use crate::log_line::printable;
use crate::message::Message;
use crate::provider::Setup;
use crate::provider::socket::{Backoff, Dialer, Server, Target, Trouble};
use crate::random::Random;
use crate::secret::Secret;
use crate::tls;

/// The first wait after a try to connect that failed, and the longest.
const BASE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// How much of an answer is read, and for how long, that decides nothing: to use its connection again.
const DRAINED: usize = 64 << 10;
const DRAINED_FOR: Duration = Duration::from_secs(1);
/// The longest address of a request, with its query.
const MAX_ADDRESS: usize = u16::MAX as usize - 1;
/// Characters of a server's reason that are shown.
const SHOWN: usize = 200;

/// A request.
pub(in crate::provider) struct Request {
    pub(in crate::provider) method: Method,
    pub(in crate::provider) url: Url,
    pub(in crate::provider) headers: HeaderMap,
    pub(in crate::provider) body: Bytes,
}

/// What of an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum Reads {
    /// Its status decides, whatever the body is.
    Status,
    /// The body decides.
    Body,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answered: AtomicU64,
    not_written: AtomicU64,
    lost: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    // The number of the kind of the last error; 0 for none.
    last: AtomicI32,
}

/// The way out of one producer.
pub(in crate::provider) struct Outlet {
    provider: &'static str,
    id: String,
    label: Arc<str>,
    authorization: Option<HeaderValue>,
    client: reqwest::Client,
    room: Arc<Semaphore>,
    connections: u32,
    when_disconnected: WhenDisconnected,
    trouble: Arc<Trouble>,
    sends: Arc<UnderWay>,
    // How many sends there may be at once, each with its requests.
    pending: Room,
    counts: Counts,
    secrets: Vec<Secret>,
    clock: Clock,
    random: Random,
}

tokio::task_local! {
    // Whether this send has made a request.
    static REQUESTED: AtomicBool;
}

// An answer, and the rest of it that was not read.
type Answered = (Answer, Option<Response>);

// Why there is no answer.
struct Failed {
    error: Error,
    // There was no connection: another may come.
    disconnected: bool,
}

impl Outlet {
    /// Makes one, and unless open is lazy, or goes through a proxy, makes sure that the server can be reached.
    /// `secrets` are never shown, though a server may repeat them.
    ///
    /// # Errors
    /// `invalid_config`; `unavailable` when the server cannot be reached within the connect timeout.
    pub(in crate::provider) async fn open(
        provider: &'static str,
        setup: &Setup,
        site: &Site,
        options: Options,
        mut secrets: Vec<Secret>,
    ) -> Result<Outlet> {
        secrets.extend(site.secrets());
        options.check()?;
        let encrypted = site.url.scheme() == "https";
        let proxy = options.proxy()?;
        let dialer =
            Dialer::new(setup, encrypted || options.proxy.is_some(), options.ca_file.as_deref(), 0, None);
        let dialer = dialer.await?;
        if setup.connect == Connect::Eager && options.proxy.is_none() {
            reach(provider, &dialer, site).await?;
        }
        let tls = match &dialer.tls {
            Some(config) => config.clone(),
            None => tls::client_config_without_roots()?,
        };
        // No redirect: what is sent goes to whom the config names and to nobody else. No second try: whether a message
        // may be sent twice is for strategies to say.
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(setup.connect_timeout)
            .pool_max_idle_per_host(options.connections() as usize)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true);
        if options.proxy.is_none() {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| {
            Error::new(Kind::Internal, "no HTTP client could be made").caused_by(error.without_url())
        })?;
        Ok(Outlet {
            provider,
            id: setup.id.clone(),
            label: site.label.clone(),
            authorization: site.authorization.clone(),
            client,
            room: Arc::new(Semaphore::new(options.connections() as usize)),
            connections: options.connections(),
            when_disconnected: setup.when_disconnected,
            trouble: Trouble::new(setup.connect_timeout + LONGEST),
            sends: Arc::default(),
            pending: Room::new(&setup.limits),
            counts: Counts::default(),
            secrets,
            clock: setup.clock.clone(),
            random: setup.random.clone(),
        })
    }

    /// Scheme, host and port of the server.
    pub(in crate::provider) fn label(&self) -> &str {
        &self.label
    }

    /// The time since 1970, for signatures.
    pub(in crate::provider) fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }

    /// A number that no other request has, for signatures.
    pub(in crate::provider) fn nonce(&self) -> u128 {
        self.random.nonce()
    }

    /// Requests that are on their way at once.
    pub(in crate::provider) fn connections(&self) -> usize {
        self.connections as usize
    }

    /// Runs the whole send of a message: counted, once there is room for it, and ended with the producer. Its error names
    /// the provider, and counts as an attempt when a request was made.
    pub(in crate::provider) async fn run<T>(
        &self,
        ctx: &Context,
        message: &Message,
        send: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let entered = self.sends.enter().map_err(|error| error.by(self.provider))?;
        let run = async {
            let room = self.trouble.unless(self.is_hasty(ctx), self.pending.enter(ctx, message));
            let _roomed = match self.stopping(ctx, room).await {
                Ok(roomed) => roomed.flatten(),
                // Both wait for the deadline, and this one was first.
                Err(ended) if ended.kind() == Kind::Timeout => Err(self.pending.full()),
                Err(ended) => Err(ended),
            }?;
            let result = send.await;
            let tried = REQUESTED.try_with(|requested| requested.load(Ordering::Relaxed)).unwrap_or(true);
            result.map_err(|error| if tried { error.tried(1) } else { error })
        };
        let result = REQUESTED.scope(AtomicBool::new(false), run).await;
        drop(entered);
        match result {
            Ok(value) => {
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.counts.last.store(error.kind().code(), Ordering::Relaxed);
                Err(error.by(self.provider))
            }
        }
    }

    /// Sends a request and reads its answer. `make` makes the request: anew for each connection that is tried, so that
    /// what it signs is fresh.
    ///
    /// # Errors
    /// Those of `make`; `timeout`, `cancelled` and `closed`; `unavailable` and `protocol` where no answer came. All are
    /// `not_sent` unless the request was begun to be written.
    pub(in crate::provider) async fn exchange(
        &self,
        ctx: &Context,
        reads: Reads,
        make: impl Fn() -> Result<Request>,
    ) -> Result<Answer> {
        ctx.check()?;
        let hasty = self.is_hasty(ctx);
        let room = self.trouble.unless(hasty, self.room.clone().acquire_owned());
        let room = self.stopping(ctx, room).await??;
        let room = room.map_err(|_| Error::new(Kind::Closed, "the producer was closed"))?;
        ctx.check()?;
        let mut backoff = None;
        loop {
            let failed = match self.attempt(ctx, reads, self.fitting(make()?)?).await {
                Ok((answer, None)) => return Ok(answer),
                Ok((answer, Some(rest))) => {
                    // Nobody waits for what decides nothing; its connection has its place until then.
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(DRAINED_FOR, drained(rest)).await;
                        drop(room);
                    });
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let error = failed.error;
            tracing::debug!(id = %self.id, provider = self.provider, outcome = error.outcome().name(),
                error = error.text(), "a request has no answer");
            // While requests go over other connections the server is there, and one of them will be free.
            if !failed.disconnected || (hasty && !self.trouble.is_live()) {
                return Err(error);
            }
            let wait =
                backoff.get_or_insert_with(|| Backoff::new(BASE, LONGEST, self.random.number())).next();
            match self.stopping(ctx, self.trouble.unless(hasty, tokio::time::sleep(wait))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(error),
                Err(ended) => return Err(ended.caused_by(error)),
            }
        }
    }

    // A longer address the HTTP library refuses.
    fn fitting(&self, request: Request) -> Result<Request> {
        let length = request.url.as_str().len();
        if length > MAX_ADDRESS {
            let text = format!(
                "the message makes an address of {length} bytes for {}: {MAX_ADDRESS} at most",
                self.label
            );
            return Err(Error::new(Kind::TooLarge, text));
        }
        Ok(request)
    }

    // Whether it fails at once while there is no connection; then it does not wait behind those who wait for one.
    fn is_hasty(&self, ctx: &Context) -> bool {
        self.when_disconnected == WhenDisconnected::Fail || ctx.fails_when_disconnected()
    }

    async fn attempt(&self, ctx: &Context, reads: Reads, request: Request) -> Result<Answered, Failed> {
        let begun = Begun::new(self.trouble.clone());
        let _ = REQUESTED.try_with(|requested| requested.store(true, Ordering::Relaxed));
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let result = match self.stopping(ctx, self.answered(reads, request, &begun)).await {
            Ok(result) => result,
            Err(error) => {
                let text = format!("{}: {} has not answered", error.message(), self.label);
                Err(Failed { error: Error::new(error.kind(), text), disconnected: false })
            }
        };
        if result.is_ok() {
            self.trouble.ends();
        }
        result.map_err(|mut failed| {
            let (counter, outcome) = if begun.is() {
                (&self.counts.lost, Outcome::Unknown)
            } else {
                (&self.counts.not_written, Outcome::NotSent)
            };
            counter.fetch_add(1, Ordering::Relaxed);
            failed.disconnected &= !begun.is();
            failed.error = failed.error.outcome_is(outcome);
            if failed.disconnected {
                self.trouble.begins(&failed.error);
            }
            failed
        })
    }

    async fn answered(&self, reads: Reads, request: Request, begun: &Begun) -> Result<Answered, Failed> {
        let mut sent = reqwest::Request::new(request.method, request.url);
        *sent.headers_mut() = request.headers;
        let headers = sent.headers_mut();
        headers.entry(AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        if request.body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(authorization) = &self.authorization {
            headers.entry(AUTHORIZATION).or_insert(authorization.clone());
        }
        *sent.body_mut() = Some(reqwest::Body::wrap(Watched::new(request.body, begun.clone())));
        let response = self.client.execute(sent).await.map_err(|error| self.broken(error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), self.clock.now());
        let (body, rest) = match reads {
            Reads::Body => (self.body(response).await, None),
            Reads::Status => (Ok(Bytes::new()), Some(response)),
        };
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(id = %self.id, provider = self.provider, status, "a request is answered");
        Ok((Answer { status, retry_after, body }, rest))
    }

    async fn body(&self, mut response: Response) -> Result<Bytes> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                    let text = format!("{} answers with more than {MAX_ANSWER} bytes", self.label);
                    return Err(Error::new(Kind::Protocol, text).outcome_is(Outcome::Unknown));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.into()),
                Err(error) => {
                    let text = format!("the answer of {} broke off", self.label);
                    let error = Error::new(Kind::Unavailable, text).caused_by(error.without_url());
                    return Err(error.outcome_is(Outcome::Unknown));
                }
            }
        }
    }

    fn broken(&self, error: reqwest::Error) -> Failed {
        let error = error.without_url();
        let certificate = certificate(&error);
        let garbled = std::iter::successors(error.source(), |&cause| cause.source())
            .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
            .any(hyper::Error::is_parse);
        let disconnected = error.is_connect() && !certificate;
        let label = &self.label;
        let made = if certificate {
            // One that is refused now is refused at the next try: it is no matter of time.
            Error::new(Kind::Unavailable, format!("the certificate of {label} is not trusted"))
                .retryable_is(false)
        } else if garbled {
            Error::new(Kind::Protocol, format!("{label} does not answer in HTTP"))
        } else if error.is_connect() {
            Error::new(Kind::Unavailable, format!("{label} cannot be reached"))
        } else if error.is_builder() {
            Error::new(Kind::InvalidArgument, format!("the request to {label} cannot be written"))
        } else {
            Error::new(Kind::Unavailable, format!("the connection to {label} was lost"))
        };
        // What the server wrote instead of HTTP is not repeated.
        let error = if garbled { made } else { made.caused_by(error) };
        Failed { error, disconnected }
    }

    // Runs a future until it ends, the context does, or the producer is closed.
    async fn stopping<T>(&self, ctx: &Context, future: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            result = ctx.run(future) => result,
            () = self.sends.stop().cancelled() => Err(Error::new(Kind::Closed, "the producer was closed")),
        }
    }

    /// A server's words as they may be shown: on one line, not long, and without our secrets.
    pub(in crate::provider) fn shown(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "***");
        }
        let short: String = text.chars().take(SHOWN).collect();
        printable(&short).into_owned()
    }

    /// Waits for sends that began before.
    ///
    /// # Errors
    /// `timeout` or `cancelled`.
    pub(in crate::provider) async fn flush(&self, ctx: &Context) -> Result<()> {
        self.sends.drained(ctx).await.map_err(|error| error.by(self.provider))
    }

    /// Takes no more, waits for what is under way, and ends it with the context.
    ///
    /// # Errors
    /// `timeout` or `cancelled` when some had to be ended.
    pub(in crate::provider) async fn close(&self, ctx: &Context) -> Result<()> {
        let ended = self.sends.close(ctx).await;
        self.room.close();
        ended.map_err(|error| error.by(self.provider))
    }

    /// What all of them show in `status`.
    pub(in crate::provider) fn status(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let last = Kind::from_code(counts.last.load(Ordering::Relaxed)).map(Kind::name);
        json!({
            "state": if self.room.is_closed() { "closed" } else { "open" },
            "server": &*self.label,
            "pending": self.sends.count(),
            "sent": count(&counts.sent),
            "failed": count(&counts.failed),
            "requests": count(&counts.requests),
            "answered": count(&counts.answered),
            "not_written": count(&counts.not_written),
            "lost": count(&counts.lost),
            "last_error": last,
        })
    }
}

// Whether a certificate was refused.
fn certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    // An input error keeps what it is made of apart from its causes.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| certificate(inner)) || error.source().is_some_and(certificate)
}

async fn drained(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > DRAINED {
            return;
        }
    }
}

async fn reach(provider: &'static str, dialer: &Dialer, site: &Site) -> Result<()> {
    let server = Server { provider, name: "HTTP server", no_login: "", start: "", missing: "" };
    let target = Target::parse(server, &site.label, ["http", "https"], "")?;
    match tokio::time::timeout(dialer.timeout, dialer.stream(&target)).await {
        Ok(reached) => reached.map(drop),
        Err(_) => {
            let text = format!("{} does not answer within {:?}", site.label, dialer.timeout);
            Err(target.unavailable(text))
        }
    }
}
