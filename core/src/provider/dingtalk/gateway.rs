//! An HTTP gateway in front of DingTalk that takes forms.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use super::section::{GatewaySettings, To};
use super::{PROVIDER, refuse_delay, said};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Part, Result, Whole};
use crate::message::{Message, Receipt};
use crate::provider::Setup;
use crate::provider::http::{Each, Outlet, Request, sum_up};
use crate::wire::dingtalk::Gateway;

/// The most recipients of one message.
const MAX_RECIPIENTS: usize = 1000;
/// The longest text in bytes.
const MAX_TEXT: usize = 1 << 20;

pub(super) async fn open(setup: &Setup, mut settings: GatewaySettings) -> Result<Arc<dyn Producer>> {
    let options = std::mem::take(&mut settings.options);
    let secrets = std::mem::take(&mut settings.secrets);
    let outlet = Outlet::open(PROVIDER, setup, &settings.site, options, secrets).await?;
    Ok(Arc::new(GatewayProducer { settings, outlet }))
}

struct GatewayProducer {
    settings: GatewaySettings,
    outlet: Outlet,
}

impl GatewayProducer {
    async fn form(&self, ctx: &Context, form: Gateway<'_>, text: &str) -> Result<Option<Arc<str>>> {
        let body = Bytes::from(form.encode(text));
        let judge = &self.settings.judge;
        let make = || {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
            let (method, url) = (Method::POST, self.settings.site.url.clone());
            Ok(Request { method, url, headers, body: body.clone() })
        };
        let answer = self.outlet.exchange(ctx, judge.reads(), make).await?;
        judge.judge(&answer, self.outlet.label(), |code| self.outlet.shown(code))
    }

    async fn group(&self, ctx: &Context, group: &str, text: &str) -> Each {
        let end = self.form(ctx, Gateway::Group(group), text).await;
        (Arc::from(group), end.map_err(|error| error.by(PROVIDER)))
    }

    async fn deliver(&self, ctx: &Context, message: &Message) -> Result<Receipt> {
        refuse_delay(message)?;
        let with_template = ["content_type", "recipients", "attributes", "template", "args", "key", "tag"];
        let allowed: &[&str] =
            if self.settings.texts.are_some() { &with_template } else { &["content_type", "recipients"] };
        message.allow_only(PROVIDER, allowed, None)?;
        let own = message.fields().map(|fields| fields.recipients.as_slice()).filter(|own| !own.is_empty());
        let recipients = own.unwrap_or(&self.settings.recipients);
        if recipients.is_empty() {
            return Err(Error::new(
                Kind::InvalidArgument,
                "a gateway sends to recipients, and there are none",
            ));
        }
        if recipients.len() > MAX_RECIPIENTS {
            let text = format!("{} recipients are more than {MAX_RECIPIENTS}", recipients.len());
            return Err(Error::new(Kind::TooLarge, text));
        }
        // With a comma one id would be two.
        let bad = |name: &str| {
            name.is_empty() || name.chars().any(|c| c == ',' || c.is_control() || c.is_whitespace())
        };
        if recipients.iter().any(|name| bad(name)) {
            let text = "a recipient is an id without commas and white space";
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        let text = said(&self.settings.texts, message)?;
        if text.len() > MAX_TEXT {
            let text = format!("a text of {} bytes is longer than {MAX_TEXT}", text.len());
            return Err(Error::new(Kind::TooLarge, text));
        }
        match self.settings.to {
            To::Users => {
                let message_id = self.form(ctx, Gateway::Users(&recipients.join(",")), &text).await?;
                let part = |name: &String| Part::sent(Whole::Recipient, name.as_str(), message_id.clone());
                let parts = (recipients.len() > 1).then(|| recipients.iter().map(part).collect());
                Ok(Receipt { message_id, parts, ..Receipt::sent(PROVIDER) })
            }
            To::Groups => {
                let mut waiting = recipients.iter();
                let mut running = FuturesOrdered::new();
                let mut each = Vec::with_capacity(recipients.len());
                loop {
                    while running.len() < self.outlet.connections()
                        && let Some(group) = waiting.next()
                    {
                        running.push_back(self.group(ctx, group, &text));
                    }
                    let Some(end) = running.next().await else { break };
                    each.push(end);
                }
                sum_up(PROVIDER, each)
            }
        }
    }
}

impl Producer for GatewayProducer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        let message_id = self.settings.judge.names_message();
        Capability { message_id, max_body: Some(MAX_TEXT as u64), ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move { self.outlet.run(ctx, &message, self.deliver(ctx, &message)).await })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.flush(ctx))
    }

    fn status(&self) -> Value {
        self.outlet.status()
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.close(ctx))
    }
}
