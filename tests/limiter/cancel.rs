//! Calls that go away at any moment, while a real server decides.

use std::time::Duration;

use ceiba_tests::redis::Redis;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::gate::Gate;
use crate::inner::{Inner, comes_to, limited, send, until, up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grant_of_a_window_is_lost() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    let rate = 200;
    let config = json!({
        "limiter": "sliding_window", "rate": rate, "per": "1h", "url": redis.url(), "store_timeout": "5s",
    });
    let producer = limited(&config, &inner);
    until(&producer, up).await;
    let mut random = StdRng::seed_from_u64(3);
    let mut dropped = 0;
    for _ in 0..1500 {
        if inner.runs().len() >= rate - 20 {
            break;
        }
        let pause = Duration::from_micros(random.random_range(0..200));
        let task = tokio::spawn({
            let producer = producer.clone();
            async move { send(&producer, Duration::from_secs(5)).await }
        });
        // The runtime's timers are too coarse for this, and its workers go on meanwhile.
        std::thread::sleep(pause);
        task.abort();
        dropped += usize::from(task.await.is_err());
    }
    assert!(dropped > 50, "only {dropped} were dropped under way");
    let name = format!("ceiba:limit:client:test/rate_limit:sliding_window/2:{rate}:3600000000us");
    let count = || redis.number(&["ZCARD", &name]);
    comes_to(|| count() == inner.runs().len() as i64, || format!("{} of {}", count(), inner.runs().len()))
        .await;
    // All that is left can be had.
    let before = inner.runs().len();
    for _ in before..rate {
        send(&producer, Duration::from_secs(5)).await.unwrap();
    }
    send(&producer, Duration::from_secs(5)).await.unwrap_err();
    println!("{dropped} dropped, {before} had got through by then");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_go_away_at_once_lose_no_grant() {
    let redis = Redis::start();
    let gate = Gate::start(redis.address()).await;
    let inner = Inner::new(Duration::ZERO);
    let config = json!({
        "limiter": "sliding_window", "rate": 3000, "per": "1h", "url": gate.url(), "store_timeout": "20s",
    });
    let producer = limited(&config, &inner);
    until(&producer, up).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
    let (asked, granted) = (gate.scripts(), redis.calls("evalsha").made);
    gate.shut(true);
    let senders: Vec<_> = (0..2999)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move { send(&producer, Duration::from_secs(60)).await })
        })
        .collect();
    comes_to(|| gate.scripts() == asked + 2999, || format!("{} asked", gate.scripts() - asked)).await;
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    for sender in senders {
        assert!(sender.await.unwrap_err().is_cancelled());
    }
    gate.shut(false);
    let calls = || redis.calls("evalsha").made - granted;
    comes_to(|| calls() == 2999, || format!("{} were granted", calls())).await;
    let count =
        || redis.number(&["ZCARD", "ceiba:limit:client:test/rate_limit:sliding_window/2:3000:3600000000us"]);
    comes_to(|| count() == 1, || count().to_string()).await;
    for _ in 0..2999 {
        send(&producer, Duration::from_secs(5)).await.unwrap();
    }
    send(&producer, Duration::from_secs(5)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_slot_is_lost() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::from_micros(200));
    for when_limited in ["fail", "wait"] {
        let config = json!({
            "limiter": "concurrent", "rate": 4, "url": redis.url(), "store_timeout": "5s",
            "when_limited": when_limited, "key": format!("lost-{when_limited}"),
        });
        let producer = limited(&config, &inner);
        until(&producer, up).await;
        let mut random = StdRng::seed_from_u64(4);
        let (mut dropped, mut rounds) = (0, 0);
        // How many are under way when they are dropped is a matter of the machine.
        while rounds < 100 || dropped <= 50 && rounds < 5000 {
            rounds += 1;
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let (producer, pause) =
                        (producer.clone(), Duration::from_micros(random.random_range(0..2500)));
                    tokio::spawn(async move {
                        tokio::time::timeout(pause, send(&producer, Duration::from_secs(5))).await.is_err()
                    })
                })
                .collect();
            for task in tasks {
                dropped += usize::from(task.await.unwrap());
            }
        }
        assert!(dropped > 50, "only {dropped} were dropped under way");
        let name = format!("ceiba:limit:key:lost-{when_limited}:concurrent:4:60000000us");
        let count = || redis.number(&["ZCARD", &name]);
        comes_to(|| count() == 0, || count().to_string()).await;
        until(&producer, |state| state["used_here"] == 0 && state["waiting"] == 0).await;
        let all = (0..4).map(|_| send(&producer, Duration::from_secs(5)));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    }
}
