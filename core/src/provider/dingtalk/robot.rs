//! The robot of a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::section::{MsgType, RobotSettings};
use super::window::{MOST, MUTE, Place, Window};
use super::{PROVIDER, refuse_delay, said};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::from_value;
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};
use crate::provider::Setup;
use crate::provider::http::{Outlet, Reads, Request};
use crate::wire::dingtalk::{Answer, At, MAX_BYTES, Robot, signed_query};

/// The attributes of a message that mean something here.
const ATTRIBUTES: [&str; 5] = ["msgtype", "title", "subject", "url", "picture"];

pub(super) async fn open(setup: &Setup, mut settings: RobotSettings) -> Result<Arc<dyn Producer>> {
    let options = std::mem::take(&mut settings.options);
    let secrets = std::mem::take(&mut settings.secrets);
    let outlet = Outlet::open(PROVIDER, setup, &settings.site, options, secrets).await?;
    let window = Window::of(settings.site.url.as_str());
    Ok(Arc::new(RobotProducer { settings, outlet, window }))
}

struct RobotProducer {
    settings: RobotSettings,
    outlet: Outlet,
    window: Arc<Window>,
}

impl RobotProducer {
    fn encode(&self, message: &Message) -> Result<Vec<u8>> {
        refuse_delay(message)?;
        let allowed = ["content_type", "recipients", "attributes", "template", "args", "key", "tag"];
        message.allow_only(PROVIDER, &allowed, None)?;
        let text = said(&self.settings.texts, message)?;
        if text.len() > MAX_BYTES {
            let text = format!("a robot takes {MAX_BYTES} bytes, and this message has {}", text.len());
            return Err(Error::new(Kind::TooLarge, text));
        }
        let fields = message.fields();
        let attribute =
            |name: &str| fields.and_then(|fields| fields.attributes.get(name)).map(String::as_str);
        if !self.settings.texts.are_some()
            && let Some(other) = fields
                .and_then(|fields| fields.attributes.keys().find(|name| !ATTRIBUTES.contains(&name.as_str())))
        {
            let text = format!(
                "the attribute `{other}` cannot be sent by dingtalk; known are: {}",
                ATTRIBUTES.join(", ")
            );
            return Err(Error::new(Kind::Unsupported, text));
        }
        let msgtype = match attribute("msgtype") {
            Some(name) => from_value(json!(name)).map_err(|error| {
                Error::new(Kind::InvalidArgument, format!("the attribute `msgtype`: {}", error.message()))
            })?,
            None => self.settings.msgtype,
        };
        let title = || {
            let title = attribute("title").or_else(|| attribute("subject"));
            title.or(self.settings.title.as_deref()).ok_or_else(|| {
                let text =
                    "markdown and links have a title: set the attribute `title`, or `title` in the config";
                Error::new(Kind::InvalidArgument, text)
            })
        };
        let said = match msgtype {
            MsgType::Text => Robot::Text { content: &text },
            MsgType::Markdown => Robot::Markdown { title: title()?, text: &text },
            MsgType::Link => Robot::Link {
                title: title()?,
                text: &text,
                url: attribute("url").ok_or_else(|| {
                    Error::new(Kind::InvalidArgument, "a link leads somewhere: set the attribute `url`")
                })?,
                picture: attribute("picture"),
            },
        };
        let own = fields.map(|fields| fields.recipients.as_slice()).filter(|own| !own.is_empty());
        let recipients = own.unwrap_or(&self.settings.recipients);
        if recipients.len() > MAX_BYTES {
            let text =
                format!("{} recipients are more than a message of {MAX_BYTES} bytes holds", recipients.len());
            return Err(Error::new(Kind::TooLarge, text));
        }
        said.encode(&At::read(recipients.iter().map(String::as_str))?)
    }

    fn request(&self, body: &Bytes) -> Request {
        let mut url = self.settings.site.url.clone();
        if let Some(secret) = &self.settings.secret {
            let millis = u64::try_from(self.outlet.unix_time().as_millis()).unwrap_or(u64::MAX);
            let signed = signed_query(secret.expose(), millis);
            let query = match url.query() {
                Some(query) => format!("{query}&{signed}"),
                None => signed,
            };
            url.set_query(Some(&query));
        }
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        Request { method: Method::POST, url, headers, body: body.clone() }
    }

    async fn deliver(&self, ctx: &Context, message: &Message) -> Result<Receipt> {
        let body: Bytes = self.encode(message)?.into();
        ctx.check()?;
        let mut place = self.window.place().map_err(|wait| {
            let text = format!("a robot takes {MOST} messages a minute; the next place is free in {wait:?}");
            Error::new(Kind::Limited, text).after(wait)
        })?;
        // Should this call be dropped, what it may have sent counts.
        let requested = AtomicBool::new(false);
        let mut counted = Counted { place: &mut place, requested: &requested };
        let make = || {
            requested.store(true, Ordering::Relaxed);
            Ok(self.request(&body))
        };
        let answer = self.outlet.exchange(ctx, Reads::Body, make).await.inspect_err(|error| {
            if error.outcome() == Outcome::NotSent {
                counted.nothing_was_sent();
            }
        })?;
        if !answer.is_success() {
            return Err(answer.error(self.outlet.label()));
        }
        let read = Answer::decode(answer.body.as_ref().map_err(Clone::clone)?)
            .map_err(|error| error.outcome_is(Outcome::Unknown))?;
        if read.errcode != 0 {
            let reason = self.outlet.shown(&read.errmsg);
            let text = format!("DingTalk refuses the message: {reason} (errcode {})", read.errcode);
            let error = read.error(text);
            if read.is_mute() {
                self.window.mute();
                return Err(error.after(MUTE));
            }
            return Err(match answer.retry_after {
                Some(wait) if error.retryable() => error.after(wait),
                _ => error,
            });
        }
        Ok(Receipt::sent(PROVIDER))
    }
}

// Notes in a place whether a request was made, also when the call is dropped.
struct Counted<'a, 'b> {
    place: &'a mut Place<'b>,
    requested: &'a AtomicBool,
}

impl Counted<'_, '_> {
    fn nothing_was_sent(&mut self) {
        self.requested.store(false, Ordering::Relaxed);
    }
}

impl Drop for Counted<'_, '_> {
    fn drop(&mut self) {
        if self.requested.load(Ordering::Relaxed) {
            self.place.used();
        }
    }
}

impl Producer for RobotProducer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        Capability { max_body: Some(MAX_BYTES as u64), ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move { self.outlet.run(ctx, &message, self.deliver(ctx, &message)).await })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.flush(ctx))
    }

    fn status(&self) -> Value {
        let mut status = self.outlet.status();
        if let Some(status) = status.as_object_mut() {
            status.insert("left_this_minute".into(), json!(self.window.left()));
        }
        status
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.close(ctx))
    }
}
