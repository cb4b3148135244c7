//! The provider's section of a client's config.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::credentials::{Credentials, Fixed, Keys, Source};
use super::{PROVIDER, SERVER};
use crate::config::{Role, Span, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Result};
use crate::provider::socket::{Target, refuse_foreign};
use crate::secret::Secret;
use crate::wire::mns::{MAX_BODY, MAX_WAIT, PRIORITIES, VISIBILITY, is_name};

/// The most connections of a client.
const MAX_CONNECTIONS: u32 = 1024;
/// The most receives that wait at once.
const MAX_POLLERS: u32 = 64;
/// The longest body that a config may allow.
const LONGEST_BODY: u64 = 4 << 20;

/// How bodies are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyEncoding {
    /// As they are, which must be text that XML can carry: as the Go SDK does.
    #[default]
    Raw,
    /// In Base64, whatever they are: as the Java SDK does.
    Base64,
}

/// `"provider": {"type": "mns", …}`. Keys not listed here are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The service: `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub url: String,
    /// The queue that is sent to or received from.
    pub queue: Option<String>,
    /// The topic that is published to, in place of a queue. Producers only.
    pub topic: Option<String>,
    /// Id of the access key.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub access_key_id: Option<Secret>,
    /// Its secret.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub access_key_secret: Option<Secret>,
    /// The token of temporary credentials.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    pub security_token: Option<Secret>,
    /// Where keys are read from, in place of the three above: `environment` (the variables `ALIBABA_CLOUD_ACCESS_KEY_ID`,
    /// `ALIBABA_CLOUD_ACCESS_KEY_SECRET` and `ALIBABA_CLOUD_SECURITY_TOKEN`, read when the client is opened), or
    /// `file:PATH`, a file of JSON with those three keys. A file is read again every five seconds, and when keys are refused.
    pub credentials: Option<Value>,
    /// How bodies are on the wire: `raw` (the default) or `base64`. What is sent and received must agree.
    #[serde(default)]
    pub body_encoding: BodyEncoding,
    /// The longest body on the wire, in bytes, which the queue or topic allows too; default 65536. Producers only.
    pub max_body: Option<u64>,
    /// The priority of a message that names none, from 1, the first, to 16; default that of the service, 8. Producers to
    /// a queue only.
    pub priority: Option<u32>,
    /// Requests on their way at once, beside the receives that wait; default 8.
    pub connections: Option<u32>,
    /// PEM file with the only certificates to trust; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// Deliveries that wait for a receive of the host, at most; default 16. Consumers only.
    pub prefetch: Option<u64>,
    /// Receives that wait at the service at once; default 1. Consumers only.
    pub pollers: Option<u32>,
    /// How long one waits, in whole seconds up to 30, the default. Consumers only.
    pub wait: Option<Span>,
    /// For how long a delivery is hidden from others each time that is renewed, in whole seconds from 1 to 43200; default
    /// 30s. It is renewed when half of the time has passed. Consumers only.
    pub visibility: Option<Span>,
    /// How long a delivery is kept hidden in all while the host has it, counted from when the host received it, after which
    /// it comes again; default 1h, `0s` to renew none. One that waits for the host is kept as long. Consumers only.
    pub extend_for: Option<Span>,
}

/// Where messages go to or come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Queue(Arc<str>),
    Topic(Arc<str>),
}

impl Place {
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Place::Queue(name) | Place::Topic(name) => name,
        }
    }
}

/// The part of a section that is about the service, whatever is asked of it.
pub(super) struct Account {
    pub(super) target: Target,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) connections: usize,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) encoding: BodyEncoding,
}

/// A section of a producer or consumer, checked.
pub(super) struct Settings {
    pub(super) account: Account,
    pub(super) place: Place,
    pub(super) max_body: usize,
    pub(super) priority: Option<u32>,
    pub(super) prefetch: usize,
    pub(super) pollers: usize,
    pub(super) wait: u32,
    pub(super) visibility: u32,
    pub(super) extend_for: Duration,
}

fn wrong(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidConfig, text)
}

impl Account {
    /// The section of a producer or consumer, which need not name a queue or a topic.
    pub(super) fn read(section: Map<String, Value>, given: Option<Arc<dyn Credentials>>) -> Result<Account> {
        let section: Result<Section> = from_value(Value::Object(section));
        section.and_then(|mut section| Account::of(&mut section, given)).map_err(|error| error.by(PROVIDER))
    }

    fn of(section: &mut Section, given: Option<Arc<dyn Credentials>>) -> Result<Account> {
        let target = Target::parse(SERVER, &section.url, ["http", "https"], "")?;
        if target.uri.len() != target.label.len() {
            return Err(wrong("`url` names a server only: nothing may follow its port"));
        }
        Ok(Account {
            target,
            credentials: credentials(section, given)?,
            connections: within("connections", section.connections, 8, MAX_CONNECTIONS)?,
            ca_file: section.ca_file.take(),
            encoding: section.body_encoding,
        })
    }
}

impl Settings {
    pub(super) fn read(role: Role, section: Map<String, Value>) -> Result<Settings> {
        Settings::checked(role, section, None).map_err(|error| error.by(PROVIDER))
    }

    pub(super) fn read_as(
        role: Role,
        section: Map<String, Value>,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Settings> {
        Settings::checked(role, section, Some(credentials)).map_err(|error| error.by(PROVIDER))
    }

    fn checked(
        role: Role,
        section: Map<String, Value>,
        given: Option<Arc<dyn Credentials>>,
    ) -> Result<Settings> {
        let mut section: Section = from_value(Value::Object(section))?;
        let of_producers = [
            ("topic", section.topic.is_some()),
            ("max_body", section.max_body.is_some()),
            ("priority", section.priority.is_some()),
        ];
        let of_consumers = [
            ("prefetch", section.prefetch.is_some()),
            ("pollers", section.pollers.is_some()),
            ("wait", section.wait.is_some()),
            ("visibility", section.visibility.is_some()),
            ("extend_for", section.extend_for.is_some()),
        ];
        refuse_foreign(role, &of_producers, &of_consumers)?;
        let account = Account::of(&mut section, given)?;
        let place = match (section.queue, section.topic) {
            (Some(queue), None) => Place::Queue(queue.into()),
            (None, Some(topic)) => Place::Topic(topic.into()),
            (Some(_), Some(_)) => {
                return Err(wrong("`queue` and `topic` are set: a client is of one of them"));
            }
            (None, None) if role == Role::Consumer => return Err(wrong("the key `queue` is missing")),
            (None, None) => return Err(wrong("the key `queue` or `topic` is missing")),
        };
        if !is_name(place.name()) {
            let key = if matches!(place, Place::Queue(_)) { "queue" } else { "topic" };
            return Err(wrong(format!(
                "`{key}` must have from 1 to 256 letters, digits, `-` and `_`, and no other sign"
            )));
        }
        if section.priority.is_some() && matches!(place, Place::Topic(_)) {
            return Err(wrong("`priority` is a key of producers to a queue: topics have none"));
        }
        if section.priority.is_some_and(|priority| !PRIORITIES.contains(&priority)) {
            return Err(wrong("`priority` must be from 1 to 16"));
        }
        let max_body = section.max_body.unwrap_or(MAX_BODY as u64);
        if !(1..=LONGEST_BODY).contains(&max_body) {
            return Err(wrong(format!("`max_body` must be from 1 to {LONGEST_BODY}")));
        }
        let prefetch = section.prefetch.unwrap_or(16);
        if !(1..=100_000).contains(&prefetch) {
            return Err(wrong("`prefetch` must be from 1 to 100000"));
        }
        Ok(Settings {
            account,
            place,
            max_body: usize::try_from(max_body).unwrap_or(MAX_BODY),
            priority: section.priority,
            prefetch: usize::try_from(prefetch).unwrap_or(16),
            pollers: within("pollers", section.pollers, 1, MAX_POLLERS)?,
            wait: seconds("wait", section.wait, 30, 0..=MAX_WAIT)?,
            visibility: seconds("visibility", section.visibility, 30, VISIBILITY)?,
            extend_for: section.extend_for.map_or(Duration::from_secs(3600), |span| span.0),
        })
    }
}

fn within(name: &str, value: Option<u32>, default: u32, most: u32) -> Result<usize> {
    let value = value.unwrap_or(default);
    if !(1..=most).contains(&value) {
        return Err(wrong(format!("`{name}` must be from 1 to {most}")));
    }
    Ok(value as usize)
}

fn seconds(
    name: &str,
    value: Option<Span>,
    default: u32,
    allowed: std::ops::RangeInclusive<u32>,
) -> Result<u32> {
    let Some(Span(value)) = value else { return Ok(default) };
    let whole = u32::try_from(value.as_secs()).ok().filter(|_| value.subsec_nanos() == 0);
    whole.filter(|whole| allowed.contains(whole)).ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        wrong(format!("`{name}` must be whole seconds from {least}s to {most}s"))
    })
}

fn credentials(section: &mut Section, given: Option<Arc<dyn Credentials>>) -> Result<Arc<dyn Credentials>> {
    let token = section.security_token.take();
    let keys = (section.access_key_id.take(), section.access_key_secret.take());
    let none = keys.0.is_none() && keys.1.is_none() && token.is_none();
    match (given, &section.credentials, keys) {
        (Some(given), None, _) if none => Ok(given),
        (Some(_), _, _) => Err(wrong("keys are given by the call: the section names none")),
        (None, Some(source), _) if none => Ok(Source::parse(source)?.credentials()),
        (None, Some(_), _) => Err(wrong(
            "`credentials` stands in place of `access_key_id`, `access_key_secret` and `security_token`",
        )),
        (None, None, (Some(key_id), Some(key_secret))) => {
            let keys = Keys { key_id, key_secret, security_token: token };
            Ok(Arc::new(Fixed::new(keys.check("")?)))
        }
        _ => Err(wrong("the keys `access_key_id` and `access_key_secret` are missing, or `credentials`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(role: Role, more: Value) -> Result<Settings> {
        let mut section = json!({"url": "http://127.0.0.1:8012", "queue": "q", "access_key_id": "id",
                                 "access_key_secret": "hunter2"});
        for (key, value) in more.as_object().unwrap() {
            match value {
                Value::Null => drop(section.as_object_mut().unwrap().remove(key)),
                value => section[key] = value.clone(),
            }
        }
        Settings::read(role, section.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = read(Role::Consumer, json!({})).unwrap();
        assert_eq!(settings.place, Place::Queue("q".into()));
        assert_eq!((settings.account.connections, settings.prefetch, settings.pollers), (8, 16, 1));
        assert_eq!((settings.wait, settings.visibility, settings.max_body), (30, 30, 65_536));
        assert_eq!(settings.account.encoding, BodyEncoding::Raw);
        let settings = read(Role::Producer, json!({"queue": null, "topic": "t", "body_encoding": "base64"}));
        assert_eq!(settings.unwrap().place, Place::Topic("t".into()));
        let other = json!({"access_key_id": null, "access_key_secret": null, "credentials": "environment"});
        read(Role::Producer, other).unwrap();
        let account = json!({"url": "http://h", "access_key_id": "id", "access_key_secret": "s"});
        assert_eq!(Account::read(account.as_object().unwrap().clone(), None).unwrap().connections, 8);
    }

    #[test]
    fn wrong_sections_name_the_key_and_no_secret() {
        use Role::{Consumer, Producer};
        for (role, more, hint) in [
            (Producer, json!({"url": "hunter2"}), "`url`"),
            (Producer, json!({"url": "http://id:hunter2@h"}), "`url`"),
            (Producer, json!({"url": "http://h/hunter2"}), "`url` names a server only"),
            (Producer, json!({"queue": null}), "`queue` or `topic`"),
            (Consumer, json!({"queue": null}), "`queue`"),
            (Producer, json!({"topic": "t"}), "`queue` and `topic`"),
            (Consumer, json!({"queue": null, "topic": "t"}), "`topic` is a key of producers"),
            (Producer, json!({"queue": "a b"}), "`queue`"),
            (Producer, json!({"queue": "q".repeat(257)}), "`queue`"),
            (Producer, json!({"access_key_id": null}), "`access_key_id`"),
            (Producer, json!({"access_key_secret": ""}), "`access_key_secret`"),
            (Producer, json!({"access_key_secret": "hunter2\n"}), "`access_key_secret`"),
            (Producer, json!({"credentials": "environment"}), "`credentials`"),
            (Producer, json!({"body_encoding": "hex"}), "body_encoding"),
            (Producer, json!({"priority": 17}), "`priority`"),
            (Producer, json!({"queue": null, "topic": "t", "priority": 1}), "`priority`"),
            (Producer, json!({"max_body": 0}), "`max_body`"),
            (Producer, json!({"connections": 0}), "`connections`"),
            (Producer, json!({"prefetch": 1}), "`prefetch` is a key of consumers"),
            (Consumer, json!({"max_body": 1}), "`max_body` is a key of producers"),
            (Consumer, json!({"prefetch": 0}), "`prefetch`"),
            (Consumer, json!({"pollers": 65}), "`pollers`"),
            (Consumer, json!({"wait": "31s"}), "`wait`"),
            (Consumer, json!({"wait": "1500ms"}), "`wait`"),
            (Consumer, json!({"visibility": "0s"}), "`visibility`"),
            (Consumer, json!({"visiblity": "1s"}), "`visibility`"),
        ] {
            let error = read(role, more.clone()).err().unwrap_or_else(|| panic!("{more} was taken"));
            assert_eq!((error.kind(), error.provider()), (Kind::InvalidConfig, Some(PROVIDER)), "{error}");
            assert!(error.message().contains(hint), "{more}: {error}");
            assert!(!error.text().contains("hunter2"), "{error}");
        }
    }
}
