//! An outbox in a file: how fast rows go in and are claimed beside bare SQLite with the same batches, and how soon a row
//! that is ready is tried, in commits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::clock::Clock;
use ceiba_core::error::Result;
use ceiba_core::message::{Message, Receipt};
use ceiba_core::outbox::row::{Claim, NewRow, Start, StoredMessage};
use ceiba_core::outbox::sqlite::SqliteStore;
use ceiba_core::outbox::store::Store;
use ceiba_core::outbox::{Section, Setup};
use ceiba_core::random::Random;
use ceiba_core::runtime;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::measure::{Failure, median};

/// Rows of a commit.
const BATCHES: [usize; 2] = [1, 100];
const TURNS: u32 = 6;

pub(crate) fn run(arguments: &Arguments) -> std::result::Result<Value, Failure> {
    let data = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
    let folder = data.join(format!("outbox-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measured(arguments, &folder);
    std::fs::remove_dir_all(&folder)?;
    measured
}

fn measured(arguments: &Arguments, folder: &Path) -> std::result::Result<Value, Failure> {
    let mut line = Map::new();
    line.insert("name".into(), json!("rust"));
    line.insert("mode".into(), json!("outbox"));
    let lasts = Duration::from_secs_f64(arguments.seconds / f64::from(TURNS * 2));
    let body = vec![7_u8; arguments.size];
    let mut all = 0;
    for batch in BATCHES {
        let mut bare = Bare::open(&folder.join(format!("bare-{batch}.db")))?;
        let ours = runtime::handle()?
            .block_on(SqliteStore::open_alone(&folder.join(format!("outbox-{batch}.db"))))?;
        // In turns, so that a change of the machine meets both.
        let (mut inserts, mut claims) = (Pairs::default(), Pairs::default());
        for _ in 0..TURNS {
            let (ours_in, bare_in) = (insert(&ours, &body, batch, lasts)?, bare.insert(&body, batch, lasts)?);
            inserts.add(ours_in, bare_in);
            // No more than what went in, so that no claim finds nothing.
            claims.add(claim(&ours, batch, lasts, ours_in.0)?, bare.claim(batch, lasts, bare_in.0)?);
            all += ours_in.0;
        }
        line.insert(format!("insert_{batch}"), inserts.seen());
        line.insert(format!("claim_{batch}"), claims.seen());
    }
    line.insert("ready".into(), ready(arguments, folder)?);
    line.insert("messages".into(), json!(all));
    Ok(Value::Object(line))
}

/// Rows, and how long they took.
type Done = (u64, Duration);

#[derive(Default)]
struct Pairs {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Pairs {
    fn add(&mut self, ours: Done, bare: Done) {
        let rate = |(rows, took): Done| rows as f64 / took.as_secs_f64();
        self.ours.push(rate(ours));
        self.bare.push(rate(bare));
    }

    fn seen(mut self) -> Value {
        let mut ratios: Vec<f64> = self.ours.iter().zip(&self.bare).map(|(ours, bare)| ours / bare).collect();
        json!({ "rate": median(&mut self.ours), "bare": median(&mut self.bare), "ratio": median(&mut ratios) })
    }
}

/// SQLite alone, with the settings that an outbox has.
struct Bare {
    connection: Connection,
}

impl Bare {
    fn open(path: &PathBuf) -> std::result::Result<Bare, Failure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             CREATE TABLE rows (id INTEGER PRIMARY KEY, state INTEGER, due INTEGER, body BLOB); \
             CREATE INDEX rows_due ON rows (state, due)",
        )?;
        Ok(Bare { connection })
    }

    fn insert(&mut self, body: &[u8], batch: usize, lasts: Duration) -> std::result::Result<Done, Failure> {
        let (start, mut rows) = (Instant::now(), 0);
        while start.elapsed() < lasts {
            let commit = self.connection.transaction()?;
            for _ in 0..batch {
                commit
                    .prepare_cached("INSERT INTO rows (state, due, body) VALUES (0, ?1, ?2)")?
                    .execute((0, body))?;
                rows += 1;
            }
            commit.commit()?;
        }
        Ok((rows, start.elapsed()))
    }

    fn claim(&mut self, batch: usize, lasts: Duration, most: u64) -> std::result::Result<Done, Failure> {
        let (start, mut rows) = (Instant::now(), 0);
        while start.elapsed() < lasts && rows + batch as u64 <= most {
            let commit = self.connection.transaction()?;
            let taken = {
                let mut claim = commit.prepare_cached(
                    "UPDATE rows SET state = 1, due = 1000000 WHERE id IN \
                     (SELECT id FROM rows WHERE state = 0 AND due <= 0 ORDER BY due LIMIT ?1) RETURNING body",
                )?;
                let mut bodies = claim.query([batch as i64])?;
                let mut taken = 0;
                while let Some(row) = bodies.next()? {
                    std::hint::black_box(row.get::<_, Vec<u8>>(0)?);
                    taken += 1;
                }
                taken
            };
            commit.commit()?;
            rows += taken;
        }
        Ok((rows, start.elapsed()))
    }

    /// The median of a commit of one row.
    fn commit(&mut self, body: &[u8]) -> std::result::Result<Duration, Failure> {
        let mut took: Vec<f64> = (0..200)
            .map(|_| {
                let start = Instant::now();
                self.connection
                    .execute("INSERT INTO rows (state, due, body) VALUES (0, 0, ?1)", [body])
                    .map(|_| start.elapsed().as_secs_f64())
            })
            .collect::<std::result::Result<_, _>>()?;
        Ok(Duration::from_secs_f64(median(&mut took)))
    }
}

fn insert(
    store: &SqliteStore,
    body: &[u8],
    batch: usize,
    lasts: Duration,
) -> std::result::Result<Done, Failure> {
    let row = NewRow {
        producer: "orders".into(),
        message: StoredMessage { head: None, body: Bytes::copy_from_slice(body), number: 1, delay: 0 },
        topic: None,
        order_key: None,
        dedup: None,
        accepted: 0,
        now: 0,
        attempts: 0,
        error: None,
        start: Start::Pending { due: 0 },
    };
    runtime::handle()?.block_on(async {
        let (start, mut rows) = (Instant::now(), 0);
        let ctx = Context::within(Duration::from_secs(60));
        while start.elapsed() < lasts {
            rows += store.insert(&ctx, vec![row.clone(); batch]).await?.len() as u64;
        }
        Ok((rows, start.elapsed()))
    })
}

fn claim(
    store: &SqliteStore,
    batch: usize,
    lasts: Duration,
    most: u64,
) -> std::result::Result<Done, Failure> {
    runtime::handle()?.block_on(async {
        let (start, mut rows) = (Instant::now(), 0);
        let ctx = Context::within(Duration::from_secs(60));
        while start.elapsed() < lasts && rows + batch as u64 <= most {
            let claim = Claim {
                producer: "orders".into(),
                now: 0,
                until: 1_000_000,
                rows: batch,
                bytes: u64::MAX,
                tell: true,
            };
            rows += store.claim(&ctx, claim).await?.rows.len() as u64;
        }
        Ok((rows, start.elapsed()))
    })
}

/// Notes when it is asked.
struct Noted(tokio::sync::mpsc::UnboundedSender<Instant>);

impl Producer for Noted {
    fn provider(&self) -> &'static str {
        "noted"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, _message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        let _ = self.0.send(Instant::now());
        Box::pin(async { Ok(Receipt::sent("noted")) })
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

/// From a send that is stored first to its attempt, in commits of bare SQLite on the same disk.
fn ready(arguments: &Arguments, folder: &Path) -> std::result::Result<Value, Failure> {
    let body = vec![7_u8; arguments.size];
    let mut bare = Bare::open(&folder.join("commits.db"))?;
    let section =
        json!({"type": "outbox", "url": format!("sqlite:{}/ready.db", folder.display()), "when": "always"});
    let Value::Object(section) = section else { return Err("no section".into()) };
    let deadline = Duration::from_secs(10);
    let (noted, mut tried) = tokio::sync::mpsc::unbounded_channel();
    let setup = Setup {
        id: "ready".into(),
        deadline,
        clock: Clock::from_system(),
        random: Random::from_system(),
        notifier: None,
    };
    let runtime = runtime::handle()?;
    let outbox = runtime.block_on(Section::parse(section, deadline)?.wrap(setup, Arc::new(Noted(noted))))?;
    let (mut stored, mut attempted, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let commit = bare.commit(&body)?.as_secs_f64();
        let (mut receipts, mut attempts) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let (start, receipt, attempt) = runtime.block_on(async {
                let start = Instant::now();
                outbox.send(&Context::within(deadline), Arc::new(Message::new(body.clone()))).await?;
                let receipt = start.elapsed();
                let attempt = tokio::time::timeout(deadline, tried.recv()).await?;
                // What follows an attempt is another commit; the next send does not wait behind it.
                tokio::time::sleep(Duration::from_secs_f64(commit * 3.0)).await;
                Ok::<_, Failure>((start, receipt, attempt))
            })?;
            let attempt = attempt.ok_or("no attempt")?.duration_since(start);
            receipts.push(receipt.as_secs_f64());
            attempts.push(attempt.as_secs_f64());
        }
        let (receipt, attempt) = (median(&mut receipts), median(&mut attempts));
        stored.push(receipt * 1e6);
        attempted.push(attempt * 1e6);
        ratios.push(attempt / commit);
    }
    runtime.block_on(outbox.close(&Context::within(deadline)))?;
    Ok(json!({
        "stored_us": median(&mut stored), "tried_us": median(&mut attempted), "commits": median(&mut ratios),
    }))
}
