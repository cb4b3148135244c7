//! Producers of the host, as clients and as members: how many sends may wait, what is told of what they say, what becomes
//! of a delay, and when an id is free.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::provider::callback::{Host, HostCall, receipt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

type Answer = fn(HostCall);

/// Answers as it is told, or keeps its calls.
struct Program {
    calls: AtomicUsize,
    kept: Mutex<Vec<HostCall>>,
    answer: Option<Answer>,
}

impl Host for Program {
    fn send(&self, call: HostCall) {
        let mut kept = self.kept.lock();
        self.calls.fetch_add(1, Ordering::AcqRel);
        match self.answer {
            Some(answer) => answer(call),
            None => kept.push(call),
        }
    }
}

impl Program {
    fn register(name: &str, answer: Option<Answer>) -> Arc<Program> {
        let program = Arc::new(Program { calls: AtomicUsize::new(0), kept: Mutex::new(Vec::new()), answer });
        calls::callback_register(name, program.clone()).unwrap();
        program
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    fn answer_all(&self) {
        self.kept.lock().drain(..).for_each(|call| call.finish(Ok(receipt(None))));
    }
}

async fn open(id: &str, config: Value) -> Result<()> {
    calls::producer_open(Some(id), ClientConfig::from_json(config).unwrap(), None).await.map(drop)
}

async fn send(id: &str, within: Duration) -> Result<Receipt> {
    calls::producer_send(id, Message::new("x"), Some(within)).await
}

async fn until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < Duration::from_secs(10), "it never came to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A failover's own error says that the deadline passed, and which member had no room.
fn no_room(error: &Error) {
    let told = error.kind() == Kind::QueueFull || error.text().contains("queue_full");
    assert!(told && error.outcome() == Outcome::NotSent, "{error:?}");
}

fn of_host(name: &str) -> Value {
    json!({"type": "callback", "name": name})
}

/// The whole client, and each kind of member: `max_pending` holds for what waits in it.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_sends_wait_than_max_pending_says() {
    let host = Program::register("pending", None);
    let provider = of_host("pending");
    let group = |members: Value| json!({"strategies": [{"type": "failover", "members": members}]});
    let inner = group(json!([{"provider": provider}]));
    let mut inner_bounded = inner.clone();
    inner_bounded["max_pending"] = json!(1);
    let mut bytes_bounded = inner.clone();
    bytes_bounded["max_pending_bytes"] = json!(1);
    for (number, config) in [
        json!({"provider": provider, "max_pending": 1}),
        inner_bounded.clone(),
        bytes_bounded.clone(),
        group(json!([{"provider": provider, "max_pending": 1}])),
        group(json!([{"provider": provider, "max_pending_bytes": 1}])),
        group(json!([inner_bounded])),
        group(json!([bytes_bounded])),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("pending-{number}");
        open(&id, config.clone()).await.unwrap();
        let before = host.calls();
        let first = tokio::spawn({
            let id = id.clone();
            async move { send(&id, Duration::from_secs(20)).await }
        });
        until(|| host.calls() > before).await;
        let error = send(&id, Duration::from_millis(300)).await.unwrap_err();
        no_room(&error);
        assert_eq!(host.calls(), before + 1, "{config}");
        host.answer_all();
        first.await.unwrap().unwrap();
        calls::producer_close(&id, None).await.unwrap();
    }
    calls::callback_unregister("pending").unwrap();
}

/// What a strategy of the member holds back is under way too.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_counts_what_its_strategies_hold_back() {
    let refuse: Answer = |call| call.finish(Err(Error::new(Kind::Unavailable, "not now")));
    let host = Program::register("held-back", Some(refuse));
    let retry = json!({"type": "retry", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "20s"}});
    let member = json!({"provider": of_host("held-back"), "strategies": [retry], "max_pending": 1});
    open("held-back", json!({"strategies": [{"type": "failover", "members": [member]}]})).await.unwrap();
    let first = tokio::spawn(send("held-back", Duration::from_secs(60)));
    until(|| host.calls() == 1).await;
    let error = send("held-back", Duration::from_millis(300)).await.unwrap_err();
    no_room(&error);
    assert_eq!(host.calls(), 1);
    first.abort();
    let _ = first.await;
    let error = send("held-back", Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((error.kind(), host.calls()), (Kind::Unavailable, 2), "its room is free again: {error}");
    calls::producer_close("held-back", None).await.unwrap();
    for wrong in [json!({"max_pending": 0}), json!({"max_pendin": 5}), json!({"max_pending": "5"})] {
        let mut member = json!({"provider": of_host("held-back")});
        member.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let config = json!({"strategies": [{"type": "failover", "members": [member]}]});
        let error = open("wrong", config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(
            error.message().contains("`max_pending`") || error.message().contains("max_pending:"),
            "{error}"
        );
    }
    calls::callback_unregister("held-back").unwrap();
}

/// The host gets a delay, less what the call waited for its place, and refuses it as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_the_hosts_to_keep_or_to_refuse() {
    let host = Program::register("delay", None);
    open("delay", json!({"provider": {"type": "callback", "name": "delay", "threads": 1}})).await.unwrap();
    let first = tokio::spawn(send("delay", Duration::from_secs(20)));
    until(|| host.calls() == 1).await;
    let second = tokio::spawn(async {
        let message = Message::new("x").with_delay(Duration::from_secs(60));
        calls::producer_send("delay", message, Some(Duration::from_secs(20))).await
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    host.answer_all();
    first.await.unwrap().unwrap();
    until(|| host.calls() == 2).await;
    let call = host.kept.lock().pop().unwrap();
    let delay = call.message().delay();
    assert!(delay <= Duration::from_millis(59_600) && delay > Duration::from_secs(40), "{delay:?}");
    call.finish(Err(Error::new(Kind::Unsupported, "no delays here")));
    let error = second.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent));
    assert!(error.message().contains("no delays here"), "{error}");
    calls::producer_close("delay", None).await.unwrap();
    calls::callback_unregister("delay").unwrap();
}

/// The close returns at its deadline; the id is taken, and says why, until the host has returned.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_free_when_the_last_call_has_ended() {
    let host = Program::register("stuck", None);
    let config = json!({"provider": of_host("stuck")});
    open("stuck", config.clone()).await.unwrap();
    send("stuck", Duration::from_millis(100)).await.unwrap_err();
    let error = calls::producer_close("stuck", Some(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    // The close has returned, and the call has not.
    for _ in 0..3 {
        let error = open("stuck", config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyOpen);
        assert!(error.message().ends_with("its id is free when the last of its calls has ended"), "{error}");
        assert_eq!(send("stuck", Duration::from_millis(100)).await.unwrap_err().kind(), Kind::Closed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.answer_all();
    let started = Instant::now();
    while open("stuck", config.clone()).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "the id stays taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls::producer_close("stuck", None).await.unwrap();
    calls::callback_unregister("stuck").unwrap();
}

const IN_MESSAGE: &str = "canary-of-message";
const IN_ERROR: &str = "canary-of-error";

/// What was logged, by level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<(Level, String)>>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = String::new();
        attributes.record(&mut Line(&mut line));
        self.0.lock().push((Level::ERROR, line));
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut Line(&mut line));
        self.0.lock().push((*event.metadata().level(), line));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Nothing of a message is told anywhere. What the host says in an error is told in the error, and by strategies at the
/// level debug, and in no status, metric or other line of the log.
#[test]
fn what_a_message_and_a_host_say_stays_where_it_belongs() {
    let refuse: Answer = |call| {
        let error = match call.message().body() {
            body if body == IN_MESSAGE => Error::new(Kind::Unavailable, IN_ERROR),
            _ => Error::new(Kind::Timeout, IN_ERROR).outcome_is(Outcome::Unknown),
        };
        call.finish(Err(error));
    };
    Program::register("canary", Some(refuse));
    let panics: Answer = |_call| std::panic::resume_unwind(Box::new(IN_ERROR));
    Program::register("canary-panics", Some(panics));
    let strategies = |members: Value| {
        json!([
            {"type": "circuit_breaker", "consecutive": 3},
            {"type": "retry", "max_attempts": 3, "backoff": {"type": "none"}, "on_unknown": "again"},
            {"type": "timeout", "after": "5s"},
            {"type": "failover", "members": members},
        ])
    };
    let configs = [
        json!({"provider": of_host("canary")}),
        json!({"provider": of_host("canary-panics")}),
        json!({"provider": of_host("canary"), "strategies": strategies(json!([{"provider": of_host("canary-panics")}]))}),
        json!({"strategies": [{"type": "fan_out", "members": [{"provider": of_host("canary")}, {"provider": of_host("canary-panics")}]}]}),
        json!({"strategies": [{"type": "timeout_failover", "after": 1, "members": [{"provider": of_host("canary")}, {"provider": of_host("canary")}]}]}),
    ];
    let logs = Logs::default();
    // With one alone, what another test logs first on a thread of its own would be off for good.
    let _beside = tracing::Dispatch::new(logs.clone());
    let _guard = tracing::subscriber::set_default(logs.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut told, mut states) = (String::new(), String::new());
    runtime.block_on(async {
        for (number, config) in configs.into_iter().enumerate() {
            let id = format!("canary-{number}");
            open(&id, config).await.unwrap();
            for body in [IN_MESSAGE, "", IN_MESSAGE, "", IN_MESSAGE] {
                let message = Message::new(body).with(|fields| {
                    fields.key = Some(IN_MESSAGE.into());
                    fields.template = Some(IN_MESSAGE.into());
                    fields.args = Some(json!({"code": IN_MESSAGE}));
                    fields.recipients = vec![IN_MESSAGE.into()];
                    fields.attributes.insert(IN_MESSAGE.into(), IN_MESSAGE.into());
                });
                let error = calls::producer_send(&id, message, None).await.unwrap_err();
                let _ = write!(told, "{error}\n{error:?}\n{}\n{}\n", error.text(), error.to_json());
                let _ = write!(states, "{}", calls::producer_status(&id).unwrap());
            }
            let _ = write!(states, "{}", calls::metrics());
            calls::producer_close(&id, None).await.unwrap();
        }
    });
    assert!(told.contains(IN_ERROR), "the host is not heard");
    assert!(!told.contains(IN_MESSAGE), "{told}");
    assert!(!states.contains(IN_ERROR) && !states.contains(IN_MESSAGE), "{states}");
    let lines = logs.0.lock();
    assert!(lines.iter().any(|(level, line)| *level == Level::DEBUG && line.contains(IN_ERROR)));
    for (level, line) in lines.iter() {
        assert!(!line.contains(IN_MESSAGE), "{level} {line}");
        assert!(*level >= Level::DEBUG || !line.contains(IN_ERROR), "{level} {line}");
    }
}
