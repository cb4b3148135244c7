//! What services answer to a request, and what they take from it.

use ceiba_core::message::Message;
use ceiba_core::wire::dingtalk::signed_query;
use ceiba_core::wire::sign::{hex, hmac_sha256, sha256};
use ceiba_core::wire::webhook::{Encoding, signature};
use ceiba_tests::http::{Reply, Request};
use serde_json::{Value, json};

fn accepted(message: Message, answer: &Value) -> Reply<Message> {
    Reply { status: 200, body: answer.to_string(), kept: Some(message) }
}

fn refused(status: u16, answer: &Value) -> Reply<Message> {
    Reply { status, body: answer.to_string(), kept: None }
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

/// A receiver of signed webhooks, which takes any body.
pub(super) fn webhook(secret: &str, request: &Request) -> Reply<Message> {
    let time = request.header("x-ceiba-timestamp").parse().unwrap_or_default();
    let signed = format!("sha256={}", signature(secret, time, &request.body, Encoding::Hex));
    if request.header("x-ceiba-signature") != signed {
        return refused(401, &Value::Null);
    }
    let message = Message::new(request.body.clone());
    let kept = match request.header("content-type") {
        "" => message,
        kind => message.with(|fields| fields.content_type = Some(kind.to_owned())),
    };
    accepted(kept, &Value::Null)
}

/// A receiver that knows its sender by a header and answers with the message's id.
pub(super) fn answering(secret: &str, number: u64, request: &Request) -> Reply<Message> {
    if request.header("x-secret") != secret {
        return refused(401, &Value::Null);
    }
    let Value::String(text) = &body(request)["text"] else { return refused(400, &Value::Null) };
    accepted(Message::new(text.clone()), &json!({"code": 0, "id": number}))
}

/// Aliyun: every header that is named is signed, and so is the query.
pub(super) fn aliyun(secret: &str, number: u64, request: &Request) -> Reply<Message> {
    let authorization = request.header("authorization");
    let part = |name: &str| {
        let rest = authorization.split_once(name).map_or("", |(_, rest)| rest);
        rest.split(',').next().unwrap_or_default()
    };
    let names = part("SignedHeaders=");
    let lines: String = names.split(';').map(|name| format!("{name}:{}\n", request.header(name))).collect();
    let query = request.target.trim_start_matches("/?");
    let canonical = format!("POST\n/\n{query}\n{lines}\n{names}\n{}", hex(&sha256(b"")));
    let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&sha256(canonical.as_bytes())));
    if part("Signature=") != hex(&hmac_sha256(secret.as_bytes(), to_sign.as_bytes())) {
        return refused(400, &json!({"Code": "SignatureDoesNotMatch", "Message": "of another key"}));
    }
    let params: Value =
        request.query().get("TemplateParam").map_or(Value::Null, |json| serde_json::from_str(json).unwrap());
    let text = params["text"].as_str().unwrap_or_default();
    let answer = json!({"Code": "OK", "Message": "OK", "BizId": format!("{number}^0"), "RequestId": "r"});
    accepted(Message::new(text.to_owned()), &answer)
}

/// Tencent Cloud: the body is signed, and each number has its own end.
pub(super) fn tencent(secret: &str, number: u64, request: &Request) -> Reply<Message> {
    let authorization = request.header("authorization");
    let part = |name: &str| authorization.split_once(name).map_or("", |(_, rest)| rest);
    let scope = part("Credential=ID/").split(',').next().unwrap_or_default();
    let canonical = format!(
        "POST\n/\n\ncontent-type:{}\nhost:{}\n\ncontent-type;host\n{}",
        request.header("content-type"),
        request.header("host"),
        hex(&sha256(&request.body))
    );
    let time = request.header("x-tc-timestamp");
    let to_sign = format!("TC3-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let key = scope
        .split('/')
        .fold(format!("TC3{secret}").into_bytes(), |key, step| hmac_sha256(&key, step.as_bytes()));
    if part("Signature=") != hex(&hmac_sha256(&key, to_sign.as_bytes())) {
        let error = json!({"Code": "AuthFailure.SignatureFailure", "Message": "of another key"});
        return refused(200, &json!({"Response": {"Error": error, "RequestId": "r"}}));
    }
    let body = body(request);
    let text = body["TemplateParamSet"][0].as_str().unwrap_or_default();
    let numbers = body["PhoneNumberSet"].as_array().cloned().unwrap_or_default();
    let statuses: Vec<Value> = numbers
        .iter()
        .map(|phone| json!({"SerialNo": format!("s{number}"), "PhoneNumber": phone, "Code": "Ok", "Message": ""}))
        .collect();
    let answer = json!({"Response": {"SendStatusSet": statuses, "RequestId": "r"}});
    accepted(Message::new(text.to_owned()), &answer)
}

/// A robot of DingTalk that wants signatures.
pub(super) fn robot(secret: &str, request: &Request) -> Reply<Message> {
    let millis = request.query().get("timestamp").and_then(|time| time.parse().ok()).unwrap_or_default();
    if !request.target.ends_with(&signed_query(secret, millis)) {
        return refused(200, &json!({"errcode": 310_000, "errmsg": "sign not match"}));
    }
    let body = body(request);
    let text = body["text"]["content"].as_str().unwrap_or_default();
    accepted(Message::new(text.to_owned()), &json!({"errcode": 0, "errmsg": "ok"}))
}

/// A gateway in front of DingTalk that takes forms, under an address that only its users know.
pub(super) fn gateway(token: &str, request: &Request) -> Reply<Message> {
    if request.target.trim_start_matches('/') != token {
        return refused(401, &Value::Null);
    }
    let text = request.form().remove("message").unwrap_or_default();
    accepted(Message::new(text), &Value::Null)
}
