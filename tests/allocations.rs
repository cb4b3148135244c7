//! A strategy allocates nothing for a send that goes well but the future that stands for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::error::Result;
use ceiba_core::message::{Message, Receipt};
use ceiba_core::strategy::{Member, Random, Section, Setup};
use serde_json::{Value, json};

/// Sends nothing, at once.
struct Nothing;

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

fn nothing() -> Arc<dyn Producer> {
    Arc::new(Nothing)
}

fn section(config: Value) -> (Section, Setup) {
    let Value::Object(section) = config else { panic!("a section is an object") };
    let section = Section::parse(section).unwrap();
    let setup = Setup { id: "test".into(), name: section.name.clone(), random: Random::from_system() };
    (section, setup)
}

fn over(config: Value, inner: Arc<dyn Producer>) -> Arc<dyn Producer> {
    let (section, setup) = section(config);
    section.wrap(&setup, inner).unwrap()
}

fn among(config: Value) -> Arc<dyn Producer> {
    let (section, setup) = section(config);
    let members = ["a", "b"].map(|name| Member::new(name, nothing())).into_iter().collect();
    section.group(&setup, members).unwrap()
}

fn allocations(producer: &Arc<dyn Producer>) -> u64 {
    let ctx = Context::within(Duration::from_secs(60));
    let message = Arc::new(Message::new("text"));
    let send = || {
        let mut send = producer.send(&ctx, message.clone());
        let mut nobody = TaskContext::from_waker(Waker::noop());
        let Poll::Ready(result) = Pin::as_mut(&mut send).poll(&mut nobody) else { panic!("it waits") };
        drop(result.unwrap());
    };
    // What is made once and kept is no cost of a send.
    (0..100).for_each(|_| send());
    (0..100).map(|_| allocation_counter::measure(send).count_total).max().unwrap()
}

#[test]
fn each_layer_allocates_its_future_and_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let bare = allocations(&nothing());
    let limit = json!({"type": "rate_limit", "limiter": "sliding_window", "rate": 20_000, "per": "1ms"});
    let retry = json!({"type": "retry", "max_attempts": 3});
    let timeout = json!({"type": "timeout", "after": "10s"});
    let failover = json!({"type": "failover"});
    let nested = over(retry.clone(), over(limit.clone(), among(failover.clone())));
    for (name, layers, producer) in [
        ("retry", 1, over(retry, nothing())),
        ("timeout", 1, over(timeout.clone(), nothing())),
        ("rate_limit", 1, over(limit, nothing())),
        ("circuit_breaker", 1, over(json!({"type": "circuit_breaker", "consecutive": 5}), nothing())),
        ("failover", 1, among(failover)),
        ("timeout_failover", 1, among(json!({"type": "timeout_failover", "after": 3}))),
        ("timeout > retry > rate_limit > failover", 4, over(timeout, nested)),
    ] {
        let cost = allocations(&producer).checked_sub(bare).unwrap();
        assert!(cost <= layers, "{name}: {cost} allocations a send over those of the bare producer");
    }
    // It counts.
    assert!(bare <= 1 && allocation_counter::measure(|| drop(Box::new(7))).count_total >= 1);
}
