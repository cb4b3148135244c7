//! Sending: receipts, order, batches, fields, flush.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceiba_core::client::Producer;
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::message::{Attachment, Disposition, Fields, Message, Receipt};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Harness, Needs, Verdict};
use crate::stage::{Stage, Submitter, message, nothing_comes, receive, rest, seconds, text};
use crate::table::Trait;

pub(crate) async fn a_message_arrives_and_is_acknowledged(harness: &dyn Harness) -> Verdict {
    let needs = Needs { redeliver_after: Duration::from_secs(3), ..Needs::default() };
    let stage = Stage::start(harness, needs).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    producer.send(&seconds(10.0), message("hello")).await.unwrap();
    let (_, delivery) = receive(&consumer, 1, 10.0).await.remove(0);
    assert_eq!(text(&delivery), "hello");
    assert!(!delivery.topic.is_empty());
    // A provider without acks may have a code all the same: the message id.
    assert!(!delivery.code.is_empty() || !consumer.capability().ack);
    assert_eq!(delivery.attempt, consumer.capability().attempt.then_some(1));
    // Acknowledged, it does not come again when the time for that is over.
    nothing_comes(&consumer, if stage.has(Trait::SendsOnly) { 0.3 } else { 4.0 }).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_receipt_names_provider_and_attempts(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let producer = stage.producer().await;
    assert_eq!(producer.provider(), harness.provider());
    let mut ids = HashSet::new();
    for number in 0..20 {
        let receipt = producer.send(&seconds(10.0), message(format!("{number}"))).await.unwrap();
        check_receipt(harness, &producer, &receipt);
        ids.extend(receipt.message_id.as_deref().map(str::to_owned));
    }
    if producer.capability().message_id {
        assert_eq!(ids.len(), 20, "message ids are not unique: {ids:?}");
    }
    stage.end().await;
    Verdict::Held
}

fn check_receipt(harness: &dyn Harness, producer: &Arc<dyn Producer>, receipt: &Receipt) {
    assert_eq!(receipt.provider, harness.sender());
    assert_eq!(receipt.attempts, 1);
    assert_eq!(receipt.disposition, Disposition::Sent);
    assert_eq!(receipt.warning, None);
    assert_eq!(receipt.message_id.is_some(), producer.capability().message_id, "{receipt:?}");
}

pub(crate) async fn one_producer_keeps_its_order(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let body = |number: u64| format!("{number:05}");
    let all = stage.most(1250) as u64;
    let (single, batched) = ((all / 25).max(1), all / 5);
    for number in 0..single {
        producer.send(&seconds(10.0), message(body(number))).await.unwrap();
    }
    let batch = (single..batched).map(|number| message(body(number))).collect();
    for result in producer.send_batch(&seconds(20.0), batch).await {
        result.unwrap();
    }
    let submitter = Submitter::new(&producer, 4096);
    for number in batched..all {
        submitter.intake.submit(number, body(number).as_bytes(), Duration::ZERO).unwrap();
    }
    for completion in submitter.completions((all - batched) as usize, 20.0).await.into_values() {
        completion.result.unwrap();
    }
    let arrived: Vec<String> =
        receive(&consumer, all as usize, 30.0).await.iter().map(|(_, d)| text(d)).collect();
    let sent: Vec<String> = (0..all).map(body).collect();
    let ordered = producer.capability().ordered;
    if ordered {
        assert_eq!(arrived, sent);
    } else {
        assert_eq!(BTreeSet::from_iter(arrived), BTreeSet::from_iter(sent));
    }
    stage.end().await;
    if ordered { Verdict::Held } else { Verdict::Excluded(Trait::NoOrder) }
}

pub(crate) async fn many_senders_each_get_their_receipt(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let count = stage.most(16);
    let each = stage.most(25 * count) / count;
    let senders = (0..count).map(|sender| {
        let producer = producer.clone();
        tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..each {
                let body = format!("{sender}-{number}");
                receipts.push(producer.send(&seconds(20.0), message(body)).await.unwrap());
            }
            receipts
        })
    });
    let mut ids = HashSet::new();
    for sender in join_all(senders).await {
        for receipt in sender.unwrap() {
            check_receipt(harness, &producer, &receipt);
            ids.extend(receipt.message_id.as_deref().map(str::to_owned));
        }
    }
    if producer.capability().message_id {
        assert_eq!(ids.len(), count * each);
    }
    let bodies: HashSet<String> =
        receive(&consumer, count * each, 20.0).await.iter().map(|(_, d)| text(d)).collect();
    assert_eq!(bodies.len(), count * each);
    assert_eq!(rest(&consumer, 0.3).await.len(), 0);
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_batch_has_a_result_for_each_message(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    assert!(producer.send_batch(&seconds(5.0), Vec::new()).await.is_empty());
    let count = stage.most(100);
    let batch = (0..count).map(|number| message(format!("{number}"))).collect();
    let results = producer.send_batch(&seconds(20.0), batch).await;
    assert_eq!(results.len(), count);
    for result in results {
        check_receipt(harness, &producer, &result.unwrap());
    }
    let bodies: HashSet<String> =
        receive(&consumer, count, 20.0).await.iter().map(|(_, d)| text(d)).collect();
    assert_eq!(bodies.len(), count);
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_bad_message_fails_alone_in_its_batch(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (field, recipient) = (stage.peer().unsupported_field(), stage.peer().recipient());
    let field = field.expect("each provider refuses a field");
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let batch = (0..9)
        .map(|number| {
            let message = Message::new(format!("{number}"));
            Arc::new(if number == 4 {
                message.with(|fields| set(fields, field, recipient, json!({"a": 1})))
            } else {
                message
            })
        })
        .collect();
    let results = producer.send_batch(&seconds(10.0), batch).await;
    assert_eq!(results.len(), 9);
    for (number, result) in results.into_iter().enumerate() {
        match (number, result) {
            (4, result) => check_unsupported(&stage.cause(result.unwrap_err()), field),
            (_, result) => check_receipt(harness, &producer, &result.unwrap()),
        }
    }
    let bodies: BTreeSet<String> = receive(&consumer, 8, 10.0).await.iter().map(|(_, d)| text(d)).collect();
    assert_eq!(bodies, [0, 1, 2, 3, 5, 6, 7, 8].map(|number: i32| number.to_string()).into());
    nothing_comes(&consumer, 0.3).await;
    stage.end().await;
    Verdict::Held
}

const FIELDS: [&str; 9] =
    ["content_type", "key", "tag", "topic", "template", "args", "recipients", "attributes", "attachments"];

fn set(fields: &mut Fields, name: &str, recipient: &str, args: Value) {
    match name {
        "content_type" => fields.content_type = Some("text/plain".into()),
        "key" => fields.key = Some("a key".into()),
        "tag" => fields.tag = Some("a tag".into()),
        "topic" => fields.topic = Some("another topic".into()),
        "template" => fields.template = Some("a template".into()),
        "args" => fields.args = Some(args),
        "recipients" => fields.recipients.push(recipient.into()),
        "attributes" => _ = fields.attributes.insert("a".into(), "b".into()),
        "attachments" => fields.attachments.push(Attachment {
            name: "a.txt".into(),
            content_type: "text/plain".into(),
            body: Bytes::from_static(b"a"),
        }),
        other => panic!("no such field: {other}"),
    }
}

fn check_unsupported(error: &Error, field: &str) {
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
    assert!(!error.retryable(), "{error}");
    // Of attributes the one that cannot be sent is named.
    assert!(error.message().contains(field.trim_end_matches('s')), "{field} is not named: {error}");
    assert!(error.provider().is_some(), "{error:?}");
}

/// Nothing is dropped in silence: a field arrives, or the message is refused and the field named.
pub(crate) async fn a_field_that_cannot_be_sent_is_named(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (refused, recipient) = (stage.peer().unsupported_field(), stage.peer().recipient());
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    for name in FIELDS {
        let sent = Message::new(name).with(|fields| set(fields, name, recipient, stage.peer().args()));
        let result: Result<Receipt> = producer.send(&seconds(10.0), Arc::new(sent.clone())).await;
        match result {
            Ok(_) => {
                assert_ne!(refused, Some(name));
                let (_, delivery) = receive(&consumer, 1, 10.0).await.remove(0);
                if !stage.peer().used_up().contains(&name) {
                    assert_eq!(delivery.message.fields(), sent.fields(), "{name} was dropped");
                }
            }
            Err(error) => check_unsupported(&stage.cause(error), name),
        }
    }
    // The topic of the connection itself is no other topic.
    producer.send(&seconds(10.0), message("plain")).await.unwrap();
    let (_, delivery) = receive(&consumer, 1, 10.0).await.remove(0);
    if !stage.peer().has_topics() {
        stage.end().await;
        return Verdict::Held;
    }
    let own = Message::new("own").with(|fields| fields.topic = Some(delivery.topic.to_string()));
    producer.send(&seconds(10.0), Arc::new(own)).await.unwrap();
    assert_eq!(text(&receive(&consumer, 1, 10.0).await[0].1), "own");
    nothing_comes(&consumer, 0.3).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn flush_waits_for_earlier_sends(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let producer = stage.producer().await;
    let started = Instant::now();
    producer.flush(&seconds(5.0)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "a flush of nothing took {:?}", started.elapsed());
    let submitter = Submitter::new(&producer, 8192);
    let all = stage.most(5100) as u64;
    let (submitted, sent) = (all - all.min(200) / 2, all.min(200) / 2);
    for token in 0..submitted {
        submitter.intake.submit(token, b"flushed", Duration::ZERO).unwrap();
    }
    producer.flush(&seconds(30.0)).await.unwrap();
    if producer.intake().is_some() {
        let mut taken = Vec::new();
        assert_eq!(submitter.queue.poll(usize::MAX, &mut taken) as u64, submitted, "flush returned early");
        assert!(taken.into_iter().all(|completion| completion.result.is_ok()));
    } else {
        submitter.completions(submitted as usize, 30.0).await;
    }
    // Sends that wait count too.
    let sends = join_all((0..sent).map(|_| {
        let producer = producer.clone();
        async move { producer.send(&seconds(20.0), message("x")).await.map(|_| Instant::now()) }
    }));
    let flush = async {
        tokio::task::yield_now().await;
        let flushed = producer.flush(&seconds(20.0)).await.map(|()| Instant::now());
        (flushed, producer.intake().map(|intake| intake.under_way()))
    };
    let (sent, (flushed, under_way)) = tokio::join!(sends, flush);
    let flushed = flushed.unwrap();
    // Both are told at the same moment, and the order of the two tasks is free: what counts is that all have ended.
    assert!(matches!(under_way, Some(0) | None), "flush returned with {under_way:?} sends under way");
    for at in sent {
        assert!(at.unwrap() <= flushed + Duration::from_secs(3));
    }
    stage.end().await;
    Verdict::Held
}
