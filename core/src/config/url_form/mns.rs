//! `mns://KEY_ID:SECRET@HOST:PORT/queues/NAME` or `…/topics/NAME`, and for the administration without a path; with
//! `mnss` for TLS. `secret_env=NAME` and `secret_file=PATH` name where the secret is; `credentials=environment` and
//! `credentials=file:PATH` where all keys are.

use serde_json::{Map, Value, json};
use url::Url;

use super::{decode, http, wrong};
use crate::error::Result;

pub(super) fn mns(url: &Url) -> Result<Map<String, Value>> {
    section(url, "http")
}

pub(super) fn mnss(url: &Url) -> Result<Map<String, Value>> {
    section(url, "https")
}

fn section(url: &Url, transport: &str) -> Result<Map<String, Value>> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    let server = match url.port() {
        Some(port) => format!("{transport}://{host}:{port}"),
        None => format!("{transport}://{host}"),
    };
    let mut section = Map::new();
    section.insert("type".into(), json!("mns"));
    section.insert("url".into(), json!(server));
    if matches!(url.path(), "" | "/") {
        http::login(url, &mut section, "access_key_id", "access_key_secret")?;
        return Ok(section);
    }
    let mut parts = url.path().split('/').filter(|part| !part.is_empty());
    let key = match parts.next() {
        Some("queues") => "queue",
        Some("topics") => "topic",
        _ => return Err(wrong("has a path other than /queues/NAME or /topics/NAME")),
    };
    let (Some(name), None) = (parts.next(), parts.next()) else {
        return Err(wrong("has a path other than /queues/NAME or /topics/NAME"));
    };
    let name = decode(name).ok_or_else(|| wrong("has a path that is not UTF-8"))?;
    section.insert(key.into(), json!(name));
    http::login(url, &mut section, "access_key_id", "access_key_secret")?;
    Ok(section)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::ClientConfig;

    fn provider(text: &str) -> Value {
        Value::Object(ClientConfig::parse(text).unwrap().provider)
    }

    #[test]
    fn a_queue_and_a_topic() {
        assert_eq!(
            provider(
                "mns://ID:s%2Fe@127.0.0.1:8012/queues/orders?body_encoding=base64&connections=3&priority=1"
            ),
            json!({"type": "mns", "url": "http://127.0.0.1:8012", "queue": "orders", "access_key_id": "ID",
                   "access_key_secret": "s/e", "body_encoding": "base64", "connections": 3, "priority": 1})
        );
        let text = "mnss://ID@1.mns.cn-hangzhou.aliyuncs.com/topics/news?secret_env=HOME&retry=3";
        assert_eq!(
            provider(text),
            json!({"type": "mns", "url": "https://1.mns.cn-hangzhou.aliyuncs.com", "topic": "news",
                   "access_key_id": "ID", "access_key_secret": {"env": "HOME"}})
        );
        assert_eq!(
            provider("mns://h/queues/q?credentials=file:/a"),
            json!({"type": "mns", "url": "http://h", "queue": "q", "credentials": "file:/a"})
        );
    }

    #[test]
    fn an_account() {
        for text in ["mns://ID:s@h:1", "mns://ID:s@h:1/"] {
            assert_eq!(
                provider(text),
                json!({"type": "mns", "url": "http://h:1", "access_key_id": "ID", "access_key_secret": "s"})
            );
        }
    }

    #[test]
    fn errors_hold_no_secret() {
        for wrong in [
            "mns://ID:hunter2@h/q",
            "mns://ID:hunter2@h/queues",
            "mns://ID:hunter2@h/queues/a/b",
            "mns://ID:hunter2@h/queues/a?secret_env=X",
            "mns://ID:hunter2@h/queues/%ff",
        ] {
            let error = ClientConfig::parse(wrong).unwrap_err();
            assert!(!error.text().contains("hunter2"), "{error}");
        }
    }
}
