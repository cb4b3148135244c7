//! Passwords and TLS.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ceiba_core::error::Kind;
use ceiba_tests::redis::{Calls, Redis};
use serde_json::json;

use crate::inner::{Inner, comes_to, limited, send, state, until, up};

const CANARY: &str = "canary-5b1f-of-the-limiter";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_no_password_is() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    // The only test of this program that listens to events.
    subscriber.with_writer(move || writer.clone()).with_ansi(false).init();

    let redis = Redis::with_password("right");
    let inner = Inner::new(Duration::ZERO);
    let address = redis.address();
    let mut seen = String::new();
    for url in [
        format!("redis://:{CANARY}@{address}"),
        format!("redis://{CANARY}:{CANARY}@{address}/0"),
        format!("redis://{address}"),
    ] {
        let config = json!({"limiter": "sliding_window", "rate": 9, "per": "1s", "url": url});
        let producer = limited(&config, &inner);
        until(&producer, |state| state["store"]["state"] == "down").await;
        let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Authentication, false), "{error:?}");
        seen.push_str(&format!(
            "{error:?} {error} {} {} {}",
            error.text(),
            error.to_json(),
            state(&producer)
        ));
    }
    for limiter in ["sliding_window", "concurrent"] {
        let mut config = json!({"limiter": limiter, "rate": 9, "url": format!("redis://:right@{address}/2")});
        if limiter == "sliding_window" {
            config["per"] = json!("1s");
        }
        let producer = limited(&config, &inner);
        until(&producer, up).await;
        send(&producer, Duration::from_secs(5)).await.unwrap();
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("is down") && log.contains("decides without Redis"), "{log}");
    assert!(!log.contains(CANARY) && !seen.contains(CANARY), "{log} {seen}");
}

#[tokio::test]
async fn a_user_without_the_right_is_told_so() {
    let redis = Redis::start();
    redis.ask(&["ACL", "SETUSER", "ann", "on", ">pass", "~*", "+@connection"]).unwrap();
    let inner = Inner::new(Duration::ZERO);
    let url = format!("redis://ann:pass@{}", redis.address());
    let config =
        json!({"limiter": "sliding_window", "rate": 9, "per": "1s", "url": url, "store_timeout": "5s"});
    let producer = limited(&config, &inner);
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error:?}");
    assert_eq!(state(&producer)["store"]["state"], "refusing");
    redis.ask(&["ACL", "SETUSER", "ann", "+@all"]).unwrap();
    send(&producer, Duration::from_secs(5)).await.unwrap();
    assert_eq!(state(&producer)["store"]["state"], "up");
}

#[tokio::test]
async fn what_may_not_be_given_back_is_tried_once_and_says_nothing_of_sends() {
    let redis = Redis::start();
    redis.ask(&["ACL", "SETUSER", "ann", "on", ">pass", "~*", "+@all", "-zrem"]).unwrap();
    let inner = Inner::new(Duration::ZERO);
    let url = format!("redis://ann:pass@{}", redis.address());
    let config =
        json!({"limiter": "sliding_window", "rate": 9, "per": "1h", "url": url, "store_timeout": "5s"});
    let producer = limited(&config, &inner);
    send(&producer, Duration::from_secs(5)).await.unwrap();
    redis.freeze();
    send(&producer, Duration::from_millis(100)).await.unwrap_err();
    redis.thaw();
    comes_to(|| redis.calls("zrem").rejected > 0, || format!("{:?}", redis.calls("zrem"))).await;
    // Longer than the pause before what is tried again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(redis.calls("zrem"), Calls { made: 0, rejected: 1 });
    let store = &state(&producer)["store"];
    assert_eq!((store["state"].as_str(), store["failures"].as_u64()), (Some("up"), Some(0)), "{store}");
    send(&producer, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn over_tls_the_certificate_is_verified() {
    let folder = std::env::temp_dir().join(format!("ceiba-limiter-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = write("own.pem", &made.cert.pem());
    let key = write("key.pem", &made.signing_key.serialize_pem());
    let stranger = write("other.pem", &other.cert.pem());
    let redis = Redis::with_tls(&certificate, &key);
    let inner = Inner::new(Duration::ZERO);
    let config = |ca: &PathBuf| {
        json!({
            "limiter": "sliding_window", "rate": 9, "per": "1s", "url": redis.url(), "store_timeout": "5s",
            "ca_file": ca,
        })
    };
    let producer = limited(&config(&certificate), &inner);
    until(&producer, up).await;
    send(&producer, Duration::from_secs(5)).await.unwrap();
    let producer = limited(&config(&stranger), &inner);
    until(&producer, |state| state["store"]["state"] == "down").await;
    let error = send(&producer, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.text().contains("certificate"), "{error:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}
