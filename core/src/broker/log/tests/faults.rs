//! Disks that fail: nothing is called safe that may not be, and what is only used up is waited for.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::super::faulty::{FaultyDisk, HELD, HOLD};
use super::super::{Durability, LogState};
use super::model::Model;
use super::*;
use crate::error::Kind;

async fn send(model: &Model, sequence: u64, body: &[u8]) -> Result<()> {
    let room = model.log.admit(body.len() + 64).await?;
    let ticket = model.send(sequence, body);
    drop(room);
    model.log.committed(ticket).await
}

/// How often the disk was synced, once the segments made ahead are ready: they are synced too.
async fn settled_syncs(disk: &FaultyDisk) -> u64 {
    let start = Instant::now();
    let mut syncs = disk.faults.syncs.load(SeqCst);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = disk.faults.syncs.load(SeqCst);
        if std::mem::replace(&mut syncs, now) == now {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{now} syncs, and no end");
    }
}

#[tokio::test]
async fn an_error_of_a_sync_or_write_ends_all_acks() {
    for fail_write in [false, true] {
        let disk = FaultyDisk::default();
        let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
        for sequence in 0..10 {
            send(&model, sequence, b"before").await.unwrap();
        }
        let fault = if fail_write { &disk.faults.write } else { &disk.faults.sync };
        fault.store(true, SeqCst);
        let error = send(&model, 10, b"lost").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Storage);
        assert!(!error.retryable());
        assert!(error.text().contains(if fail_write { "cannot write" } else { "cannot sync" }), "{error}");
        // The disk is well again, as it would pretend to be: the log takes nothing all the same.
        fault.store(false, SeqCst);
        let syncs = settled_syncs(&disk).await;
        assert_eq!(send(&model, 11, b"after").await.unwrap_err().kind(), Kind::Storage);
        let ticket = model.ack(3).unwrap();
        assert_eq!(model.log.committed(ticket).await.unwrap_err().kind(), Kind::Storage);
        assert!(matches!(model.log.status().state, LogState::Failed(_)));
        assert_eq!(disk.faults.syncs.load(SeqCst), syncs, "nothing is tried again");
        assert_eq!(model.log.close().unwrap_err().kind(), Kind::Storage);
        drop(model);
        let model = Model::open(&small(), Arc::new(disk)).unwrap();
        for sequence in 0..10 {
            assert_eq!(model.alive().get(&sequence).map(Vec::as_slice), Some(&b"before"[..]));
        }
        assert!(!model.alive().contains_key(&11));
    }
}

#[tokio::test]
async fn an_error_of_a_sync_in_the_background_is_told_too() {
    let disk = FaultyDisk::default();
    let durability = Durability::Interval(Duration::from_millis(10));
    let model = Model::open(&LogOptions { durability, ..small() }, Arc::new(disk.clone())).unwrap();
    send(&model, 0, b"x").await.unwrap();
    disk.faults.sync.store(true, SeqCst);
    let start = Instant::now();
    while !matches!(model.log.status().state, LogState::Failed(_)) {
        assert!(start.elapsed() < Duration::from_secs(10));
        let _ = model.send(1, b"x");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(send(&model, 2, b"x").await.unwrap_err().kind(), Kind::Storage);
}

#[tokio::test]
async fn a_log_that_failed_has_no_sync_that_is_due() {
    let disk = FaultyDisk::default();
    let durability = Durability::Interval(Duration::from_secs(3600));
    let (log, _) = open(&LogOptions { durability, ..small() }, Arc::new(disk.clone())).unwrap();
    let (_, ticket) = log.append(|journal| journal.append(&message(1, b"x")));
    log.committed(ticket).await.unwrap();
    assert!(log.shared.sync_due(&log.shared.writer.lock()).is_some(), "written and not synced");
    disk.faults.write.store(true, SeqCst);
    let (_, ticket) = log.append(|journal| journal.append(&message(2, b"x")));
    assert_eq!(log.committed(ticket).await.unwrap_err().kind(), Kind::Storage);
    assert!(log.shared.sync_due(&log.shared.writer.lock()).is_none());
}

#[tokio::test]
async fn a_commit_that_must_sync_does_not_trust_a_sync_that_is_under_way() {
    let disk = FaultyDisk::default();
    let durability = Durability::Interval(Duration::from_millis(10));
    let (log, _) = open(&LogOptions { durability, ..small() }, Arc::new(disk.clone())).unwrap();
    // The stock thread syncs too, until there are enough segments.
    let start = Instant::now();
    while log.shared.pending.lock().ready.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    disk.faults.hold.store(HOLD, SeqCst);
    let (_, ticket) = log.append(|journal| journal.append(&message(1, b"moved")));
    log.committed(ticket).await.unwrap();
    while disk.faults.hold.load(SeqCst) != HELD {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let committed = log.shared.commit_now();
    let cuts: Vec<_> = (0..20).map(|seed| disk.lose_power(seed)).collect();
    disk.faults.hold.store(0, SeqCst);
    committed.unwrap();
    for cut in cuts {
        assert_eq!(open(&small(), Arc::new(cut)).unwrap().1.len(), 1);
    }
}

/// Sends from this number on until messages are refused; the number of the first that was.
async fn send_until_refused(model: &Model, first: u64) -> u64 {
    let body = vec![1; 4000];
    for sequence in first..10_000 {
        let sent = tokio::time::timeout(Duration::from_secs(10), send(model, sequence, &body)).await;
        if let Err(error) = sent.expect("refused rather than kept waiting") {
            assert_eq!(error.kind(), Kind::Storage);
            assert!(error.retryable(), "{error}");
            return sequence;
        }
    }
    panic!("nothing was refused");
}

async fn recovers(model: &Model, first: u64) {
    let start = Instant::now();
    let mut sequence = first;
    while let Err(error) = send(model, sequence, b"again").await {
        assert!(error.retryable(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        sequence += 1;
    }
    while !matches!(model.log.status().state, LogState::Serving) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", model.log.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_messages_and_takes_acks() {
    let disk = FaultyDisk::default();
    disk.faults.room.store(600 << 10, SeqCst);
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    let refused = send_until_refused(&model, 0).await;
    assert!(refused > 20, "{refused}");
    let LogState::Short(error) = model.log.status().state else { panic!("{:?}", model.log.status()) };
    assert!(error.text().contains("full"), "{error}");
    model.read_all();
    // Acks of all but one, which also lets the log be cleaned.
    for sequence in 1..refused {
        let ticket = model.ack(sequence).unwrap();
        let committed = tokio::time::timeout(Duration::from_secs(10), model.log.committed(ticket)).await;
        committed.expect("acks go on").unwrap();
    }
    recovers(&model, refused + 1).await;
    // And full again, until somebody makes room.
    let body = vec![1; 4000];
    let start = Instant::now();
    let mut sequence = 20_000;
    while send(&model, sequence, &body).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20));
        sequence += 1;
    }
    disk.faults.room.store(0, SeqCst);
    recovers(&model, sequence + 1).await;
    let expected = model.alive();
    model.log.close().unwrap();
    drop(model);
    assert_eq!(Model::open(&small(), Arc::new(disk)).unwrap().alive(), expected);
}

#[tokio::test]
async fn what_no_room_is_left_for_is_not_moved() {
    let disk = FaultyDisk::default();
    disk.faults.room.store(1200 << 10, SeqCst);
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    // A segment of its own, which is soon the oldest with anything alive.
    let large = vec![1; 300_000];
    send(&model, 10_000, &large).await.unwrap();
    let mut refused = send_until_refused(&model, 0).await;
    let start = Instant::now();
    while refused < 80 {
        // What is being made ahead took the room, and gives it back: 80 do not go into the segment of the large one.
        assert!(start.elapsed() < Duration::from_secs(10), "{refused}, {:?}", model.log.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
        refused = send_until_refused(&model, refused).await;
    }
    disk.fill_up();
    for sequence in 0..refused {
        let ticket = model.ack(sequence).unwrap();
        let committed = tokio::time::timeout(Duration::from_secs(10), model.log.committed(ticket)).await;
        committed.expect("acks go on").unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Long enough for the cleaner to look at it again.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!model.log.shared.holding.load(SeqCst));
    }
    assert!(matches!(model.log.status().state, LogState::Short(_)), "{:?}", model.log.status());
    assert_eq!(model.alive().get(&10_000), Some(&large));
    model.read_all();
    // With room it is moved like any other.
    disk.faults.room.store(0, SeqCst);
    recovers(&model, 20_000).await;
    let start = Instant::now();
    while *model.moved.lock() == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", model.log.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    model.read_all();
}

#[tokio::test]
async fn nothing_is_let_in_behind_what_found_no_room() {
    let disk = FaultyDisk::default();
    disk.faults.bare.store(true, SeqCst);
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    // Much is asked for at once: segments are made that there is no room behind.
    let mut rooms = Vec::new();
    for _ in 0..8 {
        rooms.push(model.log.admit(25_000).await.unwrap());
    }
    disk.fill_up();
    drop(rooms);
    let mut held = None;
    for sequence in 0..100 {
        let ticket = model.send(sequence, &[1; 4000]);
        let committed = model.log.committed(ticket);
        if tokio::time::timeout(Duration::from_millis(500), committed).await.is_err() {
            held = Some((sequence, ticket));
            break;
        }
    }
    let (sequence, ticket) = held.expect("the disk is full");
    assert!(model.log.shared.pending.lock().capacity() > 3 * (64 << 10), "as far as the log knows");
    for _ in 0..50 {
        let asked = tokio::time::timeout(Duration::from_secs(5), model.log.admit(100)).await;
        let error = asked.expect("refused rather than kept waiting").map(drop).unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Storage, true));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(model.log.status().state, LogState::Short(_)));
    disk.faults.room.store(0, SeqCst);
    let committed = tokio::time::timeout(Duration::from_secs(10), model.log.committed(ticket)).await;
    committed.expect("it was only held").unwrap();
    recovers(&model, sequence + 1).await;
}

#[tokio::test]
async fn a_log_starts_on_a_full_disk() {
    let disk = FaultyDisk::default();
    disk.faults.room.store(500 << 10, SeqCst);
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    let refused = send_until_refused(&model, 0).await;
    let expected = model.alive();
    drop(model);
    let model = Model::open(&small(), Arc::new(disk)).unwrap();
    assert!(expected.keys().all(|sequence| model.alive().contains_key(sequence) || *sequence == refused));
    for sequence in 0..refused {
        let ticket = model.ack(sequence).unwrap();
        model.log.committed(ticket).await.unwrap();
    }
    recovers(&model, refused + 1).await;
}

#[tokio::test]
async fn without_file_handles_messages_are_refused_until_there_are_some() {
    let disk = FaultyDisk::default();
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    disk.faults.handles.store(true, SeqCst);
    let refused = send_until_refused(&model, 0).await;
    let LogState::Short(error) = model.log.status().state else { panic!("{:?}", model.log.status()) };
    assert!(error.text().contains("file"), "{error}");
    for sequence in 0..refused.min(100) {
        let ticket = model.ack(sequence).unwrap();
        tokio::time::timeout(Duration::from_secs(10), model.log.committed(ticket)).await.unwrap().unwrap();
    }
    disk.faults.handles.store(false, SeqCst);
    recovers(&model, refused + 1).await;
}

#[tokio::test]
async fn short_writes_and_reads_are_gone_on_with() {
    let disk = FaultyDisk::default();
    disk.faults.short.store(true, SeqCst);
    let mut random = seeded(21);
    let (log, _) = open(&small(), Arc::new(disk.clone())).unwrap();
    let written = write_some(&log, &mut random, 60, 3000).await;
    log.close().unwrap();
    drop(log);
    let (_, found) = open(&small(), Arc::new(disk)).unwrap();
    assert_eq!(found, written);
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_named() {
    let disk = FaultyDisk::default();
    let options = LogOptions { recent_bytes: 0, ..small() };
    let (log, _) = open(&options, Arc::new(disk.clone())).unwrap();
    let (position, ticket) = log.append(|journal| journal.append(&message(1, b"x")));
    log.committed(ticket).await.unwrap();
    disk.faults.read.store(true, SeqCst);
    let error = log.read(position).unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.text().contains(".log"), "{error}");
    disk.faults.read.store(false, SeqCst);
    assert_eq!(&log.read(position).unwrap().body[..], b"x");
    drop(log);
    disk.faults.read.store(true, SeqCst);
    assert_eq!(open(&options, Arc::new(disk)).unwrap_err().kind(), Kind::Storage);
}
