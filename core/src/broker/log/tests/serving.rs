//! Appending, committing, reading back, opening again.

use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use super::super::faulty::FaultyDisk;
use super::super::{Durability, LogState};
use super::*;
use crate::error::Kind;

fn disks(scratch: &Scratch) -> [Arc<dyn Disk>; 2] {
    [Arc::new(MemoryDisk::default()), scratch.disk()]
}

#[tokio::test]
async fn an_opened_log_holds_what_was_committed() {
    let scratch = Scratch::new();
    for disk in disks(&scratch) {
        let mut random = seeded(3);
        let mut expected = Content::new();
        for round in 0..4 {
            let (log, found) = open(&small(), Arc::clone(&disk)).unwrap();
            assert_eq!(found, expected, "round {round}");
            expected.extend(write_some(&log, &mut random, 60, 3000).await);
            if round % 2 == 0 {
                log.close().unwrap();
            }
        }
        let (log, found) = open(&small(), disk).unwrap();
        assert_eq!(found, expected);
        assert!(log.status().segments > 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_tasks_commit_together() {
    let scratch = Scratch::new();
    for disk in disks(&scratch) {
        let (log, _) = open(&small(), Arc::clone(&disk)).unwrap();
        let tasks: Vec<_> = (0..16u64)
            .map(|task| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    for round in 0..30u64 {
                        let count = if task % 2 == 0 { 3 } else { 200 };
                        let bodies: Vec<_> = (0..count).map(|i| format!("{task}/{round}/{i}")).collect();
                        let ((), ticket) = log.append(|journal| {
                            for (index, body) in bodies.iter().enumerate() {
                                let sequence = task << 32 | round << 16 | index as u64;
                                let position = journal.append(&message(sequence, body.as_bytes()));
                                written.push((position, sequence, body.clone()));
                            }
                        });
                        log.committed(ticket).await.unwrap();
                        let mut reading = log.reading();
                        for (position, sequence, body) in written.iter().rev().take(count) {
                            let stored = reading.message(*position, body.len()).unwrap();
                            assert_eq!((stored.sequence, &stored.body[..]), (*sequence, body.as_bytes()));
                        }
                    }
                    written
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        log.close().unwrap();
        assert_eq!(log.append(|_| ()).1, super::super::Ticket(u64::MAX), "a closed log takes nothing");
        drop(log);
        let (log, found) = open(&small(), disk).unwrap();
        assert_eq!(found.len(), all.len());
        let mut reading = log.reading();
        for (position, sequence, body) in all {
            let stored = reading.message(position, body.len()).unwrap();
            assert_eq!((stored.sequence, &stored.body[..]), (sequence, body.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_message_is_read_before_it_is_committed_and_after_it_left_the_memory() {
    let options = LogOptions { recent_bytes: 0, ..small() };
    for length in [0, 100, 5000, 300_000] {
        let (log, _) = open(&options, Arc::new(MemoryDisk::default())).unwrap();
        let body = vec![7; length];
        let record = match message(5, &body) {
            Record::Message(message) => MessageRecord { key: "k", due_ms: 3, wire_delay: 4, ..message },
            _ => unreachable!(),
        };
        let (position, ticket) = log.append(|journal| journal.append(&Record::Message(record)));
        let before = log.read(position).unwrap();
        log.committed(ticket).await.unwrap();
        let after = log.read(position).unwrap();
        assert_eq!(before, after);
        assert_eq!((after.sequence, after.due_ms, after.wire_delay), (5, 3, 4));
        assert_eq!((after.key.as_deref(), &after.body[..]), (Some("k"), &body[..]));
        let error = log.read(Position(position.0 + 8)).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotFound | Kind::Storage), "{error}");
        assert_eq!(log.read(Position(u64::MAX)).unwrap_err().kind(), Kind::NotFound);
    }
}

#[tokio::test]
async fn a_message_larger_than_a_segment() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let body = vec![9; 1 << 20];
    let mut positions = Vec::new();
    {
        let (log, _) = open(&small(), Arc::clone(&disk)).unwrap();
        for sequence in 0..3 {
            let room = log.admit(body.len() + 64).await.unwrap();
            let (position, ticket) = log.append(|journal| journal.append(&message(sequence, &body)));
            drop(room);
            log.committed(ticket).await.unwrap();
            positions.push(position);
        }
    }
    let (log, found) = open(&small(), disk).unwrap();
    assert_eq!(found.len(), 3);
    for position in positions {
        assert_eq!(log.read(position).unwrap().body.len(), body.len());
    }
}

#[tokio::test]
async fn room_that_is_given_back_lets_in_who_waits_for_it() {
    let (log, _) = open(&small(), Arc::new(MemoryDisk::default())).unwrap();
    let shared = &log.shared;
    let start = std::time::Instant::now();
    while shared.pending.lock().ready.is_empty() || !shared.has_reserve.load(Ordering::Relaxed) {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let capacity = shared.pending.lock().capacity() as usize;
    let all = log.admit((capacity - 4096) / 2).await.unwrap();
    let mut waiting = std::pin::pin!(log.admit(100));
    {
        // Nobody makes a segment before the room is there again.
        let _stock = shared.stock.lock();
        let waits = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(waits && shared.demand.load(Ordering::Relaxed) > 0);
        drop(all);
    }
    let admitted = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    drop(admitted.expect("admitted").unwrap());
    let start = std::time::Instant::now();
    while shared.demand.load(Ordering::Relaxed) > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody asks any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_written_all_the_same() {
    let scratch = Scratch::new();
    let (log, _) = open(&small(), scratch.disk()).unwrap();
    for sequence in 0..5 {
        let (_, ticket) = log.append(|journal| journal.append(&message(sequence, b"x")));
        let start = std::time::Instant::now();
        // Not `committed`, which would commit.
        while !log.shared.is_committed(ticket.0) {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test]
async fn durability_that_does_not_wait() {
    for durability in [Durability::Memory, Durability::Interval(Duration::from_millis(20))] {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let options = LogOptions { durability, ..small() };
        let mut random = seeded(8);
        let (log, _) = open(&options, Arc::clone(&disk)).unwrap();
        let written = write_some(&log, &mut random, 200, 2000).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        log.close().unwrap();
        drop(log);
        let (log, found) = open(&options, disk).unwrap();
        assert_eq!(found, written);
        assert_eq!(log.status().durability, durability);
        assert!(matches!(log.status().state, LogState::Serving));
    }
}

#[test]
fn keys_and_numbers_stay() {
    let scratch = Scratch::new();
    let (log, _) = open(&small(), scratch.disk()).unwrap();
    let key = log.code_key();
    let numbers = [log.new_topic(), log.new_topic()];
    assert_ne!(numbers[0], numbers[1]);
    let (_, ticket) = log.append(|journal| {
        journal.append(&Record::Topic {
            topic: numbers[1],
            mode: DeliveryMode::WorkQueue,
            next_sequence: 0,
            name: "t",
        })
    });
    let _ = ticket;
    log.close().unwrap();
    drop(log);
    let (log, _) = open(&small(), scratch.disk()).unwrap();
    assert_eq!(log.code_key(), key);
    assert!(log.new_topic() > numbers[1]);
    drop(log);
    // Without its file the key is another, and the log is read all the same.
    std::fs::remove_file(scratch.0.join("identity")).unwrap();
    let (log, found) = open(&small(), scratch.disk()).unwrap();
    assert_eq!(found.len(), 1);
    assert_ne!(log.code_key(), key);
}

#[test]
fn no_number_is_given_twice_when_the_power_fails() {
    let mut disk = FaultyDisk::default();
    let mut last = 0;
    for seed in 0..20 {
        let (log, _) = open(&small(), Arc::new(disk.clone())).unwrap();
        for _ in 0..40 {
            let number = log.new_topic();
            assert!(number > last, "{number} after {last}");
            last = number;
        }
        disk = disk.lose_power(seed);
    }
}

#[test]
fn a_folder_is_for_one_process_and_one_user() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let (log, _) = open(&small(), scratch.disk()).unwrap();
    assert_eq!(RealDisk::open(&scratch.0).unwrap_err().kind(), Kind::InUse);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&scratch.0).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert!(files >= 3);
    log.close().unwrap();
    assert!(RealDisk::open(&scratch.0).is_ok(), "a closed log lets its folder go");
}
