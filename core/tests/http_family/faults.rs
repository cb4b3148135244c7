//! Servers that fail at each step: what is told of it, and how soon.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ceiba_core::client::Context;
use ceiba_core::config::WhenDisconnected;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{Act, Port, Server, ok, status};
use crate::{message, open, refused, send, setup, within};

fn section(server: &Server, more: Value) -> Value {
    let mut section = json!({"type": "webhook", "url": server.url()});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    section
}

// The body decides, so it is read.
fn judged() -> Value {
    json!({"success": {"pointer": "/code", "equals": 0}})
}

#[tokio::test]
async fn a_connection_that_ends_at_any_step_leaves_it_unknown() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n";
    for act in [
        Act::CloseAtOnce,
        Act::CloseAfter(1),
        Act::CloseAfter(20),
        Act::Raw(Vec::new()),
        Act::Raw(b"HTTP/1.1 20".to_vec()),
        Act::Raw(head.into()),
        Act::Raw(format!("{head}\r\n").into()),
        Act::Raw(format!("{head}\r\n{{\"cod").into()),
    ] {
        let server = Server::start([act.clone()]).await;
        let producer = open(&setup(), section(&server, judged())).await.unwrap();
        // Longer than what a socket takes at once: a part of it is written in any case.
        let began = Instant::now();
        let error = refused(&producer, Message::new(vec![b'x'; 8 << 20])).await;
        assert_eq!(error.kind(), Kind::Unavailable, "{act:?}: {error:?}");
        // One that ends before anything is read may also end before anything was written.
        assert!(error.outcome() == Outcome::Unknown || matches!(act, Act::CloseAtOnce), "{act:?}: {error:?}");
        assert!(error.retryable() && error.provider() == Some("webhook") && error.attempts() == 1);
        assert!(began.elapsed() < Duration::from_secs(3), "{act:?}");
        let status = producer.status();
        assert_eq!((&status["failed"], &status["last_error"]), (&json!(1), &json!("unavailable")));
    }
}

#[tokio::test]
async fn what_was_not_written_is_not_sent() {
    let port = Port::free();
    let section = json!({"type": "webhook", "url": port.url()});
    let producer = open(&setup(), section.clone()).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!(
        (error.kind(), error.outcome(), error.retryable()),
        (Kind::Unavailable, Outcome::NotSent, true)
    );

    // Told to wait, it does, until its deadline.
    let waits = ceiba_core::provider::Setup { when_disconnected: WhenDisconnected::Wait, ..setup() };
    let producer = open(&waits, section).await.unwrap();
    let ctx = Context::within(Duration::from_millis(400));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error:?}");
    // Or until there is a server.
    let sending = tokio::spawn(async move { send(&producer, Message::new("x")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let server = Server::on(port.listen(), [ok("")]);
    sending.await.unwrap().unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_open_that_waits_needs_a_server() {
    let eager = ceiba_core::provider::Setup { connect: ceiba_core::config::Connect::Eager, ..setup() };
    let server = Server::start([ok("")]).await;
    let producer = open(&eager, section(&server, json!({}))).await.unwrap();
    send(&producer, Message::new("x")).await.unwrap();
    let url = server.url();
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = open(&eager, json!({"type": "webhook", "url": url})).await.err().unwrap();
    assert_eq!((error.kind(), error.provider()), (Kind::Unavailable, Some("webhook")));
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_with_a_cancel() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{";
    for act in [Act::Stuck(Vec::new()), Act::Stuck(b"HTTP/1.1 200 ".to_vec()), Act::Stuck(head.to_vec())] {
        let server = Server::start([act.clone()]).await;
        let producer = open(&setup(), section(&server, judged())).await.unwrap();
        let began = Instant::now();
        let ctx = Context::within(Duration::from_millis(200));
        let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown), "{act:?}");

        let token = CancellationToken::new();
        let ctx = within(10).cancelled_by(token.clone());
        let sending = producer.send(&ctx, Arc::new(Message::new("x")));
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            token.cancel();
        };
        let (result, ()) = tokio::join!(sending, cancelling);
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::Unknown), "{act:?}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    // What ended before it began was not sent.
    let server = Server::start([ok("")]).await;
    let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
    let error =
        producer.send(&Context::within(Duration::ZERO), Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_answer_is_read_up_to_a_bound() {
    let endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let server = Server::start([Act::Endless(endless.clone())]).await;
    let producer = open(&setup(), section(&server, judged())).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown), "{error:?}");
    // Where the status decides, it has come.
    let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        send(&producer, Message::new("x")).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(8));
    // A head without end, too.
    let server = Server::start([Act::Endless(b"HTTP/1.1 200 OK\r\na: ".to_vec())]).await;
    let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown), "{error:?}");
}

#[tokio::test]
async fn what_is_no_http_is_a_breach_of_protocol() {
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 abc X\r\n\r\n",
    ] {
        let server = Server::start([Act::Raw(bytes.to_vec())]).await;
        let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown), "{error:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::start([ok("")]).await;
    for code in [301, 302, 303, 307, 308] {
        let location = vec![("location", elsewhere.url())];
        let server = Server::start([Act::Answer(code, location, String::new())]).await;
        let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.retryable()), (Kind::Protocol, false), "{error:?}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_server_says_how_long_to_wait() {
    let at = |after: u64| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(after));
    for (code, text, kind, least, most) in [
        (429, "7".to_owned(), Kind::Throttled, 7, 7),
        (503, "3".to_owned(), Kind::Unavailable, 3, 3),
        (408, "1".to_owned(), Kind::Unavailable, 1, 1),
        (429, at(60), Kind::Throttled, 58, 60),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), Kind::Throttled, 0, 0),
    ] {
        let act = Act::Answer(code, vec![("Retry-After", text)], String::new());
        let server = Server::start([act]).await;
        let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.retryable(), error.outcome()), (kind, true, Outcome::NotSent));
        let wait = error.retry_after().unwrap().as_secs();
        assert!((least..=most).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn each_status_has_its_kind() {
    for (code, kind) in [
        (400, Kind::InvalidArgument),
        (401, Kind::Authentication),
        (403, Kind::Permission),
        (404, Kind::NotFound),
        (410, Kind::NotFound),
        (413, Kind::TooLarge),
        (418, Kind::InvalidArgument),
        (500, Kind::Unavailable),
    ] {
        let server = Server::start([status(code)]).await;
        let producer = open(&setup(), section(&server, json!({}))).await.unwrap();
        let error = refused(&producer, message("x", |_| {})).await;
        assert_eq!((error.kind(), error.retryable()), (kind, code == 500), "{code}");
        assert_eq!(server.seen().len(), 1, "{code}: it was sent again");
    }
}
