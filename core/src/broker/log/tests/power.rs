//! Power cuts at random points, of a log that rolls over and is cleaned meanwhile, some of them while the log
//! starts again. What was committed is there, what was not may be, nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::faulty::FaultyDisk;
use super::model::Model;
use super::*;

/// What a client knows.
#[derive(Debug, Default)]
struct Known {
    sent: BTreeMap<u64, Vec<u8>>,
    /// Sends that were confirmed.
    confirmed: BTreeSet<u64>,
    /// Acks that were tried, and those that were confirmed.
    acked: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

impl Known {
    /// What is wrong with what a start found.
    fn fault(&self, found: &BTreeMap<u64, Vec<u8>>) -> Option<String> {
        for (sequence, body) in found {
            if self.sent.get(sequence) != Some(body) {
                return Some(format!("{sequence} was never sent like this"));
            }
            if self.done.contains(sequence) {
                return Some(format!("{sequence} is back after its ack"));
            }
        }
        let lost = self
            .confirmed
            .iter()
            .find(|sequence| !found.contains_key(sequence) && !self.acked.contains(sequence));
        lost.map(|sequence| format!("{sequence} is lost"))
    }
}

async fn client(model: Arc<Model>, known: Arc<Mutex<Known>>, next: Arc<AtomicU64>, seed: u64) {
    let mut random = seeded(seed);
    let mut mine = Vec::new();
    loop {
        let few = random.random_range(1..6);
        let mut sequences = Vec::new();
        let mut last = None;
        for _ in 0..few {
            let sequence = next.fetch_add(1, Ordering::SeqCst);
            let mut body = vec![0; random.random_range(0..2500)];
            random.fill(&mut body[..]);
            known.lock().sent.insert(sequence, body.clone());
            last = Some(model.send(sequence, &body));
            sequences.push(sequence);
        }
        if let Some(ticket) = last
            && model.log.committed(ticket).await.is_ok()
        {
            known.lock().confirmed.extend(&sequences);
        }
        mine.extend(sequences);
        while mine.len() > 8 {
            let sequence = mine.swap_remove(random.random_range(0..mine.len()));
            known.lock().acked.insert(sequence);
            if let Some(ticket) = model.ack(sequence)
                && random.random()
                && model.log.committed(ticket).await.is_ok()
            {
                known.lock().done.insert(sequence);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Runs until the power fails, some times over; what was wrong with any start.
fn run(seed: u64, cuts: usize, lying: bool) -> Option<String> {
    let mut random = seeded(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let options = LogOptions { segment_bytes: 32 << 10, recent_bytes: 8 << 10, ..LogOptions::default() };
    let mut disk = FaultyDisk::default();
    let mut known = Known::default();
    let next = Arc::new(AtomicU64::new(1));
    for cut in 0..cuts {
        disk.faults.lying.store(lying, Ordering::SeqCst);
        let model = match Model::open(&options, Arc::new(disk.clone())) {
            Ok(model) => model,
            Err(error) => return Some(format!("cut {cut}: {error}")),
        };
        let found = model.alive();
        if let Some(fault) = known.fault(&found) {
            return Some(format!("cut {cut}: {fault}"));
        }
        // Whatever it is, it is the same from here on.
        known.confirmed = found.keys().copied().collect();
        known.done.extend(known.sent.keys().filter(|sequence| !found.contains_key(sequence)));
        known.acked = known.done.clone();
        let shared = Arc::new(Mutex::new(std::mem::take(&mut known)));
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (model, shared, next) = (Arc::clone(&model), Arc::clone(&shared), Arc::clone(&next));
                runtime.spawn(client(model, shared, next, random.random()))
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_micros(random.random_range(0..25_000)));
        // What is known is taken before the power fails; what is sent and acked until after.
        let before = shared.lock();
        let (confirmed, done) = (before.confirmed.clone(), before.done.clone());
        drop(before);
        let after = disk.lose_power(random.random());
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        drop(model);
        let after_all = shared.lock();
        known = Known { sent: after_all.sent.clone(), acked: after_all.acked.clone(), confirmed, done };
        disk = after;
    }
    None
}

#[test]
fn what_was_committed_outlives_the_power() {
    let failed = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= 24 {
                        break;
                    }
                    if let Some(fault) = run(seed, 6, false) {
                        failed.store(true, Ordering::SeqCst);
                        panic!("seed {seed}, {fault}");
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst));
}

/// The test above sees a sync that is left out.
#[test]
fn a_disk_that_lies_is_found_out() {
    assert!((0..10).any(|seed| run(seed, 4, true).is_some()));
}
