//! Connections that die without a word, and brokers that come back on the same port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use ceiba_core::open;
use ceiba_core::provider::memory::Topics;
use ceiba_core::secret::Secret;
use ceiba_tests::console::clients;
use ceiba_tests::proxy::Proxy;
use serde_json::json;
use tokio::time::{Instant, sleep};

const SECRET: &str = "secret of the reconnects";
const CHECK: Duration = Duration::from_secs(1);
/// Two misses are noticed at the third check; the rest is for a loaded machine.
const NOTICED: Duration = Duration::from_secs(3 + 3);

fn config(address: SocketAddr, client_id: &str) -> ClientConfig {
    checked(address, client_id, CHECK)
}

fn checked(address: SocketAddr, client_id: &str, check: Duration) -> ClientConfig {
    ClientConfig::from_json(json!({
        "connect_timeout": "2s",
        "provider": {
            "type": "kapokmq",
            "url": format!("ws://{address}"),
            "topic": "reconnects",
            "secret_key": SECRET,
            "client_id": client_id,
            "check_time": format!("{}ms", check.as_millis()),
            "reconnect_max": "500ms",
        },
    }))
    .unwrap()
}

async fn broker(listen: &str) -> Broker {
    let config = BrokerConfig { listen: listen.to_owned(), ..BrokerConfig::new(Secret::new(SECRET)) };
    Broker::start(config).await.unwrap()
}

fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

fn message(body: &str) -> Arc<Message> {
    Arc::new(Message::new(body.to_owned()))
}

async fn one(consumer: &Arc<dyn Consumer>, seconds: u64) -> String {
    let deliveries = consumer.receive(&within(seconds), 1).await.unwrap();
    let delivery = deliveries.first().unwrap_or_else(|| panic!("nothing came: {}", consumer.status()));
    for result in consumer.ack(&within(5), vec![delivery.code.clone()]).await {
        result.unwrap();
    }
    String::from_utf8_lossy(delivery.message.body()).into_owned()
}

async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(seconds), "{what} did not happen in {seconds} s");
        sleep(Duration::from_millis(10)).await;
    }
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test hangs")
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
}

#[test]
fn pings_notice_a_peer_that_is_silent() {
    on_a_runtime(async {
        let broker = broker("127.0.0.1:0").await;
        // One each, so that the connections of each are counted.
        let [producers, consumers] =
            [Proxy::start(broker.address(), None).await, Proxy::start(broker.address(), None).await];
        let topics = Topics::default();
        let producer: Arc<dyn Producer> =
            open::producer("p", &config(producers.address(), "p1"), &topics).await.unwrap();
        let consumer = open::consumer("c", &config(consumers.address(), "c1"), &topics).await.unwrap();
        producer.send(&within(10), message("before")).await.unwrap();
        assert_eq!(one(&consumer, 10).await, "before");
        // Idle, the pings keep the connections.
        sleep(CHECK * 4).await;
        assert_eq!((producers.accepted(), consumers.accepted()), (1, 1), "a live connection was given up");

        for lap in 0..2 {
            let before = (producers.accepted(), consumers.accepted());
            // One that is lost in the silence would have its message come again.
            until("the ack", 20, async || broker.status().acknowledged == lap + 1).await;
            producers.silence();
            consumers.silence();
            let started = Instant::now();
            let error = producer.send(&within(60), message("into silence")).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::Unknown), "{error}");
            assert!(started.elapsed() < NOTICED, "noticed after {:?}", started.elapsed());
            until("the reconnect of both", 20, async || {
                producers.accepted() > before.0 && consumers.accepted() > before.1
            })
            .await;
            producers.mend();
            consumers.mend();
            let body = format!("after {lap}");
            producer.send(&within(20), message(&body)).await.unwrap();
            assert_eq!(one(&consumer, 20).await, body);
            // The broker was never told of the dead connections: the newest one of an id counts.
            let listed = clients(broker.address(), SECRET, "consumers", "ConsumerId").await;
            assert_eq!(listed, ["c1"], "lap {lap}");
            let listed = clients(broker.address(), SECRET, "producers", "ProducerId").await;
            assert_eq!(listed, ["p1"], "lap {lap}");
        }
        producer.close(&within(5)).await.unwrap();
        consumer.close(&within(5)).await.unwrap();
        drop((producers, consumers));
        broker.stop(Duration::from_secs(5)).await;
    });
}

/// A message that takes longer than the checks on a slow line is no sign of a dead peer: the bytes are.
#[test]
fn a_long_message_on_a_slow_line_is_not_taken_for_silence() {
    on_a_runtime(async {
        let broker = broker("127.0.0.1:0").await;
        let proxy = Proxy::start(broker.address(), None).await;
        let topics = Topics::default();
        let producer = open::producer("p", &config(broker.address(), "p1"), &topics).await.unwrap();
        let check = Duration::from_millis(500);
        let consumer = open::consumer("c", &checked(proxy.address(), "c1", check), &topics).await.unwrap();
        let body = "slow".repeat(256 << 10);
        proxy.slow_down(160_000);
        let started = Instant::now();
        producer.send(&within(20), message(&body)).await.unwrap();
        assert!(one(&consumer, 40).await == body);
        // Three checks of silence would have ended the connection several times over.
        assert!(started.elapsed() > check * 10, "the line was not slow: {:?}", started.elapsed());
        assert_eq!(proxy.accepted(), 1, "the connection was given up: {}", consumer.status());
        broker.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn unacknowledged_deliveries_survive_the_loss_of_the_connection() {
    on_a_runtime(async {
        let broker = broker("127.0.0.1:0").await;
        let proxy = Proxy::start(broker.address(), None).await;
        let topics = Topics::default();
        let producer = open::producer("p", &config(broker.address(), "p1"), &topics).await.unwrap();
        let consumer = open::consumer("c", &config(proxy.address(), "c1"), &topics).await.unwrap();
        producer.send(&within(10), message("held")).await.unwrap();
        assert_eq!(consumer.receive(&within(10), 1).await.unwrap().len(), 1);
        proxy.cut();
        until("the loss", 20, async || proxy.live() == 0).await;
        proxy.mend();
        assert_eq!(one(&consumer, 20).await, "held");
        assert!(consumer.receive(&within(1), 1).await.unwrap().is_empty());
        broker.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn clients_come_back_after_each_restart_and_are_listed_once() {
    on_a_runtime(async {
        let first = broker("127.0.0.1:0").await;
        let address = first.address();
        let topics = Topics::default();
        let producer = open::producer("p", &config(address, "p1"), &topics).await.unwrap();
        let mut consumers = Vec::new();
        for name in ["c1", "c2", "c3"] {
            consumers.push(open::consumer(name, &config(address, name), &topics).await.unwrap());
        }
        let mut running = first;
        for lap in 0..5 {
            // By turns an orderly stop and a crash.
            if lap % 2 == 0 {
                running.stop(Duration::from_secs(5)).await;
            } else {
                running.abort();
            }
            drop(running);
            sleep(Duration::from_millis(lap * 60)).await;
            let mut again = None;
            until("the port", 10, async || {
                let config =
                    BrokerConfig { listen: address.to_string(), ..BrokerConfig::new(Secret::new(SECRET)) };
                again = Broker::start(config).await.ok();
                again.is_some()
            })
            .await;
            running = again.unwrap();
            until("the return of the consumers", 20, async || {
                clients(address, SECRET, "consumers", "ConsumerId").await.len() >= 3
            })
            .await;
            let body = format!("lap {lap}");
            producer.send(&within(20), message(&body)).await.unwrap();
            // It comes once to one of them, and then there is silence.
            let came = AtomicUsize::new(0);
            let until_it_came = Instant::now() + Duration::from_secs(20);
            let got = async |consumer: &Arc<dyn Consumer>| {
                loop {
                    let last = came.load(Ordering::Acquire) > 0;
                    let wait = Context::within(Duration::from_millis(500));
                    let deliveries = consumer.receive(&wait, 10).await.unwrap();
                    for delivery in &deliveries {
                        assert_eq!(delivery.message.body(), body.as_bytes());
                        came.fetch_add(1, Ordering::AcqRel);
                        consumer.ack(&within(5), vec![delivery.code.clone()]).await.remove(0).unwrap();
                    }
                    if (last && deliveries.is_empty()) || Instant::now() > until_it_came {
                        return;
                    }
                }
            };
            tokio::join!(got(&consumers[0]), got(&consumers[1]), got(&consumers[2]));
            assert_eq!(came.into_inner(), 1, "how often the message of lap {lap} came");
            let mut listed = clients(address, SECRET, "consumers", "ConsumerId").await;
            listed.sort();
            assert_eq!(listed, ["c1", "c2", "c3"], "lap {lap}");
            let listed = clients(address, SECRET, "producers", "ProducerId").await;
            assert_eq!(listed, ["p1"], "lap {lap}");
        }
        for consumer in &consumers {
            consumer.close(&within(5)).await.unwrap();
        }
        producer.close(&within(5)).await.unwrap();
        until("the list to be empty", 20, async || {
            clients(address, SECRET, "consumers", "ConsumerId").await.is_empty()
                && clients(address, SECRET, "producers", "ProducerId").await.is_empty()
        })
        .await;
        running.stop(Duration::from_secs(5)).await;
    });
}
