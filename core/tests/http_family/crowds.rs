//! Ten thousand recipients, and requests that are made anew for each attempt.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::config::{ClientConfig, WhenDisconnected};
use ceiba_core::message::Message;
use ceiba_core::provider::memory::Topics;
use serde_json::{Value, json};

use crate::server::{Act, Seen, Server, ok, status};
use crate::{message, open, send, setup, within};

const TEN_THOUSAND: usize = 10_000;

fn crowd(body: &str) -> Message {
    message(body, |fields| {
        fields.recipients = (0..TEN_THOUSAND).map(|number| format!("138{number:08}")).collect()
    })
}

#[tokio::test]
async fn a_gateway_gets_ten_thousand_numbers_each_in_its_own_request() {
    let server = Server::start([ok("")]).await;
    let section = json!({"type": "sms", "service": "http", "template": "{{ recipient }}", "content_type": "text/plain",
                         "url": format!("{}/send?to={{{{ recipients|join(',') }}}}", server.url())});
    let producer = open(&setup(), section).await.unwrap();
    let begun = Instant::now();
    let receipt = producer.send(&within(60), Arc::new(crowd(""))).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    assert_eq!(receipt.parts.unwrap().len(), TEN_THOUSAND);
    let texts: HashSet<String> = server.seen().iter().map(Seen::text).collect();
    assert_eq!((texts.len(), server.seen().len()), (TEN_THOUSAND, TEN_THOUSAND));
    assert!(server.seen().iter().all(|seen| seen.query()["to"] == seen.text()));
}

#[tokio::test]
async fn tencent_gets_ten_thousand_numbers_in_batches() {
    fn taken(seen: &Seen) -> String {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let each = |number: &Value| json!({"SerialNo": "s", "PhoneNumber": format!("+86{}", number.as_str().unwrap()), "Code": "Ok"});
        let all: Vec<Value> = body["PhoneNumberSet"].as_array().unwrap().iter().map(each).collect();
        json!({"Response": {"SendStatusSet": all}}).to_string()
    }
    let server = Server::start([Act::By(taken)]).await;
    let section = json!({"type": "sms", "service": "tencent", "secret_id": "ID", "secret_key": "KEY", "app_id": "1",
                         "template": "7", "endpoint": server.url()});
    let producer = open(&setup(), section).await.unwrap();
    let receipt = producer.send(&within(30), Arc::new(crowd(""))).await.unwrap();
    assert_eq!((receipt.parts.unwrap().len(), server.seen().len()), (TEN_THOUSAND, TEN_THOUSAND / 200));
}

#[tokio::test]
async fn a_gateway_of_dingtalk_takes_a_thousand_and_says_so() {
    let server = Server::start([ok("")]).await;
    let section = json!({"type": "dingtalk", "via": "gateway", "url": server.url()});
    let producer = open(&setup(), section).await.unwrap();
    let error = crate::refused(&producer, crowd("x")).await;
    assert!(error.message().contains("10000 recipients are more than 1000"), "{error}");
    let mut thousand = crowd("x");
    thousand.fields_mut().recipients.truncate(1000);
    assert_eq!(send(&producer, thousand).await.unwrap().parts.unwrap().len(), 1000);
    assert_eq!(server.seen().len(), 1);
}

// What of a request is made anew: its signature, and where the wire has them a nonce and a time.
fn fresh(seen: &Seen) -> Vec<String> {
    let query = seen.query();
    let of_header = |name: &str| seen.headers.get(name).cloned();
    let of_query = |name: &str| query.get(name).cloned();
    [
        of_header("x-acs-signature-nonce"),
        of_header("authorization"),
        of_header("x-tc-timestamp"),
        of_header("x-ceiba-signature"),
        of_header("x-ceiba-timestamp"),
        of_query("sign"),
        of_query("timestamp"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn signed(address: &str) -> Vec<(Value, &'static str, Message)> {
    let to = || message("", |fields| fields.recipients = vec!["13800000000".into()]);
    let tencent_ok =
        r#"{"Response":{"SendStatusSet":[{"SerialNo":"s","PhoneNumber":"+8613800000000","Code":"Ok"}]}}"#;
    vec![
        (
            json!({"type": "sms", "service": "aliyun", "access_key_id": "AK", "access_key_secret": "SK", "sign": "s",
                   "template": "t", "endpoint": address}),
            r#"{"Code":"OK"}"#,
            to(),
        ),
        (
            json!({"type": "sms", "service": "tencent", "secret_id": "ID", "secret_key": "KEY", "app_id": "1",
                   "template": "7", "endpoint": address}),
            tencent_ok,
            to(),
        ),
        (json!({"type": "webhook", "url": address, "sign": {"secret": "s"}}), "", Message::new("x")),
        (
            json!({"type": "dingtalk", "url": format!("{address}/?access_token=FRESH"), "secret": "SEC"}),
            r#"{"errcode":0}"#,
            Message::new("x"),
        ),
    ]
}

#[tokio::test]
async fn each_attempt_of_a_retry_is_signed_anew() {
    for number in 0..4 {
        let holder = Server::start([ok("")]).await;
        let (_, good, _) = signed(&holder.url()).remove(number);
        let server = Server::start([status(500), ok(good)]).await;
        let (section, _, message) = signed(&server.url()).remove(number);
        // Longer than a second: some of the times are whole ones.
        let retry =
            json!({"type": "retry", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "1100ms"}});
        let whole = json!({"connect": "lazy", "provider": section, "strategies": [retry]});
        let config = ClientConfig::from_json(whole).unwrap();
        let producer = ceiba_core::open::producer("fresh", &config, &Topics::default()).await.unwrap();
        let receipt = send(&producer, message).await.unwrap();
        assert_eq!(receipt.attempts, 2, "{section}");
        let seen = server.seen();
        let (first, second) = (fresh(&seen[0]), fresh(&seen[1]));
        assert!(!first.is_empty() && first.len() == second.len(), "{first:?}");
        assert!(first.iter().zip(&second).all(|(one, other)| one != other), "{first:?} {second:?}");
    }
}

/// The wait for a connection can be long: what is sent after it is signed after it.
#[tokio::test]
async fn what_waited_for_a_connection_is_signed_when_it_is_there() {
    for number in 0..4 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (section, good, message) = signed(&format!("http://{address}")).remove(number);
        let mut waits = setup();
        waits.when_disconnected = WhenDisconnected::Wait;
        let producer = open(&waits, section).await.unwrap();
        let sending = tokio::spawn({
            let producer = producer.clone();
            async move { send(&producer, message).await }
        });
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let server = Server::on(tokio::net::TcpListener::bind(address).await.unwrap(), [ok(good)]);
        sending.await.unwrap().unwrap();
        let seen = server.seen().remove(0);
        let query = seen.query();
        let time = [
            seen.headers.get("x-tc-timestamp"),
            seen.headers.get("x-ceiba-timestamp"),
            query.get("timestamp"),
        ];
        let time = match (time.into_iter().flatten().next(), seen.headers.get("x-acs-date")) {
            (Some(text), _) => text.get(..10).unwrap().parse::<u64>().unwrap(),
            (None, Some(date)) => chrono::DateTime::parse_from_rfc3339(date).unwrap().timestamp() as u64,
            (None, None) => panic!("no time"),
        };
        assert!(time >= before, "signed at {time}, connected at {before}");
    }
}
