//! A producer below the limit that takes its time, or waits to be let go on, and notes when each send ran.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::error::{Error, Result};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::strategy::{Random, Section, Setup};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

/// Microseconds of the clock that all processes of a machine share.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// See the module.
pub(crate) struct Inner {
    takes: Duration,
    gate: Option<Semaphore>,
    begun: AtomicUsize,
    runs: Mutex<Vec<(u64, u64)>>,
}

impl Inner {
    pub(crate) fn new(takes: Duration) -> Arc<Inner> {
        Arc::new(Inner { takes, gate: None, begun: AtomicUsize::new(0), runs: Mutex::new(Vec::new()) })
    }

    /// One whose sends end when they are let go on.
    pub(crate) fn shut() -> Arc<Inner> {
        Arc::new(Inner {
            takes: Duration::ZERO,
            gate: Some(Semaphore::new(0)),
            begun: AtomicUsize::new(0),
            runs: Mutex::new(Vec::new()),
        })
    }

    /// Lets one send go on, begun or not.
    pub(crate) fn let_one_go_on(&self) {
        self.gate.as_ref().unwrap().add_permits(1);
    }

    /// How many sends began.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    /// From when till when each send ran, those that were dropped too.
    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        self.runs.lock().unwrap().clone()
    }
}

struct Running<'a>(&'a Inner, u64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.runs.lock().unwrap().push((self.1, micros()));
    }
}

impl Producer for Inner {
    fn provider(&self) -> &'static str {
        "inner"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, _message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::AcqRel);
            let _running = Running(self, micros());
            if !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            Ok(Receipt::sent("inner"))
        })
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Value {
        json!({})
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A producer with a limit over `inner`.
pub(crate) fn limited(config: &Value, inner: &Arc<Inner>) -> Arc<dyn Producer> {
    let mut section: Map<String, Value> = config.as_object().unwrap().clone();
    section.insert("type".into(), json!("rate_limit"));
    let section = Section::parse(section).unwrap();
    let setup = Setup { id: "test".into(), name: section.name.clone(), random: Random::from_system() };
    section.wrap(&setup, inner.clone()).unwrap()
}

pub(crate) async fn send(producer: &Arc<dyn Producer>, within: Duration) -> Result<(), Error> {
    producer.send(&Context::within(within), Arc::new(Message::new("text"))).await.map(drop)
}

/// The state of the limit.
pub(crate) fn state(producer: &Arc<dyn Producer>) -> Value {
    producer.status()["strategies"][0].clone()
}

/// Waits until the state says so, for at most 20 s.
pub(crate) async fn until(producer: &Arc<dyn Producer>, what: impl Fn(&Value) -> bool) {
    comes_to(|| what(&state(producer)), || state(producer).to_string()).await;
}

/// Waits until it is so, for at most 20 s; `told` says how it is instead.
pub(crate) async fn comes_to(what: impl Fn() -> bool, told: impl Fn() -> String) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to that: {}", told());
}

pub(crate) fn up(state: &Value) -> bool {
    state["store"]["state"] == "up"
}

/// No more than `rate` grants lie for sure in one period: of each is known that it was made between two moments.
pub(crate) fn check_window(grants: &mut [(u64, u64)], rate: usize, per: Duration) {
    grants.sort_unstable();
    let per = per.as_micros() as u64;
    for (place, (begin, _)) in grants.iter().enumerate() {
        let sure = grants[place..]
            .iter()
            .take_while(|(before, _)| *before < begin + per)
            .filter(|(_, after)| *after < begin + per)
            .count();
        assert!(sure <= rate, "{sure} grants within a period from {begin}, the rate is {rate}");
    }
}

/// No more than `most` of the spans lie over each other.
pub(crate) fn check_slots(runs: &[(u64, u64)], most: i32) -> i32 {
    let mut edges: Vec<(u64, i32)> = runs.iter().flat_map(|(begin, end)| [(*begin, 1), (*end, -1)]).collect();
    // At the same moment ends come first: the clock is no finer.
    edges.sort_unstable();
    let (mut now, mut highest) = (0, 0);
    for (at, change) in edges {
        now += change;
        highest = highest.max(now);
        assert!(now <= most, "{now} at once at {at}, the limit is {most}");
    }
    highest
}
