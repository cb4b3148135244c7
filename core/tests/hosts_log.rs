//! What is told of messages and of what a host says, and where: in a process of its own, since the log is the process's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod host;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::thread::ThreadId;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::message::Message;
use host::{Answer, Program, of_host, open};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

const IN_MESSAGE: &str = "canary-of-message";
const IN_ERROR: &str = "canary-of-error";

/// What was logged, by level, and on which threads.
#[derive(Default)]
struct Heard {
    lines: Vec<(Level, String)>,
    threads: HashSet<ThreadId>,
}

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Heard>>);

impl Logs {
    fn add(&self, level: Level, line: String) {
        let mut all = self.0.lock();
        all.lines.push((level, line));
        all.threads.insert(std::thread::current().id());
    }
}

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
        self.add(Level::ERROR, line);
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut Line(&mut line));
        self.add(*event.metadata().level(), line);
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
    // Of all threads: what the workers say, and those of the producers, has to be heard too.
    tracing::subscriber::set_global_default(logs.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
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
                let of_worker = id.clone();
                let sent = tokio::spawn(async move { calls::producer_send(&of_worker, message, None).await });
                let error = sent.await.unwrap().unwrap_err();
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
    let all = logs.0.lock();
    let (lines, threads) = (&all.lines, &all.threads);
    let own = std::thread::current().id();
    assert!(threads.iter().any(|thread| *thread != own), "no other thread is heard");
    assert!(lines.iter().any(|(level, line)| *level == Level::DEBUG && line.contains(IN_ERROR)));
    for (level, line) in lines {
        assert!(!line.contains(IN_MESSAGE), "{level} {line}");
        assert!(*level >= Level::DEBUG || !line.contains(IN_ERROR), "{level} {line}");
    }
}
