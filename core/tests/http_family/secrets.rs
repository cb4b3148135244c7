//! Secrets stand in no error, log, status or panic, whatever the other side does: it may even repeat them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::Context;
use ceiba_core::config::ClientConfig;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use crate::server::{Act, Server, ok};
use crate::{message, open, setup};

const CANARY: &str = "canary7f3a";

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<String>>);

impl Visit for Logs {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0.lock(), " {}={value:?}", field.name());
    }
}

impl Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut self.clone());
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn sections(server: &Server) -> Vec<Value> {
    let with = |path: &str| format!("http://{CANARY}u:{CANARY}p@127.0.0.1:{}/{path}", server.port);
    let rule = json!({"pointer": "/code", "equals": 0});
    vec![
        json!({"type": "webhook", "url": with(&format!("{CANARY}?k={CANARY}")), "headers": {"X-Api-Key": CANARY},
               "sign": {"secret": CANARY}, "success": rule}),
        json!({"type": "webhook", "url": format!("http://127.0.0.1:1/{CANARY}"), "proxy": with("")}),
        json!({"type": "sms", "service": "aliyun", "access_key_id": CANARY, "access_key_secret": CANARY,
               "security_token": CANARY, "sign": "s", "template": "t", "endpoint": with("")}),
        json!({"type": "sms", "service": "tencent", "secret_id": CANARY, "secret_key": CANARY, "token": CANARY,
               "app_id": "a", "template": "t", "endpoint": with("")}),
        json!({"type": "sms", "service": "http",
               "url": format!("http://127.0.0.1:{}/send?to={{{{ recipient }}}}&key={CANARY}", server.port),
               "headers": {"X-Api-Key": CANARY}, "success": rule}),
        json!({"type": "dingtalk", "url": with(&format!("?access_token={CANARY}")), "secret": CANARY}),
        json!({"type": "dingtalk", "via": "gateway", "url": with(CANARY), "success": rule}),
    ]
}

fn acts() -> Vec<Act> {
    let repeat = |text: &str| {
        json!({"code": text, "Code": text, "Message": format!("your key {text}\u{1b}[2K"), "errcode": 310_000,
               "errmsg": format!("sign {text}"), "Response": {"Error": {"Code": text, "Message": text}}})
        .to_string()
    };
    vec![
        ok(&repeat(CANARY)),
        ok(CANARY),
        Act::Answer(403, vec![("x-key", CANARY.into())], repeat(CANARY)),
        Act::Answer(302, vec![("location", format!("http://127.0.0.1:1/{CANARY}"))], CANARY.into()),
        Act::Raw(format!("{CANARY}\r\n\r\n").into()),
        Act::Raw(format!("HTTP/1.1 200 {CANARY}\r\n{CANARY}\r\n\r\n").into()),
        Act::Raw(Vec::new()),
        Act::CloseAtOnce,
        Act::Stuck(Vec::new()),
    ]
}

#[tokio::test]
async fn a_canary_is_seen_nowhere() {
    let logs = Logs::default();
    // With one alone, what another test logs first on a thread of its own would be off for good.
    let _beside = tracing::Dispatch::new(logs.clone());
    let _guard = tracing::subscriber::set_default(logs.clone());
    let panics = Arc::new(Mutex::new(String::new()));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new({
        let panics = panics.clone();
        move |info| {
            let _ = write!(panics.lock(), "{info}");
            hook(info);
        }
    }));
    let mut told = String::new();
    let mut sent = 0;
    for act in acts() {
        let server = Server::start([act.clone()]).await;
        for section in sections(&server) {
            let whole = json!({"provider": section, "connect": "lazy", "when_disconnected": "fail"});
            let config = ClientConfig::parse(&whole.to_string()).unwrap();
            let producer = open(&setup(), whole["provider"].clone()).await.unwrap();
            let kind = whole["provider"]["type"].as_str().unwrap();
            let message = message(
                if kind == "sms" && whole["provider"]["service"] != "http" { "" } else { "x" },
                |fields| {
                    if kind != "webhook" {
                        fields.recipients = vec!["13800000000".into()];
                    }
                },
            );
            let ctx = Context::within(Duration::from_millis(300));
            match producer.send(&ctx, Arc::new(message)).await {
                Ok(receipt) => {
                    sent += 1;
                    let _ = write!(told, "{receipt:?}");
                }
                Err(error) => {
                    let _ = write!(told, "{error}\n{error:?}\n{}\n{}\n", error.text(), error.to_json());
                    let mut cause = std::error::Error::source(&error);
                    while let Some(error) = cause {
                        let _ = write!(told, "{error}\n{error:?}\n");
                        cause = error.source();
                    }
                }
            }
            let _ = write!(told, "{}{config:?}{:?}", producer.status(), producer.capability());
        }
    }
    let _ = std::panic::take_hook();
    let logs = logs.0.lock().clone();
    assert!(logs.contains("a request has no answer") && logs.contains("a request is answered"));
    assert!(told.contains("***"), "nothing was repeated, so nothing was tested");
    for (name, text) in [("told", &told), ("logs", &logs), ("panics", &*panics.lock())] {
        let at = text.find(CANARY).map(|at| &text[at.saturating_sub(200)..(at + 100).min(text.len())]);
        assert_eq!(at, None, "{name}");
    }
    // The webhook without a rule takes the two good answers, of its proxy.
    assert_eq!((sent, told.contains('\u{1b}')), (2, false));
}
