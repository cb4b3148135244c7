//! Short messages: requests with fresh signatures, batches, and how each recipient ended.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::message::Message;
use ceiba_core::wire::sms::{aliyun, tencent};
use serde_json::{Value, json};

use crate::server::{Act, Seen, Server, ok, status};
use crate::{message, open, refused, send, setup};

const ALIYUN_OK: &str = r#"{"Code":"OK","Message":"OK","BizId":"9^0","RequestId":"r"}"#;

fn aliyun_section(server: &Server, more: Value) -> Value {
    let mut section = json!({"type": "sms", "service": "aliyun", "access_key_id": "AK", "access_key_secret": "SK",
                             "sign": "阿里云", "template": "SMS_1", "endpoint": server.url()});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    section
}

fn tencent_section(server: &Server, more: Value) -> Value {
    let mut section = json!({"type": "sms", "service": "tencent", "secret_id": "ID", "secret_key": "KEY",
                             "app_id": "1400", "sign": "腾讯云", "template": "7", "endpoint": server.url()});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    section
}

fn to(numbers: &[&str]) -> Message {
    message("", |fields| fields.recipients = numbers.iter().map(|number| (*number).to_owned()).collect())
}

fn many(count: usize) -> Message {
    message("", |fields| fields.recipients = (0..count).map(|number| format!("138{number:08}")).collect())
}

fn failed(error: &Error) -> Vec<(String, Kind)> {
    let parts = error.parts().iter();
    parts.filter_map(|part| Some((part.name.to_string(), part.error.as_ref()?.kind()))).collect()
}

fn seconds(date: &str) -> u64 {
    chrono::DateTime::parse_from_rfc3339(date).unwrap().timestamp() as u64
}

#[tokio::test]
async fn each_request_is_signed_anew() {
    let server = Server::start([ok(ALIYUN_OK)]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({"security_token": "ST"}))).await.unwrap();
    for _ in 0..3 {
        let mut one = to(&["+8613800000000", "+85251234567"]);
        one.fields_mut().args = Some(json!({"code": "1 2"}));
        one.fields_mut().attributes.insert("out_id".into(), "o/1".into());
        let receipt = send(&producer, one).await.unwrap();
        assert_eq!(receipt.message_id.as_deref(), Some("9^0"));
        assert_eq!(receipt.parts.unwrap().len(), 2);
    }
    let mut nonces = HashSet::new();
    for seen in server.seen() {
        let header = |name: &str| seen.headers[name].as_str();
        nonces.insert(header("x-acs-signature-nonce").to_owned());
        let account = aliyun::Account { key_id: "AK", key_secret: "SK", security_token: Some("ST") };
        let sms = aliyun::SendSms {
            phone_numbers: "13800000000,85251234567",
            sign_name: "阿里云",
            template_code: "SMS_1",
            template_param: Some(r#"{"code":"1 2"}"#),
            out_id: Some("o/1"),
            sms_up_extend_code: None,
        };
        let sending = aliyun::Sending {
            host: header("host"),
            time: seconds(header("x-acs-date")),
            nonce: header("x-acs-signature-nonce"),
            further: &[("user-agent", header("user-agent"))],
        };
        let signed = aliyun::send_sms(account, &sms, sending);
        assert_eq!(seen.target, format!("/?{}", signed.query));
        for (name, value) in signed.headers {
            assert_eq!(seen.headers[&name], value, "{name}");
        }
    }
    assert_eq!(nonces.len(), 3);
}

#[tokio::test]
async fn ten_thousand_numbers_go_in_batches() {
    let server = Server::start([ok(ALIYUN_OK)]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
    let began = Instant::now();
    let receipt = send(&producer, many(10_000)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(receipt.parts.unwrap().len(), 10_000);
    let sizes: Vec<usize> =
        server.seen().iter().map(|seen| seen.query()["PhoneNumbers"].split(',').count()).collect();
    assert_eq!(sizes, [1000; 10]);

    let error = refused(&producer, many(100_001)).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::TooLarge, Outcome::NotSent));
    let error = refused(&producer, Message::new("")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent));
}

#[tokio::test]
async fn a_batch_that_fails_fails_for_its_own_numbers() {
    let throttled = ok(r#"{"Code":"isv.BUSINESS_LIMIT_CONTROL","Message":"later"}"#);
    let server = Server::start([ok(ALIYUN_OK), throttled, Act::Raw(Vec::new()), ok(ALIYUN_OK)]).await;
    let producer =
        open(&setup(), aliyun_section(&server, json!({"batch": 2, "connections": 1}))).await.unwrap();
    let mut all = many(8);
    all.fields_mut().recipients[7] = "not a number".into();
    let error = refused(&producer, all).await;
    assert_eq!((error.kind(), error.retryable(), error.outcome()), (Kind::Partial, true, Outcome::Unknown));
    let number = |number: u32| format!("138{number:08}");
    assert_eq!(
        failed(&error),
        [
            (number(2), Kind::Throttled),
            (number(3), Kind::Throttled),
            (number(4), Kind::Unavailable),
            (number(5), Kind::Unavailable),
            ("not a number".to_owned(), Kind::InvalidArgument),
        ]
    );
    let unknown = error.parts().iter().filter_map(|part| Some(part.error.as_ref()?.outcome()));
    assert_eq!(unknown.filter(|outcome| *outcome == Outcome::Unknown).count(), 2);
}

// Aliyun refuses all numbers of a request for one of them.
fn judged(seen: &Seen) -> String {
    let query = seen.query();
    let bad = query["PhoneNumbers"].split(',').any(|number| ["13800000003", "13800000700"].contains(&number));
    if bad { r#"{"Code":"isv.MOBILE_NUMBER_ILLEGAL","Message":"bad"}"# } else { ALIYUN_OK }.to_owned()
}

#[tokio::test]
async fn one_illegal_number_fails_alone() {
    let server = Server::start([Act::By(judged)]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
    let error = refused(&producer, many(1000)).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Partial, Outcome::NotSent), "{error}");
    let bad = |number: u32| (format!("138{number:08}"), Kind::InvalidArgument);
    assert_eq!(failed(&error), [bad(3), bad(700)]);
    let requests = server.seen();
    assert!(requests.len() < 45, "{} requests", requests.len());
    // Nobody was sent it twice.
    let taken = requests.iter().filter(|seen| judged(seen) == ALIYUN_OK);
    let numbers: Vec<String> = taken
        .flat_map(|seen| seen.query()["PhoneNumbers"].split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!((numbers.len(), numbers.iter().collect::<HashSet<_>>().len()), (998, 998));
}

#[tokio::test]
async fn what_aliyun_refuses_has_its_kind() {
    for (code, http, kind, retryable) in [
        ("isv.BUSINESS_LIMIT_CONTROL", 200, Kind::Throttled, true),
        ("isv.MOBILE_NUMBER_ILLEGAL", 200, Kind::InvalidArgument, false),
        ("isv.AMOUNT_NOT_ENOUGH", 200, Kind::Permission, false),
        ("isv.SMS_TEMPLATE_ILLEGAL", 200, Kind::NotFound, false),
        ("SignatureDoesNotMatch", 400, Kind::Authentication, false),
        ("InvalidAccessKeyId.NotFound", 404, Kind::Authentication, false),
        ("SomethingNew", 403, Kind::Permission, false),
        ("SomethingNew", 503, Kind::Unavailable, true),
    ] {
        let body = json!({"Code": code, "Message": "why\nnot", "RequestId": "r"}).to_string();
        let server = Server::start([Act::Answer(http, Vec::new(), body)]).await;
        let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
        let error = refused(&producer, to(&["13800000000"])).await;
        assert_eq!((error.kind(), error.retryable()), (kind, retryable), "{error:?}");
        assert!(error.message().contains("why\\nnot") && error.message().contains(code), "{error}");
    }
    let server = Server::start([status(502)]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
    let error = refused(&producer, to(&["13800000000"])).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::Unknown));
    let server = Server::start([ok("<html>")]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
    let error = refused(&producer, to(&["13800000000"])).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown));
}

#[tokio::test]
async fn tencent_says_how_each_number_ended() {
    let answer = json!({"Response": {"RequestId": "r", "SendStatusSet": [
        {"SerialNo": "", "PhoneNumber": "+8613800000001", "Code": "LimitExceeded.PhoneNumberThirtySecondLimit", "Message": "m"},
        {"SerialNo": "s0", "PhoneNumber": "+8613800000000", "Code": "Ok", "Message": "send success"},
        {"SerialNo": "", "PhoneNumber": "+8613800000002", "Code": "InvalidParameterValue.IncorrectPhoneNumber", "Message": "m"},
    ]}});
    let server = Server::start([ok(&answer.to_string())]).await;
    let section = tencent_section(&server, json!({"params": ["code", "minutes"]}));
    let producer = open(&setup(), section).await.unwrap();
    let mut four = to(&["13800000000", "+8613800000001", "+8613800000002", "+8613800000003"]);
    four.fields_mut().args = Some(json!({"minutes": 5, "code": "张三"}));
    let error = refused(&producer, four).await;
    assert_eq!((error.kind(), error.retryable(), error.outcome()), (Kind::Partial, true, Outcome::Unknown));
    assert_eq!(
        failed(&error),
        [
            ("+8613800000001".to_owned(), Kind::Throttled),
            ("+8613800000002".to_owned(), Kind::InvalidArgument),
            ("+8613800000003".to_owned(), Kind::Protocol),
        ]
    );
    assert_eq!(error.parts()[0].message_id.as_deref(), Some("s0"));

    let seen = server.seen().pop().unwrap();
    let numbers = ["13800000000", "+8613800000001", "+8613800000002", "+8613800000003"];
    let sms = tencent::SendSms {
        phone_number_set: &numbers,
        sms_sdk_app_id: "1400",
        template_id: "7",
        sign_name: Some("腾讯云"),
        template_param_set: Some(&["张三".to_owned(), "5".to_owned()]),
        ..tencent::SendSms::default()
    };
    let account = tencent::Account { secret_id: "ID", secret_key: "KEY", token: None };
    let sending = tencent::Sending {
        host: &seen.headers["host"],
        region: "ap-guangzhou",
        language: Some("zh-CN"),
        time: seen.headers["x-tc-timestamp"].parse().unwrap(),
    };
    let signed = tencent::send_sms(account, &sms, sending).unwrap();
    assert_eq!(seen.body, signed.body);
    for (name, value) in signed.headers {
        assert_eq!(seen.headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn tencent_gets_numbers_of_one_kind_in_batches() {
    let server = Server::start([Act::Answer(
        200,
        Vec::new(),
        json!({"Response": {"Error": {"Code": "FailedOperation.InsufficientBalanceInSmsPackage", "Message": "m"}}})
            .to_string(),
    )])
    .await;
    let producer = open(&setup(), tencent_section(&server, json!({"connections": 1}))).await.unwrap();
    let mut all = many(401);
    all.fields_mut().recipients.push("+85251234567".into());
    let error = refused(&producer, all).await;
    assert_eq!(
        (error.kind(), error.retryable(), error.outcome()),
        (Kind::Permission, false, Outcome::NotSent)
    );
    assert_eq!(failed(&error).len(), 402);
    let sizes: Vec<usize> = server
        .seen()
        .iter()
        .map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            body["PhoneNumberSet"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(sizes, [200, 200, 1, 1]);
}

#[tokio::test]
async fn a_gateway_is_described_by_templates() {
    let server =
        Server::start([ok(r#"{"code":"0","id":11}"#), ok(r#"{"code":"F03"}"#), ok(r#"{"code":"E9"}"#)]).await;
    let section = json!({
        "type": "sms", "service": "http", "connections": 1,
        "url": format!("{}/send?to={{{{ recipient }}}}&text={{{{ name }}}}", server.url()),
        "headers": {"X-Api-Key": "k", "X-Biz": {"template": "{{ template }}"}},
        "content_type": "application/x-www-form-urlencoded", "template": "text={{ name }}",
        "success": {"pointer": "/code", "equals": "0", "message_id": "/id",
                    "codes": {"F03": "not_found", "E9": "throttled"}},
    });
    let producer = open(&setup(), section).await.unwrap();
    let three = |biz: &str| {
        let mut message = to(&["13800000000", "13800000001", "13800000002"]);
        message.fields_mut().template = Some(biz.to_owned());
        message.fields_mut().args = Some(json!({"name": "a&b=c/../?#"}));
        message
    };
    let error = refused(&producer, three("welcome")).await;
    assert_eq!((error.kind(), error.retryable()), (Kind::Partial, true));
    let kinds: Vec<Kind> = failed(&error).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [Kind::NotFound, Kind::Throttled]);
    assert_eq!(error.parts()[0].message_id.as_deref(), Some("11"));
    let seen = server.seen();
    assert_eq!(seen[1].query()["to"], "13800000001");
    assert_eq!(seen[1].query()["text"], "a&b=c/../?#");
    assert_eq!(seen[1].text(), "text=a%26b%3Dc%2F..%2F%3F%23");
    assert_eq!((seen[0].headers["x-biz"].as_str(), seen[0].headers["x-api-key"].as_str()), ("welcome", "k"));

    let error = refused(&producer, three("a\r\nb: c")).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent));
    let error = refused(&producer, to(&["13800000000"])).await;
    assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_gateway_loses_no_body_and_sends_no_other_template() {
    let server = Server::start([ok("")]).await;
    let open_with = |more: Value| {
        let mut section = json!({"type": "sms", "service": "http"});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        async move { open(&setup(), section).await.unwrap() }
    };
    let one = |body: &str, name: Option<&str>| {
        let mut message = to(&["13800000000"]);
        message.set_body(body.to_owned());
        message.fields_mut().template = name.map(str::to_owned);
        message
    };
    let get =
        open_with(json!({"url": format!("{}/s?to={{{{ recipient }}}}", server.url()), "method": "GET"}))
            .await;
    let get_bare = open_with(json!({"url": server.url(), "method": "GET"})).await;
    let made = open_with(json!({"url": server.url(), "templates": {"welcome": "{{ recipient }}"}})).await;
    for (producer, bad) in [
        (&get, one("lost", None)),
        (&get, one("", Some("welcome"))),
        (&get_bare, one("lost", None)),
        (&made, one("lost", Some("welcome"))),
        (&made, one("", Some("welcom"))),
    ] {
        let error = refused(producer, bad).await;
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent), "{error}");
    }
    assert_eq!(server.connections(), 0);
    send(&made, one("", Some("welcome"))).await.unwrap();
    let url = format!("{}/s?text={{{{ body }}}}", server.url());
    let get = open_with(json!({"url": url, "method": "GET"})).await;
    send(&get, one("hi", None)).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].text().as_str(), seen[1].query()["text"].as_str()), ("\"13800000000\"", "hi"));
}

#[tokio::test]
async fn one_message_goes_to_either_service() {
    let server = Server::start([ok(ALIYUN_OK)]).await;
    let templates = json!({"welcome": {"code": "SMS_7", "sign": "other", "params": ["code"]}});
    let aliyun = open(&setup(), aliyun_section(&server, json!({"templates": templates}))).await.unwrap();
    let tencent_ok =
        r#"{"Response":{"SendStatusSet":[{"SerialNo":"s","PhoneNumber":"+8613800000000","Code":"Ok"}]}}"#;
    let other = Server::start([ok(tencent_ok)]).await;
    let templates = json!({"welcome": {"code": "77", "sign": "other", "params": ["code"]}, "plain": "78"});
    let tencent = open(&setup(), tencent_section(&other, json!({"templates": templates}))).await.unwrap();
    let welcome = |name: &str| {
        let mut message = to(&["13800000000"]);
        message.fields_mut().template = Some(name.into());
        message.fields_mut().args = Some(json!({"code": "12"}));
        message
    };
    send(&aliyun, welcome("welcome")).await.unwrap();
    send(&tencent, welcome("welcome")).await.unwrap();
    let query = server.seen()[0].query();
    assert_eq!((query["TemplateCode"].as_str(), query["SignName"].as_str()), ("SMS_7", "other"));
    assert_eq!(query["TemplateParam"], r#"{"code":"12"}"#);
    let body: Value = serde_json::from_slice(&other.seen()[0].body).unwrap();
    assert_eq!((&body["TemplateId"], &body["SignName"]), (&json!("77"), &json!("other")));
    assert_eq!(body["TemplateParamSet"], json!(["12"]));
    for producer in [&aliyun, &tencent] {
        let error = refused(producer, welcome("welcom")).await;
        assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`welcome`"), "{error}");
    }
    assert_eq!((server.seen().len(), other.seen().len()), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let server = Server::start([ok(ALIYUN_OK)]).await;
    let producer = open(&setup(), aliyun_section(&server, json!({}))).await.unwrap();
    let with = |change: fn(&mut ceiba_core::message::Fields)| {
        let mut message = to(&["13800000000"]);
        change(message.fields_mut());
        message
    };
    let mut body = to(&["13800000000"]);
    body.set_body("text");
    for (bad, kind) in [
        (body, Kind::Unsupported),
        (to(&["13800000000"]).with_delay(Duration::from_secs(1)), Kind::Unsupported),
        (to(&["a@b.c"]), Kind::InvalidArgument),
        (to(&["1,2"]), Kind::InvalidArgument),
        (with(|fields| fields.args = Some(json!([1]))), Kind::InvalidArgument),
        (with(|fields| fields.template = Some(String::new())), Kind::InvalidArgument),
        (with(|fields| fields.topic = Some("t".into())), Kind::Unsupported),
        (with(|fields| fields.content_type = Some("text/html".into())), Kind::Unsupported),
        (with(|fields| drop(fields.attributes.insert("x".into(), "y".into()))), Kind::Unsupported),
    ] {
        let error = refused(&producer, bad).await;
        assert_eq!(
            (error.kind(), error.outcome(), error.retryable()),
            (kind, Outcome::NotSent, false),
            "{error}"
        );
        assert_eq!(error.provider(), Some("sms"));
    }
    assert_eq!(server.connections(), 0);
    // A body goes where the config says.
    let producer = open(&setup(), aliyun_section(&server, json!({"body_as": "content"}))).await.unwrap();
    let mut alarm = to(&["13800000000"]);
    alarm.set_body("disk full");
    send(&producer, alarm.clone()).await.unwrap();
    assert_eq!(server.seen()[0].query()["TemplateParam"], r#"{"content":"disk full"}"#);
    // Of two values for one parameter neither is lost in silence.
    alarm.fields_mut().args = Some(json!({"content": "all is well"}));
    let error = refused(&producer, alarm.clone()).await;
    assert!(error.kind() == Kind::InvalidArgument && error.message().contains("`content`"), "{error}");
    // The parameters stand in the address, which has a longest length.
    alarm.fields_mut().args = None;
    alarm.set_body("x".repeat(70_000));
    let error = refused(&producer, alarm).await;
    assert_eq!(
        (error.kind(), error.outcome(), error.attempts()),
        (Kind::TooLarge, Outcome::NotSent, 0),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn wrong_sections_name_the_key_and_no_secret() {
    let server = Server::start([ok("")]).await;
    for (section, hint) in [
        (json!({"type": "sms"}), "`service`"),
        (json!({"type": "sms", "service": "alyun"}), "`aliyun`"),
        (aliyun_section(&server, json!({"access_key_secret": ""})), "`access_key_secret`"),
        (aliyun_section(&server, json!({"sign": ""})), "`sign`"),
        (aliyun_section(&server, json!({"batch": 1001})), "`batch`"),
        (aliyun_section(&server, json!({"endpoint": "hunter2"})), "`endpoint`"),
        (aliyun_section(&server, json!({"endpoint": "http://a/hunter2"})), "`endpoint`"),
        (tencent_section(&server, json!({"endpoint": "http://a/?x=hunter2"})), "`endpoint`"),
        (aliyun_section(&server, json!({"app_id": "hunter2"})), "`app_id`"),
        (tencent_section(&server, json!({"batch": 201})), "`batch`"),
        (tencent_section(&server, json!({"body_as": "x"})), "`body_as`"),
        (json!({"type": "sms", "service": "http", "url": "http://{{ args.host }}/"}), "`url`"),
        (json!({"type": "sms", "service": "http", "url": "http://a{{ body }}/"}), "`url`"),
        (
            json!({"type": "sms", "service": "http", "url": "http://a/", "method": "GET", "template": ""}),
            "GET",
        ),
    ] {
        let error =
            open(&setup(), section.clone()).await.err().unwrap_or_else(|| panic!("{section} was taken"));
        assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some("sms")), "{error}");
        assert!(error.message().contains(hint) && !error.text().contains("hunter2"), "{error}");
    }
}
