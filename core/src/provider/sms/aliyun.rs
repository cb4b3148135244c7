//! Short messages by Aliyun.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::params::{self, Codes};
use super::producer::{Sent, Service, same};
use super::{Opening, PROVIDER, batch, filled};
use crate::client::{BoxFuture, Context};
use crate::config::{deserialize_secret, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::Message;
use crate::provider::http::{Options, Outlet, Reads, Request, Site, USER_AGENT, header_value, text_alone};
use crate::secret::Secret;
use crate::wire::sms::aliyun::{
    Account, Answer, ENDPOINT, MAX_NUMBERS, SendSms, Sending, fault, is_of_number, number, send_sms,
};

/// `"provider": {"type": "sms", "service": "aliyun", …}`. Keys not listed here are errors.
///
/// Of a message it sends `template` (the code of a template), `args` (an object: the template's parameters),
/// `recipients` (numbers) and the attribute `out_id`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliyunSection {
    /// Id of the access key.
    #[serde(deserialize_with = "deserialize_secret")]
    pub access_key_id: Secret,
    /// Its secret.
    #[serde(deserialize_with = "deserialize_secret")]
    pub access_key_secret: Secret,
    /// The token of temporary credentials.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub security_token: Option<Secret>,
    /// The signature in front of the text.
    pub sign: String,
    /// The template of a message that names none: its code, or a name of `templates`.
    pub template: Option<String>,
    /// Templates by the names that messages give: the service's code, or `{"code": …, "sign": …, "params": […]}`.
    /// Where there are any, a message names one of them; else it names a code.
    #[serde(default)]
    pub templates: BTreeMap<String, Value>,
    /// The parameter that a message's body becomes; without one a body is refused.
    pub body_as: Option<String>,
    /// The recipients of a message without any.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Extension of the sender's number.
    pub extend_code: Option<String>,
    /// The service's address; default that of the public cloud.
    pub endpoint: Option<String>,
    /// Numbers in one request, up to 1000, the default: they end alike.
    pub batch: Option<u32>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

pub(super) struct Aliyun {
    key_id: Secret,
    key_secret: Secret,
    token: Option<Secret>,
    sign: String,
    codes: Codes,
    body_as: Option<String>,
    extend_code: Option<String>,
    batch: usize,
}

pub(super) fn read(section: Map<String, Value>) -> Result<Opening<Aliyun>> {
    let section: AliyunSection = from_value(Value::Object(section))?;
    filled("access_key_id", section.access_key_id.expose())?;
    filled("access_key_secret", section.access_key_secret.expose())?;
    filled("sign", &section.sign)?;
    let site = Site::parse("endpoint", section.endpoint.as_deref().unwrap_or(ENDPOINT))?.bare("endpoint")?;
    let options =
        Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
    options.check()?;
    let mut secrets = vec![section.access_key_id.clone(), section.access_key_secret.clone()];
    secrets.extend(section.security_token.clone());
    let service = Aliyun {
        key_id: section.access_key_id,
        key_secret: section.access_key_secret,
        token: section.security_token,
        sign: section.sign,
        codes: Codes::read(section.template, section.templates)?,
        body_as: section.body_as,
        extend_code: section.extend_code,
        batch: batch(section.batch, MAX_NUMBERS, MAX_NUMBERS)?,
    };
    Ok(Opening { service, site, options, secrets, recipients: section.recipients })
}

/// The same for all numbers of a message.
pub(super) struct Prepared {
    template: String,
    sign: Option<String>,
    params: Option<String>,
    out_id: Option<String>,
}

impl Aliyun {
    fn request(&self, outlet: &Outlet, site: &Site, prepared: &Prepared, numbers: &str) -> Result<Request> {
        let nonce = format!("{:032x}", outlet.nonce());
        let account = Account {
            key_id: self.key_id.expose(),
            key_secret: self.key_secret.expose(),
            security_token: self.token.as_ref().map(Secret::expose),
        };
        let sms = SendSms {
            phone_numbers: numbers,
            sign_name: prepared.sign.as_deref().unwrap_or(&self.sign),
            template_code: &prepared.template,
            template_param: prepared.params.as_deref(),
            out_id: prepared.out_id.as_deref(),
            sms_up_extend_code: self.extend_code.as_deref(),
        };
        let further = [("user-agent", USER_AGENT)];
        let time = outlet.unix_time().as_secs();
        let signed =
            send_sms(account, &sms, Sending { host: &site.host, time, nonce: &nonce, further: &further });
        let mut url = site.url.clone();
        // The path is part of what is signed.
        url.set_path("/");
        url.set_query(Some(&signed.query));
        let mut headers = HeaderMap::with_capacity(signed.headers.len());
        for (name, value) in &signed.headers {
            let mut value = header_value(name, value)?;
            value.set_sensitive(matches!(name.as_str(), "authorization" | "x-acs-security-token"));
            let name = HeaderName::try_from(name)
                .map_err(|_| Error::new(Kind::Internal, "a header without a name"))?;
            headers.insert(name, value);
        }
        Ok(Request { method: Method::POST, url, headers, body: Bytes::new() })
    }

    async fn batch_sent(
        &self,
        outlet: &Outlet,
        site: &Site,
        ctx: &Context,
        prepared: &Prepared,
        numbers: &[&str],
    ) -> (Sent, bool) {
        let mut of_number = false;
        let sent = self.answered(outlet, site, ctx, prepared, numbers, &mut of_number).await;
        (sent, of_number)
    }

    // How these numbers ended; the flag says that one of them is to blame.
    async fn answered(
        &self,
        outlet: &Outlet,
        site: &Site,
        ctx: &Context,
        prepared: &Prepared,
        numbers: &[&str],
        of_number: &mut bool,
    ) -> Sent {
        let list = numbers.iter().map(|one| number(one)).collect::<Vec<_>>().join(",");
        let answer =
            outlet.exchange(ctx, Reads::Body, || self.request(outlet, site, prepared, &list)).await?;
        let read = answer.body.as_ref().map_err(Clone::clone).and_then(|body| Answer::decode(body));
        let read = match read {
            Ok(read) => read,
            Err(_) if !answer.is_success() => return Err(answer.error(outlet.label())),
            Err(error) => return Err(error.outcome_is(Outcome::Unknown)),
        };
        if answer.is_success() && read.is_ok() {
            return Ok(read.biz_id.map(Arc::from));
        }
        let text = format!(
            "Aliyun refuses the message: {} ({})",
            outlet.shown(&read.message),
            outlet.shown(&read.code)
        );
        *of_number = is_of_number(&read.code);
        let error = match fault(&read.code) {
            Some(fault) => fault.error(text),
            None if !answer.is_success() => {
                let by_status = answer.error(outlet.label());
                Error::new(by_status.kind(), text)
                    .retryable_is(by_status.retryable())
                    .outcome_is(by_status.outcome())
            }
            None => Error::new(Kind::InvalidArgument, text),
        };
        Err(match answer.retry_after {
            Some(wait) if error.retryable() => error.after(wait),
            _ => error,
        })
    }
}

impl Service for Aliyun {
    const NAME: &'static str = "aliyun";

    type Prepared = Prepared;

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        message.allow_only(
            PROVIDER,
            &["content_type", "template", "args", "recipients", "attributes"],
            None,
        )?;
        text_alone(message)?;
        let attributes = message.fields().map(|fields| &fields.attributes);
        if let Some(other) = attributes.and_then(|all| all.keys().find(|name| *name != "out_id")) {
            let text = format!("the attribute `{other}` cannot be sent by Aliyun; `out_id` can");
            return Err(Error::new(Kind::Unsupported, text));
        }
        let template = self.codes.of(message)?;
        let body = params::body(message, self.body_as.as_deref())?;
        let named = params::named_in(message, template.params.as_deref(), body)?;
        Ok(Prepared {
            template: template.code,
            sign: template.sign,
            params: (!named.is_empty()).then(|| Value::Object(named).to_string()),
            out_id: attributes.and_then(|all| all.get("out_id")).cloned(),
        })
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
        Box::pin(async move {
            let mut ends = Vec::with_capacity(numbers.len());
            // The next in the order of the numbers is at the end.
            let mut parts = vec![numbers];
            while let Some(part) = parts.pop() {
                let (end, of_number) = self.batch_sent(outlet, site, ctx, prepared, part).await;
                // One number made the service refuse all of them, and nothing was sent: its halves are tried, down to it.
                if of_number && part.len() > 1 {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                } else {
                    ends.extend(same(part, end));
                }
            }
            ends
        })
    }
}
