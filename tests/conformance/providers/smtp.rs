//! Mail, which is only sent: the other side is a server of the tests, and its mailbox is the consumer.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ceiba_core::client::{BoxFuture, Consumer};
use ceiba_core::message::Message;
use ceiba_tests::mail::{MailServer, Settings};
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer};
use crate::inbox::Inbox;
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Smtp {
    Pool,
    OneConnection,
}

const SECRET: &str = "canary-71c0 ü\u{1f333}";

impl Harness for Smtp {
    fn provider(&self) -> &'static str {
        "smtp"
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            Smtp::Pool => table::SMTP,
            Smtp::OneConnection => table::SMTP_ONE_CONNECTION,
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let settings = Settings { login: Some(("u", SECRET)), ..Settings::default() };
            let server = Arc::new(MailServer::start(settings).await);
            let proxy = match needs.outage {
                true => Some(Proxy::start(server.address(), None).await),
                false => None,
            };
            let taken = Arc::default();
            Box::new(MailPeer { server, proxy, which: *self, taken }) as Box<dyn Peer>
        })
    }
}

struct MailPeer {
    server: Arc<MailServer>,
    proxy: Option<Proxy>,
    which: Smtp,
    // How many of the server's mails were received.
    taken: Arc<tokio::sync::Mutex<usize>>,
}

impl Peer for MailPeer {
    fn producer(&self) -> Value {
        let address = self.proxy.as_ref().map_or(self.server.address(), Proxy::address);
        json!({
            "type": "smtp",
            "url": format!("smtp://u@{address}"),
            "tls": "none",
            "password": SECRET,
            "from": "ceiba@example.test",
            "to": "inbox@example.test",
            "templates": {"a template": {"text": "{{ body }}"}},
            "connections": if self.which == Smtp::Pool { 8 } else { 1 },
        })
    }

    fn consumer(&self) -> Value {
        Value::Null
    }

    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        let server = self.server.clone();
        let arrived = move |first: usize, max: usize| {
            let mails = server.mails_from(first, max);
            mails.iter().map(|mail| Message::new(body(&mail.text))).collect()
        };
        Some(Arc::new(Inbox::new(Arc::new(arrived), &self.taken)))
    }

    fn line(&self) -> Option<&dyn Line> {
        self.proxy.as_ref().map(|proxy| proxy as &dyn Line)
    }

    fn secret(&self) -> Option<&str> {
        Some(SECRET)
    }

    fn with_secret(&self, secret: &str) -> Value {
        json!({"password": secret})
    }

    fn everyone(&self) -> bool {
        false
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("key")
    }

    fn used_up(&self) -> &'static [&'static str] {
        &["content_type", "template", "recipients", "attachments"]
    }

    fn recipient(&self) -> &'static str {
        "Somebody <somebody@example.test>"
    }

    fn has_topics(&self) -> bool {
        false
    }

    fn written_ahead(&self) -> usize {
        0
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

// The text of a mail, or of its first part.
fn body(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let folded = head.replace("\n ", " ").replace("\n\t", " ").replace("; ", ";");
    if let Some((_, boundary)) = folded.split_once("boundary=\"") {
        let line = format!("--{}\n", boundary.split('"').next().unwrap());
        return self::body(body.split(&line).nth(1).unwrap().split("\n--").next().unwrap());
    }
    let encoding =
        head.lines().find_map(|line| line.strip_prefix("Content-Transfer-Encoding: ")).unwrap_or("7bit");
    let body = body.strip_suffix('\n').unwrap_or(body);
    match encoding {
        "base64" => STANDARD.decode(body.replace('\n', "")).unwrap(),
        "quoted-printable" => unquoted(body),
        _ => body.as_bytes().to_vec(),
    }
}

fn unquoted(body: &str) -> Vec<u8> {
    let mut bytes = body.bytes();
    let mut plain = Vec::with_capacity(body.len());
    while let Some(byte) = bytes.next() {
        if byte != b'=' {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            // A line that goes on.
            Some(b'\n') | None => {}
            Some(high) => {
                let digits = [high, bytes.next().unwrap()];
                plain.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
        }
    }
    plain
}
