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
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "8s"})).await;
    let delivery = next(&consumer).await;
    let end = Instant::now() + Duration::from_secs(20);
    while consumer.status()["renewed"].as_u64().unwrap() == 0 {
        assert!(Instant::now() < end, "{}", consumer.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let renewals = server.log().iter().filter(|line| line.starts_with("PUT")).count();
    assert!(renewals >= 3, "two were lost: {renewals}");
    assert_eq!(consumer.status()["lapsed"], 0);
    ack(&consumer, &[&delivery]).await.remove(0).unwrap();
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn as_many_are_renewed_at_once_as_there_are_connections() {
    let server = Server::start().await;
    server.queue("q", 4);
    filled(&server, 12).await;
    for _ in 0..12 {
        server.fault(is_renewal, Fault::Silent);
    }
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "4s", "connections": 12})).await;
    until("all wait for the host", || consumer.status()["held"] == 12).await;
    // None of them is answered: each needs a connection of its own.
    let renewals = || server.log().iter().filter(|line| line.starts_with("PUT")).count();
    until("all are being renewed", || renewals() >= 12).await;
}

#[tokio::test]
async fn a_close_gives_back_what_is_being_renewed() {
    let server = Server::start().await;
    server.queue("q", 4);
    filled(&server, 3).await;
    for _ in 0..3 {
        server.fault(is_renewal, Fault::ToldLate(Duration::from_millis(700)));
    }
    let consumer = consumer(&server, json!({"wait": "1s", "visibility": "30s"})).await;
    let first = next(&consumer).await;
    until("all wait for the host", || consumer.status()["held"] == 3).await;
    until("all are being renewed", || {
        server.log().iter().filter(|line| line.starts_with("PUT")).count() == 3
    })
    .await;
    consumer.close(&within(10)).await.unwrap();
    assert_eq!((server.visible(), server.stored()), (3, 3), "{}", consumer.status());
    assert_eq!(ack(&consumer, &[&first]).await.remove(0).unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn a_code_that_is_named_twice_has_one_end() {
    let server = Server::start().await;
    filled(&server, 3).await;
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        came.extend(consumer.receive(&within(5), 100).await.unwrap());
    }
    let code = |at: usize| came[at].code.clone();
    let nobody: Arc<str> = "nobody-gave-this".into();
    let codes = vec![
        code(0),
        nobody.clone(),
        code(0),
        code(1),
        nobody.clone(),
        code(0),
        nobody,
        "".into(),
        "".into(),
    ];
    let results = consumer.ack(&within(5), codes).await;
    let kinds: Vec<Option<Kind>> =
        results.iter().map(|result| result.as_ref().err().map(|error| error.kind())).collect();
    let (gone, wrong) = (Some(Kind::NotFound), Some(Kind::InvalidArgument));
    assert_eq!(kinds, [None, gone, None, None, gone, None, gone, wrong, wrong]);
    assert_eq!((server.stored(), &consumer.status()["acked"]), (1, &json!(2)));
    let results = consumer.nack(&within(5), vec![code(2), code(2)], Duration::ZERO).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // Two calls that say the same at once, in one request: both are told that it was deleted.
    let again = next(&consumer).await;
    let again = [&again];
    let (first, second) = tokio::join!(ack(&consumer, &again), ack(&consumer, &again));
    assert!(first[0].is_ok() && second[0].is_ok(), "{first:?} {second:?}");
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_keeps_no_other_back() {
    let server = Server::start().await;
    let consumer = consumer(&server, json!({"wait": "1s"})).await;
    let message = |id: &str, body: &str| {
        let digest = ceiba_core::wire::mns::body_md5(b"fine");
        format!(
            "<Message>{id}<ReceiptHandle>h</ReceiptHandle><MessageBodyMD5>{digest}</MessageBodyMD5>\
             <MessageBody>{body}</MessageBody><DequeueCount>1</DequeueCount></Message>"
        )
    };
    let id = "<MessageId>1</MessageId>";
    let batch = [
        message(id, "a&#1;b"),
        message("", "fine"),
        message(id, "another"),
        message(id, "a\u{1}b"),
        message(id, "&unknown;"),
        message(id, "fine").replace("<DequeueCount>1<", "<DequeueCount>many<"),
        message(id, "fine"),
    ];
    let answer = format!("<Messages>{}</Messages>", batch.concat());
    let is_receive = |operation: &Operation<'_>| matches!(operation, Operation::ReceiveBatch { .. });
    server.fault(is_receive, Fault::Answer(200, answer));
    let delivery = next(&consumer).await;
    assert_eq!(&delivery.message.body()[..], b"fine");
    assert_eq!(consumer.status()["damaged"], 6);
    // Where the answer as a whole cannot be read, messages are asked for one by one, and then by more again.
    server.fault(is_receive, Fault::Answer(200, "<Messages><Message>".into()));
    until("it was asked for one", || server.log().iter().any(|line| line.contains("numOfMessages=1&"))).await;
    until("it was asked for more", || {
        let log = server.log();
        let one = log.iter().position(|line| line.contains("numOfMessages=1&")).unwrap();
        log[one..].iter().any(|line| line.contains("numOfMessages=2&"))
    })
    .await;
}

#[tokio::test]
async fn acks_that_something_else_answers_are_told_by_its_status() {
    let server = Server::start().await;
    filled(&server, 3).await;
    let consumer = consumer(&server, json!({"wait": "1s", "connections": 1})).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        came.extend(consumer.receive(&within(5), 100).await.unwrap());
    }
    let is_delete = |operation: &Operation<'_>| {
        matches!(operation, Operation::DeleteBatch { .. } | Operation::Delete { .. })
    };
    for _ in 0..3 {
        server.fault(is_delete, Fault::Answer(502, "<html>Bad gateway</html>".into()));
    }
    let deliveries: Vec<_> = came.iter().collect();
    for result in ack(&consumer, &deliveries).await {
        assert_eq!(result.unwrap_err().kind(), Kind::Unavailable);
    }
    assert_eq!((server.stored(), &consumer.status()["held"]), (3, &json!(3)));
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
    for _ in 0..2 {
        let given_back = |operation: &Operation| matches!(operation, Operation::ChangeVisibility { .. });
        server.fault(given_back, Fault::Refuse("QpsLimitExceeded", 400));
    }
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
