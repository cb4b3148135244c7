//! What the official SDKs send, as recorded in `tests/vectors/sms.json`, beside what is made here.

use serde_json::{Map, Value, json};

use super::{aliyun, tencent};

const VECTORS: &str = include_str!("../../../../tests/vectors/sms.json");

fn cases(service: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let all = vectors["cases"].as_array().unwrap().clone();
    let own: Vec<Value> = all.into_iter().filter(|case| case["service"] == service).collect();
    assert!(own.len() >= 4, "{service}");
    own
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

// Headers that the SDK's own connection adds and does not sign.
fn headers(case: &Value, left_out: &[&str]) -> Map<String, Value> {
    let mut headers = case["request"]["headers"].as_object().unwrap().clone();
    headers.retain(|name, _| !left_out.contains(&name.as_str()));
    headers
}

#[test]
fn aliyun_equals_the_sdk() {
    for case in cases("aliyun") {
        let sms = &case["sms"];
        let account = aliyun::Account {
            key_id: text(&case, "key_id"),
            key_secret: text(&case, "key_secret"),
            security_token: case["security_token"].as_str(),
        };
        let message = aliyun::SendSms {
            phone_numbers: text(sms, "phone_numbers"),
            sign_name: text(sms, "sign_name"),
            template_code: text(sms, "template_code"),
            template_param: sms["template_param"].as_str(),
            out_id: sms["out_id"].as_str(),
            sms_up_extend_code: sms["sms_up_extend_code"].as_str(),
        };
        let sending = aliyun::Sending {
            host: text(&case, "host"),
            time: case["time"].as_u64().unwrap(),
            nonce: text(&case, "nonce"),
            further: &[("user-agent", text(&case, "user_agent"))],
        };
        let signed = aliyun::send_sms(account, &message, sending);
        let query: Map<String, Value> = url::form_urlencoded::parse(signed.query.as_bytes())
            .map(|(name, value)| (name.into_owned(), json!(value)))
            .collect();
        assert_eq!(Value::Object(query), case["request"]["query"], "{}", case["name"]);
        let made: Map<String, Value> =
            signed.headers.into_iter().map(|(name, value)| (name, json!(value))).collect();
        assert_eq!(made, headers(&case, &["host"]), "{}", case["name"]);
        assert_eq!(case["request"]["body"], "");
    }
}

#[test]
fn tencent_equals_the_sdk() {
    for case in cases("tencent") {
        let sms = &case["sms"];
        let texts = |key: &str| {
            let list = sms[key].as_array()?;
            Some(list.iter().map(|item| item.as_str().unwrap().to_owned()).collect::<Vec<_>>())
        };
        let numbers = texts("PhoneNumberSet").unwrap();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let params = texts("TemplateParamSet");
        let account = tencent::Account {
            secret_id: text(&case, "secret_id"),
            secret_key: text(&case, "secret_key"),
            token: case["token"].as_str(),
        };
        let message = tencent::SendSms {
            phone_number_set: &numbers,
            sms_sdk_app_id: text(sms, "SmsSdkAppId"),
            template_id: text(sms, "TemplateId"),
            sign_name: sms["SignName"].as_str(),
            template_param_set: params.as_deref(),
            extend_code: sms["ExtendCode"].as_str(),
            session_context: sms["SessionContext"].as_str(),
            sender_id: sms["SenderId"].as_str(),
        };
        let sending = tencent::Sending {
            host: text(&case, "host"),
            region: text(&case, "region"),
            language: case["language"].as_str(),
            time: case["time"].as_u64().unwrap(),
        };
        let signed = tencent::send_sms(account, &message, sending).unwrap();
        assert_eq!(String::from_utf8(signed.body).unwrap(), case["request"]["body"], "{}", case["name"]);
        let made: Map<String, Value> =
            signed.headers.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        assert_eq!(made, headers(&case, &["host", "accept", "user-agent"]), "{}", case["name"]);
    }
}
