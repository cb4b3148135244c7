use std::time::Duration;

use ceiba_tests::redis::Redis;
use serde_json::json;

use crate::inner::{Inner, check_slots, check_window, limited, micros, send, state, until, up};
use crate::monitor::Monitor;
use crate::processes::{LOAD, Load, run};

#[test]
fn four_processes_share_one_window_exactly() {
    let redis = Redis::start();
    let patient = Duration::from_secs(10);
    // In the last one a place in line is worth less than the deadline for some, and more for others.
    for (when_limited, within) in [("fail", patient), ("wait", patient), ("wait", Duration::from_millis(150))]
    {
        let (rate, per, lasts) = (40, Duration::from_millis(200), Duration::from_secs(3));
        let key = format!("four-{when_limited}-{within:?}");
        let config = json!({
            "limiter": "sliding_window", "rate": rate, "per": "200ms", "key": key, "url": redis.url(),
            "when_limited": when_limited, "store_timeout": "5s",
        });
        let monitor = Monitor::start(&redis);
        let mut traffic = run(4, &config, Load { tasks: 8, within, takes: Duration::ZERO, lasts });
        let granted = monitor.grants(&redis);
        // What was granted at a deadline is given back, unless its process ends before that.
        let unused = granted.len() - traffic.grants.len();
        assert!(unused == 0 || within < patient && unused < 40, "{key}: {unused} were granted to nobody");
        for span in granted.windows(rate + 1) {
            let took = span[rate] - span[0];
            assert!(took >= 200_000, "{key}: {} within {took} microseconds", rate + 1);
        }
        check_window(&mut traffic.grants, rate, per);
        let periods = (granted[granted.len() - 1] - granted[0]) as f64 / per.as_micros() as f64;
        let share = granted.len() as f64 / (periods * rate as f64);
        assert!(share > 0.8, "{key}: only {share:.2} of what the rate allows");
        assert_eq!(traffic.limited > 0, when_limited == "fail" || within != patient, "{key}");
        println!("{key}: {} grants, {} limited, {share:.3} of the rate", granted.len(), traffic.limited);
    }
}

#[test]
fn four_processes_share_slots_exactly() {
    let redis = Redis::start();
    for when_limited in ["fail", "wait"] {
        let config = json!({
            "limiter": "concurrent", "rate": 3, "key": format!("slots-{when_limited}"), "url": redis.url(),
            "when_limited": when_limited, "store_timeout": "5s",
        });
        let traffic = run(
            4,
            &config,
            Load { tasks: 4, takes: Duration::from_millis(4), lasts: Duration::from_secs(2), ..LOAD },
        );
        let highest = check_slots(&traffic.runs, 3);
        assert_eq!(highest, 3, "all slots were used");
        assert!(traffic.runs.len() > 50, "{}", traffic.runs.len());
        println!("{when_limited}: {} sends, {} limited", traffic.runs.len(), traffic.limited);
        // Closing gave back what was held.
        let name = format!("ceiba:limit:key:slots-{when_limited}:concurrent:3:60000000us");
        assert_eq!(redis.number(&["ZCARD", &name]), 0);
    }
}

#[tokio::test]
async fn one_after_the_other_needs_one_slot() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    let config = json!({"limiter": "concurrent", "rate": 1, "url": redis.url(), "store_timeout": "5s"});
    let producer = limited(&config, &inner);
    for round in 0..500 {
        // The one before was given back before this one asks.
        send(&producer, Duration::from_secs(5)).await.unwrap_or_else(|error| panic!("{round}: {error:?}"));
    }
    assert_eq!(state(&producer)["limited"], 0);
}

#[tokio::test]
async fn the_time_to_wait_is_the_servers_and_right() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    let config = json!({
        "limiter": "sliding_window", "rate": 2, "per": "700ms", "url": redis.url(), "store_timeout": "5s",
    });
    let producer = limited(&config, &inner);
    let before = micros();
    send(&producer, Duration::from_secs(5)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(500) && wait > Duration::from_millis(100), "{wait:?}");
    tokio::time::sleep(wait).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
    assert!(micros() - before >= 700_000);
    let shown = state(&producer);
    assert_eq!((shown["granted"].as_u64(), shown["limited"].as_u64()), (Some(3), Some(1)), "{shown}");
    // Redis forgets a limit that nobody uses.
    let name = "ceiba:limit:client:test/rate_limit:sliding_window/2:2:700000us";
    assert_eq!(redis.number(&["ZCARD", name]), 2);
    let life = redis.number(&["PTTL", name]);
    assert!((700..=1700).contains(&life), "{life}");
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_told_them() {
    let redis = Redis::start();
    let inner = Inner::new(Duration::ZERO);
    for limiter in [
        json!({"limiter": "sliding_window", "rate": 9, "per": "1s"}),
        json!({"limiter": "concurrent", "rate": 9}),
    ] {
        let mut config = limiter;
        config["url"] = json!(redis.url());
        config["store_timeout"] = json!("5s");
        let producer = limited(&config, &inner);
        send(&producer, Duration::from_secs(5)).await.unwrap();
        redis.ask(&["SCRIPT", "FLUSH"]).unwrap();
        send(&producer, Duration::from_secs(5)).await.unwrap();
        assert_eq!(state(&producer)["without_store"], 0);
    }
}

#[tokio::test]
async fn the_slots_of_a_killed_process_come_back_after_their_lease() {
    let redis = Redis::start();
    let config = json!({
        "limiter": "concurrent", "rate": 2, "key": "killed", "url": redis.url(), "lease": "2s", "store_timeout": "5s",
    });
    // Longer than its lease: it is kept as long as the process lives.
    let mut holder = crate::processes::start(
        &config,
        Load { tasks: 2, takes: Duration::from_secs(60), lasts: Duration::from_secs(60), ..LOAD },
    );
    let name = "ceiba:limit:key:killed:concurrent:2:2000000us";
    while redis.number(&["ZCARD", name]) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let inner = Inner::new(Duration::ZERO);
    let producer = limited(&config, &inner);
    until(&producer, up).await;
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        assert!(
            send(&producer, Duration::from_secs(5)).await.is_err(),
            "a slot that is in use was given away"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    let killed = tokio::time::Instant::now();
    while send(&producer, Duration::from_secs(5)).await.is_err() {
        assert!(killed.elapsed() < Duration::from_secs(6), "the slots of a process that is gone stay taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
