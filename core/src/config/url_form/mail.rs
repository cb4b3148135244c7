//! `smtp://USER:PASSWORD@HOST:PORT?from=…&to=…`, and `smtps://` for TLS from the start.

use serde_json::{Map, Value, json};
use url::Url;

use super::{http, wrong};
use crate::error::Result;

pub(super) fn smtp(url: &Url) -> Result<Map<String, Value>> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    if !matches!(url.path(), "" | "/") {
        return Err(wrong("has a path; who a mail is from and to is written as ?from=…&to=…"));
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let mut section = Map::new();
    section.insert("type".into(), json!("smtp"));
    section.insert("url".into(), json!(format!("{}://{host}{port}", url.scheme())));
    http::login(url, &mut section, "user", "password")?;
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    #[test]
    fn a_mail_server_in_a_url() {
        let text = "smtp://a%40b.example:p%2Fx%20y@mail.example.com:2525?from=a@b.example&to=c@d.example,e@f.example\
                    &tls=starttls&connections=2";
        let section = ClientConfig::parse(text).unwrap().provider;
        let wanted = json!({"type": "smtp", "url": "smtp://mail.example.com:2525", "user": "a@b.example",
            "password": "p/x y", "from": "a@b.example", "to": "c@d.example,e@f.example", "tls": "starttls",
            "connections": 2});
        assert_eq!(Value::Object(section), wanted);
        let section = ClientConfig::parse("smtps://mail.example.com?from=a@b.example").unwrap().provider;
        assert_eq!(section["url"], "smtps://mail.example.com");
        ClientConfig::parse("smtp://mail.example.com/x?from=a@b.example").unwrap_err();
        for (key, source) in [("secret_env", "env"), ("secret_file", "file")] {
            let text = format!("smtps://u@mail.example.com?from=a@b.example&{key}=NAME");
            let section = ClientConfig::parse(&text).unwrap().provider;
            assert_eq!((&section["user"], &section["password"]), (&json!("u"), &json!({source: "NAME"})));
        }
        let error = ClientConfig::parse("smtp://u:hunter2@h?from=a@b.example&secret_env=X").unwrap_err();
        assert!(!error.text().contains("hunter2"), "{error}");
    }
}
