//! An outbox whose process is killed, or loses its power, while it stores, sends and notes; one that two processes share;
//! one that is read while it is sent; and one on a full disk. `CEIBA_OUTBOX_CYCLES`, `CEIBA_OUTBOX_ROWS`,
//! `CEIBA_OUTBOX_PENDING` and `CEIBA_OUTBOX_POWER_CYCLES` ask for more.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::client::Context;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Kind;
use ceiba_core::message::{Disposition, Message};
use ceiba_core::outbox::row::{NewRow, Query, Start, StoredMessage};
use ceiba_core::outbox::sqlite::{Fault, SqliteStore};
use ceiba_core::outbox::store::Store;
use serde_json::json;

use crate::broker::{Folder, freeze, number, runtime, turn};
use crate::mounts::{Mount, skipped};

/// Sends under way at once.
const PLACES: usize = 8;

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(folder: &Path, when: &str, first: u64, count: u64) -> Process {
        Process::over(folder, &folder.join("other-side"), when, first, count)
    }

    fn over(folder: &Path, other_side: &Path, when: &str, first: u64, count: u64) -> Process {
        let section = json!({
            "type": "outbox", "url": format!("sqlite:{}/outbox.db", folder.display()), "when": when,
            "schedule": "40ms", "lease": "700ms", "poll": "20ms", "concurrency": PLACES, "max_attempts": 10_000,
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_ceiba-outbox-sender"))
            .arg(section.to_string())
            .arg(other_side)
            .args([first.to_string(), count.to_string()])
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
    /// By message: who sent it, each time, and the numbers it bore.
    arrived: HashMap<u64, (Vec<String>, HashSet<String>)>,
}

impl Seen {
    /// How many came once more because this process, which was killed, had not noted that it had sent them.
    fn again(&self) -> HashMap<&str, usize> {
        let mut again = HashMap::new();
        for (senders, _) in self.arrived.values() {
            for sender in senders.iter().rev().skip(1) {
                *again.entry(&**sender).or_default() += 1;
            }
        }
        again
    }
}

fn note(lines: &[String], accepted: &mut HashSet<u64>) {
    let numbers = lines.iter().filter_map(|line| line.strip_prefix("accepted "));
    accepted.extend(numbers.map(|number| number.parse::<u64>().unwrap()));
}

fn all_arrived(seen: &Seen, accepted: &HashSet<u64>) {
    let missing: Vec<&u64> = accepted.iter().filter(|body| !seen.arrived.contains_key(body)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} accepted messages never arrived: {missing:?}",
        missing.len(),
        accepted.len()
    );
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
            let (senders, numbers) = seen.arrived.entry(body).or_default();
            senders.push(process.to_owned());
            numbers.insert(number.to_owned());
        }
    }
    seen
}

fn killed(when: &str) {
    let cycles = number("CEIBA_OUTBOX_CYCLES").unwrap_or(30) / 2;
    let folder = Folder::new(&format!("outbox-{when}"));
    let (mut accepted, mut first) = (HashSet::new(), 0_u64);
    for cycle in 0..cycles {
        let process = Process::start(folder.path(), when, first, 1_000_000);
        first += 1_000_000;
        // At another moment each time: while it opens, while it works.
        std::thread::sleep(Duration::from_millis(20 + cycle * 37 % 400));
        note(&process.kill(), &mut accepted);
    }
    let last = Process::start(folder.path(), when, first, 20).end();
    assert_eq!(last.last().map(String::as_str), Some("empty"));
    note(&last, &mut accepted);
    let seen = read(&folder.path().join("other-side"));
    all_arrived(&seen, &accepted);
    assert!(accepted.len() > 20 * cycles as usize, "{} accepted in {cycles} cycles", accepted.len());
    // For each kill as many as were under way: out of the store, and of the four that the host sends.
    let again = seen.again();
    let most = again.values().copied().max().unwrap_or_default();
    assert!(most <= PLACES + 4, "{most} came twice after one kill");
    let twice: usize = again.values().sum();
    assert!(
        seen.arrived.values().all(|(_, numbers)| numbers.len() == 1),
        "the attempts of a message bear one number"
    );
    println!("{when}: {} accepted, {cycles} kills, {twice} came twice", accepted.len());
}

#[test]
fn outbox_killed_while_it_stores_first() {
    let _turn = turn();
    killed("always");
}

#[test]
fn outbox_killed_while_it_stores_what_failed() {
    let _turn = turn();
    killed("on_failure");
}

#[test]
fn outbox_whose_power_is_cut() {
    let _turn = turn();
    let cycles = number("CEIBA_OUTBOX_POWER_CYCLES").unwrap_or(6);
    let mount = match Mount::ext4("outbox-power") {
        Ok(mount) => mount,
        Err(why) => return skipped("power cuts of an outbox", &why),
    };
    // The other side keeps its power.
    let folder = Folder::new("outbox-power-seen");
    let other_side = folder.path().join("other-side");
    let (mut accepted, mut first) = (HashSet::new(), 0_u64);
    for cycle in 0..cycles {
        let when = ["always", "on_failure"][cycle as usize % 2];
        // At the first in a folder that is new: its name must be on disk too.
        let process = Process::over(&mount.path().join("new/below"), &other_side, when, first, 1_000_000);
        first += 1_000_000;
        std::thread::sleep(Duration::from_millis(150 + cycle * 37 % 400));
        freeze(process.child.id());
        mount.cut();
        note(&process.kill(), &mut accepted);
        mount.power_on();
    }
    let last = Process::over(&mount.path().join("new/below"), &other_side, "always", first, 20).end();
    assert_eq!(last.last().map(String::as_str), Some("empty"));
    note(&last, &mut accepted);
    all_arrived(&read(&other_side), &accepted);
    assert!(accepted.len() > 20 * cycles as usize, "{} accepted in {cycles} cycles", accepted.len());
    println!("{} accepted, {cycles} power cuts", accepted.len());
}

#[test]
fn outbox_read_while_another_process_sends() {
    let _turn = turn();
    let rows = number("CEIBA_OUTBOX_PENDING").unwrap_or(20_000);
    let folder = Folder::new("outbox-pages");
    runtime().block_on(async {
        let store = SqliteStore::open_alone(&folder.path().join("outbox.db")).await.unwrap();
        let ctx = Context::within(Duration::from_secs(3600));
        // Every second row is sent, and goes; the others stay, and a page must not skip them.
        let bodies: Vec<u64> = (0..rows).collect();
        let mut stay = Vec::new();
        for part in bodies.chunks(1000) {
            let producer = |body: u64| if body % 2 == 0 { "orders" } else { "stays" };
            let row = |body: &u64| NewRow { producer: producer(*body).into(), ..stored(*body) };
            let inserted = store.insert(&ctx, part.iter().map(row).collect()).await.unwrap();
            stay.extend(inserted.iter().skip(1).step_by(2).map(|row| row.id));
        }
        let process = Process::start(folder.path(), "always", 0, 0);
        let since = Instant::now();
        while std::fs::metadata(folder.path().join("other-side")).map_or(0, |file| file.len()) < 1000 {
            assert!(since.elapsed() < Duration::from_secs(60), "nothing is sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (mut seen, mut went, mut after) = (Vec::new(), 0, None);
        while let page = store.list(&ctx, Query { after, limit: 100, ..Query::default() }).await.unwrap()
            && let Some(last) = page.last()
        {
            after = Some(last.id);
            tokio::time::sleep(Duration::from_millis(1)).await;
            went += page.iter().filter(|row| row.producer == "orders").count();
            seen.extend(page.iter().filter(|row| row.producer == "stays").map(|row| row.id));
        }
        assert!(seen == stay, "{} of {} rows were seen", seen.len(), stay.len());
        assert!((went as u64) < rows / 2, "nothing went meanwhile");
        assert_eq!(process.end(), ["empty"]);
        let left = store.stats(&ctx, None).await.unwrap();
        assert_eq!(left.iter().map(|stats| stats.rows[0]).sum::<u64>(), rows / 2);
        store.close_file(&ctx).await.unwrap();
    });
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

#[test]
fn outbox_shared_by_two_processes() {
    let _turn = turn();
    let rows = number("CEIBA_OUTBOX_ROWS").unwrap_or(10_000);
    let folder = Folder::new("outbox-shared");
    runtime().block_on(async {
        let store = SqliteStore::open_alone(&folder.path().join("outbox.db")).await.unwrap();
        let ctx = Context::within(Duration::from_secs(60));
        let bodies: Vec<u64> = (0..rows).collect();
        for part in bodies.chunks(1000) {
            store.insert(&ctx, part.iter().map(|body| stored(*body)).collect()).await.unwrap();
        }
        store.close_file(&ctx).await.unwrap();
    });
    let processes = [0, 1].map(|_| Process::start(folder.path(), "always", 0, 0));
    for process in processes {
        assert_eq!(process.end(), ["empty"]);
    }
    let log = folder.path().join("other-side");
    let seen = read(&log);
    assert_eq!(seen.arrived.len() as u64, rows);
    assert!(seen.arrived.values().all(|(senders, _)| senders.len() == 1), "one came twice");
    let text = std::fs::read_to_string(log).unwrap();
    let senders: HashSet<&str> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(senders.len(), 2, "one did all");
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

async fn full_disk_stored_first(mount: &Mount) {
    let url = format!("sqlite:{}/outbox.db", mount.path().display());
    let provider = json!({"type": "memory", "topic": "full-always", "discard": true});
    let outbox = json!({"type": "outbox", "url": url, "when": "always", "poll": "100ms", "lease": "2s"});
    let config = json!({"id": "first", "deadline": "1s", "provider": provider, "strategies": [outbox]});
    calls::producer_open(None, ClientConfig::from_json(config).unwrap(), None).await.unwrap();
    let send = |number: u64| {
        let body = format!("{number}-{}", "x".repeat(20_000));
        calls::producer_send("first", Message::new(body), Some(Duration::from_secs(5)))
    };
    assert_eq!(send(0).await.unwrap().disposition, Disposition::Stored);
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut refused = None;
    for number in 1..2000 {
        if let Err(error) = send(number).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("the disk is full, and everything is stored");
    assert_eq!((refused.kind(), fault(&refused)), (Kind::Storage, Some(Fault::Full)), "{refused:?}");
    assert!(refused.retryable() && refused.outcome() == ceiba_core::error::Outcome::NotSent, "{refused:?}");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(send(5000).await.unwrap().disposition, Disposition::Stored);
    // What was accepted is sent, also what could not be noted while the disk was full.
    let since = Instant::now();
    loop {
        let stats = calls::outbox::stats("first", json!({}), None).await.unwrap();
        let of = |state: &str| stats["producers"][0][state].as_u64().unwrap_or_default();
        if of("pending") + of("leased") == 0 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{stats}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    calls::producer_close("first", None).await.unwrap();
}

#[test]
fn outbox_on_a_full_disk_that_stores_first() {
    let _turn = turn();
    match Mount::memory("outbox-full-first", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk_stored_first(&mount)),
        Err(why) => skipped("an outbox that stores first on a full disk", &why),
    }
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
