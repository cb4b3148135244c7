//! Short messages by a gateway that takes HTTP requests, described by templates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::producer::{Sent, Service, same};
use super::{Opening, PROVIDER, batch};
use crate::client::{BoxFuture, Context};
use crate::config::{deserialize_secret, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::provider::http::{
    Body, BodyKeys, Headers, Judge, Options, Outlet, Request, Rule, Site, place_for_body, secrets_around,
    text_alone, values,
};
use crate::secret::Secret;
use crate::template::{Escape, Template, Values};

/// The most numbers of one request.
const MAX_BATCH: usize = 1000;

/// `"provider": {"type": "sms", "service": "http", …}`. Keys not listed here are errors.
///
/// Templates can name what a message holds; in addition `recipient` is the first number of the request,
/// `recipients` all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// Where requests go, a template whose values are encoded for a query. Its scheme, host and port are fixed. It may be a
    /// secret (`{"env": NAME}`, `{"file": PATH}`).
    #[serde(deserialize_with = "deserialize_secret")]
    pub url: Secret,
    /// `POST` (the default), `PUT` or `GET`, which has no body.
    pub method: Option<String>,
    /// Headers by name: a value, which may be a secret, or `{"template": TEXT}`.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
    /// A template of the body; without one the message's own body is sent.
    pub template: Option<String>,
    /// Templates of the body by name: a message's `template` chooses one, and one that is not listed is refused. A
    /// message that names none gets `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// MIME type of the body: of a template `application/json` unless set.
    pub content_type: Option<String>,
    /// How a template escapes values: `json`, `form`, `html` or `none`; default what the content type asks for.
    pub escape: Option<String>,
    /// Which answers mean success, and what codes of failures mean; default success is a status from 200 to 299.
    #[serde(default)]
    pub success: Rule,
    /// The recipients of a message without any.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Numbers in one request; default 1. They end alike.
    pub batch: Option<u32>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

pub(super) struct Gateway {
    url: Option<Template>,
    method: Method,
    headers: Headers,
    body: Body,
    judge: Judge,
    batch: usize,
}

pub(super) fn read(section: Map<String, Value>) -> Result<Opening<Gateway>> {
    let wrong = |text: &str| Error::new(Kind::InvalidConfig, text);
    let section: GatewaySection = from_value(Value::Object(section))?;
    let text = section.url.expose();
    let place = text.find("{{").into_iter().chain(text.find("{%")).min();
    let fixed = text.get(..place.unwrap_or(text.len())).unwrap_or(text);
    let site = Site::parse("url", fixed)?;
    // What follows the host must begin before the first place for a value.
    let after_scheme = fixed.split_once("://").map_or("", |(_, rest)| rest);
    if place.is_some() && !after_scheme.contains(['/', '?']) {
        return Err(wrong(
            "`url`: scheme, host and port are fixed, and the path begins before the first value",
        ));
    }
    let url = match place {
        Some(_) => Some(Template::escaped("url", text, Escape::Form)?),
        None => None,
    };
    let method = match section.method.as_deref() {
        None | Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("GET") => Method::GET,
        Some(_) => return Err(wrong("`method` is POST, PUT or GET")),
    };
    let made = section.template.is_some() || !section.templates.is_empty();
    if method == Method::GET && (made || section.content_type.is_some()) {
        return Err(wrong("a GET has no body: leave out `template`, `templates` and `content_type`"));
    }
    let mut secrets = vec![section.url.clone()];
    secrets.extend(secrets_around(text));
    let options =
        Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
    options.check()?;
    let service = Gateway {
        url,
        method,
        headers: Headers::read(section.headers, &mut secrets)?,
        body: Body::read(BodyKeys {
            template: section.template,
            templates: section.templates,
            content_type: section.content_type,
            escape: section.escape,
        })?,
        judge: Judge::new(section.success)?,
        batch: batch(section.batch, 1, MAX_BATCH)?,
    };
    Ok(Opening { service, site, options, secrets, recipients: section.recipients })
}

impl Gateway {
    // The templates that are filled in beside that of the body.
    fn beside(&self) -> Vec<&Template> {
        self.headers.templates().chain(&self.url).collect()
    }

    async fn batch_sent(
        &self,
        outlet: &Outlet,
        site: &Site,
        ctx: &Context,
        prepared: &Prepared,
        numbers: &[&str],
    ) -> Sent {
        let Prepared { message, values } = prepared;
        let values = values.and([("recipient", json!(numbers.first())), ("recipients", json!(numbers))]);
        let mut headers = self.headers.of(&values)?;
        let body = match self.method {
            Method::GET => Bytes::new(),
            _ => {
                let template = self.body.template(message, &self.beside())?;
                self.body.of(message, template, &values, &mut headers)?
            }
        };
        let url = match &self.url {
            Some(template) => site.joined(&template.render(&values)?)?,
            None => site.url.clone(),
        };
        let make = || {
            let (method, url) = (self.method.clone(), url.clone());
            Ok(Request { method, url, headers: headers.clone(), body: body.clone() })
        };
        let answer = outlet.exchange(ctx, self.judge.reads(), make).await?;
        self.judge.judge(&answer, outlet.label(), |code| outlet.shown(code))
    }
}

/// The same for all numbers of a message.
pub(super) struct Prepared {
    message: Message,
    values: Values,
}

impl Service for Gateway {
    const NAME: &'static str = "http";

    type Prepared = Prepared;

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        let all = ["content_type", "key", "tag", "topic", "template", "args", "recipients", "attributes"];
        let beside = self.beside();
        let templates = self.body.is_made() || !beside.is_empty();
        let allowed: &[&str] = if templates { &all } else { &["content_type", "recipients"] };
        message.allow_only(PROVIDER, allowed, None)?;
        self.body.template(message, &beside)?;
        if self.method == Method::GET {
            let used = |variable| beside.iter().any(|template| template.uses(variable));
            place_for_body(message, used("body"))?;
            if !used("content_type") {
                text_alone(message)?;
            }
        }
        // Cloning copies no body; and each request names its own recipients.
        let mut message = message.clone();
        message.fields_mut().recipients.clear();
        let values = values(&message, Vec::new());
        Ok(Prepared { message, values })
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn apart(&self, _: &str) -> bool {
        false
    }

    fn send<'a>(
        &'a self,
        outlet: &'a Outlet,
        site: &'a Site,
        ctx: &'a Context,
        prepared: &'a Prepared,
        numbers: &'a [&'a str],
    ) -> BoxFuture<'a, Vec<Sent>> {
        Box::pin(async move { same(numbers, self.batch_sent(outlet, site, ctx, prepared, numbers).await) })
    }
}
