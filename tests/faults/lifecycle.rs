//! Opening, closing and shutting down from many threads at once. The registry is the process's own, so these run
//! one at a time, in a program of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::calls::{self, ShutdownReport};
use ceiba_core::completion::CompletionQueue;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::message::Message;
use ceiba_core::runtime::{self, block_on};
use ceiba_core::secret::Secret;
use ceiba_tests::console::clients;
use ceiba_tests::proxy::Proxy;
use serde_json::json;

const SECRET: &str = "secret of the lifecycle";
const GRACE: Duration = Duration::from_secs(3);

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_broker() -> Broker {
    let config = BrokerConfig::new(Secret::new(SECRET));
    block_on(Broker::start(config)).unwrap()
}

fn kapokmq(address: std::net::SocketAddr) -> ClientConfig {
    ClientConfig::from_json(json!({"provider": {
        "type": "kapokmq", "url": format!("ws://{address}"), "topic": "lifecycle", "secret_key": SECRET,
    }}))
    .unwrap()
}

fn memory() -> ClientConfig {
    ClientConfig::parse(r#"{"provider": {"type": "memory", "topic": "lifecycle"}}"#).unwrap()
}

fn send(id: &str, body: &str) -> Result<()> {
    block_on(calls::producer_send(id, Message::new(body.to_owned()), Some(Duration::from_secs(10)))).map(drop)
}

// 200 opens and closes of one id from 8 threads, with sends between: never two open, and free at the end.
fn churn(config: &ClientConfig) {
    const THREADS: u64 = 8;
    let (opened, sent, open) = (AtomicU64::new(0), AtomicU64::new(0), AtomicI64::new(0));
    let start = Barrier::new(THREADS as usize);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                while opened.load(Ordering::Acquire) < 200 {
                    assert!(
                        began.elapsed() < Duration::from_secs(60),
                        "{} opens in a minute",
                        opened.load(Ordering::Acquire)
                    );
                    match block_on(calls::producer_open(Some("churn"), config.clone(), None)) {
                        Ok(id) => {
                            assert_eq!(open.fetch_add(1, Ordering::AcqRel), 0, "two were open at once");
                            send(&id, "x").unwrap();
                            opened.fetch_add(1, Ordering::AcqRel);
                            open.fetch_sub(1, Ordering::AcqRel);
                            block_on(calls::producer_close(&id, None)).unwrap();
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), Kind::AlreadyOpen, "{error}");
                            // Others send through whatever is open; that it is closed meanwhile is fine.
                            match send("churn", "y") {
                                Ok(()) => _ = sent.fetch_add(1, Ordering::AcqRel),
                                Err(error) => assert!(
                                    matches!(error.kind(), Kind::UnknownId | Kind::Closed)
                                        && error.outcome() == Outcome::NotSent,
                                    "{error}"
                                ),
                            }
                        }
                    }
                }
            });
        }
    });
    assert!(sent.load(Ordering::Acquire) > 0, "no thread ever met an open id");
    block_on(calls::producer_open(Some("churn"), config.clone(), None)).unwrap();
    block_on(calls::producer_close("churn", None)).unwrap();
    assert_eq!(send("churn", "z").unwrap_err().kind(), Kind::UnknownId);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[test]
fn churn_of_one_id_in_memory() {
    let _alone = alone();
    churn(&memory());
}

#[test]
fn churn_of_one_id_over_the_broker() {
    let _alone = alone();
    let broker = start_broker();
    let before = descriptors();
    churn(&kapokmq(broker.address()));
    // Connections of closed clients are gone on both sides.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let listed =
            block_on(async { Ok(clients(broker.address(), SECRET, "producers", "ProducerId").await) })
                .unwrap();
        if listed.is_empty() && descriptors() <= before + 4 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "still there: {listed:?}, {} descriptors after {before}",
            descriptors()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    block_on(async { Ok(broker.stop(Duration::from_secs(5)).await) }).unwrap();
}

#[test]
fn of_64_opens_of_one_id_exactly_one_wins() {
    let _alone = alone();
    let broker = start_broker();
    for config in [memory(), kapokmq(broker.address())] {
        for consumer in [false, true] {
            let start = Barrier::new(64);
            let results: Vec<Result<Arc<str>>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..64)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            match consumer {
                                true => block_on(calls::consumer_open(Some("race"), config.clone())),
                                false => block_on(calls::producer_open(Some("race"), config.clone(), None)),
                            }
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
            for error in results.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), Kind::AlreadyOpen, "{error}");
            }
            match consumer {
                true => block_on(calls::consumer_close("race", None)).unwrap(),
                false => {
                    send("race", "x").unwrap();
                    block_on(calls::producer_close("race", None)).unwrap();
                }
            }
        }
    }
    block_on(async { Ok(broker.stop(Duration::from_secs(5)).await) }).unwrap();
}

#[test]
fn a_failed_open_leaves_the_id_free() {
    let _alone = alone();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = kapokmq(nobody);
    config.connect_timeout = ceiba_core::config::Span(Duration::from_millis(300));
    let error = block_on(calls::producer_open(Some("fails"), config, None)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(send("fails", "x").unwrap_err().kind(), Kind::UnknownId);
    block_on(calls::producer_open(Some("fails"), memory(), None)).unwrap();
    block_on(calls::producer_close("fails", None)).unwrap();
}

#[test]
fn shutdown_ends_every_call_in_flight_and_frees_every_id() {
    let _alone = alone();
    let broker = start_broker();
    let proxy = block_on(async { Ok(Proxy::start(broker.address(), None).await) }).unwrap();
    let queue = Arc::new(CompletionQueue::new(1000).unwrap());
    for number in 0..4 {
        let id = format!("stuck-{number}");
        block_on(calls::producer_open(Some(&id), kapokmq(proxy.address()), Some(queue.clone()))).unwrap();
    }
    block_on(calls::producer_open(Some("idle"), kapokmq(broker.address()), None)).unwrap();
    block_on(calls::producer_open(Some("memory"), memory(), None)).unwrap();
    block_on(calls::consumer_open(Some("waits"), kapokmq(broker.address()))).unwrap();
    proxy.silence();
    let spawn = |future: std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>| {
        runtime::handle().unwrap().spawn(future)
    };
    let mut calls_under_way = Vec::new();
    for number in 0..4 {
        for _ in 0..25 {
            let id = format!("stuck-{number}");
            calls_under_way.push(spawn(Box::pin(async move {
                calls::producer_send(&id, Message::new("x"), Some(Duration::from_secs(60))).await.map(drop)
            })));
        }
        for token in 0..25u64 {
            calls::producer_submit(&format!("stuck-{number}"), number * 25 + token, b"y", Duration::ZERO)
                .unwrap();
        }
    }
    let receive = spawn(Box::pin(async {
        calls::consumer_receive("waits", 1, Some(Duration::from_secs(60))).await.map(drop)
    }));
    let begun = Instant::now();
    for number in 0..4 {
        // All are written into the silence: that is what makes their outcome unknown.
        while calls::producer_status(&format!("stuck-{number}")).unwrap()["unacked"] != 50 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the calls of stuck-{number} are not written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    std::thread::sleep(Duration::from_millis(100));

    let started = Instant::now();
    let report = block_on(calls::shutdown(Duration::from_secs(1))).unwrap();
    assert!(started.elapsed() < Duration::from_secs(1) + GRACE, "took {:?}", started.elapsed());
    assert_eq!(report, ShutdownReport { clean: 3, forced: 4, failed: 0 });
    let end = |call: tokio::task::JoinHandle<Result<()>>| -> Error {
        block_on(async { Ok(tokio::time::timeout(GRACE, call).await.expect("a call hangs").unwrap()) })
            .unwrap()
            .unwrap_err()
    };
    for call in calls_under_way {
        let error = end(call);
        assert_eq!((error.kind(), error.outcome()), (Kind::Closed, Outcome::Unknown), "{error}");
    }
    assert_eq!(end(receive).kind(), Kind::Closed);
    let mut completions = Vec::new();
    while queue.wait(1000, Some(Duration::from_millis(200)), &mut completions) > 0 && completions.len() < 1000
    {
        if queue.is_empty() {
            break;
        }
    }
    let mut tokens: Vec<u64> = completions.iter().map(|completion| completion.token).collect();
    tokens.sort();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>(), "each accepted submit completes once");
    assert!(queue.is_empty());

    assert_eq!(send("idle", "x").unwrap_err().kind(), Kind::UnknownId);
    assert_eq!(block_on(calls::shutdown(Duration::from_secs(1))).unwrap(), ShutdownReport::default());
    // A shutdown is no end: the ids can be opened again.
    block_on(calls::producer_open(Some("idle"), kapokmq(broker.address()), None)).unwrap();
    send("idle", "x").unwrap();
    block_on(calls::producer_close("idle", None)).unwrap();
    drop(proxy);
    block_on(async { Ok(broker.stop(Duration::from_secs(5)).await) }).unwrap();
}
