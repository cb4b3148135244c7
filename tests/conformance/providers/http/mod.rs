//! What is sent by HTTP requests: webhooks, short messages and DingTalk. The other side is a server of the tests that
//! checks what proves who sends, answers as the service does, and keeps the messages it accepted.

mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ceiba_core::client::{BoxFuture, Consumer};
use ceiba_core::message::Message;
use ceiba_tests::http::HttpServer;
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer, joined};
use crate::inbox::Inbox;
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// Bodies as they are, signed; the status says how it went.
    Webhook,
    /// Bodies from templates, a secret in a header, one connection; the answer says how it went.
    WebhookTemplate,
    Aliyun,
    Tencent,
    SmsGateway,
    Robot,
    DingTalkGateway,
}

const SECRET: &str = "canary-5d27 ü\u{1f333}";

// Of an address, so without what would be encoded there.
const TOKEN: &str = "canary-5d27";

impl Harness for Http {
    fn provider(&self) -> &'static str {
        match self {
            Http::Webhook | Http::WebhookTemplate => "webhook",
            Http::Aliyun | Http::Tencent | Http::SmsGateway => "sms",
            Http::Robot | Http::DingTalkGateway => "dingtalk",
        }
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            Http::Webhook => table::WEBHOOK,
            Http::WebhookTemplate => table::WEBHOOK_TEMPLATE,
            Http::Aliyun | Http::SmsGateway => table::SMS,
            Http::Tencent => table::SMS_TENCENT,
            Http::Robot => table::DINGTALK_ROBOT,
            Http::DingTalkGateway => table::DINGTALK_GATEWAY,
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let which = *self;
            let server = HttpServer::start(Arc::new(move |number, request: &_| match which {
                Http::Webhook => services::webhook(SECRET, request),
                Http::WebhookTemplate => services::answering(SECRET, number, request),
                Http::Aliyun => services::aliyun(SECRET, number, request),
                Http::Tencent => services::tencent(SECRET, number, request),
                Http::SmsGateway => services::answering(SECRET, number, request),
                Http::Robot => services::robot(SECRET, request),
                Http::DingTalkGateway => services::gateway(TOKEN, request),
            }))
            .await;
            let line = match needs.outage {
                true => Some(Away(Proxy::start(server.address(), None).await)),
                false => None,
            };
            Box::new(HttpPeer {
                server: Arc::new(server),
                line,
                which,
                robot: robot(),
                taken: Arc::default(),
            }) as Box<dyn Peer>
        })
    }
}

// A robot of its own for each case, since each has its own bound.
fn robot() -> u64 {
    static ROBOTS: AtomicU64 = AtomicU64::new(0);
    ROBOTS.fetch_add(1, Ordering::Relaxed)
}

/// A server that is gone refuses connections: one that took them and hung up would have been written to.
struct Away(Proxy);

impl Line for Away {
    fn cut(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.leave())
    }

    fn silence(&self) {
        self.0.silence();
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.come_back())
    }

    fn swallowing(&self) -> u64 {
        self.0.swallowing()
    }
}

struct HttpPeer {
    server: Arc<HttpServer<Message>>,
    line: Option<Away>,
    which: Http,
    robot: u64,
    // How many of the server's messages were received.
    taken: Arc<tokio::sync::Mutex<usize>>,
}

impl HttpPeer {
    fn url(&self) -> String {
        let address = self.line.as_ref().map_or(self.server.address(), |line| line.0.address());
        format!("http://{address}")
    }
}

impl Peer for HttpPeer {
    fn producer(&self) -> Value {
        let url = self.url();
        let number = "13800000000";
        let template = r#"{"text": {{ body }}}"#;
        let success = json!({"pointer": "/code", "equals": 0, "message_id": "/id"});
        let section = match self.which {
            Http::Webhook => json!({"type": "webhook", "url": url}),
            Http::WebhookTemplate => json!({
                "type": "webhook", "url": url, "template": template, "templates": {"a template": template},
                "success": success, "connections": 1, "max_body": 300_000,
            }),
            Http::Aliyun => json!({
                "type": "sms", "service": "aliyun", "endpoint": url, "access_key_id": "AK", "sign": "阿里云",
                "template": "SMS_1", "body_as": "text", "recipients": [number],
            }),
            Http::Tencent => json!({
                "type": "sms", "service": "tencent", "endpoint": url, "secret_id": "ID", "app_id": "1400",
                "sign": "腾讯云", "template": "7", "params": ["text"], "body_as": "text", "recipients": [number],
            }),
            Http::SmsGateway => json!({
                "type": "sms", "service": "http", "url": format!("{url}/?to={{{{ recipient }}}}"),
                "template": template, "templates": {"a template": template}, "success": success,
                "recipients": [number],
            }),
            Http::Robot => json!({
                "type": "dingtalk", "url": format!("{url}/robot/send?access_token=t{}", self.robot),
                "templates": {"a template": "{{ body }}"},
            }),
            Http::DingTalkGateway => json!({
                "type": "dingtalk", "via": "gateway", "recipients": ["somebody"],
                "templates": {"a template": "{{ body }}"},
            }),
        };
        let secret = if self.which == Http::DingTalkGateway { TOKEN } else { SECRET };
        joined(section, self.with_secret(secret))
    }

    fn consumer(&self) -> Value {
        Value::Null
    }

    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        let server = self.server.clone();
        Some(Arc::new(Inbox::new(Arc::new(move |first, max| server.kept_from(first, max)), &self.taken)))
    }

    fn line(&self) -> Option<&dyn Line> {
        self.line.as_ref().map(|line| line as &dyn Line)
    }

    fn secret(&self) -> Option<&str> {
        Some(if self.which == Http::DingTalkGateway { TOKEN } else { SECRET })
    }

    fn with_secret(&self, secret: &str) -> Value {
        match self.which {
            Http::Webhook => json!({"sign": {"secret": secret}}),
            Http::WebhookTemplate | Http::SmsGateway => json!({"headers": {"x-secret": secret}}),
            Http::Aliyun => json!({"access_key_secret": secret}),
            Http::Tencent => json!({"secret_key": secret}),
            Http::Robot => json!({"secret": secret}),
            Http::DingTalkGateway => json!({"url": format!("{}/{secret}", self.url())}),
        }
    }

    fn everyone(&self) -> bool {
        false
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        match self.which {
            // All that a template can name is its own to use.
            Http::WebhookTemplate | Http::SmsGateway => Some("attachments"),
            _ => Some("key"),
        }
    }

    fn used_up(&self) -> &'static [&'static str] {
        match self.which {
            Http::Webhook => &[],
            _ => &["content_type", "key", "tag", "topic", "template", "args", "recipients", "attributes"],
        }
    }

    fn recipient(&self) -> &'static str {
        "13800000001"
    }

    fn args(&self) -> Value {
        match self.which {
            // It has no other parameter than the body.
            Http::Tencent => json!({}),
            _ => json!({"a": 1}),
        }
    }

    fn longest_body(&self) -> usize {
        match self.which {
            Http::Webhook => 16 << 20,
            // Escaped in an address, which holds 65534 bytes.
            Http::Aliyun => 16 << 10,
            Http::Robot => 16_000,
            _ => 256 << 10,
        }
    }

    fn has_topics(&self) -> bool {
        false
    }

    fn written_ahead(&self) -> usize {
        if self.which == Http::WebhookTemplate { 1 } else { 8 }
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}
