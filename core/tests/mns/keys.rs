//! Clocks that are apart, and keys that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ceiba_core::client::BoxFuture;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Result};
use ceiba_core::message::Message;
use ceiba_core::provider::mns::{self, Credentials, Keys};
use ceiba_core::secret::Secret;
use serde_json::json;

use crate::server::{Fault, Server};
use crate::{ack, consumer, next, producer, refused, section, send, setup};

#[tokio::test]
async fn a_clock_that_is_wrong_is_put_right_by_the_service_s() {
    for ahead in [3600, -3600, 10 * 365 * 86_400] {
        let server = Server::start().await;
        server.set_skew(ahead);
        let producer = producer(&server, json!({})).await;
        for number in 0..3 {
            send(&producer, Message::new(number.to_string())).await.unwrap();
        }
        assert_eq!(server.log().len(), 4, "the first was refused once, and none after it");
        let told = producer.status()["clock_ahead_ms"].as_i64().unwrap();
        assert!((told - ahead * 1000).abs() < 3000, "{told}");
        // A delivery's time counts by the service's clock too.
        let consumer = consumer(&server, json!({"wait": "1s"})).await;
        let delivery = next(&consumer).await;
        ack(&consumer, &[&delivery]).await.remove(0).unwrap();
        assert_eq!(consumer.status()["lapsed"], 0);
    }
}

#[tokio::test]
async fn requests_on_their_way_together_are_all_signed_again_once_the_clock_is_right() {
    let server = Server::start().await;
    // Less than what makes the service refuse by itself: each of the eight is refused once, when all have come.
    server.set_skew(600);
    let together = Arc::new(tokio::sync::Barrier::new(8));
    for _ in 0..8 {
        server.fault(|_| true, Fault::LateTogether(together.clone()));
    }
    let producer = producer(&server, json!({"connections": 8})).await;
    let sends = (0..8).map(|number| send(&producer, Message::new(number.to_string())));
    let results = futures_util::future::join_all(sends).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((server.stored(), server.log().len()), (8, 16));
}

#[tokio::test]
async fn a_clock_that_is_right_is_not_changed_by_a_refusal() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    server.fault(|_| true, Fault::Refuse("TimeExpired", 408));
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.retryable()), (Kind::Authentication, true));
    assert_eq!((server.log().len(), producer.status()["clock_ahead_ms"].as_i64()), (1, Some(0)));
}

#[tokio::test]
async fn temporary_keys_are_sent_with_their_token() {
    let server = Server::start().await;
    server.set_keys("id", "secret", Some("token/+="));
    let without = producer(&server, json!({})).await;
    assert_eq!(refused(&without, Message::new("x")).await.kind(), Kind::Authentication);
    let with = producer(&server, json!({"security_token": "token/+="})).await;
    send(&with, Message::new("x")).await.unwrap();
}

#[tokio::test]
async fn keys_of_a_file_may_change_at_any_time() {
    let path = std::env::temp_dir().join(format!("ceiba-mns-{:x}.json", std::process::id()));
    let write = |id: &str, secret: &str| {
        let text = json!({"access_key_id": id, "access_key_secret": secret}).to_string();
        std::fs::write(&path, text).unwrap();
    };
    let server = Server::start().await;
    let from_file = json!({"access_key_id": null, "access_key_secret": null, "credentials": {"file": path}});
    write("id", "secret");
    let producer = producer(&server, from_file).await;
    send(&producer, Message::new("x")).await.unwrap();
    server.set_keys("other", "new-secret", None);
    // Whoever changes them is late: the old ones are refused.
    assert_eq!(refused(&producer, Message::new("x")).await.kind(), Kind::Authentication);
    write("other", "new-secret");
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!(server.stored(), 2);
    std::fs::remove_file(&path).unwrap();
}

struct Rotating(AtomicUsize, AtomicUsize);

impl Credentials for Rotating {
    fn keys<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Keys>>> {
        let number = self.0.load(Ordering::SeqCst);
        Box::pin(async move {
            Ok(Arc::new(Keys {
                key_id: Secret::new(format!("id-{number}")),
                key_secret: Secret::new("secret"),
                security_token: None,
            }))
        })
    }

    fn refused(&self, keys: &Keys) {
        assert!(keys.key_id.expose().starts_with("id-"));
        self.1.fetch_add(1, Ordering::SeqCst);
        // There is one more, and no other.
        self.0.store(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn keys_of_the_host_are_asked_for_each_request() {
    let server = Server::start().await;
    server.set_keys("id-1", "secret", None);
    let none = json!({"access_key_id": null, "access_key_secret": null});
    let keys = Arc::new(Rotating(AtomicUsize::new(0), AtomicUsize::new(0)));
    let producer =
        mns::open_producer_as(&setup(), section(&server, none.clone()), keys.clone()).await.unwrap();
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!((server.log().len(), keys.1.load(Ordering::SeqCst)), (2, 1), "refused once, and asked again");
    server.set_keys("nobody", "secret", None);
    assert_eq!(refused(&producer, Message::new("x")).await.kind(), Kind::Authentication);
    assert_eq!(server.log().len(), 3, "the same keys are not tried twice");
    let error = mns::open_producer_as(&setup(), section(&server, json!({})), keys).await.err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidConfig);
    let error = mns::open_producer(&setup(), section(&server, none)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidConfig);
}

#[test]
fn addresses_name_where_keys_are() {
    for address in [
        "mns://ID:s%2Fe@127.0.0.1:8012/queues/orders?body_encoding=base64&priority=1",
        "mnss://ID@1.mns.cn-hangzhou.aliyuncs.com/topics/news?secret_env=HOME&retry=3",
        "mns://127.0.0.1:8012/queues/q?credentials=environment",
        "mns://h/queues/q?credentials=file:/a",
    ] {
        ceiba_core::open::check(&ClientConfig::parse(address).unwrap()).unwrap();
    }
}
