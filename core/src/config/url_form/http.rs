//! Providers that send by HTTP requests: `https://HOST/PATH?QUERY#KEY=VALUE` (and `http://`) for a webhook,
//! `sms+aliyun://KEY_ID:SECRET@HOST/SIGN`, `sms+tencent://SECRET_ID:SECRET@HOST/APP_ID/SIGN` and
//! `dingtalk://TOKEN:SECRET@HOST`.
//!
//! A webhook's query is its own, so the keys of the config stand behind a `#`, which no request carries. Secrets may
//! stand in a URL, but whoever sees the URL sees them: `secret_env=NAME` and `secret_file=PATH` name where they are
//! instead.

use serde_json::{Map, Value, json};
use url::Url;

use super::{decode, wrong};
use crate::error::Result;

/// Keys of the query that say where a secret is; [`login`] reads them.
pub(super) const WHERE_SECRETS_ARE: [&str; 2] = ["secret_env", "secret_file"];

/// Whether a scheme has those keys.
pub(super) fn has_login(scheme: &str) -> bool {
    matches!(scheme, "sms+aliyun" | "sms+tencent" | "dingtalk" | "smtp" | "smtps")
}

pub(super) fn webhook(url: &Url) -> Result<Map<String, Value>> {
    let mut url = url.clone();
    url.set_fragment(None);
    Ok(section(json!({"type": "webhook", "url": url.as_str()})))
}

pub(super) fn aliyun(url: &Url) -> Result<Map<String, Value>> {
    let mut section = service(url, "aliyun")?;
    login(url, &mut section, "access_key_id", "access_key_secret")?;
    let mut path = path(url)?.into_iter();
    if let Some(sign) = path.next() {
        section.insert("sign".into(), json!(sign));
    }
    match path.next() {
        Some(_) => Err(wrong("has a path of more than /SIGN")),
        None => Ok(section),
    }
}

pub(super) fn tencent(url: &Url) -> Result<Map<String, Value>> {
    let mut section = service(url, "tencent")?;
    login(url, &mut section, "secret_id", "secret_key")?;
    let mut path = path(url)?.into_iter();
    for key in ["app_id", "sign"] {
        if let Some(part) = path.next() {
            section.insert(key.into(), json!(part));
        }
    }
    match path.next() {
        Some(_) => Err(wrong("has a path of more than /APP_ID/SIGN")),
        None => Ok(section),
    }
}

pub(super) fn dingtalk(url: &Url) -> Result<Map<String, Value>> {
    let host = host(url)?;
    let path = if matches!(url.path(), "" | "/") { "/robot/send" } else { url.path() };
    let address = format!("https://{host}{path}");
    let mut section = section(json!({"type": "dingtalk", "url": address}));
    login(url, &mut section, "access_token", "secret")?;
    Ok(section)
}

fn section(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(section) => section,
        _ => Map::new(),
    }
}

fn host(url: &Url) -> Result<String> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    Ok(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn service(url: &Url, service: &str) -> Result<Map<String, Value>> {
    // Where a service is tested it stands at an address of its own, which the query names.
    let named = url.query_pairs().any(|(key, _)| key == "endpoint");
    let mut section = section(json!({"type": "sms", "service": service}));
    let host = host(url)?;
    if !named {
        section.insert("endpoint".into(), json!(format!("https://{host}")));
    }
    Ok(section)
}

fn path(url: &Url) -> Result<Vec<String>> {
    let parts = url.path().split('/').filter(|part| !part.is_empty());
    parts.map(|part| decode(part).ok_or_else(|| wrong("has a path that is not UTF-8"))).collect()
}

/// Puts the login of a URL, or where its secret is, under these keys.
pub(super) fn login(url: &Url, section: &mut Map<String, Value>, user: &str, password: &str) -> Result<()> {
    let not_text = || wrong("has a login that is not UTF-8");
    if !url.username().is_empty() {
        section.insert(user.into(), json!(decode(url.username()).ok_or_else(not_text)?));
    }
    if let Some(secret) = url.password() {
        section.insert(password.into(), json!(decode(secret).ok_or_else(not_text)?));
    }
    for (key, value) in url.query_pairs() {
        let [env, file] = WHERE_SECRETS_ARE;
        let source = match key.as_ref() {
            key if key == env => "env",
            key if key == file => "file",
            _ => continue,
        };
        if section.insert(password.into(), json!({source: value})).is_some() {
            return Err(wrong("names its secret twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::ClientConfig;

    fn provider(text: &str) -> Value {
        Value::Object(ClientConfig::parse(text).unwrap().provider)
    }

    #[test]
    fn a_webhook_s_query_is_its_own() {
        let config =
            ClientConfig::parse("https://u:p@a.example/x?retry=1&k=v#deadline=2s&method=PUT").unwrap();
        assert_eq!(config.deadline.0.as_secs(), 2);
        assert_eq!(
            Value::Object(config.provider),
            json!({"type": "webhook", "url": "https://u:p@a.example/x?retry=1&k=v", "method": "PUT"})
        );
        let config = ClientConfig::parse("http://127.0.0.1:80/#retry=3").unwrap();
        assert_eq!(config.strategies.len(), 1);
        assert_eq!(config.provider["url"], "http://127.0.0.1/");
    }

    #[test]
    fn short_messages() {
        assert_eq!(
            provider("sms+aliyun://KEY:s%2Fe@dysmsapi.aliyuncs.com/%E9%98%BF?template=SMS_1"),
            json!({"type": "sms", "service": "aliyun", "access_key_id": "KEY", "access_key_secret": "s/e",
                   "endpoint": "https://dysmsapi.aliyuncs.com", "sign": "阿", "template": "SMS_1"})
        );
        assert_eq!(
            provider(
                "sms+tencent://ID@sms.tencentcloudapi.com/1400/s?secret_env=NAME&endpoint=http://127.0.0.1:1"
            ),
            json!({"type": "sms", "service": "tencent", "secret_id": "ID", "secret_key": {"env": "NAME"},
                   "endpoint": "http://127.0.0.1:1", "app_id": "1400", "sign": "s"})
        );
    }

    #[test]
    fn a_robot() {
        assert_eq!(
            provider("dingtalk://TOKEN:SEC@oapi.dingtalk.com?msgtype=markdown"),
            json!({"type": "dingtalk", "url": "https://oapi.dingtalk.com/robot/send", "access_token": "TOKEN",
                   "secret": "SEC", "msgtype": "markdown"})
        );
    }

    #[test]
    fn errors_hold_no_secret() {
        for wrong in [
            "sms+aliyun://KEY:hunter2@h/a/b",
            "sms+tencent://KEY:hunter2@h/a/b/c",
            "sms+aliyun://KEY:hunter2@h/a?secret_env=X",
            "dingtalk://T:hunter2@h?secret_file=a&secret_env=b",
        ] {
            let error = ClientConfig::parse(wrong).unwrap_err();
            assert!(!error.text().contains("hunter2"), "{error}");
        }
    }
}
