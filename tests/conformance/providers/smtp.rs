//! Mail, which is only sent: the other side is a server of the tests, and its mailbox is the consumer.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ceiba_core::client::{BoxFuture, Capability, Consumer, Context};
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::message::{Delivery, Message};
use ceiba_tests::mail::{Mail, MailServer, Settings};
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Needs, Peer};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Smtp {
    Pool,
    OneConnection,
}

const SECRET: &str = "canary-71c0 ü\u{1f333}";
const ONLY_SENT: &str = "mail is only sent: what comes back is the recipients' own";
const NO_DELAY: &str = "the wire has no delays";
const ASKS: &str = "the server is asked before the mail is written: silence then is not sent";

impl Harness for Smtp {
    fn provider(&self) -> &'static str {
        "smtp"
    }

    fn excluded(&self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 14] = [
            ("one_producer_keeps_its_order", "a pool of connections gives no order"),
            ("what_is_not_acknowledged_comes_again", ONLY_SENT),
            ("a_lost_consumers_messages_go_to_the_next", ONLY_SENT),
            ("nack_gives_back_after_its_delay", ONLY_SENT),
            ("many_acks_outstanding_in_any_order", ONLY_SENT),
            ("an_unknown_code_harms_nothing", ONLY_SENT),
            ("a_delay_is_never_early", NO_DELAY),
            ("a_finer_delay_is_rounded_up", NO_DELAY),
            ("a_delayed_message_holds_up_no_other", NO_DELAY),
            ("a_body_that_is_not_utf_8", "the body of a mail is text"),
            ("texts_arrive_unchanged", "line ends are those of mail"),
            ("a_body_over_the_limit_is_too_large", "the limit is the server's"),
            ("a_silent_other_side_ends_in_timeout_and_unknown", ASKS),
            ("cancelled_after_it_was_written_is_unknown", ASKS),
        ];
        match self {
            Smtp::Pool => &ALL,
            Smtp::OneConnection => ALL.split_first().map_or(&[], |(_, others)| others),
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
        let (server, taken) = (self.server.clone(), self.taken.clone());
        Some(Arc::new(Inbox { server, taken, closed: CancellationToken::new() }))
    }

    fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    fn secret(&self) -> Option<(&'static str, &str)> {
        Some(("password", SECRET))
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

    fn text_is_mended(&self) -> bool {
        true
    }

    fn written_ahead(&self) -> usize {
        0
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

/// The mails that the server accepted, each once, as deliveries.
struct Inbox {
    server: Arc<MailServer>,
    taken: Arc<tokio::sync::Mutex<usize>>,
    closed: CancellationToken,
}

impl Inbox {
    async fn next(&self, max: usize) -> Vec<Delivery> {
        loop {
            {
                let mut taken = self.taken.lock().await;
                let mails = self.server.mails_from(*taken, max);
                if !mails.is_empty() {
                    *taken += mails.len();
                    return mails.iter().map(delivery).collect();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn delivery(mail: &Mail) -> Delivery {
    Delivery {
        message: Message::new(body(&mail.text)),
        topic: "inbox".into(),
        code: "".into(),
        created: None,
        attempt: None,
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

const fn no_acks() -> Capability {
    Capability {
        delay_unit: None,
        binary_body: false,
        ordered: true,
        message_id: false,
        ack: false,
        nack: false,
        attempt: false,
        redelivery: false,
        max_body: None,
    }
}

fn unsupported(codes: &[Arc<str>]) -> Vec<Result<()>> {
    codes.iter().map(|_| Err(Error::new(Kind::Unsupported, "a mailbox has no acks"))).collect()
}

impl Consumer for Inbox {
    fn provider(&self) -> &'static str {
        "smtp"
    }

    fn capability(&self) -> Capability {
        no_acks()
    }

    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => Err(Error::new(Kind::Closed, "the mailbox is closed")),
                came = ctx.run(self.next(max)) => match came {
                    Err(error) if error.kind() == Kind::Timeout => Ok(Vec::new()),
                    came => came,
                },
            }
        })
    }

    fn ack<'a>(&'a self, _: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move { unsupported(&codes) })
    }

    fn nack<'a>(
        &'a self,
        _: &'a Context,
        codes: Vec<Arc<str>>,
        _: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move { unsupported(&codes) })
    }

    fn status(&self) -> Value {
        json!({"state": "connected"})
    }

    fn close<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.closed.cancel();
            Ok(())
        })
    }
}
