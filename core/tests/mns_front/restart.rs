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
    queue(&broker, "q", 600).await;
    queue(&broker, "gone", 600).await;
    send(&broker, "gone", "x").await;
    for body in ["one", "two", "three"] {
        send(&broker, "q", body).await;
    }
    let late = "<Message><MessageBody>late</MessageBody><DelaySeconds>8</DelaySeconds><Priority>1</Priority></Message>";
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
    let again = ask(&broker, &Operation::Receive { queue: "q".into(), wait: Some(30) }).await;
    let again = decode_received(again.body.as_bytes()).unwrap();
    assert_eq!((&*again.body, again.dequeue_count), ("one", 2));
    assert!(again.first_dequeue_time + 500 < again.next_visible_time.unwrap() - 600_000);
    let late = ask(&broker, &Operation::Receive { queue: "q".into(), wait: Some(30) }).await;
    assert_eq!(decode_received(late.body.as_bytes()).unwrap().body, "late");
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

/// Writes and deletes so much that all before it is cleaned away.
async fn churn(broker: &Broker, queue: &str) {
    let body = "x".repeat(20_000);
    for _ in 0..60 {
        send(broker, queue, &body).await;
        let (_, handle) = take(broker, queue).await.unwrap();
        let delete = Operation::Delete { queue: queue.to_owned().into(), handle: handle.into() };
        assert_eq!(ask(broker, &delete).await.status, 204);
    }
    crate::until("segments went", || async { broker.status().segments < 12 }).await;
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
    queue(&broker, "busy", 600).await;
    churn(&broker, "busy").await;
    // The message lies elsewhere now, and whoever has it still does.
    let longer = Operation::ChangeVisibility { queue: "q".into(), handle: held.clone().into(), timeout: 900 };
    let longer = ask(&broker, &longer).await;
    let renewed = Visibility::decode(longer.body.as_bytes()).unwrap().receipt_handle;
    let delete = |handle: &str| Operation::Delete { queue: "q".into(), handle: handle.to_owned().into() };
    assert_eq!(ask(&broker, &delete(&held)).await.code(), "MessageNotExist");
    churn(&broker, "busy").await;
    stop(broker).await;
    let broker = Broker::start(config).await.unwrap();
    assert_eq!(take(&broker, "q").await.unwrap().0, "waits");
    assert_eq!(take(&broker, "q").await, None);
    assert_eq!(take(&broker, "busy").await, None);
    assert_eq!(ask(&broker, &delete(&held)).await.code(), "MessageNotExist");
    assert_eq!(ask(&broker, &delete(&renewed)).await.status, 204);
    stop(broker).await;
}

#[tokio::test]
async fn what_is_empty_outlives_cleaning_and_two_restarts() {
    let folder = Folder::new("empty");
    let mut config = on(&folder);
    config.limits.segment_bytes = 64 << 10;
    let to = "<Subscription><Endpoint>acs:mns:here:1:queues/none</Endpoint><FilterTag>red</FilterTag></Subscription>";
    for round in 0..3 {
        let broker = Broker::start(config.clone()).await.unwrap();
        if round == 0 {
            queue(&broker, "emptied", 600).await;
            send(&broker, "emptied", "x").await;
            let (_, handle) = take(&broker, "emptied").await.unwrap();
            let delete = Operation::Delete { queue: "emptied".into(), handle: handle.into() };
            assert_eq!(ask(&broker, &delete).await.status, 204);
            let set = "<Queue><PollingWaitSeconds>7</PollingWaitSeconds></Queue>";
            assert_eq!(ask_for(&broker, "PUT", "/queues/emptied?metaoverride=true", set).await.status, 204);
            assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
            assert_eq!(ask_for(&broker, "PUT", "/topics/t/subscriptions/s", to).await.status, 201);
            let account = "<Account><LoggingBucket>logs</LoggingBucket></Account>";
            assert_eq!(ask_for(&broker, "PUT", "/?accountmeta=true", account).await.status, 204);
            queue(&broker, "busy", 600).await;
        }
        let emptied = ask_for(&broker, "GET", "/queues/emptied", "").await;
        let emptied = QueueMeta::decode(emptied.body.as_bytes()).unwrap();
        assert_eq!(emptied.attributes.polling_wait_seconds, Some(7));
        assert_eq!((emptied.attributes.visibility_timeout, emptied.active_messages), (Some(600), 0));
        assert_eq!(ask_for(&broker, "GET", "/topics/t", "").await.status, 200);
        let subscription = ask_for(&broker, "GET", "/topics/t/subscriptions/s", "").await;
        assert!(subscription.body.contains("<FilterTag>red</FilterTag>"), "{round}: {subscription:?}");
        assert!(ask_for(&broker, "GET", "/?accountmeta=true", "").await.body.contains("logs"));
        churn(&broker, "busy").await;
        stop(broker).await;
    }
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
