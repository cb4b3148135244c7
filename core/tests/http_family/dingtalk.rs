//! DingTalk's robot and a gateway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use ceiba_core::wire::dingtalk::signed_query;
use serde_json::{Value, json};

use crate::server::{Act, Server, ok};
use crate::{message, open, refused, send, setup};

const OK: &str = r#"{"errcode":0,"errmsg":"ok"}"#;

fn robot(server: &Server, more: Value) -> Value {
    let url = format!("{}/robot/send?access_token=TOKEN", server.url());
    let mut section = json!({"type": "dingtalk", "url": url});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    section
}

#[tokio::test]
async fn a_robot_says_text_markdown_and_links() {
    let server = Server::start([ok(OK)]).await;
    let producer = open(&setup(), robot(&server, json!({"secret": "SEC1", "title": "News"}))).await.unwrap();
    send(
        &producer,
        message("disk full", |fields| fields.recipients = vec!["13800000000".into(), "all".into()]),
    )
    .await
    .unwrap();
    let attribute = |name: &'static str, value: &'static str| (name.to_owned(), value.to_owned());
    send(&producer, message("# hi", |fields| fields.attributes.extend([attribute("msgtype", "markdown")])))
        .await
        .unwrap();
    let link =
        [attribute("msgtype", "link"), attribute("subject", "T"), attribute("url", "https://a.example")];
    send(&producer, message("look", |fields| fields.attributes.extend(link))).await.unwrap();
    let seen = server.seen();
    let bodies: Vec<Value> = seen.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    let at = |mobiles: Value, all: bool| json!({"atMobiles": mobiles, "atUserIds": [], "isAtAll": all});
    assert_eq!(
        bodies,
        [
            json!({"msgtype": "text", "text": {"content": "disk full @13800000000"}, "at": at(json!(["13800000000"]), true)}),
            json!({"msgtype": "markdown", "markdown": {"title": "News", "text": "# hi"}, "at": at(json!([]), false)}),
            json!({"msgtype": "link", "link": {"title": "T", "text": "look", "messageUrl": "https://a.example", "picUrl": ""}}),
        ]
    );
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for seen in &seen {
        let query = seen.query();
        assert_eq!(query["access_token"], "TOKEN");
        let millis: u64 = query["timestamp"].parse().unwrap();
        assert!((now - 10_000..=now).contains(&millis));
        assert!(seen.target.ends_with(&signed_query("SEC1", millis)), "{}", seen.target);
    }
    assert_eq!(producer.status()["left_this_minute"], 17);
}

#[tokio::test]
async fn twenty_a_minute_and_no_more() {
    let server = Server::start([ok(OK)]).await;
    let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
    // What is refused before it is sent takes no place.
    refused(&producer, Message::new("x".repeat(20_001))).await;
    for _ in 0..20 {
        send(&producer, Message::new("x")).await.unwrap();
    }
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.outcome(), error.retryable()), (Kind::Limited, Outcome::NotSent, true));
    let wait = error.retry_after().unwrap();
    assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(61), "{wait:?}");
    assert_eq!(server.seen().len(), 20);
    tokio::time::pause();
    tokio::time::advance(wait + Duration::from_millis(1)).await;
    tokio::time::resume();
    send(&producer, Message::new("x")).await.unwrap();
    assert_eq!(server.seen().len(), 21);
}

#[tokio::test]
async fn the_clients_of_a_robot_send_twenty_a_minute_together() {
    let server = Server::start([ok(OK)]).await;
    for _ in 0..2 {
        let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
        let beside = open(&setup(), robot(&server, json!({"title": "another"}))).await.unwrap();
        for _ in 0..5 {
            send(&producer, Message::new("x")).await.unwrap();
            send(&beside, Message::new("x")).await.unwrap();
        }
        producer.close(&crate::within(1)).await.unwrap();
    }
    let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
    assert_eq!(refused(&producer, Message::new("x")).await.kind(), Kind::Limited);
    // Another token is another robot.
    let url = format!("{}/robot/send?access_token=OTHER", server.url());
    let other = open(&setup(), json!({"type": "dingtalk", "url": url})).await.unwrap();
    send(&other, Message::new("x")).await.unwrap();
    assert_eq!(server.seen().len(), 21);
}

#[tokio::test]
async fn a_robot_that_says_that_it_is_mute_is_asked_again_after_ten_minutes() {
    let mute = ok(r#"{"errcode":130101,"errmsg":"send too fast"}"#);
    let server = Server::start([mute, ok(OK)]).await;
    let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
    let error = refused(&producer, Message::new("x")).await;
    assert_eq!((error.kind(), error.retry_after()), (Kind::Throttled, Some(Duration::from_secs(600))));
    let error = refused(&producer, Message::new("x")).await;
    let wait = error.retry_after().unwrap();
    assert!(error.kind() == Kind::Limited && wait > Duration::from_secs(590), "{error} {wait:?}");
    assert_eq!((server.seen().len(), &producer.status()["left_this_minute"]), (1, &json!(0)));
}

#[tokio::test]
async fn a_place_is_given_back_when_nothing_was_written() {
    let server = Server::start([ok(OK)]).await;
    let section = robot(&server, json!({}));
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let producer = open(&setup(), section).await.unwrap();
    for _ in 0..50 {
        assert_eq!(refused(&producer, Message::new("x")).await.kind(), Kind::Unavailable);
    }
    assert_eq!(producer.status()["left_this_minute"], 20);
}

#[tokio::test]
async fn what_the_robot_refuses_has_its_kind() {
    for (answer, kind, retryable, outcome) in [
        (r#"{"errcode":130101,"errmsg":"send too fast"}"#, Kind::Throttled, true, Outcome::NotSent),
        (r#"{"errcode":310000,"errmsg":"sign not match"}"#, Kind::Authentication, false, Outcome::NotSent),
        (r#"{"errcode":400102}"#, Kind::Permission, false, Outcome::NotSent),
        (r#"{"errcode":-1}"#, Kind::Unavailable, true, Outcome::Unknown),
        ("oops", Kind::Protocol, true, Outcome::Unknown),
    ] {
        let server = Server::start([ok(answer)]).await;
        let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
        let error = refused(&producer, Message::new("x")).await;
        assert_eq!(
            (error.kind(), error.retryable(), error.outcome()),
            (kind, retryable, outcome),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn what_a_robot_cannot_say_is_refused() {
    let server = Server::start([ok(OK)]).await;
    let producer = open(&setup(), robot(&server, json!({}))).await.unwrap();
    let attribute = |name: &'static str, value: &'static str| {
        message("x", |fields| {
            fields.attributes.insert(name.into(), value.into());
        })
    };
    let many: Vec<String> = (0..10_000).map(|number| format!("138{number:08}")).collect();
    for (bad, kind) in [
        (Message::new(vec![255]), Kind::Unsupported),
        (attribute("msgtype", "card"), Kind::InvalidArgument),
        (attribute("msgtype", "markdown"), Kind::InvalidArgument),
        (attribute("colour", "red"), Kind::Unsupported),
        (message("x", |fields| fields.template = Some("t".into())), Kind::Unsupported),
        (message("x", |fields| fields.content_type = Some("text/html".into())), Kind::Unsupported),
        (message("x", |fields| fields.recipients = vec![String::new()]), Kind::InvalidArgument),
        (message("x", |fields| fields.recipients = vec!["a b".into()]), Kind::InvalidArgument),
        (message("x", |fields| fields.recipients = many), Kind::TooLarge),
        (Message::new("漢".repeat(7000)), Kind::TooLarge),
        (Message::new("x").with_delay(Duration::from_secs(1)), Kind::Unsupported),
    ] {
        let error = refused(&producer, bad).await;
        assert_eq!(
            (error.kind(), error.outcome(), error.retryable()),
            (kind, Outcome::NotSent, false),
            "{error}"
        );
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_gateway_takes_forms() {
    let server = Server::start([ok("")]).await;
    let section = json!({"type": "dingtalk", "via": "gateway", "url": server.url(), "recipients": ["u0"]});
    let producer = open(&setup(), section).await.unwrap();
    send(&producer, Message::new("测试 & more")).await.unwrap();
    let receipt =
        send(&producer, message("m", |fields| fields.recipients = vec!["u1".into(), "u2".into()])).await;
    assert_eq!(receipt.unwrap().parts.unwrap().len(), 2);
    let seen = server.seen();
    assert_eq!(seen[0].text(), "useridList=u0&message=%E6%B5%8B%E8%AF%95+%26+more");
    assert_eq!(seen[1].text(), "useridList=u1%2Cu2&message=m");
    assert_eq!(seen[0].headers["content-type"], "application/x-www-form-urlencoded");
    let none: Vec<String> = vec!["a,b".into()];
    let error = refused(&producer, message("m", |fields| fields.recipients = none)).await;
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn groups_end_each_by_itself() {
    let fails = Act::Answer(404, Vec::new(), String::new());
    let server = Server::start([ok(""), fails, ok("")]).await;
    let section = json!({"type": "dingtalk", "via": "gateway", "to": "groups", "url": server.url(),
                         "connections": 1, "template": "{{ level }}: {{ body }}"});
    let producer = open(&setup(), section).await.unwrap();
    let many = message("m", |fields| {
        fields.recipients = vec!["g1".into(), "g2".into(), "g3".into()];
        fields.args = Some(json!({"level": "high"}));
    });
    let error = refused(&producer, many).await;
    assert_eq!((error.kind(), error.retryable(), error.outcome()), (Kind::Partial, false, Outcome::NotSent));
    let failed: Vec<&str> =
        error.parts().iter().filter(|part| part.error.is_some()).map(|part| &*part.name).collect();
    assert_eq!(failed, ["g2"]);
    assert_eq!(server.seen()[0].text(), "_id=g1&message=high%3A+m");
    // A body without a place, and a name without a template.
    let section = json!({"type": "dingtalk", "via": "gateway", "url": server.url(), "recipients": ["u0"],
                         "templates": {"alarm": "{{ level }}"}});
    let named = open(&setup(), section).await.unwrap();
    for (body, name, hint) in [("lost", "alarm", "body"), ("", "alrm", "`alarm`")] {
        let error = refused(
            &named,
            message(body, |fields| {
                fields.template = Some(name.into());
                fields.args = Some(json!({"level": "high"}));
            }),
        )
        .await;
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent), "{error}");
        assert!(error.message().contains(hint), "{error}");
    }
    assert_eq!(server.seen().len(), 3);
    // Nobody to send to.
    let alarm = message("m", |fields| fields.args = Some(json!({"level": "high"})));
    assert_eq!(refused(&producer, alarm).await.kind(), Kind::InvalidArgument);
}
