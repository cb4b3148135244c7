//! What is refused, and with which code.

use std::time::{Duration, SystemTime};

use ceiba_core::broker::{Broker, MnsConfig};
use ceiba_core::error::Kind;
use ceiba_core::secret::Secret;
use ceiba_core::wire::mns::*;

use crate::raw::{ACCOUNT, ask_bytes, ask_for, bytes_as, queue, send, take};
use crate::start;

fn list() -> Request {
    Operation::ListQueues(Listing::default()).encode()
}

fn signed(request: &Request, account: Account<'_>, time: SystemTime) -> Vec<(&'static str, String)> {
    headers(account, request, request.body.as_bytes(), time)
}

#[tokio::test]
async fn who_may_not_ask() {
    let broker = start().await;
    let now = SystemTime::now();
    let request = list();
    let good = signed(&request, ACCOUNT, now);
    let without = |name: &str| good.iter().filter(|(there, _)| *there != name).cloned().collect::<Vec<_>>();
    let with = |name: &'static str, value: &str| {
        let mut all = without(name);
        all.push((name, value.to_owned()));
        all
    };
    let far = Duration::from_secs(16 * 60);
    let cases = [
        (good.clone(), 200, ""),
        (without("authorization"), 400, "MissingAuthorizationHeader"),
        (with("authorization", "Basic x"), 400, "InvalidAuthorizationHeader"),
        (without("date"), 400, "MissingDateHeader"),
        (with("date", "yesterday"), 400, "InvalidDateHeader"),
        (without("x-mns-version"), 400, "MissingVersionHeader"),
        (with("x-mns-version", "2015-06-07"), 400, "InvalidVersionHeader"),
        (signed(&request, Account { key_id: "no", ..ACCOUNT }, now), 403, "InvalidAccessKeyId"),
        (signed(&request, Account { key_secret: "no", ..ACCOUNT }, now), 403, "SignatureDoesNotMatch"),
        (with("x-mns-prefix", "added"), 403, "SignatureDoesNotMatch"),
        (signed(&request, ACCOUNT, now - far), 408, "TimeExpired"),
        (signed(&request, ACCOUNT, now + far), 408, "TimeExpired"),
        (signed(&request, ACCOUNT, now - Duration::from_secs(14 * 60)), 200, ""),
    ];
    for (headers, status, code) in cases {
        let answer = ask_bytes(&broker, &bytes_as(&request, headers)).await;
        assert_eq!(answer.status, status, "{code}: {answer:?}");
        if !code.is_empty() {
            assert_eq!(answer.code(), code);
            let refusal = Refusal::decode(answer.body.as_bytes()).unwrap();
            assert_eq!(Some(refusal.request_id.as_str()), answer.header("x-mns-request-id"));
            assert_eq!(refusal.host_id, "http://here");
        }
    }
    assert_eq!(broker.status().failed_logins, 3);
}

#[tokio::test]
async fn a_body_that_is_another_one() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let operation =
        Operation::Send { queue: "q".into(), message: Outgoing { body: "x".into(), ..Outgoing::default() } };
    let request = operation.encode();
    let headers = headers(ACCOUNT, &request, b"something else", SystemTime::now());
    let answer = ask_bytes(&broker, &bytes_as(&request, headers)).await;
    assert_eq!((answer.status, answer.code()), (400, "InvalidDegist".into()));
    assert_eq!(take(&broker, "q").await, None);
}

#[tokio::test]
async fn documents_that_are_none() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let deep = format!("<Message>{}<MessageBody>x</MessageBody></Message>", "<a>".repeat(100));
    let bomb = "<!DOCTYPE m [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><Message><MessageBody>&b;</MessageBody></Message>";
    let outside = "<!DOCTYPE m [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><Message><MessageBody>&a;</MessageBody></Message>";
    let unknown = "<Message><MessageBody>&a;</MessageBody></Message>";
    for body in ["", "x", "<Message>", "<Other/>", bomb, outside, unknown, &deep] {
        let answer = ask_for(&broker, "POST", "/queues/q/messages", body).await;
        assert_eq!((answer.status, answer.code()), (400, "MalformedXML".into()), "{body}");
    }
    assert_eq!(take(&broker, "q").await, None);
}

#[tokio::test]
async fn values_that_may_not_be() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    send(&broker, "q", "x").await;
    let long = "n".repeat(257);
    let message = |inside: &str| format!("<Message><MessageBody>x</MessageBody>{inside}</Message>");
    let many = format!("<Messages>{}</Messages>", message("").repeat(17));
    let large = format!("<Message><MessageBody>{}</MessageBody></Message>", "x".repeat((64 << 10) + 1));
    let cases = [
        ("POST", "/queues/q/messages", message("<Priority>0</Priority>"), "InvalidArgument"),
        ("POST", "/queues/q/messages", message("<Priority>17</Priority>"), "InvalidArgument"),
        ("POST", "/queues/q/messages", message("<DelaySeconds>604801</DelaySeconds>"), "InvalidArgument"),
        ("POST", "/queues/q/messages", message("<Priority>-1</Priority>"), "InvalidArgument"),
        ("POST", "/queues/q/messages", message("<DelaySeconds>-1</DelaySeconds>"), "InvalidArgument"),
        (
            "POST",
            "/queues/q/messages",
            message("<DelaySeconds>99999999999</DelaySeconds>"),
            "InvalidArgument",
        ),
        ("POST", "/queues/q/messages", message("<DelaySeconds>-</DelaySeconds>"), "MalformedXML"),
        ("POST", "/queues/q/messages", large, "InvalidArgument"),
        ("POST", "/queues/q/messages", many, "InvalidArgument"),
        ("POST", "/queues/no/messages", message(""), "QueueNotExist"),
        ("GET", "/queues/q/messages?numOfMessages=17", String::new(), "InvalidArgument"),
        ("GET", "/queues/q/messages?numOfMessages=0", String::new(), "InvalidArgument"),
        ("GET", "/queues/q/messages?waitseconds=31", String::new(), "InvalidArgument"),
        ("GET", "/queues/q/messages?waitseconds=x", String::new(), "InvalidQueryString"),
        ("GET", "/queues/no/messages", String::new(), "QueueNotExist"),
        ("DELETE", "/queues/q/messages", String::new(), "MissingReceiptHandle"),
        ("DELETE", "/queues/q/messages?ReceiptHandle=x", String::new(), "ReceiptHandleError"),
        ("PUT", "/queues/q/messages?ReceiptHandle=x", String::new(), "MissingVisibilityTimeout"),
        (
            "PUT",
            "/queues/q/messages?ReceiptHandle=x&VisibilityTimeout=1",
            String::new(),
            "ReceiptHandleError",
        ),
        ("PUT", "/queues/a.b", String::new(), "InvalidQueueName"),
        ("PUT", &format!("/queues/{long}"), String::new(), "QueueNameLengthError"),
        ("PUT", "/topics/a.b", String::new(), "TopicNameInvalid"),
        ("PUT", &format!("/topics/{long}"), String::new(), "TopicNameLengthError"),
        (
            "PUT",
            "/queues/n",
            "<Queue><VisibilityTimeout>0</VisibilityTimeout></Queue>".into(),
            "InvalidArgument",
        ),
        (
            "PUT",
            "/queues/n",
            "<Queue><PollingWaitSeconds>31</PollingWaitSeconds></Queue>".into(),
            "InvalidArgument",
        ),
        (
            "PUT",
            "/queues/n",
            "<Queue><MaximumMessageSize>1</MaximumMessageSize></Queue>".into(),
            "InvalidArgument",
        ),
        ("PUT", "/queues/q", "<Queue><DelaySeconds>1</DelaySeconds></Queue>".into(), "QueueAlreadyExist"),
        ("PUT", "/queues/no?metaoverride=true", "<Queue/>".into(), "QueueNotExist"),
        ("GET", "/queues/no", String::new(), "QueueNotExist"),
        ("DELETE", "/queues/no", String::new(), "QueueNotExist"),
        ("GET", "/topics/no", String::new(), "TopicNotExist"),
        ("POST", "/topics/no/messages", message(""), "TopicNotExist"),
        ("GET", "/topics/no/subscriptions", String::new(), "TopicNotExist"),
        ("GET", "/nowhere", String::new(), "InvalidRequestURL"),
        ("PATCH", "/queues/q", String::new(), "InvalidRequestURL"),
    ];
    for (method, resource, body, code) in cases {
        let answer = ask_for(&broker, method, resource, &body).await;
        assert_eq!(answer.code(), code, "{method} {resource}");
        assert_eq!(answer.status, Code::find(code).unwrap().status(), "{method} {resource}");
    }
    assert!(take(&broker, "q").await.is_some() && take(&broker, "q").await.is_none());
}

#[tokio::test]
async fn one_bad_number_is_not_the_batch() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let body = "<Messages><Message><MessageBody>good</MessageBody></Message>\
                <Message><MessageBody>bad</MessageBody><DelaySeconds>-1</DelaySeconds></Message></Messages>";
    let answer = ask_for(&broker, "POST", "/queues/q/messages", body).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let entries = decode_batch(answer.body.as_bytes()).unwrap();
    assert!(matches!(&entries[0], Entry::Sent(_)), "{entries:?}");
    assert!(matches!(&entries[1], Entry::Refused { code, .. } if code == "InvalidArgument"), "{entries:?}");
    assert_eq!(take(&broker, "q").await.unwrap().0, "good");
    assert_eq!(take(&broker, "q").await, None);
}

#[tokio::test]
async fn a_document_over_the_bound_is_not_read() {
    let broker = start().await;
    queue(&broker, "q", 30).await;
    let spaces = " ".repeat(MAX_DOCUMENT);
    let body = format!("<Message>{spaces}<MessageBody>x</MessageBody></Message>");
    let answer = ask_for(&broker, "POST", "/queues/q/messages", &body).await;
    assert_eq!((answer.status, answer.code()), (400, "MalformedXML".into()));
    assert_eq!(take(&broker, "q").await, None);
}

#[tokio::test]
async fn a_key_without_a_secret_is_no_key() {
    for (id, secret) in [("id", ""), ("", "secret")] {
        let mut config = crate::config();
        config.mns = Some(MnsConfig::new(id, Secret::new(secret)));
        assert_eq!(Broker::start(config).await.unwrap_err().kind(), Kind::InvalidConfig);
    }
}

#[tokio::test]
async fn addresses_are_those_that_the_caller_uses() {
    let broker = start().await;
    let operation = Operation::CreateQueue { queue: "q".into(), attributes: QueueAttributes::default() };
    let request = operation.encode();
    let mut headers = signed(&request, ACCOUNT, SystemTime::now());
    headers.push(("x-forwarded-proto", "https".to_owned()));
    let made = ask_bytes(&broker, &bytes_as(&request, headers)).await;
    assert_eq!((made.status, made.header("Location")), (201, Some("https://here/queues/q")));
}
