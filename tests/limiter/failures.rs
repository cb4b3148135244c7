//! A Redis that hangs, dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::Producer;
use ceiba_core::error::{Kind, Outcome};
use ceiba_tests::redis::Redis;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::inner::{Inner, check_slots, check_window, limited, micros, send, state, until, up};

const BOUND: Duration = Duration::from_millis(250);
/// How much longer things take on a loaded machine.
const GRACE: Duration = Duration::from_millis(1500);

fn window(redis: &Redis, on_failure: &str, rate: u64, per: &str) -> Value {
    json!({"limiter": "sliding_window", "rate": rate, "per": per, "url": redis.url(), "on_failure": on_failure})
}

fn slots(redis: &Redis, on_failure: &str, rate: u64) -> Value {
    json!({"limiter": "concurrent", "rate": rate, "url": redis.url(), "on_failure": on_failure})
}

async fn ten(producer: &Arc<dyn Producer>) -> Vec<ceiba_core::error::Result<()>> {
    join_all((0..10).map(|_| send(producer, Duration::from_secs(20)))).await
}

#[tokio::test]
async fn one_that_hangs_costs_the_bound_once_and_comes_back() {
    for kind in ["window", "slots"] {
        let redis = Redis::start();
        let inner = Inner::new(Duration::ZERO);
        let config = if kind == "window" {
            window(&redis, "closed", 1000, "1s")
        } else {
            slots(&redis, "closed", 1000)
        };
        let producer = limited(&config, &inner);
        until(&producer, up).await;
        assert!(ten(&producer).await.iter().all(Result::is_ok));
        redis.freeze();
        let started = Instant::now();
        for sent in ten(&producer).await {
            let error = sent.unwrap_err();
            assert_eq!(
                (error.kind(), error.outcome(), error.retryable()),
                (Kind::Unavailable, Outcome::NotSent, true)
            );
        }
        let took = started.elapsed();
        // What was asked a moment before may be given up a moment before.
        assert!(took > BOUND / 2 && took < BOUND + GRACE, "{kind}: {took:?}");
        // From now on nobody waits for it.
        let started = Instant::now();
        for _ in 0..100 {
            send(&producer, Duration::from_secs(20)).await.unwrap_err();
        }
        assert!(started.elapsed() < BOUND, "{kind}: {:?}", started.elapsed());
        let shown = state(&producer);
        assert_eq!(shown["store"]["state"], "down", "{shown}");
        assert!(shown["store"]["reason"].as_str().unwrap().contains("did not answer within"), "{shown}");
        assert_eq!(shown["without_store"], 110, "{shown}");
        redis.thaw();
        until(&producer, up).await;
        assert!(ten(&producer).await.iter().all(Result::is_ok));
        assert_eq!(inner.runs().len(), 20);
        if kind == "slots" {
            // Also those that it took for us while nobody listened are given back.
            let name = "ceiba:limit:client:test/rate_limit:concurrent:1000:60000000us";
            let started = Instant::now();
            while redis.number(&["ZCARD", name]) > 0 {
                assert!(started.elapsed() < Duration::from_secs(10), "slots are lost");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_deadline_before_the_bound_holds() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    let mut config = window(&redis, "open", 1000, "1s");
    config["store_timeout"] = json!("30s");
    let producer = limited(&config, &inner);
    until(&producer, up).await;
    redis.freeze();
    let started = Instant::now();
    let error = send(&producer, Duration::from_millis(200)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(200) + GRACE);
    assert_eq!((error.kind(), error.outcome(), inner.runs().len()), (Kind::Timeout, Outcome::NotSent, 0));
    redis.thaw();
}

#[tokio::test]
async fn without_it_each_policy_does_what_it_says() {
    let mut redis = Redis::start();
    let inners: Vec<_> = (0..6).map(|_| Inner::new(Duration::from_millis(1))).collect();
    let configs = [
        window(&redis, "open", 3, "60s"),
        window(&redis, "closed", 3, "60s"),
        window(&redis, "local", 3, "60s"),
        slots(&redis, "open", 3),
        slots(&redis, "closed", 3),
        slots(&redis, "local", 3),
    ];
    let producers: Vec<_> = configs
        .iter()
        .zip(&inners)
        .enumerate()
        .map(|(number, (config, inner))| {
            let mut config = config.clone();
            config["key"] = json!(format!("policy-{number}"));
            limited(&config, inner)
        })
        .collect();
    for producer in &producers {
        until(producer, up).await;
        send(producer, Duration::from_secs(5)).await.unwrap();
    }
    redis.kill();
    let sent = join_all(producers.iter().map(ten)).await;
    let good: Vec<usize> = sent.iter().map(|sent| sent.iter().filter(|sent| sent.is_ok()).count()).collect();
    // What is open lets all through; `local` knows of the one before; of slots three are free at once.
    assert_eq!(good, [10, 0, 2, 10, 0, 3]);
    let kinds = |place: usize| -> Vec<Kind> {
        let place: &Vec<ceiba_core::error::Result<()>> = &sent[place];
        place.iter().filter_map(|sent| sent.as_ref().err().map(ceiba_core::error::Error::kind)).collect()
    };
    assert_eq!(kinds(1), [Kind::Unavailable; 10]);
    assert_eq!(kinds(2), [Kind::Limited; 8]);
    assert_eq!(kinds(4).iter().filter(|kind| **kind == Kind::Unavailable).count(), 3, "{:?}", kinds(4));
    assert_eq!(kinds(5), [Kind::Limited; 7]);
}

#[tokio::test]
async fn a_restart_without_memory_passes_no_window() {
    let (rate, per) = (5, Duration::from_secs(2));
    for on_failure in ["closed", "local"] {
        let mut redis = Redis::start();
        let inner = Inner::new(Duration::ZERO);
        let producer = limited(&window(&redis, on_failure, rate, "2s"), &inner);
        until(&producer, up).await;
        let (mut grants, mut refusals) = (Vec::new(), Vec::new());
        let started = Instant::now();
        let mut restarts = 0;
        while started.elapsed() < Duration::from_secs(8) {
            if started.elapsed() > Duration::from_secs(1) * (1 + 4 * restarts) {
                restarts += 1;
                redis.restart();
            }
            let before = micros();
            match send(&producer, Duration::from_secs(5)).await {
                Ok(()) => grants.push((before, micros())),
                Err(error) => refusals.push(error),
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        assert_eq!(restarts, 2);
        check_window(&mut grants, rate as usize, per);
        let forgot =
            refusals.iter().filter(|error| error.message().contains("has lost what it knew")).count();
        println!("{on_failure}: {} grants, {forgot} refusals of a server that forgot", grants.len());
        // It goes on by itself once what it forgot is over.
        assert!(grants.len() >= if on_failure == "local" { 15 } else { 7 }, "{}", grants.len());
        assert_eq!(forgot > 0, on_failure == "closed");
    }
}

/// What decides is whether the data is there, not which server has it: nothing tells of the server here.
#[tokio::test]
async fn only_a_server_that_lost_its_data_is_not_asked() {
    for kind in ["window", "slots"] {
        let redis = Redis::start();
        redis.ask(&["ACL", "SETUSER", "default", "-info"]).unwrap();
        let inner = Inner::new(Duration::ZERO);
        let mut config = if kind == "window" {
            window(&redis, "closed", 1000, "60s")
        } else {
            slots(&redis, "closed", 1000)
        };
        config["store_timeout"] = json!("5s");
        let producer = limited(&config, &inner);
        until(&producer, up).await;
        let connects =
            |count: u64| move |state: &serde_json::Value| state["store"]["connects"].as_u64() >= Some(count);
        send(&producer, Duration::from_secs(5)).await.unwrap();
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        until(&producer, connects(2)).await;
        send(&producer, Duration::from_secs(5)).await.unwrap();
        assert_eq!(state(&producer)["store"]["state"], "up", "{kind}");

        redis.ask(&["FLUSHALL"]).unwrap();
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        until(&producer, connects(3)).await;
        let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
        let most = Duration::from_secs(if kind == "window" { 60 } else { 5 });
        let wait = error.retry_after().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable, "{kind}");
        assert!(wait <= most && wait > most - Duration::from_secs(4), "{kind}: {wait:?}");
        let shown = state(&producer);
        assert_eq!(shown["store"]["state"], "forgot", "{shown}");
        assert!(shown["store"]["asked_in_ms"].as_u64() > Some(0), "{shown}");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_while_idle_is_made_anew() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    let mut config = window(&redis, "closed", 1000, "1s");
    config["store_timeout"] = json!("5s");
    let producer = limited(&config, &inner);
    for _ in 0..20 {
        send(&producer, Duration::from_secs(5)).await.unwrap();
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        // Sometimes the loss is seen first by the send, sometimes by the task.
        send(&producer, Duration::from_secs(5)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = state(&producer);
    assert!(shown["store"]["connects"].as_u64() > Some(10), "{shown}");
    assert_eq!(shown["without_store"], 0, "{shown}");
}

#[tokio::test]
async fn one_that_is_not_there_at_first_is_found_later() {
    let mut redis = Redis::start();
    redis.kill();
    let inner = Inner::new(Duration::ZERO);
    let producer = limited(&window(&redis, "closed", 1000, "1s"), &inner);
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    redis.restart();
    until(&producer, up).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn slots_in_use_are_entered_again_after_a_restart() {
    let mut redis = Redis::start();
    let inner = Inner::new(Duration::from_secs(4));
    let mut config = slots(&redis, "closed", 2);
    config["lease"] = json!("60s");
    let producer = limited(&config, &inner);
    until(&producer, up).await;
    let held = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Duration::from_secs(30)).await }
    });
    let name = "ceiba:limit:client:test/rate_limit:concurrent:2:60000000us";
    while redis.number(&["ZCARD", name]) < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    redis.restart();
    let started = Instant::now();
    while redis.number(&["ZCARD", name]) < 1 {
        assert!(started.elapsed() < Duration::from_secs(3), "the slot that is in use is free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held.await.unwrap().unwrap();
    until(&producer, |state| state["releasing"] == 0).await;
    assert_eq!(redis.number(&["ZCARD", name]), 0);
    check_slots(&inner.runs(), 2);
}
