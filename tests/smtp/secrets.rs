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

fn holds_canary(text: &str) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let is_canary = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"canary");
    let words = text.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '+' || sign == '/'));
    let decoded = |word: &str| {
        // Whole groups alone, wherever the word begins.
        (0..4).any(|begin| {
            let rest = word.get(begin..).unwrap_or_default();
            let whole = rest.get(..rest.len() / 4 * 4).unwrap_or_default();
            STANDARD_NO_PAD.decode(whole).is_ok_and(|bytes| is_canary(&bytes))
        })
    };
    is_canary(text.as_bytes()) || words.filter(|word| word.len() >= 8).any(decoded)
}

#[test]
fn a_password_prints_nowhere() {
    let log = Log::default();
    let panics = Arc::new(Mutex::new(String::new()));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new({
        let panics = panics.clone();
        move |info| {
            panics.lock().unwrap().push_str(&info.to_string());
            hook(info);
        }
    }));
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
    let _ = std::panic::take_hook();
    shown.push(panics.lock().unwrap().clone());
    // A login is said in base64, with the user and zero bytes around: what of a text can be read so is read.
    assert!(
        holds_canary("a AGNhbmFyeS01YjFlLcOkAGNhbmFyeS01YjFlLcOk b")
            && holds_canary("=Y2FuYXJ5LTViMWUtw6Q=\"")
    );
    for text in &shown {
        assert!(!holds_canary(text), "{text}");
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
