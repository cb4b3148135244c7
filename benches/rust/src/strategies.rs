//! What strategies cost a send: each over a producer that does nothing, and four of them nested, beside as many layers
//! that only pass on.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::strategy::{Member, Random, Section, Setup};
use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::limiter::{Empty, Nothing};
use crate::measure::Failure;

const BATCH: usize = 1000;

/// Fails at once, in a way that another member may mend.
struct Failing(Error);

impl Producer for Failing {
    fn provider(&self) -> &'static str {
        "failing"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, _message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn status(&self) -> Value {
        json!({})
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn section(config: Value) -> Result<(Section, Setup)> {
    let section = match config {
        Value::Object(section) => Section::parse(section)?,
        _ => return Err(Error::new(Kind::Internal, "a section is an object")),
    };
    let setup = Setup { id: "bench".into(), name: section.name.clone(), random: Random::from_system() };
    Ok((section, setup))
}

fn over(config: Value, inner: Arc<dyn Producer>) -> Result<Arc<dyn Producer>> {
    let (section, setup) = section(config)?;
    section.wrap(&setup, inner)
}

fn failover(config: Value, members: Vec<Arc<dyn Producer>>) -> Result<Arc<dyn Producer>> {
    let (section, setup) = section(config)?;
    let named = |(number, producer)| Member::new(format!("m{number}"), producer);
    section.group(&setup, members.into_iter().enumerate().map(named).collect())
}

fn retry() -> Value {
    json!({"type": "retry", "max_attempts": 3})
}

fn timeout() -> Value {
    json!({"type": "timeout", "after": "10s"})
}

/// As many as nobody can send, so that each is granted.
fn limit() -> Value {
    json!({"type": "rate_limit", "limiter": "sliding_window", "rate": 20_000, "per": "1ms"})
}

/// The stacks, and what stands beside each: layers that only pass on, as many as it has.
fn stacks() -> Result<Vec<(&'static str, Arc<dyn Producer>)>> {
    let nothing = || Arc::new(Nothing) as Arc<dyn Producer>;
    let empty =
        |layers: usize| (0..layers).fold(nothing(), |below, _| Arc::new(Empty(below)) as Arc<dyn Producer>);
    let failing = || Arc::new(Failing(Error::new(Kind::Unavailable, "nobody answers"))) as Arc<dyn Producer>;
    let group = json!({"type": "failover"});
    let nested = failover(group.clone(), vec![nothing(), nothing()])?;
    let nested = over(timeout(), over(retry(), over(limit(), nested)?)?)?;
    Ok(vec![
        ("none", nothing()),
        ("empty 1", empty(1)),
        ("empty 4", empty(4)),
        ("retry", over(retry(), nothing())?),
        ("timeout", over(timeout(), nothing())?),
        ("rate_limit", over(limit(), nothing())?),
        ("failover", failover(group.clone(), vec![nothing(), nothing()])?),
        (
            "timeout_failover",
            failover(json!({"type": "timeout_failover", "after": 3}), vec![nothing(), nothing()])?,
        ),
        ("circuit_breaker", over(json!({"type": "circuit_breaker", "consecutive": 5}), nothing())?),
        ("timeout > retry > rate_limit > failover", nested),
        // The last good one is where it begins: a send that all refuse shows each failure.
        ("failover, 3 of 3 fail", failover(group, vec![failing(), failing(), failing()])?),
    ])
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let mut measured: Vec<_> =
        stacks()?.into_iter().map(|(name, producer)| (name, producer, Vec::new())).collect();
    let ctx = Context::within(Duration::from_secs(3600));
    let message = Arc::new(Message::new("text"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _entered = runtime.enter();
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut sent = 0_u64;
    while Instant::now() < until {
        for (name, producer, samples) in &mut measured {
            let fails = name.ends_with("fail");
            let start = Instant::now();
            for _ in 0..BATCH {
                let mut send = producer.send(&ctx, message.clone());
                let mut nobody = TaskContext::from_waker(Waker::noop());
                match send.as_mut().poll(&mut nobody) {
                    Poll::Ready(result) if result.is_err() == fails => {}
                    other => return Err(format!("{name}: {other:?}").into()),
                }
            }
            samples.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            sent += BATCH as u64;
        }
    }
    let mut line = Map::new();
    line.insert("name".into(), json!("rust"));
    line.insert("mode".into(), json!("strategies"));
    line.insert("messages".into(), json!(sent));
    for (name, _, samples) in &mut measured {
        samples.sort_by(f64::total_cmp);
        let at = |part: usize| samples.get(samples.len() * part / 100).copied().unwrap_or(f64::NAN);
        line.insert((*name).to_owned(), json!({"ns_min": at(0), "ns_median": at(50), "ns_p90": at(90)}));
    }
    Ok(Value::Object(line))
}
