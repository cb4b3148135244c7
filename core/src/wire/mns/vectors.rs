//! What the official Go SDK sends, as recorded in `tests/vectors/mns.json`, beside what is made here.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../../tests/vectors/mns.json");
const ODD: &str = "a<b>&\"c'\t\r\n  d 你好 😀 ]]>";
const HANDLE: &str = "8-0zSyJ3g+x/==~.-_ 1";

fn message(body: &str, delay: u32, priority: u32) -> Outgoing<'_> {
    Outgoing {
        body: body.into(),
        delay_seconds: Some(delay),
        priority: Some(priority),
        ..Outgoing::default()
    }
}

fn listing(
    marker: Option<&'static str>,
    number: Option<u32>,
    prefix: Option<&'static str>,
    with_meta: bool,
) -> Listing<'static> {
    Listing { prefix: prefix.map(Into::into), marker: marker.map(Into::into), number, with_meta }
}

fn queue_of(delay: u32, size: u32, kept: u32, hidden: u32, wait: u32) -> QueueAttributes {
    QueueAttributes {
        delay_seconds: Some(delay),
        maximum_message_size: Some(size),
        message_retention_period: Some(kept),
        visibility_timeout: Some(hidden),
        polling_wait_seconds: Some(wait),
        logging_enabled: Some(false),
    }
}

fn topic_of(size: u32, logging: bool) -> TopicAttributes {
    TopicAttributes { maximum_message_size: Some(size), logging_enabled: Some(logging) }
}

// What each case calls the SDK with.
fn operation(name: &str) -> Operation<'static> {
    let (queue, q) = (|| "orders-1".into(), || "q".into());
    let (topic, t, subscription) = (|| "news_2".into(), || "t".into(), || "s-1".into());
    match name {
        "send" => Operation::Send { queue: queue(), message: message("hello", 0, 8) },
        "send what XML has to escape" => {
            Operation::Send { queue: queue(), message: message(ODD, 604_800, 16) }
        }
        "send with a token" => Operation::Send { queue: queue(), message: message("hello", 1, 1) },
        "send batch" => {
            Operation::SendBatch { queue: queue(), messages: vec![message("one", 0, 1), message("", 2, 2)] }
        }
        "receive" => Operation::Receive { queue: queue(), wait: None },
        "receive and wait" => Operation::Receive { queue: queue(), wait: Some(30) },
        "receive batch" => Operation::ReceiveBatch { queue: queue(), number: 16, wait: Some(10) },
        "peek" => Operation::Peek { queue: queue() },
        "peek batch" => Operation::PeekBatch { queue: queue(), number: 3 },
        "delete" => {
            Operation::Delete { queue: queue(), handle: "1-ODU4OTkzNDU5My0xNDMyNzI3ODI3LTItOA==".into() }
        }
        "delete what a query has to escape" => {
            Operation::Delete { queue: queue(), handle: HANDLE.replace(' ', "").into() }
        }
        "delete batch" => {
            Operation::DeleteBatch { queue: queue(), handles: vec!["a==".into(), HANDLE.into()] }
        }
        "change visibility" => {
            Operation::ChangeVisibility { queue: queue(), handle: "a==".into(), timeout: 43_200 }
        }
        "create queue" => Operation::CreateQueue { queue: q(), attributes: queue_of(1, 1024, 60, 30, 0) },
        "set queue" => {
            Operation::SetQueue { queue: q(), attributes: queue_of(0, 65_536, 345_600, 43_200, 30) }
        }
        "get queue" => Operation::GetQueue { queue: q() },
        "delete queue" => Operation::DeleteQueue { queue: q() },
        "list queues" => Operation::ListQueues(Listing::default()),
        "list queues in part" => {
            Operation::ListQueues(listing(Some("mark/er="), Some(1000), Some("pre"), true))
        }
        "publish" => Operation::Publish {
            topic: topic(),
            message: Outgoing { body: ODD.into(), tag: Some("t&g".into()), ..Outgoing::default() },
        },
        "publish by mail" => {
            let mail = r#"{"IsHtml":1,"Subject":"s \"1\"","AccountName":"a@b.example","AddressType":0,"ReplyToAddress":0}"#;
            let attributes = vec![("DirectMail", mail.into())];
            let message = Outgoing { body: "hello".into(), attributes, ..Outgoing::default() };
            Operation::Publish { topic: topic(), message }
        }
        "create topic" => Operation::CreateTopic { topic: t(), attributes: topic_of(1024, true) },
        "set topic" => Operation::SetTopic { topic: t(), attributes: topic_of(65_536, false) },
        "get topic" => Operation::GetTopic { topic: t() },
        "delete topic" => Operation::DeleteTopic { topic: t() },
        "list topics" => Operation::ListTopics(listing(Some("m"), Some(7), None, true)),
        "subscribe" => Operation::Subscribe {
            topic: topic(),
            subscription: subscription(),
            attributes: SubscriptionAttributes {
                endpoint: Some("http://127.0.0.1:1/x?a=1&b=2".into()),
                filter_tag: Some("t".into()),
                notify_strategy: Some("EXPONENTIAL_DECAY_RETRY".into()),
                notify_content_format: Some("SIMPLIFIED".into()),
            },
        },
        "set subscription" => Operation::SetSubscription {
            topic: topic(),
            subscription: subscription(),
            attributes: SubscriptionAttributes {
                notify_strategy: Some("BACKOFF_RETRY".into()),
                ..SubscriptionAttributes::default()
            },
        },
        "get subscription" => Operation::GetSubscription { topic: topic(), subscription: subscription() },
        "unsubscribe" => Operation::Unsubscribe { topic: topic(), subscription: subscription() },
        "list subscriptions" => {
            Operation::ListSubscriptions { topic: topic(), listing: listing(None, Some(2), Some("s"), false) }
        }
        "open service" => Operation::OpenService,
        other => panic!("the case `{other}` has no operation here"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

#[test]
fn every_request_equals_the_sdk_s_byte_for_byte() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= 32);
    for case in cases {
        let (name, recorded) = (text(case, "name"), &case["request"]);
        let seen: BTreeMap<&str, &str> = recorded["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let request = operation(name).encode();
        assert_eq!(request.method, text(recorded, "method"), "{name}");
        assert_eq!(request.resource, text(recorded, "target"), "{name}");
        assert_eq!(request.body, text(recorded, "body"), "{name}");
        let account = Account {
            key_id: text(case, "key_id"),
            key_secret: text(case, "key_secret"),
            security_token: case["security_token"].as_str(),
        };
        let time = httpdate::parse_http_date(seen["date"]).unwrap();
        let made = headers(account, &request, request.body.as_bytes(), time);
        let made: BTreeMap<&str, &str> = made.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(made, seen, "{name}");
    }
}

#[test]
fn every_request_of_the_sdk_is_read_and_its_signature_holds() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let (name, recorded) = (text(case, "name"), &case["request"]);
        let headers = recorded["headers"].as_object().unwrap();
        let header = |name: &str| headers.get(name).and_then(Value::as_str);
        let body = text(recorded, "body").as_bytes();
        let read = Operation::decode(text(recorded, "method"), text(recorded, "target"), header, body);
        assert_eq!(read.unwrap(), operation(name), "{name}");
        let own: Vec<(&str, &str)> = headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-mns-"))
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let (id, signature) = presented(header("authorization").unwrap()).unwrap();
        let of = Signable {
            method: text(recorded, "method"),
            content_md5: header("content-md5").unwrap(),
            content_type: header("content-type").unwrap(),
            date: header("date").unwrap(),
            headers: &own,
            resource: text(recorded, "target"),
        };
        assert_eq!(id, text(case, "key_id"));
        assert!(is_signature(text(case, "key_secret"), &of, signature), "{name}");
        assert!(!is_signature("another", &of, signature), "{name}");
        assert!(is_content_md5(body, of.content_md5), "{name}");
    }
}
