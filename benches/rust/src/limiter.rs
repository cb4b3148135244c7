//! What a rate limit costs a send: each limiter over a producer that does nothing, beside a layer that does nothing.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::error::Result;
use ceiba_core::message::{Message, Receipt};
use ceiba_core::strategy::{Random, Section, Setup};
use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::measure::Failure;

const BATCH: usize = 1000;

/// Sends nothing, at once.
pub(crate) struct Nothing;

impl Producer for Nothing {
    fn provider(&self) -> &'static str {
        "nothing"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, _message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(std::future::ready(Ok(Receipt::sent("nothing"))))
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

/// A layer that only passes on.
pub(crate) struct Empty(pub(crate) Arc<dyn Producer>);

impl Producer for Empty {
    fn provider(&self) -> &'static str {
        self.0.provider()
    }

    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move { self.0.send(ctx, message).await })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.0.flush(ctx)
    }

    fn status(&self) -> Value {
        self.0.status()
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.0.close(ctx)
    }
}

/// A producer with the limit of this config over `inner`.
pub(crate) fn limited(config: Value, inner: Arc<dyn Producer>) -> Result<Arc<dyn Producer>> {
    let Value::Object(mut section) = config else { return Ok(inner) };
    section.insert("type".into(), json!("rate_limit"));
    let section = Section::parse(section)?;
    let setup = Setup { id: "bench".into(), name: section.name.clone(), random: Random::from_system() };
    section.wrap(&setup, inner)
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let below: Arc<dyn Producer> = Arc::new(Nothing);
    // As many as nobody can send, so that each is granted.
    let (rate, per) = (20_000, "1ms");
    let mut measured: Vec<(&str, Arc<dyn Producer>, Vec<f64>)> =
        vec![("none", below.clone(), Vec::new()), ("empty", Arc::new(Empty(below.clone())), Vec::new())];
    for limiter in ["sliding_window", "fixed_window", "token_bucket", "leaky_bucket"] {
        // A token each 50 ns is what a leaky bucket would really make wait for.
        let rate = if limiter == "leaky_bucket" { 1_000_000 } else { rate };
        let config = json!({"limiter": limiter, "rate": rate, "per": per});
        measured.push((limiter, limited(config, below.clone())?, Vec::new()));
    }
    let concurrent = limited(json!({"limiter": "concurrent", "rate": 10}), below.clone())?;
    measured.push(("concurrent", concurrent, Vec::new()));

    let ctx = Context::within(Duration::from_secs(3600));
    let message = Arc::new(Message::new("text"));
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut sent = 0_u64;
    while Instant::now() < until {
        for (name, producer, samples) in &mut measured {
            let start = Instant::now();
            for _ in 0..BATCH {
                let mut send = producer.send(&ctx, message.clone());
                let mut nobody = TaskContext::from_waker(Waker::noop());
                if !matches!(send.as_mut().poll(&mut nobody), Poll::Ready(Ok(_))) {
                    return Err(format!("{name} did not let a send through").into());
                }
            }
            samples.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            sent += BATCH as u64;
        }
    }
    let mut line = Map::new();
    line.insert("name".into(), json!("rust"));
    line.insert("mode".into(), json!("limiter"));
    line.insert("messages".into(), json!(sent));
    for (name, _, samples) in &mut measured {
        samples.sort_by(f64::total_cmp);
        let at = |part: usize| samples.get(samples.len() * part / 100).copied().unwrap_or(f64::NAN);
        let seen = json!({"ns_min": at(0), "ns_median": at(50), "ns_p90": at(90)});
        line.insert((*name).to_owned(), seen);
    }
    Ok(Value::Object(line))
}
