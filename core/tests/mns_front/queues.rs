//! Messages of queues, as the wire has them.

use std::time::{Duration, Instant};

use ceiba_core::wire::mns::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::raw::{ask, ask_for, bytes, queue, read, send, take};
use crate::start;

#[tokio::test]
async fn a_message_is_sent_received_and_deleted() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let sent = send(&broker, "q", "a &lt; b 木").await;
    assert!(sent.header("x-mns-request-id").is_some() && sent.header("date").is_some(), "{}", sent.head);
    assert_eq!(sent.header("Content-Type"), Some("text/xml;charset=utf-8"), "{}", sent.head);
    assert_eq!(sent.header("x-mns-version"), Some("2015-06-06"), "{}", sent.head);
    assert_eq!((sent.header("X-Mns-Request-Id"), sent.header("content-type")), (None, None));
    let sent = Sent::decode(sent.body.as_bytes()).unwrap();
    assert_eq!((sent.body_md5.as_str(), sent.receipt_handle), (&*body_md5("a < b 木".as_bytes()), None));
    let answer = ask(&broker, &Operation::Receive { queue: "q".into(), wait: None }).await;
    let got = decode_received(answer.body.as_bytes()).unwrap();
    assert_eq!((&*got.body, &*got.message_id, got.dequeue_count), ("a < b 木", &*sent.message_id, 1));
    assert_eq!((got.priority, got.body_md5.as_ref()), (8, sent.body_md5.as_str()));
    let hidden = got.next_visible_time.unwrap() - got.first_dequeue_time;
    assert!((29_000..=30_000).contains(&hidden) && got.enqueue_time <= got.first_dequeue_time, "{got:?}");
    assert_eq!(take(&broker, "q").await, None);
    let handle = got.receipt_handle.unwrap();
    let delete = Operation::Delete { queue: "q".into(), handle: handle.clone() };
    assert_eq!(ask(&broker, &delete).await.status, 204);
    let again = ask(&broker, &delete).await;
    assert_eq!((again.status, again.code()), (404, "MessageNotExist".into()));
}

#[tokio::test]
async fn what_is_not_deleted_comes_again_with_its_count_and_another_handle() {
    let broker = start().await;
    queue(&broker, "q", 1).await;
    send(&broker, "q", "x").await;
    let (_, old) = take(&broker, "q").await.unwrap();
    let since = Instant::now();
    let answer = ask(&broker, &Operation::Receive { queue: "q".into(), wait: Some(5) }).await;
    let waited = since.elapsed();
    assert!(waited > Duration::from_millis(900) && waited < Duration::from_secs(3), "{waited:?}");
    let got = decode_received(answer.body.as_bytes()).unwrap();
    assert_eq!(got.dequeue_count, 2);
    let delete = Operation::Delete { queue: "q".into(), handle: old.into() };
    assert_eq!(ask(&broker, &delete).await.code(), "MessageNotExist");
}

#[tokio::test]
async fn priorities_delays_and_looks() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let message = |body: &'static str, priority, delay| Outgoing {
        body: body.into(),
        priority: Some(priority),
        delay_seconds: Some(delay),
        ..Outgoing::default()
    };
    let messages = vec![message("low", 16, 0), message("late", 1, 1), message("high", 2, 0)];
    let sent = ask(&broker, &Operation::SendBatch { queue: "q".into(), messages }).await;
    assert_eq!(sent.status, 201);
    let sent = decode_batch(sent.body.as_bytes()).unwrap();
    let handles: Vec<bool> =
        sent.iter().map(|entry| matches!(entry, Entry::Sent(Sent { receipt_handle: Some(_), .. }))).collect();
    assert_eq!(handles, [false, true, false]);
    let seen = ask(&broker, &Operation::PeekBatch { queue: "q".into(), number: 16 }).await;
    let seen = decode_received_batch(seen.body.as_bytes()).unwrap();
    let bodies: Vec<&str> = seen.iter().map(|one| &*one.body).collect();
    assert_eq!(bodies, ["high", "low"]);
    assert!(seen.iter().all(|one| one.receipt_handle.is_none() && one.next_visible_time.is_none()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut order = Vec::new();
    while let Some((body, _)) = take(&broker, "q").await {
        order.push(body);
    }
    assert_eq!(order, ["late", "high", "low"]);
    let peek = ask(&broker, &Operation::Peek { queue: "q".into() }).await;
    assert_eq!(peek.code(), "MessageNotExist");
}

#[tokio::test]
async fn batches_fail_for_those_that_fail() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let message = |body: &'static str, priority| Outgoing {
        body: body.into(),
        priority: Some(priority),
        ..Outgoing::default()
    };
    let messages = vec![message("a", 1), message("b", 17), message("c", 2)];
    let sent = ask(&broker, &Operation::SendBatch { queue: "q".into(), messages }).await;
    assert_eq!(sent.status, 500);
    let entries = decode_batch(sent.body.as_bytes()).unwrap();
    assert!(
        matches!(&entries[..], [Entry::Sent(_), Entry::Refused { code, .. }, Entry::Sent(_)] if code == "InvalidArgument")
    );
    let got = ask(&broker, &Operation::ReceiveBatch { queue: "q".into(), number: 16, wait: None }).await;
    let got = decode_received_batch(got.body.as_bytes()).unwrap();
    assert_eq!(got.iter().map(|one| &*one.body).collect::<Vec<_>>(), ["a", "c"]);
    let mut handles: Vec<_> = got.iter().map(|one| one.receipt_handle.clone().unwrap()).collect();
    handles.insert(1, "nobody-gave-this".into());
    let deleted = ask(&broker, &Operation::DeleteBatch { queue: "q".into(), handles: handles.clone() }).await;
    assert_eq!(deleted.status, 404);
    let failures = decode_failures(deleted.body.as_bytes()).unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (&*failures[0].code, &*failures[0].receipt_handle),
        ("ReceiptHandleError", "nobody-gave-this")
    );
    handles.remove(1);
    let deleted = ask(&broker, &Operation::DeleteBatch { queue: "q".into(), handles }).await;
    let failures = decode_failures(deleted.body.as_bytes()).unwrap();
    assert!(failures.len() == 2 && failures.iter().all(|failure| failure.code == "MessageNotExist"));
}

#[tokio::test]
async fn a_changed_time_gives_a_new_handle_and_ends_the_old_one() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    send(&broker, "q", "x").await;
    let (_, old) = take(&broker, "q").await.unwrap();
    let change = |handle: &str, timeout| Operation::ChangeVisibility {
        queue: "q".into(),
        handle: handle.to_owned().into(),
        timeout,
    };
    let changed = ask(&broker, &change(&old, 1)).await;
    let changed = Visibility::decode(changed.body.as_bytes()).unwrap();
    assert_eq!(ask(&broker, &change(&old, 1)).await.code(), "MessageNotExist");
    assert_eq!(ask(&broker, &change(&changed.receipt_handle, 0)).await.status, 200);
    assert!(take(&broker, "q").await.is_some());
    assert_eq!(ask(&broker, &change(&old, 43_201)).await.code(), "InvalidArgument");
}

#[tokio::test]
async fn a_poll_whose_connection_ended_takes_nothing() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let poll = bytes(&Operation::Receive { queue: "q".into(), wait: Some(30) }.encode());
    let mut gone = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(broker.mns_address().unwrap()).await.unwrap();
        stream.write_all(&poll).await.unwrap();
        gone.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut waits = TcpStream::connect(broker.mns_address().unwrap()).await.unwrap();
    waits.write_all(&poll).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(gone);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    send(&broker, "q", "x").await;
    let got = read(&mut waits).await;
    assert_eq!(decode_received(got.body.as_bytes()).unwrap().dequeue_count, 1);
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn polls_end_with_their_time_their_queue_and_the_broker() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let since = Instant::now();
    let empty = ask_for(&broker, "GET", "/queues/q/messages?waitseconds=1", "").await;
    assert_eq!((empty.status, empty.code()), (404, "MessageNotExist".into()));
    assert!((900..3000).contains(&since.elapsed().as_millis()));
    let poll = bytes(&Operation::Receive { queue: "q".into(), wait: Some(30) }.encode());
    let waiting = || async {
        let mut stream = TcpStream::connect(broker.mns_address().unwrap()).await.unwrap();
        stream.write_all(&poll).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream
    };
    let mut stream = waiting().await;
    assert_eq!(ask_for(&broker, "DELETE", "/queues/q", "").await.status, 204);
    assert_eq!(read(&mut stream).await.code(), "QueueNotExist");
    queue(&broker, "q", 30).await;
    let mut stream = waiting().await;
    let stopping = broker.stop(Duration::from_secs(5));
    let (closed, answer) = tokio::join!(stopping, read(&mut stream));
    assert_eq!((closed, answer.code()), (true, "MessageNotExist".into()));
}

#[tokio::test]
async fn a_queue_of_another_protocol_is_another_queue() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    send(&broker, "q", "x").await;
    assert!(broker.purge("q").await.is_err());
    assert!(take(&broker, "q").await.is_some());
    assert_eq!(broker.status().unacked, 1);
}

#[tokio::test]
async fn properties_and_groups_come_back() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let property = Property { name: "n".into(), value: "v \"1\"".into(), kind: "STRING".into() };
    let message = Outgoing {
        body: "x".into(),
        group: Some("g".into()),
        properties: vec![property.clone()],
        ..Outgoing::default()
    };
    assert_eq!(ask(&broker, &Operation::Send { queue: "q".into(), message }).await.status, 201);
    let got = ask(&broker, &Operation::Receive { queue: "q".into(), wait: None }).await;
    let got = decode_received(got.body.as_bytes()).unwrap();
    assert_eq!((got.group.as_deref(), got.properties), (Some("g"), vec![property]));
}
