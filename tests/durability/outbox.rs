//! An outbox whose process is killed, or loses its power, while it stores, sends and notes; one that two processes share;
//! one that is read while it is sent; one on a full disk, and one on a disk that does not answer. `CEIBA_OUTBOX_CYCLES`, `CEIBA_OUTBOX_ROWS`,
//! `CEIBA_OUTBOX_PENDING` and `CEIBA_OUTBOX_POWER_CYCLES` ask for more.

mod mongodb;
mod process;
mod shortage;
mod silence;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::outbox::row::{Dropped, NewRow, Query, Start, StoredMessage};
use ceiba_core::outbox::sqlite::SqliteStore;
use ceiba_core::outbox::store::Store;
use tokio::runtime::Runtime;

use self::process::{Place, Process, all_arrived, note, read, read_living};
use crate::broker::{Folder, freeze, number, runtime, turn};
use crate::mounts::{Mount, skipped};

// Kills a process `cycles` times, `pause` and more after its start. Of each cycle `least` messages are accepted on average.
fn killed(place: &Place, when: &str, cycles: u64, pause: Duration, least: usize) {
    let (mut accepted, mut first) = (HashSet::new(), 0_u64);
    for cycle in 0..cycles {
        let process = Process::start(place, when, first, 1_000_000);
        first += 1_000_000;
        // At another moment each time: while it opens, while it works.
        std::thread::sleep(pause + Duration::from_millis(cycle * 37 % 400));
        note(&process.kill(), &mut accepted);
    }
    let count = if place.bytes > 0 { 4 } else { 20 };
    let last = Process::start(place, when, first, count).end();
    assert_eq!(last.last().map(String::as_str), Some("empty"));
    note(&last, &mut accepted);
    let seen = read(&place.other_side);
    all_arrived(&seen, &accepted);
    assert!(accepted.len() > least * cycles as usize, "{} accepted in {cycles} cycles", accepted.len());
    // For each kill as many as were under way: out of the store, and of the four that the host sends.
    let again = seen.again();
    let most = again.values().copied().max().unwrap_or_default();
    assert!(most <= place.places + 4, "{most} came twice after one kill");
    let twice: usize = again.values().sum();
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
    let place = Place { other_side, ..Place::file(&mount.path().join("new/below")) };
    let (mut accepted, mut first) = (HashSet::new(), 0_u64);
    for cycle in 0..cycles {
        let when = ["always", "on_failure"][cycle as usize % 2];
        // At the first in a folder that is new: its name must be on disk too.
        let process = Process::start(&place, when, first, 1_000_000);
        first += 1_000_000;
        std::thread::sleep(Duration::from_millis(150 + cycle * 37 % 400));
        freeze(process.child.id());
        mount.cut();
        note(&process.kill(), &mut accepted);
        mount.power_on();
    }
    let last = Process::start(&place, "always", first, 20).end();
    assert_eq!(last.last().map(String::as_str), Some("empty"));
    note(&last, &mut accepted);
    all_arrived(&read(&place.other_side), &accepted);
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
            let producer = |body: u64| if body.is_multiple_of(2) { "orders" } else { "stays" };
            let row = |body: &u64| NewRow { producer: producer(*body).into(), ..stored(*body) };
            let inserted = store.insert(&ctx, part.iter().map(row).collect()).await.unwrap();
            stay.extend(inserted.iter().skip(1).step_by(2).map(|row| row.id));
        }
        let process = Process::start(&Place::file(folder.path()), "always", 0, 0);
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

/// Two processes send what is put into the store: `rows`, a portion once only some are left, and as many more as it takes
/// until both have sent some.
fn shared_by_two(runtime: &Runtime, place: &Place, store: &dyn Store, rows: u64, [some, portion]: [u64; 2]) {
    let ctx = || Context::within(Duration::from_secs(60));
    // Nobody finds it empty before the last row is there.
    let guard = NewRow { start: Start::Leased { until: i64::MAX / 2 }, ..stored(u64::MAX) };
    let guard = runtime.block_on(store.insert(&ctx(), vec![guard])).unwrap()[0].id;
    let mut processes = [0, 1].map(|_| Process::start(place, "always", 0, 0));
    let (mut inserted, mut since) = (0, Instant::now());
    loop {
        let log = std::fs::read_to_string(&place.other_side).unwrap_or_default();
        let ends: Vec<&str> = log.lines().filter(|line| line.starts_with("end ")).collect();
        let senders: HashSet<&str> = ends.iter().filter_map(|line| line.split(' ').next_back()).collect();
        if inserted >= rows && senders.len() == 2 {
            break;
        }
        assert!(processes.iter_mut().all(Process::lives), "a process ended before its time");
        // However long the rows take, the second need not be waited for as long.
        assert!(since.elapsed() < Duration::from_secs(300), "one did all of {inserted} rows");
        let ahead = inserted - ends.len() as u64;
        if ahead <= if inserted < rows { some } else { 0 } {
            let bodies = inserted..inserted + portion;
            runtime.block_on(store.insert(&ctx(), bodies.map(stored).collect())).unwrap();
            inserted += portion;
            if inserted <= rows {
                since = Instant::now();
            }
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let dropped = runtime.block_on(store.drop_rows(&ctx(), None, vec![guard], i64::MAX)).unwrap();
    assert_eq!(dropped, [Dropped::Gone]);
    for process in processes {
        assert_eq!(process.end(), ["empty"]);
    }
    // Both lived all the time, and no lease ended by itself: that of a row belongs to one of them.
    let seen = read_living(&place.other_side);
    assert_eq!(seen.arrived.len() as u64, inserted);
    let twice = seen.arrived.values().filter(|(senders, _)| senders.len() > 1).count();
    assert_eq!(twice, 0, "came twice");
}

#[test]
fn outbox_shared_by_two_processes() {
    let _turn = turn();
    let rows = number("CEIBA_OUTBOX_ROWS").unwrap_or(10_000);
    let (folder, runtime) = (Folder::new("outbox-shared"), runtime());
    let store = runtime.block_on(SqliteStore::open_alone(&folder.path().join("outbox.db"))).unwrap();
    let place = Place { lease: "60s", ..Place::file(folder.path()) };
    shared_by_two(&runtime, &place, &store, rows, [rows, 500]);
    runtime.block_on(store.close_file(&Context::within(Duration::from_secs(60)))).unwrap();
}
