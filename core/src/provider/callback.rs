//! Producers that the host program implements: a function in C, a value in Go, a callable in Python.
//!
//! The host registers one under a name; a config with `"type": "callback"` and that name sends through it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::Setup;
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::{from_value, nearest};
use crate::error::{Error, Kind, Outcome, Result};
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
    /// Calls that may run at once, each on a thread of its own; one that the host answers later frees its thread,
    /// unless the host says when.
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
    /// Sends one message and answers by [`HostCall::finish`], at once or later from any thread. It may block.
    fn send(&self, call: HostCall);

    /// Whether `send` hands the call over to threads of its own and returns at once. Then it is called where the send
    /// is polled, a thread of the runtime for most, and the call has its place until it is answered; otherwise it is
    /// called from a thread where it may block, and has its place until it returns.
    fn hands_over(&self) -> bool {
        false
    }
}

/// One send for the host to make.
#[derive(Debug)]
pub struct HostCall {
    message: Arc<Message>,
    deadline: Option<Instant>,
    reply: Option<oneshot::Sender<Result<Receipt>>>,
    // Of a host that hands over.
    place: Option<OwnedSemaphorePermit>,
}

impl HostCall {
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

/// What the host registered, by name.
#[derive(Default)]
pub struct Hosts(Mutex<HashMap<Arc<str>, Arc<dyn Host>>>);

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
        let mut hosts = self.0.lock();
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
        let host = self.0.lock().remove(name);
        host.ok_or_else(|| Error::new(Kind::UnknownId, format!("no callback `{name}` is registered")))
    }

    fn get(&self, name: &str) -> Result<Arc<dyn Host>> {
        let hosts = self.0.lock();
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
pub fn open_producer(
    _setup: &Setup,
    section: Map<String, Value>,
    hosts: &Hosts,
) -> Result<Arc<dyn Producer>> {
    let config = parse(section)?;
    Ok(Arc::new(CallbackProducer {
        host: Mutex::new(Some(hosts.get(&config.name)?)),
        places: Arc::new(Semaphore::new(config.threads)),
        config,
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        late: AtomicU64::new(0),
    }))
}

struct CallbackProducer {
    config: Config,
    // Let go of at the close, whoever still holds the producer: the host waits for its release.
    host: Mutex<Option<Arc<dyn Host>>>,
    places: Arc<Semaphore>,
    sent: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
}

impl CallbackProducer {
    async fn call(&self, ctx: &Context, message: Arc<Message>) -> Result<Receipt> {
        let place =
            ctx.run(self.places.clone().acquire_owned()).await.map_err(|ended| match ended.kind() {
                // That every thread stayed busy is the news, not the time.
                Kind::Timeout => {
                    let text = format!("all {} threads of the callback stayed busy", self.config.threads);
                    Error::new(Kind::QueueFull, text).by(NAME)
                }
                _ => ended.by(NAME),
            })?;
        let closed = || Error::new(Kind::Closed, "the producer was closed").by(NAME);
        let place = place.map_err(|_| closed())?;
        let host = self.host.lock().clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let mut call = HostCall { message, deadline: ctx.deadline(), reply: Some(reply), place: None };
        // A panic drops the call, which answers.
        if host.hands_over() {
            call.place = Some(place);
            let _ = catch_unwind(AssertUnwindSafe(|| host.send(call)));
        } else {
            tokio::task::spawn_blocking(move || {
                host.send(call);
                drop(place);
            });
        }
        match ctx.run(answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::new(Kind::Internal, "the callback ended without an answer")
                .outcome_is(Outcome::Unknown)
                .by(NAME)),
            Err(ended) => {
                self.late.fetch_add(1, Ordering::Relaxed);
                Err(ended.outcome_is(Outcome::Unknown).by(NAME).tried(1))
            }
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
            ctx.check().map_err(|error| error.by(NAME))?;
            let result = self.call(ctx, message).await;
            let counter = if result.is_ok() { &self.sent } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            result
        })
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
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
            let threads = u32::try_from(self.config.threads).unwrap_or(u32::MAX);
            let ended = ctx.run(self.places.acquire_many(threads)).await.map(drop);
            self.places.close();
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
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    struct Fn<F>(F);

    impl<F: std::ops::Fn(HostCall) + Send + Sync + 'static> Host for Fn<F> {
        fn send(&self, call: HostCall) {
            (self.0)(call);
        }
    }

    fn open(threads: usize, host: impl std::ops::Fn(HostCall) + Send + Sync + 'static) -> Arc<dyn Producer> {
        open_with(threads, Arc::new(Fn(host)))
    }

    fn open_with(threads: usize, host: Arc<dyn Host>) -> Arc<dyn Producer> {
        let hosts = Hosts::default();
        hosts.register("mine", host).unwrap();
        let text = format!(r#"{{"provider": {{"type": "callback", "name": "mine", "threads": {threads}}}}}"#);
        let config = ClientConfig::parse(&text).unwrap();
        let (_, section) = config.provider_section().unwrap();
        open_producer(&Setup::from_config("id", &config), section, &hosts).unwrap()
    }

    fn message() -> Arc<Message> {
        Arc::new(Message::new("text"))
    }

    fn within(millis: u64) -> Context {
        Context::within(Duration::from_millis(millis))
    }

    #[tokio::test]
    async fn it_answers_at_once_or_later() {
        let producer = open(2, |call| {
            let id = call.message().fields().map(|_| "later").unwrap_or("now");
            if id == "later" {
                std::thread::spawn(move || call.finish(Ok(receipt(Some("later".into())))));
            } else {
                call.finish(Ok(receipt(Some("now".into()))));
            }
        });
        assert_eq!(producer.send(&within(9000), message()).await.unwrap().message_id.as_deref(), Some("now"));
        let later = Arc::new(Message::new("text").with(|fields| fields.tag = Some("t".into())));
        assert_eq!(producer.send(&within(9000), later).await.unwrap().message_id.as_deref(), Some("later"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_that_attempt() {
        let producer = open(1, |_call| std::panic::resume_unwind(Box::new("in the host")));
        for _ in 0..3 {
            let error = producer.send(&within(9000), message()).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (Kind::Internal, Outcome::Unknown));
        }
        // The answer comes before the thread has ended.
        for _ in 0..500 {
            if producer.status()["running"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("its thread is not free again");
    }

    #[tokio::test]
    async fn one_that_never_returns_is_bounded_and_named_at_the_close() {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let producer = open(1, move |call| {
            let _ = held.lock().recv();
            call.finish(Ok(receipt(None)));
        });
        let error = producer.send(&within(50), message()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
        let error = producer.send(&within(50), message()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
        let error = producer.close(&within(50)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(error.message().contains("`mine`"), "{error}");
        drop(let_go);
    }

    struct Line(std::sync::mpsc::Sender<HostCall>);

    impl Host for Line {
        fn send(&self, call: HostCall) {
            assert!(call.message().body() != "panic", "in the host");
            let _ = self.0.send(call);
        }

        fn hands_over(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn a_call_that_is_handed_over_has_its_place_until_it_is_answered() {
        let (sender, line) = std::sync::mpsc::channel();
        let producer = open_with(1, Arc::new(Line(sender)));
        let error = producer.send(&within(50), message()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
        let error = producer.send(&within(50), message()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent));
        let late = line.try_recv().unwrap();
        assert!(late.is_abandoned());
        assert_eq!(producer.status()["running"], 1);
        late.finish(Ok(receipt(None)));
        let answer = std::thread::spawn(move || {
            let mut call = line.recv().unwrap();
            call.free_place();
            (line, call)
        });
        producer.send(&within(50), message()).await.unwrap_err();
        let (_line, call) = answer.join().unwrap();
        assert_eq!(producer.status()["running"], 0, "it gave up its place and is not answered");
        drop(call);
        let panic = Arc::new(Message::new("panic"));
        let error = producer.send(&within(9000), panic).await.unwrap_err();
        assert_eq!((error.kind(), producer.status()["running"].as_u64()), (Kind::Internal, Some(0)));
        producer.close(&within(50)).await.unwrap();
    }

    #[test]
    fn names_are_taken_once_and_found_by_their_nearest() {
        let hosts = Hosts::default();
        let host = || Arc::new(Fn(|call: HostCall| call.finish(Ok(receipt(None)))));
        hosts.register("orders", host()).unwrap();
        assert_eq!(hosts.register("orders", host()).unwrap_err().kind(), Kind::AlreadyOpen);
        assert_eq!(hosts.register("", host()).unwrap_err().kind(), Kind::InvalidArgument);
        assert!(hosts.get("order").err().unwrap().message().contains("`orders`"));
        hosts.unregister("orders").unwrap();
        assert_eq!(hosts.unregister("orders").err().unwrap().kind(), Kind::UnknownId);
    }
}
