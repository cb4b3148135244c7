//! Our own producer and consumer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::error::Kind;
use ceiba_core::message::Message;
use ceiba_core::provider::mns;
use serde_json::json;

use crate::raw::{ask_for, queue};
use crate::{section, setup, start, within};

#[tokio::test]
async fn every_message_arrives_once() {
    const MANY: usize = 500;
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let producer = mns::open_producer(&setup(), section(&broker, json!({}))).await.unwrap();
    let options = json!({"wait": "5s", "prefetch": 64, "pollers": 2});
    let mut tasks = Vec::new();
    let left = Arc::new(AtomicUsize::new(MANY));
    for _ in 0..2 {
        let left = Arc::clone(&left);
        let consumer = mns::open_consumer(&setup(), section(&broker, options.clone())).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut bodies = Vec::new();
            let end = Instant::now() + Duration::from_secs(60);
            while left.load(Ordering::Acquire) > 0 && Instant::now() < end {
                let came = match consumer.receive(&within(1), 16).await {
                    Ok(came) => came,
                    Err(error) if error.kind() == Kind::Timeout => continue,
                    Err(error) => panic!("{error}"),
                };
                let less = |left: usize| Some(left.saturating_sub(came.len()));
                let _ = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
                let codes = came.iter().map(|delivery| delivery.code.clone()).collect();
                assert!(consumer.ack(&within(5), codes).await.iter().all(Result::is_ok));
                bodies.extend(came.iter().map(|one| String::from_utf8(one.message.body().to_vec()).unwrap()));
            }
            consumer.close(&within(5)).await.unwrap();
            bodies
        }));
    }
    for batch in 0..MANY / 50 {
        let messages =
            (0..50).map(|at| Arc::new(Message::new(format!("message {}", batch * 50 + at)))).collect();
        let sent = producer.send_batch(&within(10), messages).await;
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (MANY, MANY));
    let status = broker.status();
    assert_eq!((status.waiting, status.unacked, status.delayed), (0, 0, 0));
    assert_eq!((status.accepted, status.acknowledged), (MANY as u64, MANY as u64));
    assert_eq!(status.stored_bytes, 0);
}

#[tokio::test]
async fn what_is_delayed_is_taken_back_by_the_code_of_its_receipt() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let producer = mns::open_producer(&setup(), section(&broker, json!({}))).await.unwrap();
    let delayed = |body: &'static str| Message::new(body).with_delay(Duration::from_secs(600));
    let one = producer.send(&within(10), Arc::new(delayed("one"))).await.unwrap();
    let some = [delayed("two"), Message::new("at once")].map(Arc::new).into();
    let some = producer.send_batch(&within(10), some).await;
    let [Ok(two), Ok(at_once)] = some.as_slice() else { panic!("{some:?}") };
    assert!(at_once.code.is_none() && at_once.to_json().get("code").is_none());
    assert_eq!(one.to_json()["code"].as_str(), one.code.as_deref());
    assert_eq!(broker.status().delayed, 2);
    let consumer = mns::open_consumer(&setup(), section(&broker, json!({"wait": "1s"}))).await.unwrap();
    let codes: Vec<Arc<str>> = [&one, two].iter().map(|receipt| receipt.code.clone().unwrap()).collect();
    assert!(consumer.ack(&within(5), codes.clone()).await.iter().all(Result::is_ok));
    assert_eq!(broker.status().delayed, 0);
    let again = consumer.ack(&within(5), codes).await;
    assert!(
        again.iter().all(|end| end.as_ref().is_err_and(|error| error.kind() == Kind::NotFound)),
        "{again:?}"
    );
    let came = consumer.receive(&within(5), 9).await.unwrap();
    assert_eq!(&came[0].message.body()[..], b"at once");
}

#[tokio::test]
async fn a_nack_comes_again_and_a_wrong_secret_is_refused() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let producer = mns::open_producer(&setup(), section(&broker, json!({}))).await.unwrap();
    producer.send(&within(10), Arc::new(Message::new("x"))).await.unwrap();
    let consumer = mns::open_consumer(&setup(), section(&broker, json!({"wait": "5s"}))).await.unwrap();
    let first = consumer.receive(&within(5), 1).await.unwrap().remove(0);
    consumer.nack(&within(5), vec![first.code.clone()], Duration::ZERO).await.remove(0).unwrap();
    let second = consumer.receive(&within(5), 1).await.unwrap().remove(0);
    assert_eq!((second.attempt, first.code == second.code), (Some(2), false));
    consumer.ack(&within(5), vec![second.code.clone()]).await.remove(0).unwrap();
    let wrong = section(&broker, json!({"access_key_secret": "other"}));
    let wrong = mns::open_producer(&setup(), wrong).await.unwrap();
    let refused = wrong.send(&within(10), Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Authentication);
}

#[tokio::test]
async fn a_topic_takes_messages_with_tags() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let to = "<Subscription><Endpoint>acs:mns:here:1:queues/q</Endpoint><FilterTag>red</FilterTag>\
              <NotifyContentFormat>SIMPLIFIED</NotifyContentFormat></Subscription>";
    assert_eq!(ask_for(&broker, "PUT", "/topics/t/subscriptions/s", to).await.status, 201);
    let options = json!({"queue": null, "topic": "t"});
    let producer = mns::open_producer(&setup(), section(&broker, options)).await.unwrap();
    for tag in [Some("red"), Some("blue"), None] {
        let message = Message::new(format!("{tag:?}")).with(|fields| fields.tag = tag.map(Into::into));
        producer.send(&within(10), Arc::new(message)).await.unwrap();
    }
    let consumer = mns::open_consumer(&setup(), section(&broker, json!({"wait": "5s"}))).await.unwrap();
    let came = consumer.receive(&within(5), 1).await.unwrap().remove(0);
    assert_eq!(&came.message.body()[..], b"Some(\"red\")");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let counts = broker.status();
    assert_eq!((counts.waiting, counts.unacked), (1, 1));
}
