//! The provider's section of a client's config.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use url::Url;

use super::PROVIDER;
use super::address::{mailbox, split};
use super::letter::HeaderField;
use crate::clock::Clock;
use crate::config::{Span, deserialize_secret_option, from_value, nearest};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::template::{Escape, Template};

/// The most connections of a producer.
const MAX_CONNECTIONS: u32 = 256;

/// `"provider": {"type": "smtp", …}`. Keys not listed here are errors.
///
/// Addresses are `name@example.com` or `A Name <name@example.com>`; lists of them are arrays, or one text with commas.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The server: `smtp://HOST:PORT`, port 587 unless given, or `smtps://HOST:PORT`, port 465; a user may stand in
    /// front of the host.
    pub url: String,
    /// The user to log in as. Without one there is no login.
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub password: Option<Secret>,
    /// How the connection is encrypted; default `starttls` for `smtp://` and `implicit` for `smtps://`.
    pub tls: Option<Tls>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Who the mails are from, in the header and in the envelope.
    pub from: String,
    /// Recipients of a message that names none.
    #[serde(default, deserialize_with = "list")]
    pub to: Vec<String>,
    /// Further recipients of each mail. One that fails makes the send `partial`, as any other does.
    #[serde(default, deserialize_with = "list")]
    pub cc: Vec<String>,
    /// The same, and no recipient sees them.
    #[serde(default, deserialize_with = "list")]
    pub bcc: Vec<String>,
    /// Where answers go.
    #[serde(default, deserialize_with = "list")]
    pub reply_to: Vec<String>,
    /// The subject of a message that has none.
    pub subject: Option<String>,
    /// Further header fields of each mail.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Templates by name, selected by a message's `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, TemplateSection>,
    /// Connections, each with one mail on its way; default 4. With 1 mails are sent in the order of their calls.
    pub connections: Option<u32>,
    /// A connection that was idle for so long is closed; default `60s`.
    pub idle_time: Option<Span>,
    /// Recipients of one mail on the wire; a message with more goes as several. Default 100.
    pub recipients_per_mail: Option<u32>,
    /// The name that the client says it has; default its address.
    pub hello: Option<String>,
}

/// One template: at least a text or an HTML text. Both make a mail that holds both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSection {
    /// The subject: one line.
    pub subject: Option<String>,
    /// The plain text.
    pub text: Option<String>,
    /// The HTML text: values are escaped.
    pub html: Option<String>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// It begins in clear and is encrypted before anything else is said. A server that cannot is refused.
    Starttls,
    /// It is encrypted from the start.
    Implicit,
    /// It is not. A password then goes to this machine only.
    None,
}

impl Tls {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Tls::Starttls => "starttls",
            Tls::Implicit => "implicit",
            Tls::None => "none",
        }
    }
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let wrong = || serde::de::Error::custom("expected an address, or an array of addresses");
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(split(&text).into_iter().map(str::to_owned).collect()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// Where the server is, and who logs in.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) host: String,
    pub(super) port: u16,
    /// For people.
    pub(super) label: String,
    pub(super) tls: Tls,
    pub(super) login: Option<(String, Secret)>,
    pub(super) hello: Option<String>,
}

/// What each mail is made with.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) from: Mailbox,
    pub(super) to: Vec<String>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) bcc: Vec<Mailbox>,
    pub(super) reply_to: Vec<Mailbox>,
    pub(super) subject: Option<String>,
    pub(super) headers: Vec<HeaderField>,
    pub(super) templates: BTreeMap<String, Kit>,
    // What mails have as their date.
    pub(super) clock: Clock,
}

/// A template with all its parts.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) subject: Option<Template>,
    pub(super) text: Option<Template>,
    pub(super) html: Option<Template>,
}

/// The section, checked, with its defaults.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) site: Site,
    pub(super) style: Style,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connections: usize,
    pub(super) idle_time: Duration,
    pub(super) recipients_per_mail: usize,
}

impl Settings {
    pub(super) fn read(section: Map<String, Value>) -> Result<Settings> {
        Settings::check(section).map_err(|error| error.by(PROVIDER))
    }

    fn check(section: Map<String, Value>) -> Result<Settings> {
        let mut section: Section = from_value(Value::Object(section))?;
        let site = site(&mut section)?;
        let connections = section.connections.unwrap_or(4);
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(wrong(format!("`connections` must be from 1 to {MAX_CONNECTIONS}")));
        }
        let recipients_per_mail = section.recipients_per_mail.unwrap_or(100);
        if !(1..=10_000).contains(&recipients_per_mail) {
            return Err(wrong("`recipients_per_mail` must be from 1 to 10000".into()));
        }
        let idle_time = section.idle_time.map_or(Duration::from_secs(60), |span| span.0);
        if idle_time < Duration::from_millis(100) {
            return Err(wrong("`idle_time` must be at least 100ms".into()));
        }
        Ok(Settings {
            site,
            ca_file: section.ca_file.take(),
            connections: connections as usize,
            idle_time,
            recipients_per_mail: recipients_per_mail as usize,
            style: style(section)?,
        })
    }
}

fn wrong(text: String) -> Error {
    Error::new(Kind::InvalidConfig, text)
}

// An address of the config that is wrong is the config's fault.
fn of_config(error: Error) -> Error {
    wrong(error.message().to_owned())
}

fn site(section: &mut Section) -> Result<Site> {
    let url = Url::parse(&section.url).map_err(|error| wrong(format!("`url` is not valid: {error}")))?;
    let (standard_port, usual) = match url.scheme() {
        "smtp" => (587, Tls::Starttls),
        "smtps" => (465, Tls::Implicit),
        _ => return Err(wrong("`url` must start with smtp:// or smtps://".into())),
    };
    if url.password().is_some() {
        return Err(wrong("`url` holds a password: it belongs under `password`".into()));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("`url` names a server only: nothing may follow its port".into()));
    }
    // The hosts of schemes that the parser does not know come as they were written.
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(wrong("`url` names no host".into()));
    }
    let tls = section.tls.unwrap_or(usual);
    if usual == Tls::Implicit && tls != Tls::Implicit {
        return Err(wrong("`tls` of an smtps:// server is `implicit`: write smtp:// for the others".into()));
    }
    let in_url = match url.username() {
        "" => None,
        user => Some(
            percent_encoding::percent_decode_str(user)
                .decode_utf8()
                .map_err(|_| wrong("`url` has a user that is not UTF-8".into()))?
                .into_owned(),
        ),
    };
    let user = match (section.user.take(), in_url) {
        (Some(one), Some(other)) if one != other => {
            return Err(wrong("`user` and the user in `url` are not the same".into()));
        }
        (one, other) => one.or(other),
    };
    let login = match (user, section.password.take()) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => return Err(wrong("`password` is missing: there is a user".into())),
        (None, Some(_)) => return Err(wrong("`user` is missing: there is a `password`".into())),
    };
    if login.as_ref().is_some_and(|(user, password)| user.contains('\0') || password.expose().contains('\0'))
    {
        return Err(wrong("`user` and `password` may not hold a zero byte".into()));
    }
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if tls == Tls::None && login.is_some() && !here {
        return Err(wrong("with `tls` `none` a password would cross the network in clear".into()));
    }
    let hello = section.hello.take();
    if hello
        .as_deref()
        .is_some_and(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(wrong("`hello` is a host name or an address in brackets".into()));
    }
    let port = url.port().unwrap_or(standard_port);
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Ok(Site { label: format!("{}://{shown}:{port}", url.scheme()), host, port, tls, login, hello })
}

fn style(section: Section) -> Result<Style> {
    let all = |texts: &[String], key: &str| {
        texts.iter().map(|text| mailbox(text, key)).collect::<Result<Vec<_>>>().map_err(of_config)
    };
    let mut headers = Vec::with_capacity(section.headers.len());
    for (name, value) in &section.headers {
        let field = HeaderField::new(name, value).map_err(of_config)?;
        if headers.iter().any(|other: &HeaderField| other.is_called(&field)) {
            return Err(wrong(format!("`headers`: `{name}` is listed twice")));
        }
        headers.push(field);
    }
    if section.subject.as_deref().is_some_and(|subject| subject.chars().any(char::is_control)) {
        return Err(wrong("`subject` holds a line end or another control character".into()));
    }
    all(&section.to, "`to`")?;
    let mut templates = BTreeMap::new();
    for (name, parts) in &section.templates {
        let part = |part: &str, text: &Option<String>, escape| {
            let full = format!("{name}.{part}");
            text.as_ref().map(|text| Template::escaped(&full, text, escape)).transpose()
        };
        let kit = Kit {
            subject: part("subject", &parts.subject, Escape::None)?,
            text: part("text", &parts.text, Escape::None)?,
            html: part("html", &parts.html, Escape::Html)?,
        };
        if kit.text.is_none() && kit.html.is_none() {
            return Err(wrong(format!("the template `{name}` has neither `text` nor `html`")));
        }
        templates.insert(name.clone(), kit);
    }
    Ok(Style {
        clock: Clock::from_system(),
        from: mailbox(&section.from, "`from`").map_err(of_config)?,
        cc: all(&section.cc, "`cc`")?,
        bcc: all(&section.bcc, "`bcc`")?,
        reply_to: all(&section.reply_to, "`reply_to`")?,
        to: section.to,
        subject: section.subject,
        headers,
        templates,
    })
}

impl Style {
    /// The template of this name.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub(super) fn template(&self, name: &str) -> Result<&Kit> {
        self.templates.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            let hint = nearest(&name, &known).map(|name| format!("; did you mean `{name}`?"));
            let text = format!("there is no template `{}`{}", name.escape_debug(), hint.unwrap_or_default());
            Error::new(Kind::InvalidArgument, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<Settings> {
        let mut section = json!({"url": "smtp://mail.example.com", "from": "a@example.com"});
        for (key, value) in more.as_object().unwrap() {
            section[key] = value.clone();
        }
        Settings::read(section.as_object().unwrap().clone())
    }

    #[test]
    fn encryption_is_the_default() {
        let site = read(json!({})).unwrap().site;
        assert_eq!((site.tls, site.label.as_str()), (Tls::Starttls, "smtp://mail.example.com:587"));
        let site = read(json!({"url": "smtps://u%40x@[::1]", "password": "p"})).unwrap().site;
        assert_eq!((site.tls, site.host.as_str(), site.port), (Tls::Implicit, "::1", 465));
        assert_eq!(site.login.unwrap().0, "u@x");
        read(json!({"url": "smtp://u@127.0.0.1:25", "password": "p", "tls": "none"})).unwrap();
        let settings =
            read(json!({"to": "A <a@example.com>, b@example.com", "cc": ["c@example.com"]})).unwrap();
        assert_eq!((settings.style.to.len(), settings.style.cc.len()), (2, 1));
    }

    #[test]
    fn wrong_sections_name_the_key() {
        for (more, hint) in [
            (json!({"url": "http://x"}), "`url`"),
            (json!({"url": "smtp://u:canary@x"}), "`password`"),
            (json!({"url": "smtp://x/path"}), "`url`"),
            (json!({"url": "smtp://"}), "`url`"),
            (json!({"url": "smtps://x", "tls": "none"}), "`tls`"),
            (json!({"url": "smtp://u@x", "password": "canary", "tls": "none"}), "`tls`"),
            (json!({"tls": "opportunistic"}), "starttls"),
            (json!({"user": "u"}), "`password`"),
            (json!({"password": "canary"}), "`user`"),
            (json!({"user": "u", "password": "canary\0"}), "`password`"),
            (json!({"from": "nobody"}), "`from`"),
            (json!({"to": ["a@example.com", "b"]}), "`to`"),
            (json!({"cc": 3}), "cc"),
            (json!({"subject": "a\nb"}), "`subject`"),
            (json!({"headers": {"X-A": "b\r\nBcc: c@example.com"}}), "X-A"),
            (json!({"headers": {"Bcc": "c@example.com"}}), "Bcc"),
            (json!({"headers": {"X A": "b"}}), "X A"),
            (json!({"headers": {"X-A": "b", "x-a": "c"}}), "twice"),
            (json!({"templates": {"t": {"subject": "x"}}}), "`t`"),
            (json!({"templates": {"t": {"text": "{{ x"}}}), "`t.text`"),
            (json!({"connections": 0}), "`connections`"),
            (json!({"recipients_per_mail": 0}), "`recipients_per_mail`"),
            (json!({"idle_time": "1ms"}), "`idle_time`"),
            (json!({"hello": "a b"}), "`hello`"),
            (json!({"conections": 1}), "`connections`"),
        ] {
            let error = read(more.clone()).err().unwrap_or_else(|| panic!("{more} was taken"));
            assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some("smtp")), "{error}");
            assert!(error.message().contains(hint), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
