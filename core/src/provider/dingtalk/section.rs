//! The provider's section of a client's config.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::PROVIDER;
use crate::config::{deserialize_secret, deserialize_secret_option, from_value, nearest};
use crate::error::{Error, Kind, Result};
use crate::provider::http::{Judge, Options, Rule, Site, Texts};
use crate::secret::Secret;
use crate::template::Escape;

/// Where DingTalk's robots are.
const ROBOT: &str = "https://oapi.dingtalk.com/robot/send";

/// `"provider": {"type": "dingtalk", "via": "robot", …}`; `via` may be left out. Keys not listed here are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotSection {
    /// The robot's address with its `access_token`, as DingTalk shows it. It is a secret and may be
    /// `{"env": NAME}` or `{"file": PATH}`. Needed unless `access_token` is set.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub url: Option<Secret>,
    /// The token alone, which is added to `url`; default `url` is that of DingTalk.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub access_token: Option<Secret>,
    /// The secret of a robot that wants signatures.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub secret: Option<Secret>,
    /// `text` (the default), `markdown` or `link`, for messages whose attribute `msgtype` says nothing else.
    pub msgtype: Option<MsgType>,
    /// The title of markdown and links, for messages without an attribute `title` or `subject`.
    pub title: Option<String>,
    /// A template of the text; without one the text is the message's body.
    pub template: Option<String>,
    /// Templates of the text by name: a message's `template` chooses one, and one that is not listed is refused. A
    /// message that names none gets `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// Who is called by a message without recipients.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

/// What a robot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MsgType {
    /// Plain text.
    #[default]
    Text,
    /// Markdown.
    Markdown,
    /// A card with a link.
    Link,
}

/// `"provider": {"type": "dingtalk", "via": "gateway", …}`. Keys not listed here are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// The gateway's address; only its scheme, host and port are shown.
    #[serde(deserialize_with = "deserialize_secret")]
    pub url: Secret,
    /// Whether recipients are `users` (the default) or `groups`.
    pub to: Option<To>,
    /// The recipients of a message without any.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// A template of the text; without one the text is the message's body.
    pub template: Option<String>,
    /// Templates of the text by name: a message's `template` chooses one, and one that is not listed is refused. A
    /// message that names none gets `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
    /// Which answers mean success; default those with a status from 200 to 299.
    #[serde(default)]
    pub success: Rule,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Requests on their way at once; default 8.
    pub connections: Option<u32>,
    /// The address of a proxy, or `environment` for what the process's environment says; default none.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub proxy: Option<Secret>,
}

/// Whom a gateway sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// All in one request.
    #[default]
    Users,
    /// A request for each.
    Groups,
}

/// The section, checked, with its defaults.
pub(super) enum Settings {
    Robot(Box<RobotSettings>),
    Gateway(Box<GatewaySettings>),
}

pub(super) struct RobotSettings {
    pub(super) site: Site,
    pub(super) secret: Option<Secret>,
    pub(super) msgtype: MsgType,
    pub(super) title: Option<String>,
    pub(super) texts: Texts,
    pub(super) recipients: Vec<String>,
    pub(super) options: Options,
    pub(super) secrets: Vec<Secret>,
}

pub(super) struct GatewaySettings {
    pub(super) site: Site,
    pub(super) to: To,
    pub(super) recipients: Vec<String>,
    pub(super) texts: Texts,
    pub(super) judge: Judge,
    pub(super) options: Options,
    pub(super) secrets: Vec<Secret>,
}

fn wrong(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidConfig, text)
}

impl Settings {
    pub(super) fn read(section: Map<String, Value>) -> Result<Settings> {
        Settings::checked(section).map_err(|error| error.by(PROVIDER))
    }

    fn checked(mut section: Map<String, Value>) -> Result<Settings> {
        match section.remove("via") {
            None => robot(section),
            Some(Value::String(via)) => match via.as_str() {
                "robot" => robot(section),
                "gateway" => gateway(section),
                other => {
                    let hint = nearest(other, &["robot", "gateway"]);
                    let hint = hint.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
                    Err(wrong(format!("`via` is `robot` or `gateway`, not `{other}`{hint}")))
                }
            },
            Some(_) => Err(wrong("`via` is `robot` or `gateway`")),
        }
    }
}

fn robot(section: Map<String, Value>) -> Result<Settings> {
    let section: RobotSection = from_value(Value::Object(section))?;
    let mut secrets: Vec<Secret> =
        [&section.url, &section.access_token, &section.secret].into_iter().flatten().cloned().collect();
    let mut site = Site::parse("url", section.url.as_ref().map_or(ROBOT, Secret::expose))?;
    if let Some(token) = &section.access_token {
        if site.url.query_pairs().any(|(name, _)| name == "access_token") {
            return Err(wrong("`url` holds an access_token already: leave `access_token` out"));
        }
        site.url.query_pairs_mut().append_pair("access_token", token.expose());
    }
    let tokens = site.url.query_pairs().filter(|(name, value)| name == "access_token" && !value.is_empty());
    let tokens: Vec<Secret> = tokens.map(|(_, value)| Secret::new(value)).collect();
    if tokens.is_empty() {
        return Err(wrong("`access_token` is missing, in `url` or as a key of its own"));
    }
    secrets.extend(tokens);
    if section.secret.as_ref().is_some_and(|secret| secret.expose().is_empty()) {
        return Err(wrong("`secret` is empty"));
    }
    let options =
        Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
    options.check()?;
    let texts = Texts::read(section.template.as_deref(), &section.templates, Escape::None)?;
    Ok(Settings::Robot(Box::new(RobotSettings {
        site,
        secret: section.secret,
        msgtype: section.msgtype.unwrap_or_default(),
        title: section.title,
        texts,
        recipients: section.recipients,
        options,
        secrets,
    })))
}

fn gateway(section: Map<String, Value>) -> Result<Settings> {
    let section: GatewaySection = from_value(Value::Object(section))?;
    let site = Site::parse("url", section.url.expose())?;
    let options =
        Options { ca_file: section.ca_file, connections: section.connections, proxy: section.proxy };
    options.check()?;
    let texts = Texts::read(section.template.as_deref(), &section.templates, Escape::None)?;
    Ok(Settings::Gateway(Box::new(GatewaySettings {
        site,
        to: section.to.unwrap_or_default(),
        recipients: section.recipients,
        texts,
        judge: Judge::new(section.success)?,
        options,
        secrets: vec![section.url],
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_in_the_address_or_beside_it() {
        for section in [
            json!({"access_token": "T&1"}),
            json!({"via": "robot", "url": "https://oapi.dingtalk.com/robot/send?access_token=T%261"}),
        ] {
            let Settings::Robot(settings) = Settings::read(section.as_object().unwrap().clone()).unwrap()
            else {
                panic!("no robot");
            };
            assert_eq!(settings.site.url.as_str(), "https://oapi.dingtalk.com/robot/send?access_token=T%261");
            assert!(settings.secrets.iter().any(|secret| secret.expose() == "T&1"));
        }
    }

    #[test]
    fn wrong_sections_name_the_key_and_no_secret() {
        for (section, hint) in [
            (json!({}), "`access_token`"),
            (json!({"url": "http://a/?access_token="}), "`access_token`"),
            (json!({"url": "http://a/?access_token=hunter2", "access_token": "hunter2"}), "`access_token`"),
            (json!({"access_token": "hunter2", "secret": ""}), "`secret`"),
            (json!({"access_token": "hunter2", "msgtype": "card"}), "msgtype"),
            (json!({"via": "robbot"}), "`robot`"),
            (json!({"via": 1}), "`via`"),
            (json!({"via": "gateway"}), "`url`"),
            (json!({"via": "gateway", "url": "http://a", "secret": "hunter2"}), "`secret`"),
            (json!({"via": "gateway", "url": "http://a", "to": "everyone"}), "`to`"),
        ] {
            let error = Settings::read(section.as_object().unwrap().clone()).err();
            let error = error.unwrap_or_else(|| panic!("{section} was taken"));
            assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some(PROVIDER)), "{error}");
            assert!(error.message().contains(hint) && !error.text().contains("hunter2"), "{error}");
        }
    }
}
