//! What the library's own errors tell a reader: what was wrong, and what would be right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind};
use ceiba_core::secret::Secret;
use serde_json::json;
use tokio::net::TcpListener;

async fn broker(listen: &str) -> Result<Broker, Error> {
    let config = BrokerConfig::new(Secret::new("canary"));
    Broker::start(BrokerConfig { listen: listen.to_owned(), ..config }).await
}

async fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn opening(id: &str, config: &str) -> Error {
    let opened = calls::producer_open(Some(id), ClientConfig::parse(config).unwrap(), None).await;
    let error = opened.expect_err("it opened");
    assert!(!error.text().contains("canary"), "{}", error.text());
    error
}

fn tells(error: &Error, kind: Kind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.text().contains(part), "`{part}` is not in: {}", error.text());
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on() {
    let first = broker("127.0.0.1:0").await.unwrap();
    let taken = first.address().to_string();
    let error = broker(&taken).await.unwrap_err();
    tells(&error, Kind::Unavailable, &[&taken, "another program listens there", "choose another port"]);
    for wrong in ["8011", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:80111"] {
        let error = broker(wrong).await.unwrap_err();
        tells(&error, Kind::Unavailable, &[&format!("cannot listen on {wrong}"), "write HOST:PORT"]);
    }
    let error = broker("192.0.2.1:8011").await.unwrap_err();
    tells(&error, Kind::Unavailable, &["no address of this machine"]);
}

#[tokio::test]
async fn nobody_there() {
    let address = dead_port().await;
    let config = format!("kapokmq://:canary@{address}/t?connect_timeout=200ms");
    let error = opening("nobody", &config).await;
    let told =
        format!("ws://{address} cannot be reached: no KapokMQ broker listens there; start one, such as");
    tells(&error, Kind::Unavailable, &["no connection to", "within 200ms", &told, "`ceiba broker`"]);
}

#[tokio::test]
async fn a_file_says_it_once() {
    let address = dead_port().await;
    let url = format!("ws://{address}");
    let section = json!({"type": "kapokmq", "url": url, "topic": "t", "secret_key": "canary"});
    let one = json!({"id": "file-one", "provider": section, "connect_timeout": "200ms"});
    for text in [json!({"clients": [one]}).to_string(), one.to_string()] {
        let error = calls::open_file(&text, None).await.unwrap_err();
        tells(&error, Kind::Unavailable, &["the client `file-one` of the file: no connection to"]);
        assert_eq!(error.text().matches("within 200ms").count(), 1, "{}", error.text());
        assert_eq!((error.provider(), error.retryable()), (Some("kapokmq"), true));
    }
}

#[tokio::test]
async fn a_file_is_checked_before_anything_opens() {
    let memory = json!({"type": "memory", "topic": "t"});
    let good = json!({"id": "file-good", "provider": memory});
    for (second, kind, part) in [
        (
            json!({"id": "b", "provider": {"type": "memory"}}),
            Kind::InvalidConfig,
            "`b` of the file: the key `topic`",
        ),
        (json!({"id": "b", "provider": {"type": "memry"}}), Kind::InvalidConfig, "`memory`"),
        (json!({"provider": memory}), Kind::InvalidConfig, "clients[1]: the key `id` is missing"),
        (json!({"id": "b\u{7}", "provider": memory}), Kind::InvalidArgument, "control characters"),
        (
            good.clone(),
            Kind::AlreadyOpen,
            "`file-good` of the file: its id names a client of the same role above",
        ),
    ] {
        let error =
            calls::open_file(&json!({"clients": [good, second]}).to_string(), None).await.unwrap_err();
        tells(&error, kind, &[part]);
        tells(&calls::producer_status("file-good").unwrap_err(), Kind::UnknownId, &[]);
    }
    let consumer = json!({"id": "file-good", "role": "consumer", "provider": memory});
    let opened = calls::open_file(&json!({"clients": [good, consumer]}).to_string(), None).await.unwrap();
    assert_eq!(opened.len(), 2);
    calls::producer_close("file-good", None).await.unwrap();
    calls::consumer_close("file-good", None).await.unwrap();
    assert_eq!(calls::open_file("memory://t?id=file-good", None).await.unwrap().len(), 1);
    calls::producer_close("file-good", None).await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_and_none() {
    let broker = broker("127.0.0.1:0").await.unwrap();
    let address = broker.address();
    let error = opening("wrong", &format!("kapokmq://:canary-wrong@{address}/t")).await;
    let told = "refused the secret: `secret_key`, in a URL the SECRET of kapokmq://:SECRET@HOST:PORT, must be the one";
    tells(&error, Kind::Authentication, &[told]);
    let error = opening("none", &format!("kapokmq://{address}/t")).await;
    tells(&error, Kind::InvalidConfig, &["`secret_key` is missing", "kapokmq://:SECRET@HOST:PORT/TOPIC"]);
}

#[tokio::test]
async fn tls_to_a_port_without_it() {
    let broker = broker("127.0.0.1:0").await.unwrap();
    let config = format!("kapokmqs://:canary@{}/t?connect_timeout=500ms", broker.address());
    let told = ["kapokmq:// in place of kapokmqs://", "in JSON ws:// in place of wss://"];
    tells(&opening("tls", &config).await, Kind::Unavailable, &told);
    // One that just goes away.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = silent.accept().await.unwrap();
            let mut hello = [0; 4096];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await;
        }
    });
    let config = format!("dpmqs://{address}/t?connect_timeout=500ms");
    let told = ["dpmq:// in place of dpmqs://", "in JSON http:// in place of https://"];
    tells(&opening("tls", &config).await, Kind::Unavailable, &told);
    server.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
}
