//! The strategies over a producer that does what a script says, on a paused clock.

mod cancel;
mod circuit_breaker;
mod events;
mod failover;
mod fan_out;
mod partial;
mod rate_limit;
mod retry;
mod stack;
mod timeout;
mod timeout_failover;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Member, Random, Section, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// What one send does.
#[derive(Clone)]
enum Step {
    Sent,
    Fails(Error),
    // Ends like the next one, after a time that honours the context.
    After(Duration, Box<Step>),
    // Never ends, whatever the context says.
    Hangs,
    // Nor does this, and it uses up its task's turn at each poll.
    Busy,
}

fn fails(kind: Kind) -> Step {
    Step::Fails(Error::new(kind, "by the script").by("script").tried(1))
}

fn unknown(kind: Kind) -> Step {
    Step::Fails(Error::new(kind, "by the script").by("script").tried(1).outcome_is(Outcome::Unknown))
}

fn after(millis: u64, step: Step) -> Step {
    Step::After(Duration::from_millis(millis), Box::new(step))
}

/// A producer that follows a script and keeps what it was given.
struct StandIn {
    script: Mutex<VecDeque<Step>>,
    rest: Mutex<Step>,
    seen: Mutex<Vec<(Duration, Arc<Message>)>>,
    started: Instant,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl StandIn {
    /// Follows the steps, then repeats the last argument.
    fn new(steps: impl IntoIterator<Item = Step>, rest: Step) -> Arc<StandIn> {
        Arc::new(StandIn {
            script: Mutex::new(steps.into_iter().collect()),
            rest: Mutex::new(rest),
            seen: Mutex::new(Vec::new()),
            started: Instant::now(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        })
    }

    fn good() -> Arc<StandIn> {
        StandIn::new([], Step::Sent)
    }

    fn becomes(&self, rest: Step) {
        *self.rest.lock() = rest;
    }

    /// How often it was sent to.
    fn count(&self) -> usize {
        self.seen.lock().len()
    }

    /// When each send began, in milliseconds.
    fn times(&self) -> Vec<u64> {
        self.seen.lock().iter().map(|(at, _)| at.as_millis() as u64).collect()
    }

    fn messages(&self) -> Vec<Arc<Message>> {
        self.seen.lock().iter().map(|(_, message)| message.clone()).collect()
    }

    async fn play(&self, ctx: &Context, mut step: Step) -> Result<Receipt> {
        loop {
            match step {
                Step::Sent => return Ok(Receipt::sent("script")),
                Step::Fails(error) => return Err(error),
                Step::Hangs => std::future::pending().await,
                Step::Busy => loop {
                    tokio::task::consume_budget().await;
                },
                Step::After(time, then) => {
                    if let Err(ended) = ctx.run(tokio::time::sleep(time)).await {
                        return Err(ended.by("script").tried(1).outcome_is(Outcome::Unknown));
                    }
                    step = *then;
                }
            }
        }
    }
}

impl Producer for StandIn {
    fn provider(&self) -> &'static str {
        "script"
    }

    fn capability(&self) -> Capability {
        Capability { binary_body: true, ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            self.seen.lock().push((self.started.elapsed(), message));
            let step = self.script.lock().pop_front().unwrap_or_else(|| self.rest.lock().clone());
            let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_under_way.fetch_max(now, Ordering::SeqCst);
            let _leave = Leave(&self.under_way);
            self.play(ctx, step).await
        })
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Value {
        json!({"state": "open"})
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn setup(name: &str) -> Setup {
    Setup { id: "test".into(), name: name.into(), random: Random::seeded(1) }
}

fn section(config: Value) -> Section {
    let Value::Object(section) = config else { panic!("a section is an object") };
    Section::parse(section).unwrap()
}

/// One producer in the strategy of this config.
fn wrap(config: Value, inner: Arc<dyn Producer>) -> Arc<dyn Producer> {
    let section = section(config);
    let setup = setup(&section.name);
    section.wrap(&setup, inner).unwrap()
}

/// Several in one.
fn group(config: Value, members: &[&Arc<StandIn>]) -> Arc<dyn Producer> {
    let members = members
        .iter()
        .enumerate()
        .map(|(number, member)| Member::new(format!("m{number}"), (*member).clone()));
    let section = section(config);
    let setup = setup(&section.name);
    section.group(&setup, members.collect()).unwrap()
}

/// What is wrong with a config that is refused.
fn refused(config: Value) -> String {
    let Value::Object(config) = config else { panic!("a section is an object") };
    let error = Section::parse(config).and_then(|section| section.check()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidConfig);
    error.message().to_owned()
}

fn message() -> Arc<Message> {
    Arc::new(Message::new("text"))
}

fn seconds(number: u64) -> Context {
    Context::within(Duration::from_secs(number))
}

/// The strategies of a status, the outermost first.
fn strategies(producer: &Arc<dyn Producer>) -> Vec<Value> {
    match producer.status().get("strategies") {
        Some(Value::Array(strategies)) => strategies.clone(),
        other => panic!("no strategies in the status: {other:?}"),
    }
}
