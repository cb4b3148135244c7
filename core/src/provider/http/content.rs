//! Headers and bodies that a config makes of a message.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{deserialize_secret, from_value};
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::secret::Secret;
use crate::template::{Escape, Template, Values};

use super::texts::Texts;

/// Headers that belong to the connection, or have a key of their own.
const RESERVED: [&str; 8] =
    ["connection", "content-length", "content-type", "expect", "host", "te", "transfer-encoding", "upgrade"];

/// What templates can name of a message: what every template can, and `key`, `tag`, `topic` and `content_type`.
pub(in crate::provider) fn values(message: &Message, more: Vec<(&'static str, Value)>) -> Values {
    let fields = message.fields();
    let own = fields.into_iter().flat_map(|fields| {
        [
            ("key", &fields.key),
            ("tag", &fields.tag),
            ("topic", &fields.topic),
            ("content_type", &fields.content_type),
        ]
    });
    let own = own.filter_map(|(name, value)| Some((name, json!(value.as_ref()?))));
    Values::with(message, own.chain(more))
}

/// The value of a header that a message gives.
///
/// # Errors
/// `invalid_argument` for a line end or another character that no header holds.
pub(in crate::provider) fn header_value(name: &str, text: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        Error::new(
            Kind::InvalidArgument,
            format!("the header `{name}` cannot hold what this message gives it"),
        )
    })
}

enum Source {
    Fixed(HeaderValue),
    Template(Box<Template>),
}

/// The headers of a section: fixed ones, which may be secrets, and templates.
pub(in crate::provider) struct Headers(Vec<(HeaderName, Source)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Plain(#[serde(deserialize_with = "deserialize_secret")] Secret);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    template: String,
}

impl Headers {
    /// Reads the key `headers`; fixed values are added to `secrets`.
    ///
    /// # Errors
    /// `invalid_config`, naming the header and quoting no value.
    pub(in crate::provider) fn read(
        section: BTreeMap<String, Value>,
        secrets: &mut Vec<Secret>,
    ) -> Result<Headers> {
        let mut headers: Vec<(HeaderName, Source)> = Vec::with_capacity(section.len());
        for (name, value) in section {
            let wrong = |text: &str| Error::new(Kind::InvalidConfig, format!("`headers`: `{name}` {text}"));
            let header = HeaderName::try_from(name.as_str()).map_err(|_| wrong("is not a header's name"))?;
            if RESERVED.contains(&header.as_str()) {
                return Err(wrong("is set by what else the config says"));
            }
            if headers.iter().any(|(other, _)| *other == header) {
                return Err(wrong("is listed twice"));
            }
            let within = |error: Error| wrong(error.message());
            let source = if value.get("template").is_some() {
                let made: Made = from_value(value).map_err(within)?;
                Source::Template(Box::new(Template::parse(&format!("headers.{name}"), &made.template)?))
            } else {
                let Plain(text) = from_value(value).map_err(within)?;
                let mut value = HeaderValue::from_bytes(text.expose().as_bytes())
                    .map_err(|_| wrong("has a value that no header can hold"))?;
                value.set_sensitive(true);
                secrets.push(text);
                Source::Fixed(value)
            };
            headers.push((header, source));
        }
        Ok(Headers(headers))
    }

    /// The templates among them.
    pub(in crate::provider) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.0.iter().filter_map(|(_, source)| match source {
            Source::Template(template) => Some(&**template),
            Source::Fixed(_) => None,
        })
    }

    /// Whether one of this name can stand beside these: none of them has it, and it does not belong to the connection.
    pub(in crate::provider) fn leave_free(&self, name: &HeaderName) -> bool {
        !RESERVED.contains(&name.as_str()) && self.0.iter().all(|(known, _)| known != name)
    }

    /// The headers for a message.
    ///
    /// # Errors
    /// `invalid_argument` when a template cannot be filled in, or gives what no header holds.
    pub(in crate::provider) fn of(&self, values: &Values) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.0.len() + 8);
        for (name, source) in &self.0 {
            let value = match source {
                Source::Fixed(value) => value.clone(),
                Source::Template(template) => header_value(name.as_str(), &template.render(values)?)?,
            };
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}

/// How the values in a template are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Escaping {
    None,
    Html,
    Json,
    Form,
}

/// The keys of a section that make a body.
#[derive(Debug, Default)]
pub(in crate::provider) struct BodyKeys {
    /// The text of the template; without one the message's own body is sent.
    pub(in crate::provider) template: Option<String>,
    /// Texts of templates by name, which a message's `template` chooses.
    pub(in crate::provider) templates: BTreeMap<String, String>,
    /// MIME type of the body.
    pub(in crate::provider) content_type: Option<String>,
    /// `json`, `form`, `html` or `none`; default what the content type asks for.
    pub(in crate::provider) escape: Option<String>,
}

/// What makes the body of a request.
pub(in crate::provider) struct Body {
    texts: Texts,
    content_type: Option<HeaderValue>,
}

impl Body {
    /// Reads the keys.
    ///
    /// # Errors
    /// `invalid_config`.
    pub(in crate::provider) fn read(keys: BodyKeys) -> Result<Body> {
        let kind = keys.content_type.as_deref();
        let made = keys.template.is_some() || !keys.templates.is_empty();
        let standard = made.then_some("application/json");
        let content_type =
            match kind.or(standard) {
                Some(kind) => Some(HeaderValue::from_str(kind).map_err(|_| {
                    Error::new(Kind::InvalidConfig, "`content_type` cannot be sent in a header")
                })?),
                None => None,
            };
        let escape = match keys.escape {
            None => match kind.or(standard).unwrap_or_default() {
                kind if kind.contains("json") => Escape::Json,
                kind if kind.contains("form-urlencoded") => Escape::Form,
                kind if kind.contains("html") || kind.contains("xml") => Escape::Html,
                _ => Escape::None,
            },
            Some(_) if !made => {
                return Err(Error::new(Kind::InvalidConfig, "`escape` is for a `template`"));
            }
            Some(name) => match from_value(json!(name))
                .map_err(|error| Error::new(error.kind(), format!("`escape`: {}", error.message())))?
            {
                Escaping::None => Escape::None,
                Escaping::Html => Escape::Html,
                Escaping::Json => Escape::Json,
                Escaping::Form => Escape::Form,
            },
        };
        let texts = Texts::read(keys.template.as_deref(), &keys.templates, escape)?;
        Ok(Body { texts, content_type })
    }

    /// Whether a template makes it.
    pub(in crate::provider) fn is_made(&self) -> bool {
        self.texts.are_some()
    }

    /// The template that makes it for a message; without one the message's own body goes. `others` are templates that
    /// are filled in beside it.
    ///
    /// # Errors
    /// As [`Texts::of`].
    pub(in crate::provider) fn template(
        &self,
        message: &Message,
        others: &[&Template],
    ) -> Result<Option<&Template>> {
        self.texts.of(message, others)
    }

    /// The body for a message, of this template; its content type is put into `headers`.
    ///
    /// # Errors
    /// `invalid_argument` when the template cannot be filled in or the message's content type is none.
    pub(in crate::provider) fn of(
        &self,
        message: &Message,
        template: Option<&Template>,
        values: &Values,
        headers: &mut HeaderMap,
    ) -> Result<Bytes> {
        let own = message.fields().and_then(|fields| fields.content_type.as_deref());
        let (body, content_type) = match template {
            Some(template) => (template.render(values)?.into(), self.content_type.clone()),
            None => {
                let own = own.map(|own| header_value("content-type", own)).transpose()?;
                (message.body().clone(), own.or_else(|| self.content_type.clone()))
            }
        };
        let standard = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(standard));
        Ok(body)
    }
}
