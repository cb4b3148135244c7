//! Producers of the host, as clients and as members: how many sends may wait, what becomes of a delay, and when an id is
//! free.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod host;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceiba_core::calls;
use ceiba_core::client::Context;
use ceiba_core::completion::CompletionQueue;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::message::Message;
use host::{Answer, Program, of_host, open, send, until};
use serde_json::{Value, json};

/// A failover's own error says that the deadline passed, and which member had no room.
fn no_room(error: &Error) {
    let told = error.kind() == Kind::QueueFull || error.text().contains("queue_full");
    assert!(told && error.outcome() == Outcome::NotSent, "{error:?}");
}

/// The whole client, and each kind of member: `max_pending` holds for what waits in it.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_sends_wait_than_max_pending_says() {
    let host = Program::register("pending", None);
    let provider = of_host("pending");
    let group = |members: Value| json!({"strategies": [{"type": "failover", "members": members}]});
    let inner = group(json!([{"provider": provider}]));
    let mut inner_bounded = inner.clone();
    inner_bounded["max_pending"] = json!(1);
    let mut bytes_bounded = inner.clone();
    bytes_bounded["max_pending_bytes"] = json!(1);
    for (number, config) in [
        json!({"provider": provider, "max_pending": 1}),
        inner_bounded.clone(),
        bytes_bounded.clone(),
        group(json!([{"provider": provider, "max_pending": 1}])),
        group(json!([{"provider": provider, "max_pending_bytes": 1}])),
        group(json!([inner_bounded])),
        group(json!([bytes_bounded])),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("pending-{number}");
        open(&id, config.clone()).await.unwrap();
        let before = host.calls();
        let first = tokio::spawn({
            let id = id.clone();
            async move { send(&id, Duration::from_secs(20)).await }
        });
        until(|| host.calls() > before).await;
        let error = send(&id, Duration::from_millis(300)).await.unwrap_err();
        no_room(&error);
        assert_eq!(host.calls(), before + 1, "{config}");
        host.answer_all();
        first.await.unwrap().unwrap();
        calls::producer_close(&id, None).await.unwrap();
    }
    calls::callback_unregister("pending").unwrap();
}

/// What a strategy holds back is under way too, in a client and in a member.
#[tokio::test(flavor = "multi_thread")]
async fn what_strategies_hold_back_counts() {
    let refuse: Answer = |call| call.finish(Err(Error::new(Kind::Unavailable, "not now")));
    let host = Program::register("held-back", Some(refuse));
    let retry = json!({"type": "retry", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "20s"}});
    let client = json!({"provider": of_host("held-back"), "strategies": [retry], "max_pending": 1});
    let over = |member: &Value| json!({"strategies": [{"type": "failover", "members": [member]}]});
    for config in [client.clone(), over(&client)] {
        open("held-back", config.clone()).await.unwrap();
        let before = host.calls();
        let first = tokio::spawn(send("held-back", Duration::from_secs(60)));
        until(|| host.calls() == before + 1).await;
        let error = send("held-back", Duration::from_millis(300)).await.unwrap_err();
        no_room(&error);
        assert_eq!(host.calls(), before + 1, "{config}");
        first.abort();
        let _ = first.await;
        let error = send("held-back", Duration::from_millis(300)).await.unwrap_err();
        let calls = host.calls() - before;
        assert_eq!((error.kind(), calls), (Kind::Unavailable, 2), "its room is free again: {error}");
        calls::producer_close("held-back", None).await.unwrap();
    }
    // The default, 256 MiB, where a config says nothing. The bodies are one.
    let half = Bytes::from(vec![b'x'; 128 << 20]);
    let silent = json!({"provider": of_host("held-back"), "strategies": [retry]});
    for config in [silent.clone(), over(&silent)] {
        open("held-back", config.clone()).await.unwrap();
        let before = host.calls();
        let large = |within: Duration| {
            let message = Message::new(half.clone());
            async move { calls::producer_send("held-back", message, Some(within)).await }
        };
        let held: Vec<_> = (0..2).map(|_| tokio::spawn(large(Duration::from_secs(60)))).collect();
        until(|| host.calls() == before + 2).await;
        no_room(&large(Duration::from_millis(300)).await.unwrap_err());
        assert_eq!(host.calls(), before + 2, "{config}");
        held.iter().for_each(tokio::task::JoinHandle::abort);
        for held in held {
            let _ = held.await;
        }
        calls::producer_close("held-back", None).await.unwrap();
    }
    for wrong in [json!({"max_pending": 0}), json!({"max_pendin": 5}), json!({"max_pending": "5"})] {
        let mut member = json!({"provider": of_host("held-back")});
        member.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let config = json!({"strategies": [{"type": "failover", "members": [member]}]});
        let error = open("wrong", config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(
            error.message().contains("`max_pending`") || error.message().contains("max_pending:"),
            "{error}"
        );
    }
    calls::callback_unregister("held-back").unwrap();
}

/// The host gets a delay, less what the call waited for its place, and refuses it as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_the_hosts_to_keep_or_to_refuse() {
    let host = Program::register("delay", None);
    open("delay", json!({"provider": {"type": "callback", "name": "delay", "threads": 1}})).await.unwrap();
    let first = tokio::spawn(send("delay", Duration::from_secs(20)));
    until(|| host.calls() == 1).await;
    let second = tokio::spawn(async {
        let message = Message::new("x").with_delay(Duration::from_secs(60));
        calls::producer_send("delay", message, Some(Duration::from_secs(20))).await
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    host.answer_all();
    first.await.unwrap().unwrap();
    until(|| host.calls() == 2).await;
    let call = host.kept.lock().pop().unwrap();
    let delay = call.message().delay();
    assert!(delay <= Duration::from_millis(59_600) && delay > Duration::from_secs(40), "{delay:?}");
    call.finish(Err(Error::new(Kind::Unsupported, "no delays here")));
    let error = second.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent));
    assert!(error.message().contains("no delays here"), "{error}");
    calls::producer_close("delay", None).await.unwrap();
    calls::callback_unregister("delay").unwrap();
}

/// The close returns at its deadline; the id is taken, and says why, until the host has returned.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_free_when_the_last_call_has_ended() {
    let host = Program::register("stuck", None);
    let config = json!({"provider": of_host("stuck")});
    open("stuck", config.clone()).await.unwrap();
    send("stuck", Duration::from_millis(100)).await.unwrap_err();
    let error = calls::producer_close("stuck", Some(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    // The close has returned, and the call has not.
    for _ in 0..3 {
        let error = open("stuck", config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyOpen);
        assert!(error.message().ends_with("its id is free when the last of its calls has ended"), "{error}");
        assert_eq!(send("stuck", Duration::from_millis(100)).await.unwrap_err().kind(), Kind::Closed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.answer_all();
    let started = Instant::now();
    while open("stuck", config.clone()).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "the id stays taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls::producer_close("stuck", None).await.unwrap();
    calls::callback_unregister("stuck").unwrap();
}

/// A failover goes on at once when a member has no room, whether the member stands in the config or is a client.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_member_holds_up_no_other() {
    let host = Program::register("full", None);
    let one_thread = json!({"type": "callback", "name": "full", "threads": 1});
    let bound = json!({"type": "timeout", "after": "60s"});
    let members = [
        json!({"provider": of_host("full"), "max_pending": 1}),
        json!({"provider": one_thread}),
        json!({"provider": of_host("full"), "strategies": [bound], "max_pending": 1}),
    ];
    for (number, member) in members.iter().enumerate() {
        open(&format!("full-{number}"), member.clone()).await.unwrap();
        for member in [member.clone(), json!(format!("full-{number}"))] {
            let other = json!({"provider": {"type": "memory", "topic": "full"}});
            open("full", json!({"strategies": [{"type": "failover", "members": [member, other]}]}))
                .await
                .unwrap();
            let before = host.calls();
            let first = tokio::spawn(send("full", Duration::from_secs(60)));
            until(|| host.calls() == before + 1).await;
            let begun = Instant::now();
            let receipt = send("full", Duration::from_secs(60)).await.unwrap();
            assert_eq!(receipt.provider, "memory", "{member}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{member}: {:?}", begun.elapsed());
            host.answer_all();
            first.await.unwrap().unwrap();
            calls::producer_close("full", None).await.unwrap();
        }
        // By itself it has nowhere else to go, and waits for its turn.
        let id = format!("full-{number}");
        let before = host.calls();
        let sends: Vec<_> = (0..2)
            .map(|_| {
                let id = id.clone();
                tokio::spawn(async move { send(&id, Duration::from_secs(60)).await })
            })
            .collect();
        for count in 1..=2 {
            until(|| host.calls() == before + count).await;
            host.answer_all();
        }
        for send in sends {
            send.await.unwrap().unwrap();
        }
        calls::producer_close(&id, None).await.unwrap();
    }
    calls::callback_unregister("full").unwrap();
}

/// What was submitted has its room: sends beside it take none of that, and it is not counted another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_was_taken_finds_room() {
    let host = Program::register("submitted", None);
    let provider = json!({"type": "callback", "name": "submitted", "threads": 256});
    let bounds = [json!({"type": "timeout", "after": "60s"}), json!({"type": "retry", "max_attempts": 2})];
    for strategies in [&bounds[..0], &bounds[..1], &bounds[..]] {
        let queue = Arc::new(CompletionQueue::new(1024).unwrap());
        let config = json!({
            "provider": provider, "strategies": strategies, "max_pending": 41, "max_pending_bytes": 4096,
        });
        let config = ClientConfig::from_json(config).unwrap();
        calls::producer_open(Some("submitted"), config, Some(queue.clone())).await.unwrap();
        let before = host.calls();
        let sent = tokio::spawn(calls::producer_send(
            "submitted",
            Message::new(vec![b'x'; 4096]),
            Some(Duration::from_secs(60)),
        ));
        until(|| host.calls() == before + 1).await;
        // 40 times 100 bytes: in pieces of 1 KiB they would be ten times as much as there may be.
        for token in 0..40 {
            calls::producer_submit("submitted", token, &[b'x'; 100], Duration::ZERO).unwrap();
        }
        until(|| host.calls() == before + 41).await;
        let error = calls::producer_submit("submitted", 40, &[b'x'; 100], Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), Kind::QueueFull);
        host.answer_all();
        sent.await.unwrap().unwrap();
        let mut ended = Vec::new();
        until(|| queue.len() == 40).await;
        queue.poll(1024, &mut ended);
        assert!(ended.iter().all(|completion| completion.result.is_ok()), "{ended:?}");
        calls::producer_close("submitted", None).await.unwrap();
    }
    calls::callback_unregister("submitted").unwrap();
}

/// A flush waits for the sends that the producer has, within its own time.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_for_sends_under_way() {
    let host = Program::register("flushed", None);
    open("flushed", json!({"provider": of_host("flushed")})).await.unwrap();
    let over = json!({"strategies": [{"type": "failover", "members": [{"provider": of_host("flushed")}]}]});
    open("flushed-over", over).await.unwrap();
    for id in ["flushed", "flushed-over"] {
        let producer = calls::producer(id).unwrap().producer().clone();
        let before = host.calls();
        let sent = tokio::spawn(send(id, Duration::from_secs(60)));
        until(|| host.calls() == before + 1).await;
        let error = producer.flush(&Context::within(Duration::from_millis(100))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{id}");
        let flush =
            tokio::spawn(async move { producer.flush(&Context::within(Duration::from_secs(60))).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!flush.is_finished());
        host.answer_all();
        flush.await.unwrap().unwrap();
        sent.await.unwrap().unwrap();
        calls::producer_close(id, None).await.unwrap();
    }
    calls::callback_unregister("flushed").unwrap();
}
