//! What a consumer receives, acknowledges and gives back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ceiba_core::error::Kind;
use ceiba_core::message::Message;
use ceiba_core::wire::mns::Operation;
use serde_json::json;

use crate::server::{Fault, Server};
use crate::{ack, consumer, next, producer, setup, until, within};

async fn filled(server: &Server, number: usize) {
    let producer = producer(server, json!({})).await;
    let messages = (0..number).map(|number| Arc::new(Message::new(number.to_string()))).collect();
    assert!(producer.send_batch(&within(10), messages).await.iter().all(Result::is_ok));
}

fn is_renewal(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::ChangeVisibility { timeout, .. } if *timeout > 0)
}

#[tokio::test]
async fn acks_go_sixteen_in_a_request_and_each_has_its_own_end() {
    let server = Server::start().await;
    filled(&server, 40).await;
    let consumer = consumer(&server, json!({"prefetch": 100, "wait": "1s", "connections": 1})).await;
    let mut came = Vec::new();
    while came.len() < 40 {
        came.extend(consumer.receive(&within(5), 100).await.unwrap());
    }
    let mut codes: Vec<Arc<str>> = came.iter().map(|delivery| delivery.code.clone()).collect();
    codes.insert(7, "nobody-gave-this".into());
    codes.insert(9, "".into());
    codes.insert(11, "two words".into());
    let results = consumer.ack(&within(5), codes).await;
    for (at, result) in results.iter().enumerate() {
        let kind = result.as_ref().err().map(|error| error.kind());
        let wanted = match at {
            7 => Some(Kind::NotFound),
            9 | 11 => Some(Kind::InvalidArgument),
            _ => None,
        };
        assert_eq!(kind, wanted, "{at}: {result:?}");
    }
    assert_eq!(server.stored(), 0);
    let deletes = server.log().iter().filter(|line| line.starts_with("DELETE")).count();
    assert!((3..=6).contains(&deletes), "{deletes}");
    let status = consumer.status();
    assert_eq!(
        (&status["acked"], &status["held"], &status["state"]),
        (&json!(40), &json!(0), &json!("connected"))
    );
    // The same again is nobody's any more.
    assert_eq!(ack(&consumer, &[&came[0]]).await.remove(0).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn prefetch_is_bounded_and_others_get_the_rest() {
    let server = Server::start().await;
    filled(&server, 40).await;
    let first = consumer(&server, json!({"prefetch": 5, "wait": "1s"})).await;
    until("five were fetched", || first.status()["waiting"] == 5).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(first.status()["waiting"], 5);
    let other = consumer(&server, json!({"prefetch": 100, "wait": "1s", "pollers": 2})).await;
    until("the others were fetched", || other.status()["waiting"] == 35).await;
}

#[tokio::test]
async fn a_nack_comes_again_at_once_or_later() {
    let server = Server::start().await;
    filled(&server, 1).await;
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let first = next(&consumer).await;
    consumer.nack(&within(5), vec![first.code.clone()], Duration::ZERO).await.remove(0).unwrap();
    let second = next(&consumer).await;
    assert_eq!((second.attempt, first.code == second.code), (Some(2), false));
    let began = Instant::now();
    consumer
        .nack(&within(5), vec![second.code.clone()], Duration::from_millis(1200))
        .await
        .remove(0)
        .unwrap();
    let third = next(&consumer).await;
    assert!(began.elapsed() >= Duration::from_millis(1900), "rounded up: {:?}", began.elapsed());
    assert_eq!(third.attempt, Some(3));
    let long = consumer.nack(&within(5), vec![third.code.clone()], Duration::from_secs(43_201)).await;
    assert_eq!(long[0].as_ref().unwrap_err().kind(), Kind::InvalidArgument);
    // A service that takes no less than a second is given one, from then on.
    server.shared.least_visibility.store(1, Ordering::SeqCst);
    consumer.nack(&within(5), vec![third.code.clone()], Duration::ZERO).await.remove(0).unwrap();
    let fourth = next(&consumer).await;
    assert_eq!(fourth.attempt, Some(4));
    consumer.nack(&within(5), vec![fourth.code], Duration::ZERO).await.remove(0).unwrap();
    let refused = server.log().iter().filter(|line| line.ends_with("VisibilityTimeout=0")).count();
    assert_eq!(refused, 2);
    assert_eq!(consumer.status()["nacked"], 4);
}

#[tokio::test]
async fn a_delivery_stays_hidden_while_the_host_works() {
    let server = Server::start().await;
    server.queue("q", 2);
    filled(&server, 1).await;
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "2s"})).await;
    let other = crate::consumer(&server, json!({"wait": "1s", "visibility": "2s"})).await;
    // Whoever has it, the other must not get it.
    let delivery = tokio::select! {
        delivery = next(&consumer) => (delivery, &consumer, &other),
        delivery = next(&other) => (delivery, &other, &consumer),
    };
    let (delivery, owner, stranger) = delivery;
    assert!(stranger.receive(&within(5), 1).await.unwrap().is_empty());
    assert!(owner.status()["renewed"].as_u64().unwrap() >= 2, "{}", owner.status());
    // Its code is the one it came with, though the handle is another by now.
    ack(owner, &[&delivery]).await.remove(0).unwrap();
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn what_the_host_forgets_comes_again() {
    let server = Server::start().await;
    server.queue("q", 2);
    filled(&server, 1).await;
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "2s", "extend_for": "0s"})).await;
    let first = next(&consumer).await;
    let again = next(&consumer).await;
    assert_eq!(again.attempt, Some(2));
    assert_eq!(consumer.status()["renewed"], 0);
    assert_eq!(ack(&consumer, &[&first]).await.remove(0).unwrap_err().kind(), Kind::NotFound);
    ack(&consumer, &[&again]).await.remove(0).unwrap();
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn a_renewal_that_is_lost_is_made_again() {
    let server = Server::start().await;
    server.queue("q", 3);
    filled(&server, 1).await;
    server.fault(is_renewal, Fault::Refuse("QpsLimitExceeded", 400));
    server.fault(is_renewal, Fault::LostBefore);
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "3s"})).await;
    let delivery = next(&consumer).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(consumer.status()["renewed"].as_u64().unwrap() >= 1, "{}", consumer.status());
    ack(&consumer, &[&delivery]).await.remove(0).unwrap();
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn a_close_sends_what_was_acked_and_gives_back_the_rest() {
    let server = Server::start().await;
    filled(&server, 10).await;
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let came = consumer.receive(&within(5), 4).await.unwrap();
    let number = came.len();
    until("all were fetched", || consumer.status()["held"] == 10).await;
    server.fault(
        |operation| matches!(operation, Operation::DeleteBatch { .. } | Operation::Delete { .. }),
        Fault::Slow(Duration::from_millis(300)),
    );
    let acking = tokio::spawn({
        let consumer = consumer.clone();
        async move {
            let codes = came.iter().map(|delivery| delivery.code.clone()).collect();
            consumer.ack(&within(5), codes).await
        }
    });
    until("acks are on their way", || consumer.status()["unsent_acks"] == number).await;
    consumer.close(&within(5)).await.unwrap();
    assert!(acking.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(server.stored(), 10 - number);
    assert_eq!(consumer.receive(&within(1), 1).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(
        consumer.ack(&within(1), vec!["a".into()]).await[0].as_ref().unwrap_err().kind(),
        Kind::Closed
    );
    assert_eq!(consumer.status()["state"], "closed");
    // Another gets them at once, long before their time.
    let other = crate::consumer(&server, json!({"wait": "1s"})).await;
    let mut again = 0;
    while again < 10 - number {
        let came = other.receive(&within(3), 16).await.unwrap();
        assert!(!came.is_empty(), "{again}");
        again += came.len();
    }
}

#[tokio::test]
async fn a_close_without_time_says_so() {
    let server = Server::start().await;
    filled(&server, 1).await;
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let delivery = next(&consumer).await;
    server.fault(|operation| matches!(operation, Operation::Delete { .. }), Fault::Silent);
    let acking = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.ack(&within(5), vec![delivery.code]).await.remove(0) }
    });
    until("the ack is on its way", || consumer.status()["unsent_acks"] == 1).await;
    let began = Instant::now();
    let ctx = crate::Context::within(Duration::from_millis(200));
    assert_eq!(consumer.close(&ctx).await.unwrap_err().kind(), Kind::Timeout);
    let error = acking.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Closed, ceiba_core::error::Outcome::Unknown));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_service_that_goes_and_comes_again_is_found_again() {
    let server = Server::start().await;
    let port = server.port;
    let mut waits = setup();
    waits.when_disconnected = ceiba_core::config::WhenDisconnected::Wait;
    let section = crate::section(&server, json!({"wait": "1s"}));
    let consumer = ceiba_core::provider::mns::open_consumer(&waits, section).await.unwrap();
    until("it is connected", || consumer.status()["state"] == "connected").await;
    drop(server);
    until("it is disconnected", || consumer.status()["state"] == "disconnected").await;
    assert!(consumer.status()["trouble"].as_str().unwrap().contains("127.0.0.1"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let server = Server::on(listener);
    filled(&server, 1).await;
    let delivery = tokio::time::timeout(Duration::from_secs(15), next(&consumer)).await.unwrap();
    ack(&consumer, &[&delivery]).await.remove(0).unwrap();
    assert_eq!(consumer.status()["state"], "connected");
}

#[tokio::test]
async fn damaged_messages_are_not_delivered_and_not_lost() {
    let server = Server::start().await;
    server.queue("q", 1);
    filled(&server, 1).await;
    server.fault(|operation| matches!(operation, Operation::ReceiveBatch { .. }), Fault::WrongDigest);
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let delivery = next(&consumer).await;
    assert_eq!(delivery.attempt, Some(2));
    assert_eq!(consumer.status()["damaged"], 1);
    assert_eq!(consumer.status()["last_error"], "protocol");
}
