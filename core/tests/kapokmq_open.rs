//! Opening KapokMQ clients: keys, hosts that are not there, addresses, sections.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod peer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use peer::*;
use serde_json::json;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_wrong_key_fails_the_open_at_once() {
    let peer = Peer::start().await;
    let setup = setup("p");
    let (opened, mut session) = tokio::join!(soon(producer(&setup, peer.section(json!({})))), peer.refuse());
    let error = opened.err().expect("refused");
    assert_eq!((error.kind(), error.provider()), (Kind::Authentication, Some("kapokmq")));
    assert!(!error.retryable());
    assert!(!format!("{error} {error:?}").contains(KEY));
    // No second guess, and the connection ends.
    session.ends().await;
    assert!(peer.quiet(Duration::from_millis(200)).await);
}

#[tokio::test]
async fn a_key_refused_at_a_reconnect_is_not_tried_again_at_once() {
    let peer = Peer::start().await;
    let (producer, session) = peer.producer(&setup("p"), json!({})).await;
    drop(session);
    drop(peer.refuse().await);
    until("the error", || producer.status()["last_error"]["kind"] == "authentication").await;
    // With `reconnect_max` 50 ms any other error would have led to a try by now.
    assert!(peer.quiet(Duration::from_millis(500)).await);
    assert_eq!(producer.status()["state"], "disconnected");
    let ctx = Context::within(Duration::from_millis(50));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Authentication, Outcome::NotSent));
    assert!(!error.retryable());
    assert!(error.text().contains("refused the secret: `secret_key`"), "{}", error.text());
}

#[tokio::test]
async fn an_unreachable_host_fails_the_open_after_the_connect_timeout() {
    let section = json!({"url": format!("ws://{}", dead_port().await), "topic": "t", "secret_key": KEY});
    let mut setup = setup("p");
    setup.connect_timeout = Duration::from_millis(300);
    let started = Instant::now();
    let error = soon(producer(&setup, section)).await.err().expect("no connection");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(error.text().contains("cannot be reached"), "{}", error.text());
}

#[tokio::test]
async fn a_server_that_is_no_broker_fails_the_open() {
    let peer = Peer::start().await;
    let setup = setup("p");
    let (opened, _) = tokio::join!(soon(producer(&setup, peer.section(json!({})))), async {
        let mut session = Session::handshake(peer.accept_tcp().await).await;
        session.text("hello").await;
        session
    });
    assert_eq!(opened.err().expect("refused").kind(), Kind::Protocol);
    let (opened, ()) = tokio::join!(soon(producer(&setup, peer.section(json!({})))), async {
        let mut tcp = peer.accept_tcp().await;
        let (mut request, mut some) = (Vec::new(), [0; 2048]);
        while !request.ends_with(b"\r\n\r\n") {
            let count = soon(tcp.read(&mut some)).await.unwrap();
            request.extend_from_slice(&some[..count]);
        }
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
    });
    assert_eq!(opened.err().expect("refused").kind(), Kind::NotFound);
    // What no further try would mend is not tried again.
    assert!(peer.quiet(Duration::from_millis(200)).await);
    let (opened, ()) = tokio::join!(soon(consumer(&setup, peer.section(json!({})))), async {
        Session::handshake(peer.accept_tcp().await).await.text("hello").await;
    });
    assert_eq!(opened.err().expect("refused").kind(), Kind::Protocol);
    assert!(peer.quiet(Duration::from_millis(200)).await);
}

#[tokio::test]
async fn a_lazy_open_returns_at_once_and_sends_when_the_server_is_there() {
    let addr = dead_port().await;
    let section = json!({"url": format!("ws://{addr}"), "topic": "t", "secret_key": KEY,
                         "reconnect_base": "10ms", "reconnect_max": "50ms"});
    let producer = producer(&lazy("p"), section).await.unwrap();
    until("a failed try", || producer.status()["last_error"]["kind"] == "unavailable").await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"waits", Duration::ZERO).unwrap();
    let peer = Peer::at(addr).await;
    let mut session = peer.accept().await;
    assert_eq!(session.bodies(1).await, ["waits"]);
    session.ok(1).await;
    assert!(completions(&queue, 1).await[0].result.is_ok());
}

#[tokio::test]
async fn topic_and_id_are_percent_encoded_and_a_path_in_front_is_kept() {
    let peer = Peer::start().await;
    let more = json!({"url": format!("{}/mq/", peer.url()), "topic": "木 |", "client_id": "a?b"});
    let (_producer, session) = peer.producer(&setup("p"), more).await;
    assert_eq!(session.path, "/mq/Producers/Conn/%E6%9C%A8%20%7C/a%3Fb");
    assert_eq!(session.host, peer.addr.to_string());
    let (_producer, session) = peer.producer(&setup("or/ders"), json!({})).await;
    let id = session.path.strip_prefix("/Producers/Conn/t1/or_ders-").expect("id, host, pid, random");
    assert!(id.contains(&format!("-{}-", std::process::id())), "{id}");
}

#[tokio::test]
async fn wrong_sections_name_the_key() {
    let good = json!({"url": "ws://127.0.0.1:1", "topic": "t", "secret_key": KEY});
    let cases = [
        ("topic", json!(""), "`topic` is empty"),
        ("topic", json!("a/b"), "`topic`"),
        ("url", json!("http://127.0.0.1:1"), "`url` must start with ws:// or wss://"),
        ("url", json!(format!("ws://:{KEY}@127.0.0.1:1")), "`secret_key`"),
        ("url", json!(format!("ws://127.0.0.1:1?key={KEY}")), "query"),
        ("registry", json!("http://127.0.0.1:1"), "either `url` or `registry`"),
        ("spread", json!("random"), "`registry`"),
        ("prefetch", json!(5), "`prefetch` is a key of consumers"),
        ("windw", json!(5), "`window`"),
        ("window", json!(0), "`window`"),
        ("check_time", json!("0s"), "`check_time`"),
        ("reconnect_max", json!("1ms"), "`reconnect_max`"),
        ("secret_key", json!(7), "secret"),
        ("spread", json!("rnd"), "`random`"),
    ];
    for (key, value, hint) in cases {
        let mut section = good.clone();
        section[key] = value;
        let error = producer(&lazy("p"), section).await.err().unwrap_or_else(|| panic!("{key} was taken"));
        assert_eq!(error.kind(), Kind::InvalidConfig, "{error}");
        assert!(error.message().contains(hint), "{error}");
        assert!(!error.to_string().contains(KEY), "{error}");
    }
    let error =
        consumer(&lazy("c"), json!({"registry": "http://127.0.0.1:1", "topic": "t", "secret_key": KEY}))
            .await
            .err()
            .expect("refused");
    assert_eq!(error.kind(), Kind::Unsupported);
}
