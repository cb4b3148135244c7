//! Segments go, what is alive stays.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::super::faulty::FaultyDisk;
use super::model::Model;
use super::*;

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_shrinks_and_keeps_what_is_alive() {
    let scratch = Scratch::new();
    let disk = scratch.disk();
    let model = Model::open(&small(), Arc::clone(&disk)).unwrap();
    let body = vec![5; 1000];
    // Every hundredth stays: 20 of 2,000, over some 30 segments.
    for sequence in 0..2000 {
        let ticket = model.send(sequence, &body);
        if sequence % 50 == 0 {
            model.log.committed(ticket).await.unwrap();
        }
        if sequence % 100 != 0 {
            let _ = model.ack(sequence);
        }
    }
    wait_until("few segments are left", || model.log.status().segments <= 5);
    assert!(*model.moved.lock() > 0);
    model.read_all();
    let expected = model.alive();
    assert_eq!(expected.len(), 20);
    model.log.close().unwrap();
    let files = disk.list().unwrap();
    assert!(files.len() < 16, "used again or removed: {files:?}");
    drop((model, disk));
    let model = Model::open(&small(), scratch.disk()).unwrap();
    assert_eq!(model.alive(), expected);
    assert!(model.topic.lock().is_some());
    model.read_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_the_cleaner_do_not_disturb_each_other() {
    let options = LogOptions { recent_bytes: 0, ..small() };
    let model = Model::open(&options, Arc::new(MemoryDisk::default())).unwrap();
    let reader = std::thread::spawn({
        let model = Arc::clone(&model);
        move || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(600) {
                model.read_all();
            }
        }
    });
    let start = Instant::now();
    let mut sequence = 0;
    while start.elapsed() < Duration::from_millis(600) || sequence < 500 {
        for _ in 0..20 {
            let ticket = model.send(sequence, &vec![sequence as u8; 700]);
            if sequence > 60 {
                let _ = model.ack(sequence - if sequence % 10 == 0 { 60 } else { 1 });
            }
            sequence += 1;
            if sequence % 20 == 0 {
                model.log.committed(ticket).await.unwrap();
            }
        }
    }
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_overlap_do_not_keep_the_cleaner_out() {
    let model = Model::open(&small(), Arc::new(MemoryDisk::default())).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (1..5)
        .map(|number| {
            let (model, stop) = (Arc::clone(&model), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    let reading = model.log.reading();
                    std::thread::sleep(Duration::from_millis(20 + number));
                    drop(reading);
                }
            })
        })
        .collect();
    for sequence in 0..300 {
        let ticket = model.send(sequence, &[3; 1000]);
        let _ = model.ack(sequence);
        model.log.committed(ticket).await.unwrap();
    }
    wait_until("one segment is left", || model.log.status().segments == 1);
    stop.store(true, SeqCst);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn nothing_of_an_earlier_life_of_a_file_comes_back() {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = LogOptions { segment_bytes: 32 << 10, ..small() };
    let mut sequence = 0;
    for round in 0..12 {
        let model = Model::open(&options, scratch.disk()).unwrap();
        assert_eq!(model.alive().len(), usize::from(round > 0), "round {round}");
        for _ in 0..200 {
            let ticket = model.replace(sequence, &[round; 400]);
            runtime.block_on(model.log.committed(ticket)).unwrap();
            sequence += 1;
        }
        if round % 2 == 0 {
            model.log.close().unwrap();
        } else {
            model.log.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_put_away_keeps_the_later_ones() {
    let disk = FaultyDisk::default();
    let model = Model::open(&small(), Arc::new(disk.clone())).unwrap();
    let mut sequence = 0;
    let mut churn = async |segments: u64| {
        for _ in 0..segments * 64 {
            let ticket = model.replace(sequence, &[3; 1000]);
            model.log.committed(ticket).await.unwrap();
            sequence += 1;
        }
    };
    churn(2).await;
    disk.faults.stuck.store(3, SeqCst);
    churn(3).await;
    wait_until("it is tried again", || disk.faults.stuck.load(SeqCst) == 0);
    // It was in the way for as long as that took, and is not any more.
    churn(3).await;
    wait_until("few segments are left", || model.log.status().segments <= 2);
    let expected = model.alive();
    model.log.abort();
    drop(model);
    assert_eq!(Model::open(&small(), Arc::new(disk)).unwrap().alive(), expected);
}
