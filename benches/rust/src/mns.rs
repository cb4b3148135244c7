//! Our client of MNS against the front of a broker: what the official Go SDK does in `tests/go/mns/cmd/mnsbench`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::calls::mns::admin;
use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::clock::Clock;
use ceiba_core::config::{ClientConfig, Connect, WhenDisconnected};
use ceiba_core::error::Result as Ended;
use ceiba_core::intake::{Limits, Whose};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::provider::{Setup, mns};
use ceiba_core::random::Random;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::measure::{Failure, STALLED, Stopwatch};

/// Messages of a batch.
pub(crate) const BATCH: usize = 16;

fn setup() -> Setup {
    Setup {
        id: "bench".into(),
        limits: Limits { calls: 100_000, bytes: 1 << 30, deadline: STALLED, of: Whose::Client },
        connect: Connect::Eager,
        connect_timeout: Duration::from_secs(5),
        when_disconnected: WhenDisconnected::Fail,
        clock: Clock::from_system(),
        random: Random::from_system(),
    }
}

fn section(arguments: &Arguments, more: Value) -> Map<String, Value> {
    let mut section = Map::new();
    section.insert("url".into(), json!(format!("http://{}", arguments.addr)));
    section.insert("queue".into(), json!(arguments.topic));
    section.insert("access_key_id".into(), json!("id"));
    section.insert("access_key_secret".into(), json!("secret"));
    section.insert("connections".into(), json!(arguments.clients));
    section.extend(more.as_object().cloned().unwrap_or_default());
    section
}

fn on_runtime<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // As many threads as the library takes for a host on two cores.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(future)
}

async fn producer(arguments: &Arguments) -> Result<Arc<dyn Producer>, Failure> {
    let account = ClientConfig::parse(&format!("mns://id:secret@{}", arguments.addr))?;
    admin(&account, json!({"create_queue": {"queue": arguments.topic}}), None).await?;
    Ok(mns::open_producer(&setup(), section(arguments, json!({}))).await?)
}

fn bodies(arguments: &Arguments, number: usize) -> Vec<Arc<Message>> {
    (0..number).map(|_| Arc::new(Message::new("x".repeat(arguments.size)))).collect()
}

async fn some(producer: &Arc<dyn Producer>, messages: &[Arc<Message>]) -> Result<(), Failure> {
    let ctx = Context::within(STALLED);
    let all = |ends: Vec<Ended<Receipt>>| ends.into_iter().collect::<Ended<Vec<Receipt>>>();
    match messages {
        [one] => drop(producer.send(&ctx, one.clone()).await?),
        several => drop(all(producer.send_batch(&ctx, several.to_vec()).await)?),
    }
    Ok(())
}

/// Sends so many in each request, one request at a time in each of `clients` tasks.
pub(crate) fn send(arguments: &Arguments, each: usize) -> Result<Value, Failure> {
    on_runtime(async {
        let producer = producer(arguments).await?;
        let messages = bodies(arguments, each);
        let watch = Stopwatch::start();
        let until = watch.start + Duration::from_secs_f64(arguments.seconds);
        let sent = Arc::new(AtomicU64::new(0));
        let most = if arguments.limit == 0 { u64::MAX } else { arguments.limit };
        let tasks = (0..arguments.clients).map(|_| {
            let (producer, messages, sent) = (producer.clone(), messages.clone(), sent.clone());
            tokio::spawn(async move {
                while Instant::now() < until && sent.load(Ordering::Relaxed) < most {
                    some(&producer, &messages).await?;
                    sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
                }
                Ok::<(), Failure>(())
            })
        });
        for task in join_all(tasks).await {
            task??;
        }
        let mode = if each == 1 { "mns_send" } else { "mns_batch" };
        Ok(watch.line(arguments, mode, sent.load(Ordering::Relaxed), Instant::now()))
    })
}

/// Receives and acknowledges all of `limit` messages.
pub(crate) fn take(arguments: &Arguments) -> Result<Value, Failure> {
    on_runtime(async {
        let producer = producer(arguments).await?;
        let all = arguments.limit.max(BATCH as u64) / BATCH as u64 * BATCH as u64;
        let messages = bodies(arguments, BATCH);
        for _ in 0..all / BATCH as u64 {
            some(&producer, &messages).await?;
        }
        let watch = Stopwatch::start();
        let more =
            json!({"prefetch": BATCH * 2 * arguments.clients, "pollers": arguments.clients, "wait": "1s"});
        let consumer: Arc<dyn Consumer> = mns::open_consumer(&setup(), section(arguments, more)).await?;
        let taken = Arc::new(AtomicU64::new(0));
        let tasks = (0..arguments.clients).map(|_| {
            let (consumer, taken) = (consumer.clone(), taken.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                while taken.load(Ordering::Relaxed) < all {
                    if begun.elapsed() > STALLED {
                        return Err("not all that was sent is received".into());
                    }
                    let ctx = Context::within(Duration::from_millis(100));
                    let came = consumer.receive(&ctx, BATCH).await?;
                    let codes: Vec<Arc<str>> = came.into_iter().map(|delivery| delivery.code).collect();
                    for end in consumer.ack(&Context::within(STALLED), codes).await {
                        end?;
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok::<(), Failure>(())
            })
        });
        for task in join_all(tasks).await {
            task??;
        }
        Ok(watch.line(arguments, "mns_take", taken.load(Ordering::Relaxed), Instant::now()))
    })
}
