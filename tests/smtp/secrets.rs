//! A password is in no log, error, status or debug print; and it is not said to a server that could be another.

use std::io::Write;
use std::sync::{Arc, Mutex};

use ceiba_core::config::ClientConfig;
use ceiba_core::error::Kind;
use ceiba_tests::mail::{Act, MailServer, Seen, Settings};
use serde_json::json;

use crate::{letter, try_open, within};

const CANARY: &str = "canary-5b1e-ä";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_password_prints_nowhere() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut shown = Vec::new();
    tracing_subscriber::util::SubscriberInitExt::init(subscriber);
    runtime.block_on(async {
        for (user_password, features) in [
            ((CANARY, CANARY), "AUTH PLAIN"),
            (("other", "other"), "AUTH PLAIN"),
            (("other", "other"), "AUTH LOGIN"),
        ] {
            let settings = Settings { login: Some(user_password), features: vec![features], ..Settings::default() };
            let server = MailServer::start(settings).await;
            let config = json!({"connect": "lazy", "provider": {"type": "smtp", "from": "c@example.test",
                "url": format!("smtp://{}", server.address()), "tls": "none", "user": CANARY, "password": CANARY}});
            let parsed = ClientConfig::from_json(config.clone()).unwrap();
            // The user is no secret; here it is one only to see whether a server's echo is shown.
            shown.push(format!("{parsed:?}"));
            let producer = try_open(config["provider"].clone(), json!({"when_disconnected": "fail"})).await.unwrap();
            match producer.send(&within(5.0), letter(&["ann@example.test"])).await {
                Ok(receipt) => shown.push(format!("{receipt:?}")),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Authentication);
                    shown.extend([error.to_string(), format!("{error:?}"), error.text(), error.to_json().to_string()]);
                }
            }
            shown.push(producer.status().to_string());
            producer.close(&within(5.0)).await.unwrap();
        }
    });
    shown.push(String::from_utf8(log.0.lock().unwrap().clone()).unwrap());
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(CANARY);
    for text in &shown {
        assert!(!text.contains(CANARY) && !text.contains("canary") && !text.contains(&encoded), "{text}");
    }
    assert!(shown.iter().any(|text| text.contains("refused the login: 535")), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_in_clear_that_should_be_encrypted() {
    // One that does not offer STARTTLS, one that refuses it, one that says it in the same breath as more.
    let starttls = |reply: &'static str| {
        Arc::new(move |seen: Seen<'_>| (seen.line == "STARTTLS").then_some(Act::Say(reply)))
    };
    for (features, rules, kind) in [
        (vec!["AUTH PLAIN"], starttls(""), Kind::Unavailable),
        (vec!["STARTTLS", "AUTH PLAIN"], starttls("454 4.7.0 not now"), Kind::Unavailable),
        (vec!["STARTTLS", "AUTH PLAIN"], starttls("220 go\r\n250-x\r\n250 AUTH PLAIN"), Kind::Protocol),
        (vec!["STARTTLS", "AUTH PLAIN"], starttls("220 go\r\nnot TLS"), Kind::Protocol),
    ] {
        let server = MailServer::start(Settings { features, rules, login: Some(("u", CANARY)) }).await;
        let section = json!({"url": format!("smtp://localhost:{}", server.address().port()), "user": "u",
                             "password": CANARY});
        let producer =
            try_open(section, json!({"when_disconnected": "fail", "connect_timeout": "2s"})).await.unwrap();
        let error = producer.send(&within(5.0), letter(&["ann@example.test"])).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let lines = server.lines();
        assert!(!lines.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")), "{lines:?}");
    }
}
