//! What a webhook sends, and which answers it takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::{Attachment, Message};
use ceiba_core::wire::webhook::{Encoding, signature};
use serde_json::{Value, json};

use crate::server::{Server, ok};
use crate::{message, open, refused, send, setup};

#[tokio::test]
async fn a_body_goes_as_it_is() {
    let server = Server::start([ok("")]).await;
    let url = format!("http://us%40er:pass@127.0.0.1:{}/a%20b?x=1&x=2", server.port);
    let section = json!({"type": "webhook", "url": url, "method": "PUT", "headers": {"X-Key": "k"}});
    let producer = open(&setup(), section).await.unwrap();
    assert!(producer.capability().binary_body);
    let body = Message::new(vec![0, 255, 10]).with(|fields| fields.content_type = Some("image/x".into()));
    let receipt = send(&producer, body).await.unwrap();
    assert_eq!((receipt.provider, receipt.attempts, receipt.message_id), ("webhook", 1, None));
    send(&producer, Message::new("")).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("PUT", "/a%20b?x=1&x=2"));
    assert_eq!(seen[0].body, [0, 255, 10]);
    assert_eq!(seen[0].headers["content-type"], "image/x");
    assert_eq!(seen[0].headers["x-key"], "k");
    assert_eq!(seen[0].headers["authorization"], "Basic dXNAZXI6cGFzcw==");
    assert!(seen[0].headers["user-agent"].starts_with("ceiba/"));
    assert_eq!((seen[1].headers["content-length"].as_str(), seen[1].body.len()), ("0", 0));
    assert_eq!(seen[1].headers["content-type"], "application/octet-stream");
}

#[tokio::test]
async fn a_template_makes_body_and_headers() {
    let server = Server::start([ok("")]).await;
    let section = json!({
        "type": "webhook", "url": server.url(),
        "headers": {"Idempotency-Key": {"template": "{{ key }}"}},
        "template": r#"{"biz": {{ template }}, "to": {{ recipients }}, "name": {{ name }}, "text": {{ body }}}"#,
    });
    let producer = open(&setup(), section).await.unwrap();
    let hostile = "\"}, \"admin\": true, \u{1f600}\n";
    let whole = |name: &str, key: &str| {
        message("hi \"there\"", |fields| {
            fields.template = Some("welcome".into());
            fields.args = Some(json!({"name": name}));
            fields.recipients = vec!["a".into(), "b".into()];
            fields.key = Some(key.into());
        })
    };
    send(&producer, whole(hostile, "k1")).await.unwrap();
    let seen = server.seen();
    let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body, json!({"biz": "welcome", "to": ["a", "b"], "name": hostile, "text": "hi \"there\""}));
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(seen[0].headers["idempotency-key"], "k1");

    // What no header holds, and what is missing.
    for bad in ["a\r\nx: y", "a\nb", "a\0b"] {
        let error = refused(&producer, whole("n", bad)).await;
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent));
        assert!(error.message().contains("idempotency-key"), "{error}");
    }
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.retryable()), (Kind::InvalidArgument, false), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let server = Server::start([ok("")]).await;
    let producer =
        open(&setup(), json!({"type": "webhook", "url": server.url(), "max_body": 10})).await.unwrap();
    let attachment = Attachment { name: "a".into(), content_type: "b".into(), body: "c".into() };
    for (bad, kind) in [
        (Message::new("x").with_delay(Duration::from_secs(1)), Kind::Unsupported),
        (message("x", |fields| fields.args = Some(json!(1))), Kind::Unsupported),
        (message("x", |fields| fields.recipients = vec!["a".into()]), Kind::Unsupported),
        (message("x", |fields| fields.attachments.push(attachment)), Kind::Unsupported),
        (message("x", |fields| fields.content_type = Some("a\r\nb: c".into())), Kind::InvalidArgument),
        (Message::new("12345678901"), Kind::TooLarge),
    ] {
        let error = refused(&producer, bad).await;
        assert_eq!((error.kind(), error.outcome(), error.retryable()), (kind, Outcome::NotSent, false));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_template_is_chosen_by_name_and_loses_no_body() {
    let server = Server::start([ok("")]).await;
    let section = json!({"type": "webhook", "url": server.url(), "content_type": "text/plain", "template": "nothing",
                         "templates": {"welcome": "Hi {{ name }}", "alarm": "! {{ body }}"}});
    let producer = open(&setup(), section).await.unwrap();
    let named = |body: &str, name: &str| {
        message(body, |fields| {
            fields.template = Some(name.into());
            fields.args = Some(json!({"name": "Ada"}));
        })
    };
    send(&producer, named("", "welcome")).await.unwrap();
    send(&producer, named("disk full", "alarm")).await.unwrap();
    send(&producer, Message::new("")).await.unwrap();
    let texts: Vec<String> = server.seen().iter().map(|seen| seen.text()).collect();
    assert_eq!(texts, ["Hi Ada", "! disk full", "nothing"]);
    for (bad, kind, hint) in [
        (named("", "welcom"), Kind::InvalidArgument, "`welcome`"),
        (named("lost", "welcome"), Kind::InvalidArgument, "body"),
        (Message::new("lost"), Kind::InvalidArgument, "body"),
        (
            message("", |fields| fields.content_type = Some("text/html".into())),
            Kind::Unsupported,
            "text/html",
        ),
    ] {
        let error = refused(&producer, bad).await;
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotSent), "{error}");
        assert!(error.message().contains(hint), "{error}");
    }
    // One template alone is chosen by no name.
    let section = json!({"type": "webhook", "url": server.url(), "template": "nothing"});
    let producer = open(&setup(), section).await.unwrap();
    let error = refused(&producer, named("", "welcome")).await;
    assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`templates`"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn loops_of_a_template_end() {
    let server = Server::start([ok("")]).await;
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for a in args %}{% for b in args %}{% for c in args %}{{ body }}{% endfor %}{% endfor %}{% endfor %}",
    ] {
        let section = json!({"type": "webhook", "url": server.url(), "template": template});
        let began = std::time::Instant::now();
        match open(&setup(), section).await {
            Err(error) => assert_eq!(error.kind(), Kind::InvalidConfig),
            Ok(producer) => {
                let many: Vec<u32> = (0..1000).collect();
                let bomb = message("some text", |fields| fields.args = Some(json!(many)));
                let error = refused(&producer, bomb).await;
                assert!(matches!(error.kind(), Kind::InvalidArgument | Kind::TooLarge), "{error}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{template}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_signature_is_over_time_and_body() {
    let server = Server::start([ok("")]).await;
    for (sign, encoding, names, prefix) in [
        (json!({"secret": "s3"}), Encoding::Hex, ["x-ceiba-signature", "x-ceiba-timestamp"], "sha256="),
        (
            json!({"secret": "s3", "header": "X-Sig", "timestamp_header": "X-Time", "prefix": "", "encoding": "base64"}),
            Encoding::Base64,
            ["x-sig", "x-time"],
            "",
        ),
    ] {
        let producer =
            open(&setup(), json!({"type": "webhook", "url": server.url(), "sign": sign})).await.unwrap();
        send(&producer, Message::new(vec![0, 1, 255])).await.unwrap();
        let seen = server.seen().pop().unwrap();
        let [header, timestamp] = names;
        let time: u64 = seen.headers[timestamp].parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((now - 5..=now).contains(&time));
        assert_eq!(
            seen.headers[header],
            format!("{prefix}{}", signature("s3", time, &[0, 1, 255], encoding))
        );
    }
}

#[tokio::test]
async fn the_rule_decides() {
    let rule = json!({"pointer": "/errcode", "equals": 0, "message_id": "/data/id",
                      "codes": {"45009": "throttled", "40001": "authentication"}});
    for (body, expected) in [
        (r#"{"errcode": 0, "data": {"id": "m7"}}"#, Ok(Some("m7"))),
        (r#"{"errcode": 0}"#, Ok(None)),
        (r#"{"errcode": 45009, "errmsg": "x"}"#, Err((Kind::Throttled, true, Outcome::NotSent))),
        (r#"{"errcode": 40001}"#, Err((Kind::Authentication, false, Outcome::NotSent))),
        (r#"{"status": "queued"}"#, Err((Kind::Protocol, true, Outcome::Unknown))),
        (r#"{"errcode": 1}"#, Err((Kind::Unavailable, true, Outcome::NotSent))),
        ("<html>sign in</html>", Err((Kind::Protocol, true, Outcome::Unknown))),
        ("", Err((Kind::Protocol, true, Outcome::Unknown))),
    ] {
        let server = Server::start([ok(body)]).await;
        let producer =
            open(&setup(), json!({"type": "webhook", "url": server.url(), "success": rule})).await.unwrap();
        assert!(producer.capability().message_id);
        let result = send(&producer, Message::new("x")).await;
        let result = result
            .map(|receipt| receipt.message_id)
            .map_err(|error| (error.kind(), error.retryable(), error.outcome()));
        assert_eq!(result.as_ref().map(Option::as_deref).map_err(|error| *error), expected, "{body}");
    }
}
