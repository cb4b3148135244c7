//! What a producer sends, to a queue and to a topic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use serde_json::json;

use crate::server::{Fault, Server};
use crate::{consumer, next, producer, refused, send, within};

#[tokio::test]
async fn a_message_goes_to_a_queue_and_comes_from_it_whole() {
    let server = Server::start().await;
    for (encoding, body) in [
        ("raw", "a<b>&\"c'\t\r\n d 你好 😀 ]]>".as_bytes().to_vec()),
        ("base64", vec![0, 255, 1, b'<', 13, 10]),
        ("base64", Vec::new()),
    ] {
        let producer = producer(&server, json!({"body_encoding": encoding, "priority": 3})).await;
        let consumer = consumer(&server, json!({"body_encoding": encoding, "wait": "1s"})).await;
        let message = Message::new(body.clone()).with(|fields| {
            fields.key = Some("group<1>".into());
            fields.attributes.insert("a&b".into(), "c\nd".into());
        });
        let receipt = send(&producer, message).await.unwrap();
        assert!(receipt.message_id.unwrap().starts_with('M'));
        let delivery = next(&consumer).await;
        assert_eq!(&delivery.message.body()[..], &body[..]);
        assert_eq!((&*delivery.topic, delivery.attempt), ("q", Some(1)));
        assert!(delivery.created.unwrap().elapsed().unwrap() < Duration::from_secs(5));
        let fields = delivery.message.fields().unwrap();
        assert_eq!(fields.key.as_deref(), Some("group<1>"));
        assert_eq!((&*fields.attributes["a&b"], &*fields.attributes["priority"]), ("c\nd", "3"));
        consumer.ack(&within(5), vec![delivery.code.clone()]).await.remove(0).unwrap();
        assert_eq!(server.stored(), 0);
        consumer.close(&within(5)).await.unwrap();
        producer.close(&within(5)).await.unwrap();
        assert_eq!(refused(&producer, Message::new("x")).await.kind(), Kind::Closed);
        assert_eq!(producer.status()["state"], "closed");
    }
}

#[tokio::test]
async fn a_delay_is_kept() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    let consumer = consumer(&server, json!({"wait": "2s"})).await;
    let began = Instant::now();
    send(&producer, Message::new("later").with_delay(Duration::from_millis(300))).await.unwrap();
    assert_eq!(delays(&server), [Some(1)], "rounded up to whole seconds");
    assert_eq!(&next(&consumer).await.message.body()[..], b"later");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

/// The delays of the messages that were sent, in seconds.
fn delays(server: &Server) -> Vec<Option<u64>> {
    let bodies = server.bodies();
    let messages = bodies.iter().flat_map(|body| body.split("<Message>").skip(1));
    let delay = |message: &str| {
        let (_, behind) = message.split_once("<DelaySeconds>")?;
        behind.split_once('<')?.0.parse().ok()
    };
    messages.map(delay).collect()
}

#[tokio::test]
async fn a_delay_counts_while_a_send_waits_for_the_service() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let section = json!({"url": format!("http://127.0.0.1:{port}"), "queue": "q", "access_key_id": "id",
                         "access_key_secret": "secret"});
    let mut waits = crate::setup();
    waits.when_disconnected = ceiba_core::config::WhenDisconnected::Wait;
    let producer = ceiba_core::provider::mns::open_producer(&waits, section.as_object().unwrap().clone());
    let producer = producer.await.unwrap();
    let delayed =
        |body: &str, seconds| Message::new(body.to_owned()).with_delay(Duration::from_secs(seconds));
    let (one, some) = tokio::join!(send(&producer, delayed("one", 60)), async {
        let messages = [delayed("a", 120), Message::new("b"), delayed("c", 1)].map(Arc::new).into();
        let ctx = within(20);
        let sending = producer.send_batch(&ctx, messages);
        let opening = async {
            tokio::time::sleep(Duration::from_millis(2100)).await;
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            Server::on(listener)
        };
        let (results, server) = tokio::join!(sending, opening);
        (results, server)
    });
    one.unwrap();
    let (results, server) = some;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut sent = delays(&server);
    sent.sort_unstable();
    assert_eq!(sent[..2], [None, None], "what was to be delayed by a second is due");
    let left: Vec<u64> = sent[2..].iter().flatten().copied().collect();
    assert!(left[0] <= 58 && left[0] > 30 && left[1] <= 118 && left[1] > 90, "{left:?}");
}

#[tokio::test]
async fn a_batch_that_something_else_answers_is_told_by_its_status() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    for (status, body, kind, outcome) in [
        (502, "<html><body>Bad gateway</body></html>", Kind::Unavailable, Outcome::Unknown),
        (413, "too large", Kind::TooLarge, Outcome::NotSent),
        (429, "{\"slow\": \"down\"}", Kind::Throttled, Outcome::NotSent),
        (503, "<Messages><Message>", Kind::Unavailable, Outcome::Unknown),
    ] {
        server.fault(|_| true, Fault::Answer(status, body.to_owned()));
        let messages = (0..3).map(|number| Arc::new(Message::new(number.to_string()))).collect();
        for result in producer.send_batch(&within(10), messages).await {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{status}: {error}");
        }
    }
    assert_eq!(server.stored(), 0);
}

#[tokio::test]
async fn a_topic_takes_tags_and_ways_to_push() {
    let server = Server::start().await;
    let producer = producer(&server, json!({"queue": null, "topic": "t"})).await;
    let message = Message::new("news").with(|fields| {
        fields.tag = Some("important".into());
        fields.attributes.insert("mail".into(), r#"{"Subject":"s"}"#.into());
        fields.attributes.insert("sms".into(), "{}".into());
    });
    assert!(send(&producer, message).await.unwrap().message_id.unwrap().starts_with('T'));
    let body = server.bodies().pop().unwrap();
    assert!(body.contains("<MessageTag>important</MessageTag><MessageAttributes><DirectMail>"), "{body}");
    assert!(body.contains("<DirectSMS>{}</DirectSMS>"), "{body}");
    let error = refused(&producer, Message::new("x").with_delay(Duration::from_secs(1))).await;
    assert_eq!((error.kind(), error.attempts()), (Kind::Unsupported, 0));
    let many = (0..40).map(|number| Arc::new(Message::new(number.to_string()))).collect();
    let results = producer.send_batch(&within(10), many).await;
    assert!(results.len() == 40 && results.iter().all(Result::is_ok));
    assert_eq!(server.published().len(), 41);
    assert_eq!(producer.status()["sent"], 41);
    assert_eq!(producer.status()["failed"], 1);
}

#[tokio::test]
async fn batches_are_of_sixteen_and_each_message_has_its_own_end() {
    let server = Server::start().await;
    let producer = producer(&server, json!({"connections": 1})).await;
    let mut messages: Vec<Arc<Message>> = (0..40)
        .map(|number| {
            let body = if number % 7 == 3 { format!("refuse me {number}") } else { number.to_string() };
            Arc::new(Message::new(body))
        })
        .collect();
    // One that cannot be sent at all goes in no request.
    messages[5] = Arc::new(Message::new(vec![0xff]));
    let results = producer.send_batch(&within(10), messages).await;
    assert_eq!(results.len(), 40);
    let mut ids = std::collections::HashSet::new();
    for (number, result) in results.iter().enumerate() {
        match (number, result) {
            (5, Err(error)) => assert_eq!(error.kind(), Kind::Unsupported),
            (number, Err(error)) if number % 7 == 3 => {
                assert_eq!(
                    (error.kind(), error.outcome(), error.retryable()),
                    (Kind::InvalidArgument, Outcome::NotSent, false)
                );
                assert!(error.message().contains("*** (InvalidArgument)"), "{error}");
            }
            (number, Ok(receipt)) if number % 7 != 3 && number != 5 => {
                assert!(ids.insert(receipt.message_id.clone().unwrap()), "an id twice");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.stored(), ids.len());
    let requests: Vec<usize> =
        server.bodies().iter().map(|body| body.matches("<MessageBody>").count()).collect();
    assert_eq!(requests, [16, 16, 7]);
}

#[tokio::test]
async fn bodies_of_a_batch_are_together_no_longer_than_one_may_be() {
    let server = Server::start().await;
    let producer = producer(&server, json!({})).await;
    let messages = (0..5).map(|_| Arc::new(Message::new(vec![b'x'; 30_000]))).collect();
    let results = producer.send_batch(&within(10), messages).await;
    assert!(results.iter().all(Result::is_ok));
    let mut requests: Vec<usize> =
        server.bodies().iter().map(|body| body.matches("<MessageBody>").count()).collect();
    requests.sort_unstable();
    assert_eq!(requests, [1, 2, 2]);
    let error = refused(&producer, Message::new(vec![b'x'; 65_537])).await;
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[tokio::test]
async fn a_batch_that_ends_unknown_is_unknown_for_each_of_it() {
    let server = Server::start().await;
    let producer = producer(&server, json!({"connections": 1})).await;
    server.fault(|_| true, Fault::LostAfter);
    server.fault(
        |_| true,
        Fault::Answer(
            201,
            "<Messages><Message><MessageId>1</MessageId><MessageBodyMD5/></Message></Messages>".into(),
        ),
    );
    server.fault(|_| true, Fault::Refuse("QpsLimitExceeded", 400));
    let messages = (0..64).map(|number| Arc::new(Message::new(number.to_string()))).collect();
    let results = producer.send_batch(&within(10), messages).await;
    let kinds: Vec<(Kind, Outcome)> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .map(|error| (error.kind(), error.outcome()))
        .collect();
    assert_eq!(kinds[..16], [(Kind::Unavailable, Outcome::Unknown); 16]);
    assert_eq!(kinds[16..32], [(Kind::Protocol, Outcome::Unknown); 16]);
    assert_eq!(kinds[32..], [(Kind::Throttled, Outcome::NotSent); 16]);
    assert!(results[48..].iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_small_room_holds_no_batch_up() {
    let server = Server::start().await;
    let mut setup = crate::setup();
    setup.limits.calls = 1;
    let producer =
        ceiba_core::provider::mns::open_producer(&setup, crate::section(&server, json!({}))).await.unwrap();
    let messages = (0..100).map(|number| Arc::new(Message::new(number.to_string()))).collect();
    let results = producer.send_batch(&within(5), messages).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    server.fault(|_| true, Fault::Slow(Duration::from_millis(700)));
    let (first, second) = tokio::join!(send(&producer, Message::new("x")), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ctx = crate::Context::within(Duration::from_millis(200));
        producer.send(&ctx, Arc::new(Message::new("y"))).await
    });
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), Kind::QueueFull);
}
