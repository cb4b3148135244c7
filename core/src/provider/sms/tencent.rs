//! Short messages by Tencent Cloud.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::params::{self, Codes};
use super::producer::{Sent, Service, places, same};
use super::{Opening, PROVIDER, batch, filled};
use crate::client::{BoxFuture, Context};
use crate::config::{deserialize_secret, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::Message;
use crate::provider::http::{
    Answer as HttpAnswer, Options, Outlet, Reads, Request, Site, header_value, text_alone,
};
use crate::secret::Secret;
use crate::wire::sms::Fault;
use crate::wire::sms::tencent::{
    Account, Answer, ENDPOINT, MAX_NUMBERS, SendSms, Sending, decode, domestic, fault, send_sms,
};

/// `"provider": {"type": "sms", "service": "tencent", …}`. Keys not listed here are errors.
///
/// Of a message it sends `template` (the id of a template), `args` (a list of its parameters, or an object whose order
/// `params` says), `recipients` (numbers) and the attribute `session_context`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TencentSection {
    /// Id of the secret.
    #[serde(deserialize_with = "deserialize_secret")]
    pub secret_id: Secret,
    /// The secret.
    #[serde(deserialize_with = "deserialize_secret")]
    pub secret_key: Secret,
    /// The token of temporary credentials.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub token: Option<Secret>,
    /// The application that sends: its `SmsSdkAppId`.
    pub app_id: String,
    /// The signature in front of the text; needed in mainland China.
    pub sign: Option<String>,
    /// The template of a message that names none: its code, or a name of `templates`.
    pub template: Option<String>,
    /// Templates by the names that messages give: the service's code, or `{"code": …, "sign": …, "params": […]}`.
    /// Where there are any, a message names one of them; else it names a code.
    #[serde(default)]
    pub templates: BTreeMap<String, Value>,
    /// The order of the template's parameters, for arguments that are an object.
    #[serde(default)]
    pub params: Vec<String>,
    /// The parameter that a message's body becomes; without one a body is refused.
    pub body_as: Option<String>,
    /// The recipients of a message without any.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// The region that is asked; default `ap-guangzhou`.
    pub region: Option<String>,
    /// The language of what the service says of errors: `zh-CN` (the default) or `en-US`.
    pub language: Option<String>,
    /// Extension of the sender's number.
    pub extend_code: Option<String>,
    /// The sender shown abroad.
    pub sender_id: Option<String>,
    /// The service's address; default that of the public cloud.
    pub endpoint: Option<String>,
    /// Numbers in one request, up to 200, the default.
    pub batch: Option<u32>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

pub(super) struct Tencent {
    secret_id: Secret,
    secret_key: Secret,
    token: Option<Secret>,
    app_id: String,
    sign: Option<String>,
    codes: Codes,
    params: Vec<String>,
    body_as: Option<String>,
    region: String,
    language: String,
    extend_code: Option<String>,
    sender_id: Option<String>,
    batch: usize,
}

pub(super) fn read(section: Map<String, Value>) -> Result<Opening<Tencent>> {
    let section: TencentSection = from_value(Value::Object(section))?;
    filled("secret_id", section.secret_id.expose())?;
    filled("secret_key", section.secret_key.expose())?;
    filled("app_id", &section.app_id)?;
    let site = Site::parse("endpoint", section.endpoint.as_deref().unwrap_or(ENDPOINT))?.bare("endpoint")?;
    let options =
        Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
    options.check()?;
    let codes = Codes::read(section.template, section.templates)?;
    if let Some(name) = section.body_as.as_ref().filter(|name| !codes.lists(&section.params, name)) {
        let text = format!("`body_as`: `{name}` is not in `params`, which lists the template's parameters");
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    let mut secrets = vec![section.secret_id.clone(), section.secret_key.clone()];
    secrets.extend(section.token.clone());
    let service = Tencent {
        secret_id: section.secret_id,
        secret_key: section.secret_key,
        token: section.token,
        app_id: section.app_id,
        sign: section.sign,
        codes,
        params: section.params,
        body_as: section.body_as,
        region: section.region.unwrap_or_else(|| "ap-guangzhou".into()),
        language: section.language.unwrap_or_else(|| "zh-CN".into()),
        extend_code: section.extend_code,
        sender_id: section.sender_id,
        batch: batch(section.batch, MAX_NUMBERS, MAX_NUMBERS)?,
    };
    Ok(Opening { service, site, options, secrets, recipients: section.recipients })
}

/// The same for all numbers of a message.
pub(super) struct Prepared {
    template: String,
    sign: Option<String>,
    params: Option<Vec<String>>,
    session_context: Option<String>,
}

impl Tencent {
    fn request(
        &self,
        outlet: &Outlet,
        site: &Site,
        prepared: &Prepared,
        numbers: &[&str],
    ) -> Result<Request> {
        let account = Account {
            secret_id: self.secret_id.expose(),
            secret_key: self.secret_key.expose(),
            token: self.token.as_ref().map(Secret::expose),
        };
        let sms = SendSms {
            phone_number_set: numbers,
            sms_sdk_app_id: &self.app_id,
            template_id: &prepared.template,
            sign_name: prepared.sign.as_deref().or(self.sign.as_deref()),
            template_param_set: prepared.params.as_deref(),
            extend_code: self.extend_code.as_deref(),
            session_context: prepared.session_context.as_deref(),
            sender_id: self.sender_id.as_deref(),
        };
        let sending = Sending {
            host: &site.host,
            region: &self.region,
            language: Some(&self.language),
            time: outlet.unix_time().as_secs(),
        };
        let signed = send_sms(account, &sms, sending)?;
        let mut url = site.url.clone();
        // The path is part of what is signed.
        url.set_path("/");
        url.set_query(None);
        let mut headers = HeaderMap::with_capacity(signed.headers.len());
        for (name, value) in signed.headers {
            let mut value = header_value(name, &value)?;
            value.set_sensitive(matches!(name, "authorization" | "x-tc-token"));
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(Request { method: Method::POST, url, headers, body: signed.body.into() })
    }

    async fn batch_sent(
        &self,
        outlet: &Outlet,
        site: &Site,
        ctx: &Context,
        prepared: &Prepared,
        numbers: &[&str],
    ) -> Result<Vec<Sent>> {
        let answer =
            outlet.exchange(ctx, Reads::Body, || self.request(outlet, site, prepared, numbers)).await?;
        let statuses = match answer.body.as_ref().map_err(Clone::clone).and_then(|body| decode(body)) {
            Ok(Answer::Taken(statuses)) if answer.is_success() => statuses,
            Ok(Answer::Refused(refusal)) => {
                return Err(refused(outlet, &answer, &refusal.code, &refusal.message));
            }
            Ok(Answer::Taken(_)) | Err(_) if !answer.is_success() => return Err(answer.error(outlet.label())),
            Ok(Answer::Taken(statuses)) => statuses,
            Err(error) => return Err(error.outcome_is(Outcome::Unknown)),
        };
        let shown: Vec<&str> = statuses.iter().map(|status| status.phone_number.as_str()).collect();
        let ends = places(numbers, &shown).into_iter().map(|place| {
            let Some(status) = place.and_then(|place| statuses.get(place)) else {
                let text = "the answer says nothing of this number";
                return Err(Error::new(Kind::Protocol, text).outcome_is(Outcome::Unknown));
            };
            if status.is_ok() {
                return Ok((!status.serial_no.is_empty()).then(|| Arc::from(status.serial_no.as_str())));
            }
            Err(refused(outlet, &answer, &status.code, &status.message))
        });
        Ok(ends.collect())
    }
}

fn refused(outlet: &Outlet, answer: &HttpAnswer, code: &str, message: &str) -> Error {
    let text =
        format!("Tencent Cloud refuses the message: {} ({})", outlet.shown(message), outlet.shown(code));
    let unknown = Fault { kind: Kind::InvalidArgument, retryable: false, unknown: false };
    let error = fault(code).unwrap_or(unknown).error(text);
    match answer.retry_after {
        Some(wait) if error.retryable() => error.after(wait),
        _ => error,
    }
}

impl Service for Tencent {
    const NAME: &'static str = "tencent";

    type Prepared = Prepared;

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        message.allow_only(
            PROVIDER,
            &["content_type", "template", "args", "recipients", "attributes"],
            None,
        )?;
        text_alone(message)?;
        let attributes = message.fields().map(|fields| &fields.attributes);
        if let Some(other) = attributes.and_then(|all| all.keys().find(|name| *name != "session_context")) {
            let text =
                format!("the attribute `{other}` cannot be sent by Tencent Cloud; `session_context` can");
            return Err(Error::new(Kind::Unsupported, text));
        }
        let body = params::body(message, self.body_as.as_deref())?;
        let template = self.codes.of(message)?;
        let order = template.params.as_ref().unwrap_or(&self.params);
        Ok(Prepared {
            params: params::placed(message, order, body)?,
            template: template.code,
            sign: template.sign,
            session_context: attributes.and_then(|all| all.get("session_context")).cloned(),
        })
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn apart(&self, number: &str) -> bool {
        !domestic(number)
    }

    fn send<'a>(
        &'a self,
        outlet: &'a Outlet,
        site: &'a Site,
        ctx: &'a Context,
        prepared: &'a Prepared,
        numbers: &'a [&'a str],
    ) -> BoxFuture<'a, Vec<Sent>> {
        Box::pin(async move {
            let sent = self.batch_sent(outlet, site, ctx, prepared, numbers).await;
            sent.unwrap_or_else(|error| same(numbers, Err(error)))
        })
    }
}
