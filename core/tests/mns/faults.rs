//! Services that fail at each step: what is told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use ceiba_core::provider::mns;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{Fault, Server};
use crate::{producer, refused, section, send, setup, within};

#[tokio::test]
async fn each_refusal_has_its_kind_and_shows_no_secret() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    for (code, status, kind, retryable, outcome) in [
        ("QpsLimitExceeded", 400, Kind::Throttled, true, Outcome::NotSent),
        ("QueueNotExist", 404, Kind::NotFound, false, Outcome::NotSent),
        ("AccessDenied", 403, Kind::Permission, false, Outcome::NotSent),
        ("InvalidAccessKeyId", 403, Kind::Authentication, false, Outcome::NotSent),
        ("SignatureDoesNotMatch", 403, Kind::Authentication, false, Outcome::NotSent),
        ("TimeExpired", 408, Kind::Authentication, true, Outcome::NotSent),
        ("InvalidArgument", 400, Kind::InvalidArgument, false, Outcome::NotSent),
        ("InternalError", 500, Kind::Unavailable, true, Outcome::Unknown),
        ("NobodyKnowsThis", 503, Kind::Unavailable, true, Outcome::Unknown),
    ] {
        server.fault(|_| true, Fault::Refuse(code, status));
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.retryable(), error.outcome()), (kind, retryable, outcome), "{code}");
        assert!(error.message().contains(code) && error.message().contains("R1"), "{error}");
        assert!(!error.text().contains("secret") && error.attempts() == 1, "{error:?}");
    }
    let html = "<html>".to_owned();
    for (status, kind, outcome) in [
        (502, Kind::Unavailable, Outcome::Unknown),
        (413, Kind::TooLarge, Outcome::NotSent),
        (302, Kind::Protocol, Outcome::Unknown),
    ] {
        server.fault(|_| true, Fault::Answer(status, html.clone()));
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{status}");
    }
    for odd in ["", "<Message/>", "<Message><MessageId>1</MessageId></Message>", "<!DOCTYPE a><Message/>"] {
        server.fault(|_| true, Fault::Answer(201, odd.to_owned()));
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown), "{odd}");
    }
    assert_eq!(server.stored(), 0);
    send(&producer, Message::new("x")).await.unwrap();
}

#[tokio::test]
async fn another_body_than_was_sent_is_told() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    server.fault(|_| true, Fault::WrongDigest);
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown));
    assert!(error.message().contains("another body"), "{error}");
}

#[tokio::test]
async fn a_connection_that_ends_leaves_it_unknown() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    for fault in [
        Fault::LostAfter,
        Fault::LostBefore,
        Fault::Raw("HTTP/1.1 20"),
        Fault::Raw("HTTP/1.1 201 X\r\ncontent-length: 100\r\n\r\n<Mess"),
    ] {
        server.fault(|_| true, fault.clone());
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!(
            (error.kind(), error.outcome(), error.retryable()),
            (Kind::Unavailable, Outcome::Unknown, true),
            "{fault:?}"
        );
    }
    server.fault(|_| true, Fault::Raw("hello\r\n\r\n"));
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown));
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!(producer.status()["lost"], 5);
}

#[tokio::test]
async fn an_idle_connection_that_the_service_closed_costs_no_message() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    let closing = "HTTP/1.1 201 X\r\ncontent-length: 0\r\n\r\n";
    for _ in 0..20 {
        // The connection ends behind its answer.
        server.fault(|_| true, Fault::Raw(closing));
        refused(&producer, Message::new("x")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        send(&producer, Message::new("x")).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_not_written_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let section = json!({"url": format!("http://127.0.0.1:{port}"), "queue": "q", "access_key_id": "id",
                         "access_key_secret": "secret"});
    let section = section.as_object().unwrap().clone();
    let producer = mns::open_producer(&setup(), section.clone()).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!(
        (error.kind(), error.outcome(), error.retryable()),
        (Kind::Unavailable, Outcome::NotSent, true)
    );
    // Told to wait, it does, until its deadline or until there is a service.
    let waits = ceiba_core::provider::Setup { when_disconnected: WhenDisconnected::Wait, ..setup() };
    let producer = mns::open_producer(&waits, section).await.unwrap();
    let ctx = Context::within(Duration::from_millis(400));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error:?}");
    let sending = tokio::spawn(async move { send(&producer, Message::new("x")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let server = Server::on(TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    sending.await.unwrap().unwrap();
    assert_eq!(server.stored(), 1);
}

#[tokio::test]
async fn silence_ends_with_the_deadline_a_cancel_and_a_close() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    let began = Instant::now();
    server.fault(|_| true, Fault::Silent);
    let ctx = Context::within(Duration::from_millis(200));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));

    server.fault(|_| true, Fault::Silent);
    let token = CancellationToken::new();
    let ctx = within(10).cancelled_by(token.clone());
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        token.cancel();
    };
    let (result, ()) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), cancelling);
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::Unknown));

    server.fault(|_| true, Fault::Silent);
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Message::new("x")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ctx = Context::within(Duration::from_millis(100));
    assert_eq!(producer.close(&ctx).await.unwrap_err().kind(), Kind::Timeout);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Closed, Outcome::Unknown));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_close_waits_for_what_is_on_its_way() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    server.fault(|_| true, Fault::Slow(Duration::from_millis(300)));
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, Message::new("x")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    producer.flush(&within(5)).await.unwrap();
    assert_eq!(server.stored(), 1);
    producer.close(&within(5)).await.unwrap();
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_that_waits_needs_the_service_the_keys_and_the_queue() {
    let eager = ceiba_core::provider::Setup { connect: Connect::Eager, ..setup() };
    let server = Server::start().await;
    let open = |more| mns::open_producer(&eager, section(&server, more));
    open(json!({})).await.unwrap();
    open(json!({"queue": null, "topic": "t"})).await.unwrap();
    mns::open_consumer(&eager, section(&server, json!({}))).await.unwrap();
    let kind = |result: ceiba_core::error::Result<_>| {
        result.err().map(|error: ceiba_core::error::Error| (error.kind(), error.provider()))
    };
    let own = Some("mns");
    assert_eq!(kind(open(json!({"queue": "other"})).await), Some((Kind::NotFound, own)));
    assert_eq!(kind(open(json!({"queue": null, "topic": "other"})).await), Some((Kind::NotFound, own)));
    assert_eq!(kind(open(json!({"access_key_secret": "wrong"})).await), Some((Kind::Authentication, own)));
    server.fault(|_| true, Fault::Refuse("AccessDenied", 403));
    open(json!({})).await.unwrap();
    server.fault(|_| true, Fault::Silent);
    let hasty = ceiba_core::provider::Setup { connect_timeout: Duration::from_millis(200), ..eager.clone() };
    let section = section(&server, json!({}));
    assert_eq!(kind(mns::open_producer(&hasty, section.clone()).await), Some((Kind::Unavailable, own)));
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(kind(mns::open_producer(&eager, section).await), Some((Kind::Unavailable, own)));
}

#[tokio::test]
async fn connections_are_bounded_and_used_again() {
    use std::sync::atomic::Ordering;
    let server = Server::start().await;
    let producer = producer(&server, json!({"connections": 3})).await;
    for _ in 0..20 {
        let sends = (0..10).map(|_| send(&producer, Message::new("x")));
        assert!(futures_util::future::join_all(sends).await.iter().all(Result::is_ok));
    }
    let made = server.shared.connections.load(Ordering::SeqCst);
    assert!(made <= 3, "{made}");
}
