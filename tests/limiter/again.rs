//! The connection is lost when Redis has granted and before it is heard: the question is asked again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ceiba_core::error::Kind;
use ceiba_tests::redis::Redis;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::inner::{Inner, comes_to, limited, send, state, until, up};

/// Passes all on, but when it is armed it closes the connection in place of the next script's answer.
struct Cutter {
    address: SocketAddr,
    armed: Arc<AtomicBool>,
    cuts: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<()>,
}

impl Cutter {
    async fn start(server: SocketAddr) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (armed, cuts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let task = tokio::spawn({
            let (armed, cuts) = (armed.clone(), cuts.clone());
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    tokio::spawn(pass(client, server, armed.clone(), cuts.clone()));
                }
            }
        });
        Cutter { address, armed, cuts, task }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, armed: Arc<AtomicBool>, cuts: Arc<AtomicU32>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    let mut cutting = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(count) if count > 0 => {
                    let is_script = asked[..count].windows(7).any(|part| part == b"EVALSHA");
                    cutting |= is_script && armed.swap(false, Ordering::AcqRel);
                    server.write_all(&asked[..count]).await.unwrap();
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(count) if count > 0 && !cutting => {
                    if client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
                _ => {
                    cuts.fetch_add(u32::from(cutting), Ordering::AcqRel);
                    return;
                }
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_again_counts_once() {
    let redis = Redis::start();
    let cutter = Cutter::start(redis.address()).await;
    let url = format!("redis://{}", cutter.address);
    for (limiter, per, count, name) in [
        ("sliding_window", json!("1h"), "ZCARD", "sliding_window/2:8:3600000000us"),
        ("concurrent", json!(null), "ZCARD", "concurrent:8:60000000us"),
    ] {
        // A slot is held until its send ends, so that it can be counted.
        let holds = limiter == "concurrent";
        let inner = if holds { Inner::shut() } else { Inner::new(Duration::ZERO) };
        let mut config = json!({"limiter": limiter, "rate": 8, "url": url, "store_timeout": "5s"});
        if !per.is_null() {
            config["per"] = per;
        }
        let name = format!("ceiba:limit:client:test/rate_limit:{name}");
        let producer = limited(&config, &inner);
        until(&producer, up).await;
        // Redis knows the script from here on.
        if holds {
            inner.let_one_go_on();
        }
        send(&producer, Duration::from_secs(5)).await.unwrap();
        let before = cutter.cuts.load(Ordering::Acquire);
        let left = redis.number(&[count, &name]);
        for round in 1..=5 {
            cutter.armed.store(true, Ordering::Release);
            let sent = tokio::spawn({
                let producer = producer.clone();
                async move { send(&producer, Duration::from_secs(60)).await }
            });
            if holds {
                comes_to(|| inner.begun() == 1 + round, || inner.begun().to_string()).await;
                assert_eq!(redis.number(&[count, &name]), 1, "one slot for one send");
                inner.let_one_go_on();
            }
            sent.await.unwrap().unwrap();
            assert_eq!(cutter.cuts.load(Ordering::Acquire) - before, round as u32, "nothing was cut");
            if !holds {
                assert_eq!(redis.number(&[count, &name]), left + round as i64, "a send counted twice");
            }
        }
        if !holds {
            for _ in 0..2 {
                send(&producer, Duration::from_secs(5)).await.unwrap();
            }
            let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Limited);
        }
        assert_eq!(state(&producer)["without_store"], 0);
    }
}
