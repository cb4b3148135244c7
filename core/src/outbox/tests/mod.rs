//! The outbox over a producer that does what a test says, and its stores.
#![allow(clippy::indexing_slicing)]

mod closing;
#[cfg(feature = "mongodb")]
mod cuts;
#[cfg(feature = "mongodb")]
mod ends;
mod lines;
#[cfg(feature = "mongodb")]
mod mongodb;
mod moved;
mod sending;
#[cfg(feature = "mongodb")]
#[path = "../../../../tests/mongo.rs"]
#[allow(unreachable_pub)]
mod server;
mod shared_file;
#[cfg(feature = "sqlite")]
mod sqlite;
mod suite;
mod telling;
mod trouble;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::row::{Millis, NewRow, Start, StoredMessage};
use super::sqlite::SqliteStore;
use super::store::Store;
use super::{Outbox, Section, Setup};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::clock::Clock;
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};
use crate::random::Random;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("ceiba-outbox-{:032x}", rand::random::<u128>()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("outbox.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn soon() -> Context {
    Context::within(Duration::from_secs(20))
}

/// Waits for what comes soon.
async fn until(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} never came");
}

/// A time of day that a test moves on.
#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Time {
        Time(Arc::new(AtomicI64::new(1_700_000_000_000)))
    }

    fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let time = self.0.clone();
        Clock::from_fn(move || {
            SystemTime::UNIX_EPOCH + Duration::from_millis(time.load(Ordering::SeqCst).try_into().unwrap())
        })
    }
}

/// What one send does.
#[derive(Clone)]
enum Step {
    Sent,
    Fails(Error),
    Hangs,
    Panics,
    Takes(Duration),
}

fn fails(kind: Kind) -> Step {
    Step::Fails(Error::new(kind, "by the script").by("script").tried(1))
}

fn unknown(kind: Kind) -> Step {
    Step::Fails(Error::new(kind, "by the script").by("script").tried(1).outcome_is(Outcome::Unknown))
}

/// A producer that follows a script and keeps what it was given.
struct StandIn {
    script: Mutex<VecDeque<Step>>,
    rest: Mutex<Step>,
    seen: Mutex<Vec<Arc<Message>>>,
}

impl StandIn {
    fn new(steps: impl IntoIterator<Item = Step>, rest: Step) -> Arc<StandIn> {
        Arc::new(StandIn {
            script: Mutex::new(steps.into_iter().collect()),
            rest: Mutex::new(rest),
            seen: Mutex::default(),
        })
    }

    fn becomes(&self, rest: Step) {
        *self.rest.lock() = rest;
    }

    fn count(&self) -> usize {
        self.seen.lock().len()
    }

    fn bodies(&self) -> Vec<String> {
        let text = |message: &Arc<Message>| String::from_utf8(message.body().to_vec()).unwrap();
        self.seen.lock().iter().map(text).collect()
    }

    fn messages(&self) -> Vec<Arc<Message>> {
        self.seen.lock().clone()
    }
}

impl Producer for StandIn {
    fn provider(&self) -> &'static str {
        "script"
    }

    fn capability(&self) -> Capability {
        Capability { max_body: Some(1 << 20), ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        self.seen.lock().push(message);
        let step = self.script.lock().pop_front().unwrap_or_else(|| self.rest.lock().clone());
        Box::pin(async move {
            match step {
                Step::Sent => Ok(Receipt::sent("script")),
                Step::Fails(error) => Err(error),
                Step::Panics => panic!("by the script"),
                Step::Takes(time) => {
                    tokio::time::sleep(time).await;
                    Ok(Receipt::sent("script"))
                }
                Step::Hangs => Err(ctx.ended().await.by("script").tried(1).outcome_is(Outcome::Unknown)),
            }
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

/// An outbox in a file of its own.
struct Case {
    outbox: Arc<Outbox>,
    inner: Arc<StandIn>,
    store: Arc<dyn Store>,
    time: Time,
    _folder: Folder,
}

impl Case {
    async fn new(more: Value, inner: &Arc<StandIn>) -> Case {
        Case::telling(more, inner, None).await
    }

    async fn telling(more: Value, inner: &Arc<StandIn>, notifier: Option<Arc<StandIn>>) -> Case {
        let (folder, time) = (Folder::new(), Time::new());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_alone(&folder.file()).await.unwrap());
        let outbox = opened(more, inner, notifier, &store, &time);
        Case { outbox, inner: inner.clone(), store, time, _folder: folder }
    }

    async fn send(&self, body: &str) -> Result<Receipt> {
        self.outbox.send(&soon(), Arc::new(Message::new(body.to_owned()))).await
    }

    async fn rows(&self) -> Vec<Value> {
        let list = self.outbox.desk().list(&soon(), json!({})).await.unwrap();
        list["rows"].as_array().unwrap().clone()
    }

    fn state(&self) -> Value {
        self.outbox.status()["strategies"][0].clone()
    }

    async fn count(&self, of: &str) -> u64 {
        let stats = self.outbox.desk().stats(&soon(), json!({})).await.unwrap();
        stats["producers"][0][of].as_u64().unwrap()
    }

    async fn becomes(&self, of: &str, count: u64) {
        for _ in 0..2000 {
            if self.count(of).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{of} is {} and not {count}", self.count(of).await);
    }
}

fn opened(
    more: Value,
    inner: &Arc<StandIn>,
    notifier: Option<Arc<StandIn>>,
    store: &Arc<dyn Store>,
    time: &Time,
) -> Arc<Outbox> {
    opened_at(more, inner, notifier, store, time.clock())
}

fn opened_at(
    more: Value,
    inner: &Arc<StandIn>,
    notifier: Option<Arc<StandIn>>,
    store: &Arc<dyn Store>,
    clock: Clock,
) -> Arc<Outbox> {
    let mut section = json!({"type": "outbox", "url": "sqlite:unused", "poll": "10ms"});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let deadline = Duration::from_secs(2);
    let setup = Setup {
        id: "orders".into(),
        deadline,
        clock,
        random: Random::seeded(1),
        notifier: notifier.map(|notifier| notifier as Arc<dyn Producer>),
    };
    let section = Section::parse(section.as_object().unwrap().clone(), deadline).unwrap();
    section.wrap_over(setup, inner.clone(), store.clone()).unwrap()
}

/// A pending row that is due at once.
fn row(body: &str) -> NewRow {
    NewRow {
        producer: "orders".into(),
        message: StoredMessage { head: None, body: bytes::Bytes::from(body.to_owned()), number: 7, delay: 0 },
        topic: None,
        order_key: None,
        dedup: None,
        accepted: 900,
        now: 1000,
        attempts: 0,
        error: None,
        start: Start::Pending { due: 1000 },
    }
}

async fn another(path: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open_alone(path).await.unwrap())
}
