//! Producers that the host program implements: a function in C, a value in Go, a callable in Python.
//!
//! The host registers one under a name; a config with `"type": "callback"` and that name sends through it.

mod threads;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::time::Instant;

use self::threads::Threads;
use super::Setup;
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::{from_value, nearest};
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Limits, Room, UnderWay};
use crate::message::{Message, Receipt};

const NAME: &str = "callback";

/// The longest name, in bytes.
const MAX_NAME: usize = 256;

/// The section of a config with `"type": "callback"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name that the host registered.
    name: String,
    /// Calls that may be under way at once, each on a thread of its own until the host returns; one that it answers
    /// later counts until then.
    #[serde(default = "default_threads")]
    threads: usize,
}

fn default_threads() -> usize {
    16
}

fn parse(section: Map<String, Value>) -> Result<Config> {
    let config: Config = from_value(Value::Object(section))?;
    if !(1..=256).contains(&config.threads) {
        return Err(Error::new(Kind::InvalidConfig, "`threads` is 1 to 256").by(NAME));
    }
    Ok(config)
}

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

/// What the host implements. It is called from many threads at once.
pub trait Host: Send + Sync + 'static {
    /// Sends one message and answers by [`HostCall::finish`], at once or later from any thread. It may block. All fields
    /// of the message are its own to honour or to refuse: of a delay the message has what is left of it.
    fn send(&self, call: HostCall);

    /// Whether `send` hands the call over to threads of its own and returns at once. Then it is called where the send
    /// is polled, a thread of the runtime for most; otherwise from a thread of the producer, where it may block and
    /// make any call of the library.
    fn hands_over(&self) -> bool {
        false
    }

    /// Nobody waits for the answer of this call any more. It comes at most once for each, on any thread, where it must
    /// not block; also just after the host has answered.
    fn abandoned(&self, _call: Abandoned) {}
}

/// A call that nobody waits for any more. While it is kept, the call counts as under way, unless its place was given up.
pub struct Abandoned {
    number: u64,
    _place: Option<Place>,
}

impl Abandoned {
    /// The number of the call, as [`HostCall::number`] has it.
    pub fn number(&self) -> u64 {
        self.number
    }
}

// One of those that a producer has for its calls. Whoever has to do with the call holds it, and it is free again when
// the last one lets go.
type Place = Arc<OwnedSemaphorePermit>;

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// One send for the host to make.
#[derive(Debug)]
pub struct HostCall {
    number: u64,
    message: Arc<Message>,
    deadline: Option<Instant>,
    reply: Option<oneshot::Sender<Result<Receipt>>>,
    place: Option<Place>,
}

impl HostCall {
    /// A number that no other call of the process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The message.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// What is left until the deadline; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Gives up its place among the calls that may run at once, for a host that has bounds of its own.
    pub fn free_place(&mut self) {
        self.place = None;
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers. An answer after the deadline is lost: the send ended as `timeout` with an unknown outcome.
    pub fn finish(mut self, result: Result<Receipt>) {
        // First, so that whoever sees the answer finds the place free.
        self.place = None;
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(result);
        }
    }
}

impl Drop for HostCall {
    fn drop(&mut self) {
        self.place = None;
        if let Some(reply) = self.reply.take() {
            let error = Error::new(Kind::Internal, "the callback ended without an answer");
            let _ = reply.send(Err(error.outcome_is(Outcome::Unknown).by(NAME)));
        }
    }
}

/// A receipt of a send by the host.
pub fn receipt(message_id: Option<Arc<str>>) -> Receipt {
    Receipt { message_id, ..Receipt::sent(NAME) }
}

/// What the host registered, by name, and the calls of the producers that were opened with it.
#[derive(Default)]
pub struct Hosts {
    names: Mutex<HashMap<Arc<str>, Arc<dyn Host>>>,
    calls: Mutex<HashMap<String, Vec<Calls>>>,
}

// The places of a producer, and how many they are.
struct Calls(Weak<Semaphore>, u32);

impl Calls {
    fn under_way(&self) -> Option<(Arc<Semaphore>, u32)> {
        let places = self.0.upgrade()?;
        (places.available_permits() < usize::try_from(self.1).unwrap_or(usize::MAX))
            .then_some((places, self.1))
    }
}

impl Hosts {
    /// Makes a name known.
    ///
    /// # Errors
    /// `invalid_argument` for a name that is empty, too long or has control characters, `already_open` for one that
    /// is taken.
    pub fn register(&self, name: &str, host: Arc<dyn Host>) -> Result<()> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let text = format!("the name of a callback is 1 to {MAX_NAME} bytes without control characters");
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        let mut hosts = self.names.lock();
        if hosts.contains_key(name) {
            return Err(Error::new(Kind::AlreadyOpen, format!("a callback `{name}` is registered already")));
        }
        hosts.insert(name.into(), host);
        Ok(())
    }

    /// Forgets a name; producers that were opened with it go on with what it was. Returns it, to be dropped by the
    /// caller, whose drop may call the host.
    ///
    /// # Errors
    /// `unknown_id` when nothing has this name.
    pub fn unregister(&self, name: &str) -> Result<Arc<dyn Host>> {
        let host = self.names.lock().remove(name);
        host.ok_or_else(|| Error::new(Kind::UnknownId, format!("no callback `{name}` is registered")))
    }

    /// The end of the calls that the producers of a client, which was closed, left with their hosts; `None` when there
    /// are none.
    pub fn left_behind(&self, id: &str) -> Option<BoxFuture<'static, ()>> {
        let left = self.calls.lock().remove(id)?;
        let left: Vec<_> = left.iter().filter_map(Calls::under_way).collect();
        if left.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            for (places, all) in left {
                // Closed only when all are back.
                let _ = places.acquire_many(all).await;
            }
        }))
    }

    fn opened(&self, id: &str, producer: &CallbackProducer) {
        let mut calls = self.calls.lock();
        // Those whose open failed in the end.
        calls.retain(|_, of_id| {
            of_id.retain(|calls| calls.0.strong_count() > 0);
            !of_id.is_empty()
        });
        let all = Calls(Arc::downgrade(&producer.places), producer.all_places());
        calls.entry(id.to_owned()).or_default().push(all);
    }

    fn get(&self, name: &str) -> Result<Arc<dyn Host>> {
        let hosts = self.names.lock();
        hosts.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = hosts.keys().map(|name| &**name).collect();
            let hint = nearest(name, &known).map(|name| format!(" (did you mean `{name}`?)"));
            let text =
                format!("no callback `{name}` is registered: register it first{}", hint.unwrap_or_default());
            Error::new(Kind::InvalidConfig, text).by(NAME)
        })
    }
}

/// Opens a producer that sends through the host.
///
/// # Errors
/// `invalid_config`, also when nothing is registered under the name.
pub fn open_producer(setup: &Setup, section: Map<String, Value>, hosts: &Hosts) -> Result<Arc<dyn Producer>> {
    let config = parse(section)?;
    let producer = CallbackProducer {
        host: Mutex::new(Some(hosts.get(&config.name)?)),
        room: Room::new(&setup.limits),
        limits: setup.limits,
        sends: Arc::default(),
        places: Arc::new(Semaphore::new(config.threads)),
        threads: Threads::new(config.threads),
        config,
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        late: AtomicU64::new(0),
    };
    hosts.opened(&setup.id, &producer);
    Ok(Arc::new(producer))
}

struct CallbackProducer {
    config: Config,
    // Let go of at the close, whoever still holds the producer: the host waits for its release.
    host: Mutex<Option<Arc<dyn Host>>>,
    // How many sends there may be, those that wait for a place too.
    room: Room,
    limits: Limits,
    sends: Arc<UnderWay>,
    places: Arc<Semaphore>,
    threads: Threads,
    sent: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
}

impl CallbackProducer {
    fn all_places(&self) -> u32 {
        u32::try_from(self.config.threads).unwrap_or(u32::MAX)
    }

    fn busy(&self, how: &str) -> Error {
        let text = format!("all {} threads of the callback {how} busy", self.config.threads);
        Error::new(Kind::QueueFull, text).by(NAME)
    }

    async fn call(&self, ctx: &Context, mut message: Arc<Message>) -> Result<Receipt> {
        // The delay counts from here, also while the call waits for its place.
        let accepted = (!message.delay().is_zero()).then(Instant::now);
        let _room = self.room.enter(ctx, &message).await.map_err(|error| error.by(NAME))?;
        let closed = || Error::new(Kind::Closed, "the producer was closed").by(NAME);
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) if !self.limits.waits(ctx) => return Err(self.busy("are")),
            Err(TryAcquireError::NoPermits) => {
                let place = ctx.run(self.places.clone().acquire_owned()).await.map_err(|ended| {
                    match ended.kind() {
                        // That every thread stayed busy is the news, not the time.
                        Kind::Timeout => self.busy("stayed"),
                        _ => ended.by(NAME),
                    }
                })?;
                // It may have come after the deadline.
                ctx.check().map_err(|error| error.by(NAME))?;
                place.map_err(|_| closed())?
            }
        };
        let host = self.host.lock().clone().ok_or_else(closed)?;
        if let Some(accepted) = accepted {
            let message = Arc::make_mut(&mut message);
            message.set_delay(message.delay().saturating_sub(accepted.elapsed()));
        }
        let (reply, answer) = oneshot::channel();
        let place: Place = Arc::new(place);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut waiting = Waiting { host: Some(host.clone()), number, place: Arc::downgrade(&place) };
        let call = HostCall {
            number,
            message,
            deadline: ctx.deadline(),
            reply: Some(reply),
            place: Some(place.clone()),
        };
        // Whether the host may have seen it.
        let begun = Arc::new(AtomicBool::new(false));
        // A panic drops the call, which answers.
        if host.hands_over() {
            begun.store(true, Ordering::Relaxed);
            drop(place);
            let _ = catch_unwind(AssertUnwindSafe(|| host.send(call)));
        } else {
            let begun = begun.clone();
            self.threads.run(move || {
                // A call that waited for its thread in vain must not send what was reported as not sent.
                if !begun.swap(true, Ordering::AcqRel) && !call.is_abandoned() {
                    host.send(call);
                }
                drop(host);
                drop(place);
            })?;
        }
        let answered = ctx.run(answer).await;
        if answered.is_ok() {
            waiting.host = None;
        }
        match answered {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::new(Kind::Internal, "the callback ended without an answer")
                .outcome_is(Outcome::Unknown)
                .by(NAME)),
            Err(ended) => {
                self.late.fetch_add(1, Ordering::Relaxed);
                if !begun.swap(true, Ordering::AcqRel) {
                    return Err(ended.by(NAME));
                }
                Err(ended.outcome_is(Outcome::Unknown).by(NAME).tried(1))
            }
        }
    }
}

// Tells the host when the send that waits for its answer ends or is dropped before there is one.
struct Waiting {
    host: Option<Arc<dyn Host>>,
    number: u64,
    place: Weak<OwnedSemaphorePermit>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            host.abandoned(Abandoned { number: self.number, _place: self.place.upgrade() });
        }
    }
}

impl Producer for CallbackProducer {
    fn provider(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> Capability {
        Capability { binary_body: true, ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let _entered = self.sends.enter().map_err(|error| error.by(NAME))?;
            ctx.check().map_err(|error| error.by(NAME))?;
            let result = self.call(ctx, message).await;
            let counter = if result.is_ok() { &self.sent } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            result
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.sends.drained(ctx).await.map_err(|error| error.by(NAME)) })
    }

    fn status(&self) -> Value {
        let running = self.config.threads.saturating_sub(self.places.available_permits());
        json!({
            "state": "open",
            "name": self.config.name,
            "running": running,
            "threads": self.config.threads,
            "sent": self.sent.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
            "late": self.late.load(Ordering::Relaxed),
        })
    }

    // A call that is stuck in the host cannot be ended from here: it is waited for, and named when it stays.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let ended = ctx.run(self.places.acquire_many(self.all_places())).await.map(drop);
            if ended.is_ok() {
                self.places.close();
            }
            self.threads.close();
            let host = self.host.lock().take();
            drop(host);
            match ended {
                Ok(()) => Ok(()),
                Err(ended) => {
                    let running = self.config.threads.saturating_sub(self.places.available_permits());
                    let text =
                        format!("{running} calls of the callback `{}` have not returned", self.config.name);
                    Err(Error::new(ended.kind(), text).by(NAME))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
