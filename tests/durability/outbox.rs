//! An outbox whose process is killed while it stores, sends and notes; one that two processes share; and one on a full
//! disk. `CEIBA_OUTBOX_CYCLES` and `CEIBA_OUTBOX_ROWS` ask for more of those in a file.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::client::Context;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Kind;
use ceiba_core::message::{Disposition, Message};
use ceiba_core::outbox::row::{Dropped, NewRow, Start, StoredMessage};
use ceiba_core::outbox::sqlite::{Fault, SqliteStore};
use ceiba_core::outbox::store::Store;
use ceiba_core::outbox::{Address, open_store};
use ceiba_tests::mongo::Mongo;
use serde_json::json;

use crate::broker::{Folder, number, runtime, turn};
use crate::mounts::{Mount, skipped};

/// Sends under way at once.
const PLACES: usize = 8;

/// Where the rows are, and what goes with it.
struct Place<'a> {
    url: String,
    folder: &'a Path,
    lease: &'static str,
    places: usize,
    /// Bytes of a body, at least.
    bytes: usize,
}

impl Place<'_> {
    fn file(folder: &Path) -> Place<'_> {
        let url = format!("sqlite:{}/outbox.db", folder.display());
        Place { url, folder, lease: "700ms", places: PLACES, bytes: 0 }
    }

    fn other_side(&self) -> PathBuf {
        self.folder.join("other-side")
    }
}

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(place: &Place<'_>, when: &str, first: u64, count: u64) -> Process {
        let section = json!({
            "type": "outbox", "url": place.url, "when": when, "schedule": "40ms", "lease": place.lease,
            "poll": "20ms", "concurrency": place.places, "max_attempts": 10_000,
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_ceiba-outbox-sender"))
            .arg(section.to_string())
            .arg(place.other_side())
            .args([first.to_string(), count.to_string(), place.bytes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (lines, told) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        Process { child, lines: told }
    }

    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    fn end(mut self) -> Vec<String> {
        assert!(self.child.wait().unwrap().success());
        self.lines.iter().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other side saw.
#[derive(Default)]
struct Seen {
    /// By message: how often it arrived, and the numbers it bore.
    arrived: HashMap<u64, (usize, HashSet<String>)>,
}

fn read(path: &Path) -> Seen {
    let mut seen = Seen::default();
    let mut under_way: HashMap<u64, String> = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let [what, body, number, process] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let body: u64 = body.parse().unwrap();
        if what == "begin" {
            if let Some(before) = under_way.insert(body, process.to_owned()) {
                // It was killed meanwhile, or two had it at once.
                assert_ne!(before, process, "{body} was sent twice at once");
            }
            continue;
        }
        let owner = under_way.remove(&body);
        assert_eq!(owner.as_deref(), Some(process), "{body} was sent by two at once");
        if what == "end" {
            let (times, numbers) = seen.arrived.entry(body).or_default();
            *times += 1;
            numbers.insert(number.to_owned());
        }
    }
    seen
}

// Kills a process `cycles` times, `pause` and more after its start. Of each cycle `least` messages are accepted on average.
fn killed(place: &Place<'_>, when: &str, cycles: u64, pause: Duration, least: usize) {
    let (mut accepted, mut first) = (HashSet::new(), 0_u64);
    let note = |lines: Vec<String>, accepted: &mut HashSet<u64>| {
        let numbers = lines.iter().filter_map(|line| line.strip_prefix("accepted "));
        accepted.extend(numbers.map(|number| number.parse::<u64>().unwrap()));
    };
    for cycle in 0..cycles {
        let process = Process::start(place, when, first, 1_000_000);
        first += 1_000_000;
        // At another moment each time: while it opens, while it works.
        std::thread::sleep(pause + Duration::from_millis(cycle * 37 % 400));
        note(process.kill(), &mut accepted);
    }
    let count = if place.bytes > 0 { 4 } else { 20 };
    let last = Process::start(place, when, first, count).end();
    assert_eq!(last.last().map(String::as_str), Some("empty"));
    note(last, &mut accepted);
    let seen = read(&place.other_side());
    let missing: Vec<&u64> = accepted.iter().filter(|body| !seen.arrived.contains_key(body)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} accepted messages never arrived: {missing:?}",
        missing.len(),
        accepted.len()
    );
    assert!(accepted.len() > least * cycles as usize, "{} accepted in {cycles} cycles", accepted.len());
    let twice: usize = seen.arrived.values().map(|(times, _)| times - 1).sum();
    // In each kill as many as were under way: out of the store, and of the four that the host sends.
    assert!(twice <= cycles as usize * (place.places + 4), "{twice} came twice in {cycles} kills");
    assert!(
        seen.arrived.values().all(|(_, numbers)| numbers.len() == 1),
        "the attempts of a message bear one number"
    );
    println!("{when}: {} accepted, {cycles} kills, {twice} came twice", accepted.len());
}

fn killed_over_a_file(when: &str) {
    let cycles = number("CEIBA_OUTBOX_CYCLES").unwrap_or(30) / 2;
    let folder = Folder::new(&format!("outbox-{when}"));
    killed(&Place::file(folder.path()), when, cycles, Duration::from_millis(20), 20);
}

#[test]
fn outbox_killed_while_it_stores_first() {
    let _turn = turn();
    killed_over_a_file("always");
}

#[test]
fn outbox_killed_while_it_stores_what_failed() {
    let _turn = turn();
    killed_over_a_file("on_failure");
}

fn in_mongodb<'a>(server: &Mongo, folder: &'a Path) -> Place<'a> {
    // The server of the tests reads all rows for each command.
    Place { url: server.url(), folder, lease: "3s", places: PLACES, bytes: 0 }
}

#[test]
fn outbox_in_mongodb_killed_while_it_stores() {
    let _turn = turn();
    for when in ["always", "on_failure"] {
        let (server, folder) = (Mongo::start(), Folder::new(&format!("outbox-mongo-{when}")));
        killed(&in_mongodb(&server, folder.path()), when, 5, Duration::from_millis(400), 2);
    }
}

#[test]
fn outbox_in_mongodb_killed_in_the_middle_of_large_bodies() {
    let _turn = turn();
    let (server, folder) = (Mongo::start(), Folder::new("outbox-mongo-large"));
    // Two parts each.
    let place = Place { bytes: 5 << 20, places: 2, lease: "10s", ..in_mongodb(&server, folder.path()) };
    killed(&place, "always", 4, Duration::from_millis(1200), 0);
}

fn stored(body: u64) -> NewRow {
    let body = body.to_string().into_bytes().into();
    NewRow {
        producer: "orders".into(),
        message: StoredMessage { head: None, body, number: 1, delay: 0 },
        topic: None,
        order_key: None,
        dedup: None,
        accepted: 0,
        now: 0,
        attempts: 0,
        error: None,
        start: Start::Pending { due: 0 },
    }
}

async fn fill(store: &dyn Store, rows: u64) {
    let ctx = Context::within(Duration::from_secs(60));
    let bodies: Vec<u64> = (0..rows).collect();
    for part in bodies.chunks(1000) {
        store.insert(&ctx, part.iter().map(|body| stored(*body)).collect()).await.unwrap();
    }
}

fn shared_by_two(place: &Place<'_>, rows: u64, meanwhile: impl FnOnce()) {
    let processes = [0, 1].map(|_| Process::start(place, "always", 0, 0));
    meanwhile();
    for process in processes {
        assert_eq!(process.end(), ["empty"]);
    }
    let log = place.other_side();
    let seen = read(&log);
    assert_eq!(seen.arrived.len() as u64, rows);
    assert!(seen.arrived.values().all(|(times, _)| *times == 1), "one came twice");
    let text = std::fs::read_to_string(log).unwrap();
    let senders: HashSet<&str> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(senders.len(), 2, "one did all");
}

#[test]
fn outbox_shared_by_two_processes() {
    let _turn = turn();
    let rows = number("CEIBA_OUTBOX_ROWS").unwrap_or(10_000);
    let folder = Folder::new("outbox-shared");
    runtime().block_on(async {
        let store = SqliteStore::open_alone(&folder.path().join("outbox.db")).await.unwrap();
        fill(&store, rows).await;
        store.close(&Context::within(Duration::from_secs(60))).await.unwrap();
    });
    shared_by_two(&Place::file(folder.path()), rows, || {});
}

#[test]
fn outbox_in_mongodb_shared_by_two_processes() {
    let _turn = turn();
    const ROWS: u64 = 10_000;
    let (server, folder, runtime) = (Mongo::start(), Folder::new("outbox-mongo-shared"), runtime());
    let place = Place { places: 250, lease: "60s", ..in_mongodb(&server, folder.path()) };
    let store = runtime.block_on(open_store(&Address::parse(&server.url()).unwrap(), true)).unwrap();
    let ctx = || Context::within(Duration::from_secs(60));
    // Nobody finds it empty before the last row is there.
    let guard = NewRow { start: Start::Leased { until: i64::MAX / 2 }, ..stored(0) };
    let guard = runtime.block_on(store.insert(&ctx(), vec![guard])).unwrap()[0].id;
    shared_by_two(&place, ROWS, || {
        let arrived = || {
            let log = std::fs::read_to_string(place.other_side()).unwrap_or_default();
            log.lines().filter(|line| line.starts_with("end ")).count() as u64
        };
        let bodies: Vec<u64> = (0..ROWS).collect();
        for (place, part) in bodies.chunks(500).enumerate() {
            // Few at a time are there.
            while arrived() + 400 < place as u64 * 500 {
                std::thread::sleep(Duration::from_millis(50));
            }
            let rows = part.iter().map(|body| stored(*body)).collect();
            runtime.block_on(store.insert(&ctx(), rows)).unwrap();
        }
        let dropped = runtime.block_on(store.drop_rows(&ctx(), None, vec![guard], i64::MAX)).unwrap();
        assert_eq!(dropped, [Dropped::Gone]);
    });
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    error.downcast_ref::<Fault>().copied().or_else(|| error.source().and_then(fault))
}

async fn full_disk(mount: &Mount) {
    let url = format!("sqlite:{}/outbox.db", mount.path().display());
    let topic = |capacity: u64| json!({"type": "memory", "topic": "full-outbox", "capacity": capacity});
    let open = |capacity: u64| {
        let config = json!({"id": "full", "provider": topic(capacity), "strategies": [{"type": "outbox", "url": url}]});
        calls::producer_open(None, ClientConfig::from_json(config).unwrap(), None)
    };
    open(1).await.unwrap();
    let send = |number: u64| {
        let body = format!("{number}-{}", "x".repeat(20_000));
        calls::producer_send("full", Message::new(body), Some(Duration::from_secs(5)))
    };
    assert_eq!(send(0).await.unwrap().disposition, Disposition::Sent);
    let mut kept = 0;
    for number in 1..=20 {
        assert_eq!(send(number).await.unwrap().disposition, Disposition::Stored);
        kept += 1;
    }
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut refused = None;
    for number in 21..2000 {
        match send(number).await {
            Ok(_) => kept += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disk is full, and everything is stored");
    assert_eq!((refused.kind(), fault(&refused)), (Kind::Storage, Some(Fault::Full)), "{refused:?}");
    assert!(refused.retryable() && refused.message().contains("holds 1 messages"), "{refused}");
    // What is there can be read, and is there when the disk has room again.
    let pending = |stats: serde_json::Value| stats["producers"][0]["pending"].as_u64().unwrap();
    assert_eq!(pending(calls::outbox::stats("full", json!({}), None).await.unwrap()), kept);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(send(5000).await.unwrap().disposition, Disposition::Stored);
    calls::producer_close("full", None).await.unwrap();
    open(1_000_000).await.unwrap();
    let drained = calls::outbox::drain("full", None).await.unwrap();
    assert_eq!(drained["sent"], kept + 1, "{drained}");
    calls::producer_close("full", None).await.unwrap();
}

#[test]
fn outbox_on_a_full_disk() {
    let _turn = turn();
    match Mount::memory("outbox-full", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk(&mount)),
        Err(why) => skipped("an outbox on a full disk", &why),
    }
}

/// Prints how fast rows go in and out beside bare SQLite; run with `--ignored` in an optimized build.
#[test]
#[ignore = "a measurement"]
fn outbox_speed() {
    let _turn = turn();
    let folder = Folder::new("outbox-speed");
    let bare = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    bare.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         CREATE TABLE rows (id INTEGER PRIMARY KEY, state INTEGER, due INTEGER, created INTEGER, body BLOB)",
    )
    .unwrap();
    let body = vec![7_u8; 200];
    let lasts = Duration::from_secs(3);
    let mut told = Vec::new();
    for batch in [1_usize, 100] {
        let (began, mut count) = (Instant::now(), 0_usize);
        while began.elapsed() < lasts {
            bare.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in 0..batch {
                let mut insert = bare
                    .prepare_cached("INSERT INTO rows (state, due, created, body) VALUES (0, ?1, ?1, ?2)")
                    .unwrap();
                insert.execute((count as i64, &body)).unwrap();
                count += 1;
            }
            bare.execute_batch("COMMIT").unwrap();
        }
        let bare_rate = count as f64 / began.elapsed().as_secs_f64();
        let (rate, claims) = runtime().block_on(async {
            let path = folder.path().join(format!("outbox-{batch}.db"));
            let store = SqliteStore::open_alone(&path).await.unwrap();
            let ctx = Context::within(Duration::from_secs(60));
            let row = NewRow {
                message: StoredMessage { body: body.clone().into(), ..stored(1).message },
                ..stored(1)
            };
            let (began, mut count) = (Instant::now(), 0_usize);
            while began.elapsed() < lasts {
                store.insert(&ctx, vec![row.clone(); batch]).await.unwrap();
                count += batch;
            }
            let rate = count as f64 / began.elapsed().as_secs_f64();
            let (began, mut claimed) = (Instant::now(), 0_usize);
            while began.elapsed() < lasts {
                let claim = ceiba_core::outbox::row::Claim {
                    producer: "orders".into(),
                    now: 0,
                    until: 1_000_000,
                    rows: batch,
                    bytes: u64::MAX,
                };
                let claims = store.claim(&ctx, claim).await.unwrap();
                claimed += claims.rows.len();
                if claims.rows.is_empty() {
                    break;
                }
            }
            (rate, claimed as f64 / began.elapsed().as_secs_f64())
        });
        told.push(format!("batch {batch}: bare {bare_rate:.0}/s, inserts {rate:.0}/s, claims {claims:.0}/s"));
    }
    eprintln!("{}", told.join("\n"));
}
