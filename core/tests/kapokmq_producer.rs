//! The KapokMQ producer against a server that does what the test says.

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
use ceiba_core::completion::Completion;
use ceiba_core::config::WhenDisconnected;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::intake::Ticket;
use ceiba_core::message::Message;
use peer::*;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

fn failed(completion: &Completion) -> (u64, Kind, Outcome) {
    let error = completion.result.as_ref().expect_err("an error");
    (completion.token, error.kind(), error.outcome())
}

fn tokens(completions: &[Completion]) -> Vec<u64> {
    completions
        .iter()
        .map(|completion| {
            assert!(completion.result.is_ok(), "{completion:?}");
            completion.token
        })
        .collect()
}

#[tokio::test]
async fn each_ack_ends_the_oldest_send() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    for token in 1..=3 {
        intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(session.bodies(3).await, ["m1", "m2", "m3"]);
    session.ok(1).await;
    let first = completions(&queue, 1).await;
    assert_eq!(tokens(&first), [1]);
    let receipt = first[0].result.as_ref().unwrap();
    assert_eq!((receipt.attempts, receipt.provider, receipt.message_id.is_none()), (1, "kapokmq", true));
    assert_eq!(intake.under_way(), 2);
    session.ok(2).await;
    assert_eq!(tokens(&completions(&queue, 2).await), [2, 3]);
    until("all acked", || producer.status()["acked"] == 3).await;
    let status = producer.status();
    assert_eq!(status["state"], "connected");
    assert_eq!(status["connected_to"], json!([peer.url()]));
    assert_eq!((&status["pending"], &status["unacked"]), (&json!(0), &json!(0)));
    assert!(!status.to_string().contains(KEY));
}

#[tokio::test]
async fn what_waits_is_written_at_once_and_never_past_the_window() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({"window": 400})).await;
    let (intake, queue) = submits(&producer);
    let body = "x".repeat(40);
    let frame = 6 + format!(r#"{{"MessageData":"{body}","DelayTime":0}}"#).len();
    for token in 0..1000 {
        intake.submit(token, body.as_bytes(), Duration::ZERO).unwrap();
    }
    // The first read of the bare socket has the whole window: it was one write.
    let mut bytes = vec![0; 1 << 20];
    let read = soon(session.wire.get_mut().read(&mut bytes)).await.unwrap();
    assert_eq!(read, 400 * frame);
    assert_eq!(producer.status()["unacked"], 400);
    session.ok(150).await;
    let read = soon(session.wire.get_mut().read(&mut bytes)).await.unwrap();
    assert_eq!(read % frame, 0);
    let mut more = read;
    while more < 150 * frame {
        more += soon(session.wire.get_mut().read(&mut bytes)).await.unwrap();
    }
    assert_eq!(more, 150 * frame);
    assert_eq!(completions(&queue, 150).await.len(), 150);
}

#[tokio::test]
async fn a_loss_ends_the_written_as_unknown_and_keeps_the_others() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({"window": 2})).await;
    let (intake, queue) = submits(&producer);
    for token in 1..=4 {
        intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(session.bodies(2).await, ["m1", "m2"]);
    drop(session);
    let lost = completions(&queue, 2).await;
    assert_eq!(failed(&lost[0]), (1, Kind::Unavailable, Outcome::Unknown));
    assert_eq!(failed(&lost[1]), (2, Kind::Unavailable, Outcome::Unknown));
    assert_eq!(lost[0].result.as_ref().unwrap_err().attempts(), 1);
    let mut session = peer.accept().await;
    assert_eq!(session.bodies(2).await, ["m3", "m4"]);
    session.ok(2).await;
    assert_eq!(tokens(&completions(&queue, 2).await), [3, 4]);
    assert_eq!(producer.status()["reconnects"], 1);
}

#[tokio::test]
async fn acks_that_came_before_the_loss_count() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    for token in 1..=3 {
        intake.submit(token, b"x", Duration::ZERO).unwrap();
    }
    session.bodies(3).await;
    session.ok(2).await;
    drop(session);
    let ends = completions(&queue, 3).await;
    assert_eq!(tokens(&ends[..2]), [1, 2]);
    assert_eq!(failed(&ends[2]), (3, Kind::Unavailable, Outcome::Unknown));
}

#[tokio::test]
async fn with_resend_unacked_the_written_go_first_again() {
    let peer = Peer::start().await;
    let (producer, mut session) =
        peer.producer(&setup("p"), json!({"window": 3, "resend_unacked": true})).await;
    let (intake, queue) = submits(&producer);
    for token in 1..=5 {
        intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(session.bodies(3).await, ["m1", "m2", "m3"]);
    session.ok(1).await;
    assert_eq!(session.bodies(1).await, ["m4"]);
    drop(session);
    let mut session = peer.accept().await;
    assert_eq!(session.bodies(3).await, ["m2", "m3", "m4"]);
    session.ok(3).await;
    assert_eq!(session.bodies(1).await, ["m5"]);
    session.ok(1).await;
    let ends = completions(&queue, 5).await;
    assert_eq!(tokens(&ends), [1, 2, 3, 4, 5]);
    let attempts: Vec<u32> = ends.iter().map(|end| end.result.as_ref().unwrap().attempts).collect();
    assert_eq!(attempts, [1, 2, 2, 2, 1]);
}

#[tokio::test]
async fn deadlines_without_a_connection() {
    let section = json!({"url": format!("ws://{}", dead_port().await), "topic": "t", "secret_key": KEY});
    let producer = producer(&lazy("p"), section).await.unwrap();
    let started = Instant::now();
    let (short, long) = (Context::within(Duration::from_secs(1)), Context::within(Duration::from_secs(3)));
    // The later deadline is pushed first: the earlier one ends first all the same.
    let message = Arc::new(Message::new("x"));
    let later = producer.send(&long, message.clone());
    let earlier = producer.send(&short, message);
    let later = async {
        let error = later.await.unwrap_err();
        (error, started.elapsed())
    };
    let earlier = async {
        let error = earlier.await.unwrap_err();
        (error, started.elapsed())
    };
    let ((later, later_took), (earlier, earlier_took)) = soon(async { tokio::join!(later, earlier) }).await;
    for error in [later, earlier] {
        assert_eq!((error.kind(), error.outcome(), error.attempts()), (Kind::Timeout, Outcome::NotSent, 0));
    }
    assert!(earlier_took >= Duration::from_secs(1) && later_took >= Duration::from_secs(3));
    assert!(earlier_took < later_took);
}

#[tokio::test]
async fn a_deadline_after_the_write_is_unknown_and_the_late_ack_is_not_mistaken() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let ctx = Context::within(Duration::from_secs(2));
    let (sent, bodies) =
        tokio::join!(producer.send(&ctx, Arc::new(Message::new("first"))), session.bodies(1));
    assert_eq!(bodies, ["first"]);
    let error = sent.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.attempts()), (Kind::Timeout, Outcome::Unknown, 1));
    let (intake, queue) = submits(&producer);
    intake.submit(2, b"second", Duration::ZERO).unwrap();
    intake.submit(3, b"third", Duration::ZERO).unwrap();
    session.bodies(2).await;
    session.ok(2).await;
    // The first ack was the late one.
    assert_eq!(tokens(&completions(&queue, 1).await), [2]);
    assert_eq!(intake.under_way(), 1);
    session.ok(1).await;
    assert_eq!(tokens(&completions(&queue, 1).await), [3]);
}

#[tokio::test]
async fn cancels_before_and_after_the_write() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({"window": 1})).await;
    let (intake, queue) = submits(&producer);
    for token in 1..=3 {
        intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(session.bodies(1).await, ["m1"]);
    intake.cancel(Ticket::Token(2));
    assert_eq!(failed(&completions(&queue, 1).await[0]), (2, Kind::Cancelled, Outcome::NotSent));
    intake.cancel(Ticket::Token(1));
    assert_eq!(failed(&completions(&queue, 1).await[0]), (1, Kind::Cancelled, Outcome::Unknown));
    // Its place in the window is free when its ack comes, and that ack is nobody else's.
    session.ok(1).await;
    assert_eq!(session.bodies(1).await, ["m3"]);
    assert_eq!(queue.len(), 1);
    session.ok(1).await;
    assert_eq!(tokens(&completions(&queue, 1).await), [3]);

    let token = CancellationToken::new();
    let ctx = Context::within(Duration::from_secs(20)).cancelled_by(token.clone());
    let cancel = async {
        session.bodies(1).await;
        token.cancel();
    };
    let (sent, ()) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), cancel);
    let error = sent.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Cancelled, Outcome::Unknown));
}

#[tokio::test]
async fn a_send_that_nobody_waits_for_is_not_written() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({"window": 1})).await;
    let ctx = Context::within(Duration::from_secs(20));
    let first = producer.send(&ctx, Arc::new(Message::new("first")));
    let first = async {
        let (sent, ()) = tokio::join!(first, async {
            assert_eq!(session.bodies(1).await, ["first"]);
            let second = producer.send(&ctx, Arc::new(Message::new("dropped")));
            assert!(tokio::time::timeout(Duration::from_millis(20), second).await.is_err());
            session.ok(1).await;
        });
        sent
    };
    first.await.unwrap();
    let (sent, bodies) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("third"))), async {
        let bodies = session.bodies(1).await;
        session.ok(1).await;
        bodies
    });
    sent.unwrap();
    assert_eq!(bodies, ["third"]);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_left() {
    let peer = Peer::start().await;
    // A session that nobody polls reads nothing and answers nothing.
    let (producer, silent) = peer.producer(&setup("p"), json!({"check_time": "150ms"})).await;
    let mut answering = peer.accept().await;
    let error = producer.status()["last_error"]["message"].to_string();
    assert!(error.contains("answered no ping"), "{error}");
    drop(silent);
    // One that answers is kept.
    for _ in 0..6 {
        assert_eq!(answering.seen().await, Seen::Ping);
    }
    assert_eq!(producer.status()["reconnects"], 1);
    let ctx = Context::within(Duration::from_secs(5));
    let (sent, _) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), async {
        answering.bodies(1).await;
        answering.ok(1).await;
    });
    sent.unwrap();
}

#[tokio::test]
async fn any_text_but_ok_drops_the_connection() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"x", Duration::ZERO).unwrap();
    session.bodies(1).await;
    session.text("nope").await;
    assert_eq!(failed(&completions(&queue, 1).await[0]), (1, Kind::Protocol, Outcome::Unknown));
    session.ends().await;
    // An ack that nothing was sent for breaks the pairing too.
    let mut session = peer.accept().await;
    session.ok(1).await;
    session.ends().await;
    let mut session = peer.accept().await;
    intake.submit(2, b"y", Duration::ZERO).unwrap();
    assert_eq!(session.bodies(1).await, ["y"]);
    session.ok(1).await;
    assert_eq!(tokens(&completions(&queue, 1).await), [2]);
}

#[tokio::test]
async fn delays_are_rounded_up_to_whole_seconds() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, _queue) = submits(&producer);
    for (token, delay) in [0, 900, 3_000, 3_001].into_iter().enumerate() {
        intake.submit(token as u64, b"x", Duration::from_millis(delay)).unwrap();
    }
    let mut delays = Vec::new();
    for _ in 0..4 {
        delays.push(session.message().await.1);
    }
    // A moment has passed since they were taken, and never a whole second of it counts against the delay.
    assert_eq!(delays[..2], [0, 1]);
    assert!(delays[2] == 3 && (3..=4).contains(&delays[3]), "{delays:?}");
}

#[tokio::test]
async fn a_delay_counts_from_acceptance() {
    let peer = Peer::start().await;
    let producer = producer(&lazy("p"), peer.section(json!({}))).await.unwrap();
    let (intake, _queue) = submits(&producer);
    let started = Instant::now();
    intake.submit(1, b"long", Duration::from_secs(60)).unwrap();
    intake.submit(2, b"past", Duration::from_millis(300)).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let mut session = peer.accept().await;
    let (_, long) = session.message().await;
    let (_, past) = session.message().await;
    let waited = i64::try_from(started.elapsed().as_secs()).unwrap();
    assert!(long <= 59 && long >= 59 - waited, "{long} after {waited} s");
    assert_eq!(past, 0);
}

#[tokio::test]
async fn when_disconnected_fail_does_not_wait() {
    let peer = Peer::start().await;
    let setup = ceiba_core::provider::Setup { when_disconnected: WhenDisconnected::Fail, ..setup("p") };
    let (producer, mut session) = peer.producer(&setup, json!({"window": 1})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"written", Duration::ZERO).unwrap();
    intake.submit(2, b"waits", Duration::ZERO).unwrap();
    session.bodies(1).await;
    // Nothing listens any more.
    drop(peer);
    drop(session);
    let ends = completions(&queue, 2).await;
    assert_eq!(failed(&ends[0]), (1, Kind::Unavailable, Outcome::Unknown));
    assert_eq!(failed(&ends[1]), (2, Kind::Unavailable, Outcome::NotSent));
    let started = Instant::now();
    let error = producer
        .send(&Context::within(Duration::from_secs(20)), Arc::new(Message::new("x")))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_flush_waits_for_earlier_sends_and_not_for_later_ones() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"1", Duration::ZERO).unwrap();
    intake.submit(2, b"2", Duration::ZERO).unwrap();
    let short = Context::within(Duration::from_millis(60));
    assert_eq!(producer.flush(&short).await.unwrap_err().kind(), Kind::Timeout);
    let ctx = Context::within(Duration::from_secs(10));
    let (flushed, ()) = tokio::join!(producer.flush(&ctx), async {
        tokio::task::yield_now().await;
        intake.submit(3, b"3", Duration::ZERO).unwrap();
        session.bodies(3).await;
        session.ok(2).await;
    });
    flushed.unwrap();
    // Whoever flushed can poll what ended.
    let mut ended = Vec::new();
    queue.poll(9, &mut ended);
    assert_eq!(tokens(&ended), [1, 2]);
    assert_eq!(intake.under_way(), 1);
}

#[tokio::test]
async fn close_waits_for_acks_and_says_good_bye() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"x", Duration::ZERO).unwrap();
    let ctx = Context::within(Duration::from_secs(10));
    let (closed, end) = tokio::join!(producer.close(&ctx), async {
        session.bodies(1).await;
        session.ok(1).await;
        session.ends().await
    });
    closed.unwrap();
    assert_eq!(end, Seen::Closed);
    assert_eq!(tokens(&completions(&queue, 1).await), [1]);
    assert_eq!(intake.submit(2, b"y", Duration::ZERO).unwrap_err().kind(), Kind::Closed);
    assert_eq!(producer.status()["state"], "closed");
    producer.flush(&ctx).await.unwrap();
    producer.close(&ctx).await.unwrap();
}

#[tokio::test]
async fn close_ends_what_does_not_end_in_time_with_its_outcome() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({"window": 1})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"written", Duration::ZERO).unwrap();
    intake.submit(2, b"waits", Duration::ZERO).unwrap();
    session.bodies(1).await;
    let error = soon(producer.close(&Context::within(Duration::from_millis(80)))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    let mut ends = completions(&queue, 2).await;
    ends.sort_by_key(|end| end.token);
    assert_eq!(failed(&ends[0]), (1, Kind::Closed, Outcome::Unknown));
    assert_eq!(failed(&ends[1]), (2, Kind::Closed, Outcome::NotSent));
}

#[tokio::test]
async fn a_dropped_producer_ends_its_calls_and_its_connection() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let (intake, queue) = submits(&producer);
    intake.submit(1, b"x", Duration::ZERO).unwrap();
    session.bodies(1).await;
    drop(producer);
    assert_eq!(failed(&completions(&queue, 1).await[0]), (1, Kind::Closed, Outcome::Unknown));
    session.ends().await;
}

#[tokio::test]
async fn what_the_wire_cannot_carry_is_refused_and_not_sent() {
    let peer = Peer::start().await;
    let (producer, mut session) = peer.producer(&setup("p"), json!({})).await;
    let ctx = Context::within(Duration::from_secs(10));
    let cases = [
        (Message::new(&b"\xff\xfe"[..]), Kind::Unsupported),
        (Message::new("x").with(|fields| fields.recipients.push("a".into())), Kind::Unsupported),
        (Message::new("x").with(|fields| fields.topic = Some("other".into())), Kind::Unsupported),
        (Message::new("x".repeat(64 << 20)), Kind::TooLarge),
        (Message::new("x").with_delay(Duration::MAX), Kind::InvalidArgument),
    ];
    for (message, kind) in cases {
        let error = producer.send(&ctx, Arc::new(message)).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotSent));
    }
    let own = Message::new("fine").with(|fields| fields.topic = Some("t1".into()));
    let (sent, bodies) = tokio::join!(producer.send(&ctx, Arc::new(own)), async {
        let bodies = session.bodies(1).await;
        session.ok(1).await;
        bodies
    });
    sent.unwrap();
    assert_eq!(bodies, ["fine"]);
}
