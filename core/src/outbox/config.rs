//! The section of a config with `"type": "outbox"`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::backoff::Backoff;
use super::schedule::Schedule;
use crate::config::{Span, deserialize_secret, from_value};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// When a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum When {
    /// When the send of it failed.
    #[default]
    OnFailure,
    /// Before it is sent.
    Always,
}

impl When {
    pub(super) const fn name(self) -> &'static str {
        match self {
            When::OnFailure => "on_failure",
            When::Always => "always",
        }
    }
}

/// What follows when it is unknown whether an attempt sent the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnUnknown {
    /// Another attempt: the message may arrive twice.
    #[default]
    Again,
    /// The message is not stored, or given up: it may never arrive. Of several recipients those alone are tried again
    /// of whom it is known that they have not got it. What a process that died was sending is sent again once its lease
    /// ends: nobody is left who could say that an attempt had begun.
    Stop,
}

/// Which messages are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Deduplicate {
    /// None.
    #[default]
    None,
    /// Those with the same key.
    Key,
}

/// See the module.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The store: `sqlite:FILE`, or `mongodb://USER:PASSWORD@HOST/DATABASE?collection=NAME`.
    #[serde(deserialize_with = "deserialize_secret")]
    url: Secret,
    /// When a message is stored.
    #[serde(default)]
    pub(super) when: When,
    /// When what failed is tried again: a cron pattern with seconds, or a span such as `120s`. Unless it or `backoff`
    /// is set, every 120 s.
    #[serde(default)]
    schedule: Option<String>,
    /// The time zone of the pattern: a name such as `Europe/Berlin`, or `local`.
    #[serde(default)]
    time_zone: Option<String>,
    /// The wait of each row after a failure. With a `schedule` it goes on at the first run after that.
    #[serde(default)]
    pub(super) backoff: Option<Backoff>,
    /// Attempts out of the store that may fail before a row is dead.
    #[serde(default = "max_attempts")]
    pub(super) max_attempts: u32,
    /// The id of an open producer that is told of dead rows.
    #[serde(default)]
    pub(super) notify: Option<String>,
    /// Leaves the telling to other processes with the same store, until a control command `{"strategy": "outbox", "notify":
    /// true}`.
    #[serde(default)]
    pub(super) notify_held: bool,
    /// What follows when it is unknown whether an attempt sent the message.
    #[serde(default)]
    pub(super) on_unknown: OnUnknown,
    /// Messages with the same key are sent one after the other, in the order in which they were accepted.
    #[serde(default)]
    pub(super) ordered: bool,
    /// Which messages are kept once.
    #[serde(default)]
    pub(super) deduplicate: Deduplicate,
    /// Sends out of the store that are under way at once.
    #[serde(default = "concurrency")]
    pub(super) concurrency: usize,
    /// How long a row belongs to who sends it; at least 250 ms longer than the client's `deadline`. Unless set, twice that
    /// and 10 s.
    #[serde(default)]
    lease: Option<Span>,
    /// How long rows that were sent are kept: not at all unless set.
    #[serde(default)]
    keep_done: Option<Span>,
    /// How long dead rows are kept: for ever unless set, and until `notify` was told of them.
    #[serde(default)]
    keep_dead: Option<Span>,
    /// How long storing what failed may take beyond the caller's deadline.
    #[serde(default = "store_timeout")]
    store_timeout: Span,
    /// How often the store is asked for what other processes left.
    #[serde(default = "poll")]
    poll: Span,
}

fn max_attempts() -> u32 {
    5
}

fn concurrency() -> usize {
    64
}

fn store_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn poll() -> Span {
    Span(Duration::from_secs(1))
}

/// What a lease has beside the deadline of an attempt: the claim takes time of it, and so does what follows the send.
const LEAST_SPARE: Duration = Duration::from_millis(250);

/// What a config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) config: Config,
    pub(super) address: Address,
    pub(super) schedule: Option<Schedule>,
    pub(super) lease: Option<Duration>,
    pub(super) keep_done: Duration,
    pub(super) keep_dead: Option<Duration>,
    pub(super) store_timeout: Duration,
    pub(super) poll: Duration,
}

impl Terms {
    pub(super) fn parse(section: Map<String, Value>) -> Result<Terms> {
        let config: Config = from_value(Value::Object(section))?;
        let wrong = |text: String| Error::new(Kind::InvalidConfig, text);
        let address = Address::parse(config.url.expose())?;
        if !(1..=10_000).contains(&config.max_attempts) {
            return Err(wrong(format!("`max_attempts` is 1 to 10000, not {}", config.max_attempts)));
        }
        if !(1..=10_000).contains(&config.concurrency) {
            return Err(wrong(format!("`concurrency` is 1 to 10000, not {}", config.concurrency)));
        }
        if config.notify.as_deref() == Some("") {
            return Err(wrong("`notify` is empty: name an open producer, or leave it out".into()));
        }
        if config.notify_held && config.notify.is_none() {
            return Err(wrong("`notify_held` needs a `notify`".into()));
        }
        if let Some(backoff) = &config.backoff {
            backoff.check()?;
        }
        for (name, span) in [
            ("poll", Some(config.poll)),
            ("lease", config.lease),
            ("store_timeout", Some(config.store_timeout)),
        ] {
            if span.is_some_and(|span| span.0 < Duration::from_millis(1)) {
                return Err(wrong(format!("`{name}` must be at least 1ms")));
            }
        }
        let schedule = match (&config.schedule, &config.backoff) {
            (Some(text), _) => Some(Schedule::parse(text, config.time_zone.as_deref())?),
            (None, _) if config.time_zone.is_some() => {
                return Err(wrong("`time_zone` is that of the `schedule`, and there is none".into()));
            }
            (None, Some(_)) => None,
            (None, None) => Some(Schedule::default()),
        };
        Ok(Terms {
            address,
            schedule,
            lease: config.lease.map(|span| span.0),
            keep_done: config.keep_done.map_or(Duration::ZERO, |span| span.0),
            keep_dead: config.keep_dead.map(|span| span.0),
            store_timeout: config.store_timeout.0,
            poll: config.poll.0,
            config,
        })
    }

    /// The lease of a client whose attempts take at most `deadline`.
    pub(super) fn lease(&self, deadline: Duration) -> Result<Duration> {
        let lease =
            self.lease.unwrap_or_else(|| deadline.saturating_mul(2).saturating_add(Duration::from_secs(10)));
        if lease.saturating_sub(deadline) < LEAST_SPARE {
            let text = "`lease` must be at least 250 ms longer than the client's `deadline`: rows could not be claimed, \
                        sent and noted before it ends";
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        Ok(lease)
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A file.
    Sqlite(PathBuf),
    /// A database of MongoDB.
    #[cfg(feature = "mongodb")]
    Mongo(super::mongodb::Target),
}

impl Address {
    /// Whether this text names a store, and no client's id.
    pub fn is_one(text: &str) -> bool {
        // In any spelling: what is taken for an id is quoted in errors, and an address has a password. It has one too
        // where something stands before it, such as the quotes of a file that it was copied from.
        let text = text.trim().to_ascii_lowercase();
        ["sqlite:", "mongodb:", "mongodb+srv:"].iter().any(|scheme| text.starts_with(scheme))
            || ["mongodb://", "mongodb+srv://"].iter().any(|scheme| text.contains(scheme))
    }

    /// Reads `sqlite:FILE`, where FILE is a path of this process: `sqlite:outbox.db`, `sqlite:/var/lib/outbox.db`
    /// or `sqlite:///var/lib/outbox.db`; or `mongodb://USER:PASSWORD@HOST/DATABASE`, with the options of MongoDB and
    /// `collection`, whose default is `ceiba_outbox`. The default of the database is `ceiba`.
    ///
    /// # Errors
    /// `invalid_config`; the address is not quoted, it may hold a password.
    pub fn parse(text: &str) -> Result<Address> {
        let wrong = |text: &str| Err(Error::new(Kind::InvalidConfig, format!("`url`: {text}")));
        if let Some(path) = text.strip_prefix("sqlite:") {
            if !cfg!(feature = "sqlite") {
                return wrong("this build has no SQLite");
            }
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') || path.starts_with(":memory:") {
                return wrong("it names no file: write sqlite:FILE");
            }
            if path.contains('?') || path.contains('#') {
                return wrong("a file's address takes no `?` or `#`");
            }
            return Ok(Address::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("mongodb:") || text.starts_with("mongodb+srv:") {
            #[cfg(feature = "mongodb")]
            return super::mongodb::Target::parse(text).map(Address::Mongo);
            #[cfg(not(feature = "mongodb"))]
            return wrong("this build has no MongoDB");
        }
        wrong("an outbox is in a file or in a MongoDB: write sqlite:FILE or mongodb://HOST/DATABASE")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(value: Value) -> Result<Terms> {
        let Value::Object(section) = value else { panic!("no object") };
        Terms::parse(section)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let terms = terms(serde_json::json!({"url": "sqlite:outbox.db"})).unwrap();
        assert_eq!((terms.config.max_attempts, terms.config.when), (5, When::OnFailure));
        assert_eq!(terms.address, Address::Sqlite("outbox.db".into()));
        assert_eq!(terms.lease(Duration::from_secs(30)).unwrap(), Duration::from_secs(70));
        assert!(terms.schedule.is_some());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (more, named) in [
            (r#""url": "redis://x""#, "sqlite:FILE"),
            (r#""url": "sqlite:""#, "names no file"),
            (r#""url": "sqlite::memory:""#, "names no file"),
            (r#""url": "mongodb://""#, "mongodb://USER"),
            (r#""url": "sqlite:a", "when": "sometimes""#, "when"),
            (r#""url": "sqlite:a", "max_attempts": 0"#, "max_attempts"),
            (r#""url": "sqlite:a", "concurrency": 0"#, "concurrency"),
            (r#""url": "sqlite:a", "schedule": "* * *""#, "schedule"),
            (r#""url": "sqlite:a", "schedule": "0 0 0 31 2 *""#, "never"),
            (r#""url": "sqlite:a", "time_zone": "UTC""#, "time_zone"),
            (r#""url": "sqlite:a", "schedule": "5s", "time_zone": "UTC""#, "time_zone"),
            (r#""url": "sqlite:a", "schedule": "0 * * * * *", "time_zone": "Europe/Nowhere""#, "time_zone"),
            (r#""url": "sqlite:a", "schedul": "5s""#, "did you mean `schedule`"),
            (r#""url": "sqlite:a", "notify": """#, "notify"),
            (r#""url": "sqlite:a", "notify_held": true"#, "needs a `notify`"),
            (
                r#""url": "sqlite:a", "backoff": {"type": "exponential", "base": "2s", "max": "1s"}"#,
                "backoff",
            ),
        ] {
            let error = terms(serde_json::from_str(&format!("{{{more}}}")).unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig, "{more}");
            assert!(error.text().contains(named), "{more}: {}", error.text());
        }
        for one in [
            "MongoDB://ann:hunter2@h",
            " mongodb://a:b@h",
            "\n\tsqlite:x",
            "\"mongodb+srv://a:b@h\"",
            "sqlite:",
        ] {
            assert!(Address::is_one(one), "{one}");
        }
        assert!(!["mongo", "", " ", "my-sqlite:x", "a mongodb"].iter().any(|id| Address::is_one(id)));
        assert!(!Address::parse("MongoDB://ann:hunter2@h").unwrap_err().text().contains("hunter2"));
        let short = terms(serde_json::json!({"url": "sqlite:a", "lease": "30s"})).unwrap();
        for deadline in [30_000, 29_999, 29_751] {
            let error = short.lease(Duration::from_millis(deadline)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig, "{deadline}");
        }
        assert_eq!(short.lease(Duration::from_millis(29_750)).unwrap(), Duration::from_secs(30));
    }
}
