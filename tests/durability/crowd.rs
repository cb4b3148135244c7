//! Consumers that stand still, and consumers that come and go.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_tests::console;
use ceiba_tests::program::ceiba;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::{Folder, SECRET, Setting, freeze, resident, runtime, signal, turn};
use crate::crash::{SEGMENT, first_seed};
use crate::ledger::{Ledger, Whom};
use crate::load::{config, emptied, send, send_all};
use crate::raw::Wire;

const BODY: usize = 100_000;
const MESSAGES: usize = 2500;
/// Well below what is sent: 64 MiB of the log's latest batches, what is on its way, and what a broker has anyway.
const CAP: u64 = 176 << 20;

/// A process that is gone with its owner, also when it stands still.
struct Gone(Child);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn stopped_consumer() {
    let folder = Folder::new("stopped");
    let mut setting = Setting::new(&folder.path().join("data"), &["--delivery=publish_subscribe"]);
    let broker = setting.start().unwrap();
    let address = broker.address();
    let output = folder.path().join("lines");
    // A process that stands still from its first moment as a consumer.
    let mut stopped = Gone(
        Command::new(ceiba())
            .args(["receive", &format!("kapokmq://{address}/stopped"), "--count", &MESSAGES.to_string()])
            .env("CEIBA_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .spawn()
            .unwrap(),
    );
    while console::clients(address, SECRET, "consumers", "ConsumerId").await.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(50)).await;
    freeze(stopped.0.id());

    calls::consumer_open(Some("stopped-other"), config(address, "stopped")).await.unwrap();
    while console::clients(address, SECRET, "consumers", "ConsumerId").await.len() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(50)).await;
    calls::producer_open(Some("stopped-p"), config(address, "stopped"), None).await.unwrap();
    let sender = tokio::spawn(async {
        for from in (0..MESSAGES).step_by(100) {
            let body = |number| format!("{number} {}", "x".repeat(BODY));
            let bodies: Vec<String> = (from..from + 100).map(body).collect();
            send_all("stopped-p", &bodies, Duration::ZERO).await;
        }
    });
    let (mut came, mut most, begun) = (0, 0, Instant::now());
    while came < MESSAGES {
        let deliveries = calls::consumer_receive("stopped-other", 100, Some(Duration::from_secs(20))).await;
        let deliveries = deliveries.unwrap();
        assert!(!deliveries.is_empty(), "{came} of {MESSAGES} came to the other consumer");
        came += deliveries.len();
        let codes = deliveries.into_iter().map(|delivery| delivery.code).collect();
        calls::consumer_ack("stopped-other", codes).await.unwrap();
        most = most.max(resident(broker.pid()));
    }
    sender.await.unwrap();
    let took = begun.elapsed();
    most = most.max(resident(broker.pid()));
    eprintln!("one stopped, the other had {came} messages in {took:?}; the broker took {} MiB", most >> 20);
    assert!(most < CAP, "the broker takes {} MiB", most >> 20);
    assert_eq!(console::clients(address, SECRET, "consumers", "ConsumerId").await.len(), 2);

    // It goes on where it stood, and gets everything.
    signal(stopped.0.id(), "CONT");
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = stopped.0.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = stopped.0.kill();
        }
        most = most.max(resident(broker.pid()));
        sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
    let lines = std::fs::read_to_string(&output).unwrap();
    let mut numbers: Vec<usize> =
        lines.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MESSAGES), "the stopped consumer did not get each message once");
    assert!(most < CAP, "the broker takes {} MiB", most >> 20);
    emptied(address).await.unwrap();
    calls::producer_close("stopped-p", None).await.unwrap();
    calls::consumer_close("stopped-other", None).await.unwrap();
    broker.kill();
}

#[test]
fn a_consumer_that_stands_still_costs_no_memory_and_holds_nobody_up() {
    let _turn = turn();
    let runtime = runtime();
    runtime.block_on(stopped_consumer());
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Comes, takes some, acknowledges some, and goes: by a close, or without a word.
async fn passer_by(topic: String, address: std::net::SocketAddr, me: usize, seed: u64, ledger: Arc<Ledger>) {
    let mut random = StdRng::seed_from_u64(seed * 100 + me as u64);
    let until = Instant::now() + Duration::from_secs(4);
    let mut visit = 0;
    while Instant::now() < until {
        visit += 1;
        let id = format!("{topic}-{me}-{visit}");
        let stays = Duration::from_millis(random.random_range(1..150));
        if random.random_bool(0.5) {
            let mut wire = Wire::consumer(address, &topic, &id).await;
            let leaves = Instant::now() + stays;
            while let Some(push) = wire.push(leaves.saturating_duration_since(Instant::now())).await {
                let body = std::str::from_utf8(&push.body).unwrap().to_owned();
                ledger.came(me, &body);
                if random.random_bool(0.5) {
                    wire.ack(&push).await;
                    // If the broker does not read it before the connection ends, the message comes again.
                    ledger.acked(me, &body);
                }
            }
            continue;
        }
        calls::consumer_open(Some(&id), config(address, &topic)).await.unwrap();
        let most = random.random_range(1..200);
        for delivery in calls::consumer_receive(&id, most, Some(stays)).await.unwrap() {
            let body = std::str::from_utf8(delivery.message.body()).unwrap().to_owned();
            ledger.came(me, &body);
            if random.random_bool(0.5)
                && calls::consumer_ack(&id, vec![delivery.code]).await.unwrap()[0].is_ok()
            {
                ledger.acked(me, &body);
            }
        }
        calls::consumer_close(&id, Some(Duration::from_secs(5))).await.unwrap();
    }
}

async fn passers_by(seed: u64) {
    const PASSERS_BY: usize = 6;
    let folder = Folder::new("passers");
    let mut setting = Setting::new(&folder.path().join("data"), &[SEGMENT]);
    let broker = setting.start().unwrap();
    let address = broker.address();
    let topic = format!("passers-{seed}");
    let ledger = Arc::new(Ledger::new(Whom::One, PASSERS_BY + 1));
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    let producer = format!("{topic}-p");
    calls::producer_open(Some(&producer), config(address, &topic), None).await.unwrap();
    for lane in 0..32 {
        let random = StdRng::seed_from_u64(seed * 100 + 50 + lane as u64);
        senders.push(tokio::spawn(send(producer.clone(), lane, random, ledger.clone(), stop.clone())));
    }
    let passers: Vec<_> = (0..PASSERS_BY)
        .map(|me| tokio::spawn(passer_by(topic.clone(), address, me, seed, ledger.clone())))
        .collect();
    for passer in passers {
        passer.await.unwrap();
    }
    stop.store(true, Ordering::Release);
    for sender in senders {
        sender.await.unwrap();
    }
    calls::producer_close(&producer, None).await.unwrap();
    // The last one takes what is left; what it does not get, somebody's ack must have taken.
    let last = format!("{topic}-last");
    calls::consumer_open(Some(&last), config(address, &topic)).await.unwrap();
    let mut silent = Instant::now();
    while silent.elapsed() < Duration::from_millis(2500) {
        let deliveries = calls::consumer_receive(&last, 500, Some(Duration::from_millis(200))).await.unwrap();
        for delivery in deliveries {
            silent = Instant::now();
            let body = std::str::from_utf8(delivery.message.body()).unwrap().to_owned();
            ledger.came(PASSERS_BY, &body);
            if calls::consumer_ack(&last, vec![delivery.code]).await.unwrap()[0].is_ok() {
                ledger.acked(PASSERS_BY, &body);
            }
        }
    }
    let figures = ledger.close().unwrap_or_else(|wrong| panic!("CEIBA_CRASH_SEED={seed}: {wrong}"));
    emptied(address).await.unwrap();
    eprintln!("consumers that come and go: {figures:?}");
    assert!(figures.accepted > 500 && figures.unknown == 0, "{figures:?}");
    calls::consumer_close(&last, None).await.unwrap();
    broker.kill();
}

#[test]
fn consumers_that_come_and_go_lose_nothing() {
    let _turn = turn();
    let seed = first_seed();
    eprintln!("CEIBA_CRASH_SEED={seed} with consumers that come and go");
    let runtime = runtime();
    runtime.block_on(passers_by(seed));
    runtime.shutdown_timeout(Duration::from_secs(1));
}
