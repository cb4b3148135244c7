//! The program `ceiba broker` is killed and started again while 8 producers send.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::completion::CompletionQueue;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Result};
use ceiba_core::message::Message;
use ceiba_tests::frames::Record;
use ceiba_tests::program::BrokerProcess;
use ceiba_tests::proxy::Proxy;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::ledger::{Count, Told, Truth, check};

const SECRET: &str = "secret of the restarts";
const PRODUCERS: usize = 8;
const LANES: usize = 16;
const WINDOW: usize = 64;
/// How much later than its deadline a call may end on a loaded machine.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Send,
    Submit,
}

struct Round {
    name: String,
    random: StdRng,
    deadline: Duration,
    stop: Arc<AtomicBool>,
    back: Arc<Back>,
}

/// Which producers had a receipt of the new broker.
#[derive(Default)]
struct Back {
    up_again: OnceLock<Instant>,
    seen: [AtomicBool; PRODUCERS],
}

impl Back {
    fn note(&self, call: &Told) {
        let after = self.up_again.get().is_some_and(|up_again| call.started > *up_again);
        if after && call.result.is_ok() {
            self.seen[call.producer].store(true, Ordering::Release);
        }
    }

    fn all(&self) -> bool {
        self.seen.iter().all(|seen| seen.load(Ordering::Acquire))
    }
}

fn random(round: &mut Round, from: u64, to: u64) -> Duration {
    Duration::from_millis(round.random.random_range(from..to))
}

fn config(address: std::net::SocketAddr, deadline: Duration, window: bool) -> ClientConfig {
    let mut section = json!({
        "type": "kapokmq",
        "url": format!("ws://{address}"),
        "topic": "restarts",
        "secret_key": SECRET,
        "reconnect_max": "300ms",
    });
    if window {
        section["window"] = WINDOW.into();
    }
    ClientConfig::from_json(json!({"deadline": format!("{}ms", deadline.as_millis()), "provider": section}))
        .unwrap()
}

async fn start(listen: String) -> BrokerProcess {
    tokio::task::spawn_blocking(move || BrokerProcess::start(&listen, SECRET)).await.unwrap()
}

// One round: start, kill, start again, with the producers sending all the time.
async fn round(seed: u64, through: Through) -> Count {
    let mut round = Round {
        name: format!("{through:?}-{seed}"),
        random: StdRng::seed_from_u64(seed),
        deadline: Duration::ZERO,
        stop: Arc::default(),
        back: Arc::default(),
    };
    // Every other round the broker is away for longer than a call may take.
    let long = seed % 2 == 1;
    round.deadline = Duration::from_millis(if long { 700 } else { 5000 });
    let away = if long { random(&mut round, 800, 1500) } else { random(&mut round, 0, 400) };

    let broker = start("127.0.0.1:0".to_owned()).await;
    let address = broker.address();
    let (record, tap) = Record::new();
    let proxy = Proxy::start(address, Some(tap)).await;

    let consumer =
        calls::consumer_open(Some(&round.name), config(address, round.deadline, false)).await.unwrap();
    let collected = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn(collect(consumer.clone(), collected.clone()));
    let mut queues = Vec::new();
    for producer in 0..PRODUCERS {
        let queue = Arc::new(CompletionQueue::new(512).unwrap());
        let config = config(proxy.address(), round.deadline, true);
        calls::producer_open(Some(&id(&round.name, producer)), config, Some(queue.clone())).await.unwrap();
        queues.push(queue);
    }
    let senders: Vec<_> = (0..PRODUCERS)
        .map(|producer| match through {
            Through::Send => {
                let (stop, back) = (round.stop.clone(), round.back.clone());
                tokio::spawn(send(id(&round.name, producer), producer, round.deadline, stop, back))
            }
            Through::Submit => {
                let (id, queue) = (id(&round.name, producer), queues[producer].clone());
                let (stop, back) = (round.stop.clone(), round.back.clone());
                let longest = round.deadline + GRACE;
                tokio::task::spawn_blocking(move || submit(&id, producer, &queue, longest, &stop, &back))
            }
        })
        .collect();

    sleep(random(&mut round, 100, 600)).await;
    broker.kill();
    sleep(away).await;
    let broker = start(address.to_string()).await;
    let up_again = Instant::now();
    let _ = round.back.up_again.set(up_again);
    // Until the slowest has reconnected, and calls after that; who is still away then fails the round below.
    while !round.back.all() && up_again.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(random(&mut round, 300, 800)).await;
    round.stop.store(true, Ordering::Release);

    let mut told: Vec<Told> = Vec::new();
    for sender in join_all(senders).await {
        told.extend(sender.unwrap());
    }
    for producer in 0..PRODUCERS {
        calls::producer_close(&id(&round.name, producer), Some(Duration::from_secs(5))).await.unwrap();
    }
    collected.store(true, Ordering::Release);
    let came = collector.await.unwrap();
    calls::consumer_close(&consumer, None).await.unwrap();
    broker.kill();

    let truth = Truth {
        record: &record,
        came: &came,
        up_again,
        longest: round.deadline + GRACE,
        on_the_way_at_most: PRODUCERS * WINDOW,
    };
    let count = check(&told, &truth);
    for producer in 0..PRODUCERS {
        let back = told
            .iter()
            .any(|call| call.producer == producer && call.started > up_again && call.result.is_ok());
        assert!(back, "producer {producer} did not come back");
    }
    if long {
        assert!(count.not_sent > 0, "the broker was away for {away:?} and nothing timed out");
    }
    count
}

fn id(round: &str, producer: usize) -> String {
    format!("{round}-{producer}")
}

// All bodies that come, until there is silence after the end.
async fn collect(consumer: Arc<str>, end: Arc<AtomicBool>) -> Vec<String> {
    let mut came = Vec::new();
    loop {
        let ending = end.load(Ordering::Acquire);
        let deliveries =
            calls::consumer_receive(&consumer, 1000, Some(Duration::from_millis(1500))).await.unwrap();
        if deliveries.is_empty() {
            let state = calls::consumer_status(&consumer).unwrap()["state"].clone();
            assert!(!ending || state == "connected", "the consumer did not come back: {state}");
            if ending {
                return came;
            }
        }
        let codes = deliveries.iter().map(|delivery| delivery.code.clone()).collect();
        for result in calls::consumer_ack(&consumer, codes).await.unwrap() {
            // Nobody is there to take the ack while the broker is away.
            assert!(result.is_ok() || away(&result), "{result:?}");
        }
        came.extend(
            deliveries.iter().map(|delivery| String::from_utf8_lossy(delivery.message.body()).into_owned()),
        );
    }
}

fn away(result: &Result<()>) -> bool {
    result.as_ref().is_err_and(|error| matches!(error.kind(), Kind::Timeout | Kind::Unavailable))
}

async fn send(
    id: String,
    producer: usize,
    deadline: Duration,
    stop: Arc<AtomicBool>,
    back: Arc<Back>,
) -> Vec<Told> {
    let lanes = (0..LANES).map(|lane| {
        let (id, stop, back) = (id.clone(), stop.clone(), back.clone());
        async move {
            let mut told = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let body = format!("{id}/{lane}/{number}");
                let started = Instant::now();
                let call = calls::producer_send(&id, Message::new(body.clone()), Some(deadline));
                let result = tokio::time::timeout(deadline + GRACE, call)
                    .await
                    .unwrap_or_else(|_| panic!("{body} hangs"));
                let call = Told { producer, body, started, ended: Instant::now(), result };
                back.note(&call);
                told.push(call);
            }
            told
        }
    });
    join_all(lanes).await.into_iter().flatten().collect()
}

fn submit(
    id: &str,
    producer: usize,
    queue: &CompletionQueue,
    longest: Duration,
    stop: &AtomicBool,
    back: &Back,
) -> Vec<Told> {
    let body = |token: u64| format!("{id}/{token}");
    let mut accepted: HashMap<u64, Instant> = HashMap::new();
    let mut told = Vec::new();
    let mut next = 0u64;
    let mut taken = Vec::new();
    loop {
        let stopped = stop.load(Ordering::Acquire);
        if stopped && accepted.is_empty() {
            break;
        }
        for _ in 0..if stopped { 0 } else { 20 } {
            match calls::producer_submit(id, next, body(next).as_bytes(), Duration::ZERO) {
                Ok(()) => {
                    accepted.insert(next, Instant::now());
                    next += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::QueueFull, "{error}");
                    break;
                }
            }
        }
        queue.wait(usize::MAX, Some(Duration::from_millis(2)), &mut taken);
        let now = Instant::now();
        for completion in taken.drain(..) {
            let token = completion.token;
            let started =
                accepted.remove(&token).unwrap_or_else(|| panic!("token {token} completed once too often"));
            let call = Told { producer, body: body(token), started, ended: now, result: completion.result };
            back.note(&call);
            told.push(call);
        }
        if let Some((token, since)) = accepted.iter().find(|(_, since)| since.elapsed() > longest) {
            panic!("token {token} hangs for {:?}", since.elapsed());
        }
    }
    assert!(queue.is_empty());
    told
}

fn rounds(through: Through) {
    // A round's seed is shown, and CEIBA_FAULT_SEED starts there; CEIBA_FAULT_ROUNDS asks for more.
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("CEIBA_FAULT_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000) * 2);
    let rounds = number("CEIBA_FAULT_ROUNDS").unwrap_or(4);
    // Built before the clock of a round runs.
    ceiba_tests::program::ceiba();
    for seed in first..first + rounds {
        eprintln!("CEIBA_FAULT_SEED={seed} through {through:?} begins");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started = std::time::Instant::now();
        let count = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), round(seed, through))
                .await
                .expect("the round hangs")
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        eprintln!("CEIBA_FAULT_SEED={seed} through {through:?}: {count:?} in {:?}", started.elapsed());
        assert!(count.receipts > 100, "{count:?}");
    }
}

#[test]
fn every_send_ends_rightly_when_the_broker_is_killed() {
    rounds(Through::Send);
}

#[test]
fn every_submit_completes_once_when_the_broker_is_killed() {
    rounds(Through::Submit);
}
