//! What outlives the broker.

use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::wire::mns::*;

use crate::raw::{ask, ask_for, queue, send, take};
use crate::{Folder, config};

fn on(folder: &Folder) -> BrokerConfig {
    BrokerConfig { data: Some(folder.0.clone()), ..config() }
}

async fn start(folder: &Folder) -> Broker {
    Broker::start(on(folder)).await.unwrap()
}

async fn stop(broker: Broker) {
    assert!(broker.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn who_has_what_and_how_often() {
    let folder = Folder::new("who");
    let broker = start(&folder).await;
    queue(&broker, "q", 2).await;
    queue(&broker, "gone", 2).await;
    send(&broker, "gone", "x").await;
    for body in ["one", "two", "three"] {
        send(&broker, "q", body).await;
    }
    let late = "<Message><MessageBody>late</MessageBody><DelaySeconds>3</DelaySeconds><Priority>1</Priority></Message>";
    assert_eq!(ask_for(&broker, "POST", "/queues/q/messages", late).await.status, 201);
    let (_, one) = take(&broker, "q").await.unwrap();
    let (_, two) = take(&broker, "q").await.unwrap();
    assert_eq!(ask(&broker, &Operation::Delete { queue: "q".into(), handle: two.into() }).await.status, 204);
    assert_eq!(ask_for(&broker, "DELETE", "/queues/gone", "").await.status, 204);
    let set = "<Queue><PollingWaitSeconds>7</PollingWaitSeconds></Queue>";
    assert_eq!(ask_for(&broker, "PUT", "/queues/q?metaoverride=true", set).await.status, 204);
    let before = ask_for(&broker, "GET", "/queues/q", "").await;
    stop(broker).await;

    let broker = start(&folder).await;
    assert_eq!(ask_for(&broker, "GET", "/queues/gone", "").await.code(), "QueueNotExist");
    let after = ask_for(&broker, "GET", "/queues/q", "").await;
    let (before, after) = (
        QueueMeta::decode(before.body.as_bytes()).unwrap(),
        QueueMeta::decode(after.body.as_bytes()).unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!((after.active_messages, after.inactive_messages, after.delay_messages), (1, 1, 1));
    assert_eq!(take(&broker, "q").await.unwrap().0, "three");
    // One is still in the hands of who received it before, for the rest of its time.
    assert_eq!(take(&broker, "q").await, None);
    let longer = Operation::ChangeVisibility { queue: "q".into(), handle: one.into(), timeout: 1 };
    assert_eq!(ask(&broker, &longer).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = ask(&broker, &Operation::Receive { queue: "q".into(), wait: Some(1) }).await;
    let again = decode_received(again.body.as_bytes()).unwrap();
    assert_eq!((&*again.body, again.dequeue_count), ("one", 2));
    assert!(again.first_dequeue_time + 500 < again.next_visible_time.unwrap() - 2000);
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(take(&broker, "q").await.unwrap().0, "late");
    stop(broker).await;
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_answered() {
    let folder = Folder::new("crash");
    let broker = start(&folder).await;
    queue(&broker, "q", 30).await;
    for number in 0..20 {
        send(&broker, "q", &number.to_string()).await;
    }
    for _ in 0..5 {
        let (_, handle) = take(&broker, "q").await.unwrap();
        let delete = Operation::Delete { queue: "q".into(), handle: handle.into() };
        assert_eq!(ask(&broker, &delete).await.status, 204);
    }
    broker.abort();
    drop(broker);
    let broker = start(&folder).await;
    let mut seen = Vec::new();
    while let Some((body, _)) = take(&broker, "q").await {
        seen.push(body.parse::<u32>().unwrap());
    }
    assert_eq!(seen, (5..20).collect::<Vec<_>>());
    stop(broker).await;
}

#[tokio::test]
async fn cleaning_keeps_what_is_alive() {
    let folder = Folder::new("clean");
    let mut config = on(&folder);
    config.limits.segment_bytes = 64 << 10;
    let broker = Broker::start(config.clone()).await.unwrap();
    queue(&broker, "q", 600).await;
    send(&broker, "q", "held").await;
    let (_, held) = take(&broker, "q").await.unwrap();
    send(&broker, "q", "waits").await;
    let body = "x".repeat(20_000);
    queue(&broker, "busy", 600).await;
    for _ in 0..60 {
        send(&broker, "busy", &body).await;
        let (_, handle) = take(&broker, "busy").await.unwrap();
        let delete = Operation::Delete { queue: "busy".into(), handle: handle.into() };
        assert_eq!(ask(&broker, &delete).await.status, 204);
    }
    crate::until("segments went", || async { broker.status().segments < 12 }).await;
    stop(broker).await;
    let broker = Broker::start(config).await.unwrap();
    assert_eq!(take(&broker, "q").await.unwrap().0, "waits");
    assert_eq!(take(&broker, "q").await, None);
    let delete = Operation::Delete { queue: "q".into(), handle: held.into() };
    assert_eq!(ask(&broker, &delete).await.status, 204);
    stop(broker).await;
}

#[tokio::test]
async fn topics_push_on_after_a_restart() {
    let folder = Folder::new("topic");
    let broker = start(&folder).await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    // The queue is not there yet: the second try comes after a second.
    let to = "<Subscription><Endpoint>acs:mns:here:1:queues/q</Endpoint>\
              <NotifyStrategy>EXPONENTIAL_DECAY_RETRY</NotifyStrategy>\
              <NotifyContentFormat>SIMPLIFIED</NotifyContentFormat></Subscription>";
    assert_eq!(ask_for(&broker, "PUT", "/topics/t/subscriptions/s", to).await.status, 201);
    let message = "<Message><MessageBody>x</MessageBody></Message>";
    assert_eq!(ask_for(&broker, "POST", "/topics/t/messages", message).await.status, 201);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let topic = TopicMeta::decode(ask_for(&broker, "GET", "/topics/t", "").await.body.as_bytes()).unwrap();
    assert_eq!(topic.message_count, 1);
    stop(broker).await;
    let broker = start(&folder).await;
    queue(&broker, "q", 30).await;
    let got = ask_for(&broker, "GET", "/queues/q/messages?waitseconds=10", "").await;
    assert_eq!(decode_received(got.body.as_bytes()).unwrap().body, "x");
    stop(broker).await;
}
