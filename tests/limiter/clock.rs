//! The server's clock is set back: what it wrote before lies in its future.

use std::time::Duration;

use ceiba_tests::redis::Redis;
use serde_json::json;
use tokio::time::Instant;

use crate::inner::{Inner, limited, micros, send};

const HOUR: u64 = 3_600_000_000;

#[tokio::test]
async fn a_window_goes_on_exactly_and_without_a_stop() {
    let redis = Redis::start();
    let name = "ceiba:limit:client:test/rate_limit:sliding_window/2:3:400000us";
    let ahead = micros() + HOUR;
    for number in 0..3 {
        redis.ask(&["ZADD", name, &(ahead + number).to_string(), &format!("before-{number}")]).unwrap();
    }
    let inner = Inner::new(Duration::ZERO);
    let producer = limited(
        &json!({"limiter": "sliding_window", "rate": 3, "per": "400ms", "url": redis.url(), "store_timeout": "5s"}),
        &inner,
    );
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    let found = Instant::now();
    // A period from the moment on at which the step was seen: not an hour, and not at once.
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(400) && wait >= Duration::from_millis(300), "{wait:?}");
    while found.elapsed() < Duration::from_millis(390) {
        assert!(
            send(&producer, Duration::from_secs(5)).await.is_err(),
            "granted after {:?}",
            found.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    for _ in 0..3 {
        send(&producer, Duration::from_secs(5)).await.unwrap();
    }
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    assert!(error.retry_after().unwrap() <= Duration::from_millis(400));
    tokio::time::sleep(Duration::from_millis(420)).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn slots_stay_taken_for_a_lease_and_no_longer() {
    let redis = Redis::start();
    let name = "ceiba:limit:client:test/rate_limit:concurrent:2:1000000us";
    for holder in ["a", "b"] {
        redis.ask(&["ZADD", name, &(micros() + HOUR).to_string(), holder]).unwrap();
    }
    let inner = Inner::new(Duration::ZERO);
    let producer = limited(
        &json!({"limiter": "concurrent", "rate": 2, "url": redis.url(), "lease": "1s", "store_timeout": "5s"}),
        &inner,
    );
    let started = Instant::now();
    while send(&producer, Duration::from_secs(5)).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(3), "taken for the hour");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "free after {:?}", started.elapsed());
}
