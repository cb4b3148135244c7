//! Producers and consumers of one run, which go on while the broker goes and comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::message::Message;
use ceiba_tests::console;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::SECRET;
use crate::ledger::{Ledger, Whom};

const PRODUCERS: usize = 3;
const LANES: usize = 24;
pub(crate) const CONSUMERS: usize = 3;
/// How long a send may take; the broker is away for less.
const DEADLINE: Duration = Duration::from_secs(20);

/// The config of a client that is back soon after the broker is.
pub(crate) fn config(address: SocketAddr, topic: &str) -> ClientConfig {
    ClientConfig::from_json(json!({
        "deadline": format!("{}s", DEADLINE.as_secs()),
        "provider": {
            "type": "kapokmq",
            "url": format!("ws://{address}"),
            "topic": topic,
            "secret_key": SECRET,
            "reconnect_base": "10ms",
            "reconnect_max": "50ms",
        },
    }))
    .unwrap()
}

/// What is running.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
    producers: Vec<String>,
}

impl Load {
    /// Starts it. The consumers are there before the first message is sent.
    pub(crate) async fn start(name: &str, seed: u64, address: SocketAddr, whom: Whom) -> Load {
        let mut load = Load {
            ledger: Arc::new(Ledger::new(whom, CONSUMERS)),
            stop: Arc::default(),
            draining: Arc::default(),
            done: Arc::default(),
            senders: Vec::new(),
            receivers: Vec::new(),
            producers: Vec::new(),
        };
        for consumer in 0..CONSUMERS {
            let id = format!("{name}-c{consumer}");
            calls::consumer_open(Some(&id), config(address, name)).await.unwrap();
            let random = StdRng::seed_from_u64(seed * 1000 + consumer as u64);
            let (ledger, draining, done) = (load.ledger.clone(), load.draining.clone(), load.done.clone());
            load.receivers.push(tokio::spawn(receive(id, consumer, random, ledger, draining, done)));
        }
        // An open returns with the login; that the broker counts it as a consumer takes a moment more.
        while console::clients(address, SECRET, "consumers", "ConsumerId").await.len() < CONSUMERS {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(20)).await;
        for producer in 0..PRODUCERS {
            let id = format!("{name}-p{producer}");
            calls::producer_open(Some(&id), config(address, name), None).await.unwrap();
            for lane in 0..LANES {
                let random = StdRng::seed_from_u64(seed * 1000 + (100 + producer * LANES + lane) as u64);
                let (ledger, stop) = (load.ledger.clone(), load.stop.clone());
                load.senders.push(tokio::spawn(send(id.clone(), lane, random, ledger, stop)));
            }
            load.producers.push(id);
        }
        load
    }

    /// Sends no more, and acknowledges everything from now on. Returns when every send has ended.
    pub(crate) async fn stop_sending(&mut self) {
        self.stop.store(true, Ordering::Release);
        for sender in std::mem::take(&mut self.senders) {
            sender.await.unwrap();
        }
        assert_eq!(self.ledger.under_way(), 0);
        for id in &self.producers {
            calls::producer_close(id, Some(Duration::from_secs(5))).await.unwrap();
        }
        self.draining.store(true, Ordering::Release);
    }

    /// Waits until all that was accepted came and was acknowledged, or nothing has come for so long.
    pub(crate) async fn drain(&self, patience: Duration) {
        let mut last = (self.ledger.deliveries(), Instant::now());
        while self.ledger.missing().0 > 0 {
            let deliveries = self.ledger.deliveries();
            if deliveries != last.0 {
                last = (deliveries, Instant::now());
            }
            if last.1.elapsed() > patience {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the consumers.
    pub(crate) async fn end(self) {
        self.done.store(true, Ordering::Release);
        for receiver in self.receivers {
            receiver.await.unwrap();
        }
    }
}

/// Sends one message after the other and notes what becomes of each.
pub(crate) async fn send(
    id: String,
    lane: usize,
    mut random: StdRng,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
) {
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        // Most are small; some are a good part of a segment, and some larger than one.
        let filler = match random.random_range(0..2000) {
            0 => random.random_range(270_000..400_000),
            1..10 => random.random_range(20_000..200_000),
            _ => random.random_range(0..600),
        };
        let delay = match random.random_range(0..100) {
            0..4 => Duration::from_secs(1),
            4..6 => Duration::from_secs(2),
            _ => Duration::ZERO,
        };
        let sign = char::from(random.random_range(b'a'..=b'z'));
        let body = format!("{id}/{lane}/{number}|{}", sign.to_string().repeat(filler));
        ledger.begins(&body, delay);
        let message = Message::new(body.clone()).with_delay(delay);
        let result = calls::producer_send(&id, message, Some(DEADLINE)).await;
        ledger.ends(&body, result.as_ref().err());
    }
}

async fn receive(
    id: String,
    consumer: usize,
    mut random: StdRng,
    ledger: Arc<Ledger>,
    draining: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
) {
    while !done.load(Ordering::Acquire) {
        let most = random.random_range(1..300);
        let deliveries = calls::consumer_receive(&id, most, Some(Duration::from_millis(100))).await.unwrap();
        let mut acks = Vec::new();
        for delivery in &deliveries {
            let body = std::str::from_utf8(delivery.message.body()).unwrap();
            ledger.came(consumer, body);
            // What is not acknowledged has to come again.
            if draining.load(Ordering::Acquire) || random.random_range(0..100) > 2 {
                acks.push(delivery);
            }
        }
        let codes = acks.iter().map(|delivery| delivery.code.clone()).collect();
        let results = calls::consumer_ack(&id, codes).await.unwrap();
        for (delivery, result) in acks.iter().zip(results) {
            if result.is_ok() {
                ledger.acked(consumer, std::str::from_utf8(delivery.message.body()).unwrap());
            }
        }
    }
    calls::consumer_close(&id, Some(Duration::from_secs(5))).await.unwrap();
}

/// Messages that the broker still has: due, and delayed.
pub(crate) async fn left(address: SocketAddr) -> (u64, u64) {
    let counts = console::post(address, SECRET, "/Console/CountMessage").await;
    let count = |name: &str| counts["data"][name].as_u64().unwrap();
    (count("unconsumed"), count("delay"))
}

/// Waits until the broker has nothing left.
pub(crate) async fn emptied(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let left = left(address).await;
        if left == (0, 0) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the broker still has {left:?} messages, due and delayed"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sends bodies through one producer, all at once; each must be accepted.
pub(crate) async fn send_all(id: &str, bodies: &[String], delay: Duration) {
    for some in bodies.chunks(200) {
        let sends = some.iter().map(|body| {
            calls::producer_send(id, Message::new(body.clone()).with_delay(delay), Some(DEADLINE))
        });
        for result in join_all(sends).await {
            result.unwrap();
        }
    }
}
