//! A webhook: each message is one HTTP request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Setup;
use super::http::{
    Body, BodyKeys, Headers, Judge, Options, Outlet, Request, Rule, Site, header_value, values,
};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::{deserialize_secret, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};
use crate::secret::Secret;
use crate::template::Template;
use crate::wire::webhook::{Encoding, signature};

const PROVIDER: &str = "webhook";

/// The longest body unless the config says otherwise.
const MAX_BODY: u64 = 16 << 20;

/// `"provider": {"type": "webhook", …}`. Keys not listed here are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Where requests go: `http://` or `https://`. It may be a secret (`{"env": NAME}`, `{"file": PATH}`): only its scheme,
    /// host and port are ever shown. A login in it is sent as basic authentication.
    #[serde(deserialize_with = "deserialize_secret")]
    pub url: Secret,
    /// `POST` (the default), `PUT` or `PATCH`.
    pub method: Option<String>,
    /// Headers by name: a value, which may be a secret, or `{"template": TEXT}`.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
    /// A template of the body; without one the message's own body is sent as it is.
    pub template: Option<String>,
    /// Templates of the body by name: a message's `template` chooses one, and one that is not listed is refused. A
    /// message that names none gets `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// MIME type of the body: of a template `application/json` unless set, else where the message names none.
    pub content_type: Option<String>,
    /// How a template escapes values: `json`, `form`, `html` or `none`; default what the content type asks for.
    pub escape: Option<String>,
    /// How requests are signed; not at all unless set.
    pub sign: Option<Sign>,
    /// Which answers mean success; default those with a status from 200 to 299.
    #[serde(default)]
    pub success: Rule,
    /// The longest body in bytes; default 16777216.
    pub max_body: Option<u64>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

/// A signature over time and body: HMAC-SHA-256 of `{timestamp}.{body}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The key that sender and receiver share.
    #[serde(deserialize_with = "deserialize_secret")]
    pub secret: Secret,
    /// The header of the signature; default `X-Ceiba-Signature`.
    pub header: Option<String>,
    /// The header of the time, in seconds since 1970; default `X-Ceiba-Timestamp`.
    pub timestamp_header: Option<String>,
    /// What stands in front of the signature; default `sha256=`.
    pub prefix: Option<String>,
    /// `hex` (the default) or `base64`.
    pub encoding: Option<SignEncoding>,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignEncoding {
    /// Lower-case hex digits.
    Hex,
    /// Base64 with padding.
    Base64,
}

struct Signer {
    secret: Secret,
    header: HeaderName,
    timestamp_header: HeaderName,
    prefix: String,
    encoding: Encoding,
}

impl Signer {
    fn read(sign: Sign, headers: &Headers) -> Result<Signer> {
        let wrong = |key: &str, text: &str| Error::new(Kind::InvalidConfig, format!("`sign.{key}` {text}"));
        let name = |key: &str, name: Option<String>, standard: &str| {
            let name = name.unwrap_or_else(|| standard.to_owned());
            let name = HeaderName::try_from(name).map_err(|_| wrong(key, "is not a header's name"))?;
            match headers.leave_free(&name) {
                true => Ok(name),
                false => Err(wrong(key, "is a header that `headers` or the connection sets")),
            }
        };
        if sign.secret.expose().is_empty() {
            return Err(wrong("secret", "is empty"));
        }
        let prefix = sign.prefix.unwrap_or_else(|| "sha256=".to_owned());
        if HeaderValue::from_str(&prefix).is_err() {
            return Err(wrong("prefix", "cannot be sent in a header"));
        }
        let header = name("header", sign.header, "x-ceiba-signature")?;
        let timestamp_header = name("timestamp_header", sign.timestamp_header, "x-ceiba-timestamp")?;
        if header == timestamp_header {
            return Err(wrong("timestamp_header", "is the header of the signature"));
        }
        let encoding = match sign.encoding {
            Some(SignEncoding::Base64) => Encoding::Base64,
            _ => Encoding::Hex,
        };
        Ok(Signer { secret: sign.secret, header, timestamp_header, prefix, encoding })
    }
}

struct Settings {
    site: Site,
    method: Method,
    headers: Headers,
    body: Body,
    signer: Option<Signer>,
    judge: Judge,
    max_body: u64,
    options: Options,
    secrets: Vec<Secret>,
}

impl Settings {
    fn read(section: Map<String, Value>) -> Result<Settings> {
        Settings::checked(section).map_err(|error| error.by(PROVIDER))
    }

    fn checked(section: Map<String, Value>) -> Result<Settings> {
        let section: Section = from_value(Value::Object(section))?;
        let site = Site::parse("url", section.url.expose())?;
        let method = match section.method.as_deref() {
            None | Some("POST") => Method::POST,
            Some("PUT") => Method::PUT,
            Some("PATCH") => Method::PATCH,
            Some(_) => return Err(Error::new(Kind::InvalidConfig, "`method` is POST, PUT or PATCH")),
        };
        let mut secrets = vec![section.url];
        let headers = Headers::read(section.headers, &mut secrets)?;
        let body = Body::read(BodyKeys {
            template: section.template,
            templates: section.templates,
            content_type: section.content_type,
            escape: section.escape,
        })?;
        let signer = section.sign.map(|sign| Signer::read(sign, &headers)).transpose()?;
        secrets.extend(signer.iter().map(|signer| signer.secret.clone()));
        let options =
            Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
        options.check()?;
        let judge = Judge::new(section.success)?;
        let max_body = section.max_body.unwrap_or(MAX_BODY);
        Ok(Settings { site, method, headers, body, signer, judge, max_body, options, secrets })
    }
}

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>) -> Result<()> {
    Settings::read(section).map(drop)
}

/// Opens a producer, on the current runtime.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `unavailable` when the server cannot be reached within
/// `connect_timeout`.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    let mut settings = Settings::read(section)?;
    let options = std::mem::take(&mut settings.options);
    let secrets = std::mem::take(&mut settings.secrets);
    let outlet = Outlet::open(PROVIDER, setup, &settings.site, options, secrets).await;
    let outlet = outlet.map_err(|error| error.by(PROVIDER))?;
    Ok(Arc::new(Webhook { settings, outlet }))
}

struct Webhook {
    settings: Settings,
    outlet: Outlet,
}

impl Webhook {
    async fn deliver(&self, ctx: &Context, message: &Message) -> Result<Receipt> {
        let settings = &self.settings;
        if !message.delay().is_zero() {
            return Err(Error::new(Kind::Unsupported, "a delay cannot be sent by a webhook"));
        }
        // What a template can name is the config's to use or to leave out.
        let beside: Vec<&Template> = settings.headers.templates().collect();
        let allowed: &[&str] = if settings.body.is_made() || !beside.is_empty() {
            &["content_type", "key", "tag", "topic", "template", "args", "recipients", "attributes"]
        } else {
            &["content_type"]
        };
        message.allow_only(PROVIDER, allowed, None)?;
        let template = settings.body.template(message, &beside)?;
        let values = values(message, Vec::new());
        let mut headers = settings.headers.of(&values)?;
        let body = settings.body.of(message, template, &values, &mut headers)?;
        if body.len() as u64 > settings.max_body {
            let text =
                format!("a body of {} bytes is longer than `max_body`, {}", body.len(), settings.max_body);
            return Err(Error::new(Kind::TooLarge, text));
        }
        let answer = self
            .outlet
            .exchange(ctx, settings.judge.reads(), || {
                let mut headers = headers.clone();
                if let Some(signer) = &settings.signer {
                    let time = self.outlet.unix_time().as_secs();
                    let digest = signature(signer.secret.expose(), time, &body, signer.encoding);
                    let mut value =
                        header_value(signer.header.as_str(), &format!("{}{digest}", signer.prefix))?;
                    value.set_sensitive(true);
                    headers.insert(signer.header.clone(), value);
                    headers.insert(signer.timestamp_header.clone(), HeaderValue::from(time));
                }
                let (method, url) = (settings.method.clone(), settings.site.url.clone());
                Ok(Request { method, url, headers, body: body.clone() })
            })
            .await?;
        let verdict = settings.judge.judge(&answer, self.outlet.label(), |code| self.outlet.shown(code));
        Ok(Receipt { message_id: verdict?, ..Receipt::sent(PROVIDER) })
    }
}

impl Producer for Webhook {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        Capability {
            binary_body: !self.settings.body.is_made(),
            message_id: self.settings.judge.names_message(),
            max_body: Some(self.settings.max_body),
            ..Capability::default()
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_sections_name_the_key_and_no_secret() {
        for (more, hint) in [
            (json!({"url": "ftp://hunter2"}), "`url`"),
            (json!({"method": "GET"}), "`method`"),
            (json!({"headers": {"a b": "hunter2"}}), "`a b`"),
            (json!({"headers": {"x": "hunter2\r\ny: z"}}), "`x`"),
            (json!({"headers": {"Host": "hunter2"}}), "`Host`"),
            (json!({"headers": {"x": 7}}), "`x`"),
            (json!({"headers": {"x": {"template": "{{ a"}}}), "headers.x"),
            (json!({"template": "{% for %}"}), "template"),
            (
                json!({"template": "{% for a in range(9) %}{% for b in range(9) %}{% endfor %}", "url": "http://a"}),
                "template",
            ),
            (json!({"content_type": "a\nb"}), "`content_type`"),
            (json!({"escape": "json"}), "`escape`"),
            (json!({"escape": "jsn", "template": ""}), "`escape`"),
            (json!({"sign": {"secret": ""}}), "`sign.secret`"),
            (json!({"sign": {"secret": "hunter2", "header": "a b"}}), "`sign.header`"),
            (
                json!({"sign": {"secret": "hunter2", "timestamp_header": "X-Ceiba-Signature"}}),
                "`sign.timestamp_header`",
            ),
            (json!({"sign": {"secret": "hunter2", "prefix": "a\n"}}), "`sign.prefix`"),
            (json!({"sign": {"secret": "hunter2", "header": "Content-Length"}}), "`sign.header`"),
            (json!({"sign": {"secret": "hunter2", "timestamp_header": "Host"}}), "`sign.timestamp_header`"),
            (
                json!({"sign": {"secret": "hunter2", "header": "X-A"}, "headers": {"x-a": "1"}}),
                "`sign.header`",
            ),
            (json!({"templates": {"t": "{{ a"}}), "`templates.t`"),
            (json!({"success": {"pointer": "x", "equals": 1}}), "`success`"),
            (json!({"sucess": {}}), "`success`"),
            (json!({"connections": 0}), "`connections`"),
            (json!({"proxy": "hunter2"}), "`proxy`"),
        ] {
            let mut section = json!({"url": "http://127.0.0.1/hunter2"}).as_object().unwrap().clone();
            section.extend(more.as_object().unwrap().clone());
            let error = check(section).err().unwrap_or_else(|| panic!("{more} was taken"));
            assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some(PROVIDER)), "{error}");
            assert!(error.message().contains(hint), "{error}");
            assert!(!format!("{error}{error:?}{}", error.text()).contains("hunter2"), "{error}");
        }
    }
}
