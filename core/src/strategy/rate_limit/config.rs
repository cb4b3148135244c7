//! The section of a rate limit: which keys go together, and what they may hold.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Span, deserialize_secret_option, from_value};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The highest rate and the highest burst: a window holds a number for each place.
const MOST: u64 = 1_000_000;

/// The most slots that are kept in Redis.
const MOST_LEASES: u64 = 10_000;

/// The longest `key`, in bytes.
const LONGEST_KEY: usize = 256;

const LONGEST_PERIOD: Duration = Duration::from_secs(366 * 86_400);
const STORE_TIMEOUT: Duration = Duration::from_millis(250);
const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(60);

/// How it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Counting {
    SlidingWindow,
    FixedWindow,
    TokenBucket,
    LeakyBucket,
    Concurrent,
}

impl Counting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Counting::SlidingWindow => "sliding_window",
            Counting::FixedWindow => "fixed_window",
            Counting::TokenBucket => "token_bucket",
            Counting::LeakyBucket => "leaky_bucket",
            Counting::Concurrent => "concurrent",
        }
    }
}

/// What a send does when the rate is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WhenLimited {
    /// It fails as `limited`, with the time to wait.
    #[default]
    Fail,
    /// It waits for its turn within its deadline.
    Wait,
}

/// What a send does when Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnFailure {
    /// It goes on without a limit.
    Open,
    /// It fails: the limit holds, whatever happens.
    #[default]
    Closed,
    /// It keeps the same limit within this process alone.
    Local,
}

impl OnFailure {
    #[cfg(feature = "redis")]
    pub(super) fn name(self) -> &'static str {
        match self {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
            OnFailure::Local => "local",
        }
    }
}

/// A strategy with `"type": "rate_limit"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `sliding_window`, `fixed_window`, `token_bucket`, `leaky_bucket` or `concurrent`.
    limiter: Counting,
    /// Sends per `per`; with `concurrent` sends under way at once. 1 to 1,000,000; `concurrent` in Redis to 10,000.
    rate: u64,
    /// The period, 1 ms to 366 days. Not with `concurrent`.
    #[serde(default)]
    per: Option<Span>,
    /// The tokens a `token_bucket` holds, 1 to 1,000,000; `rate` unless set.
    #[serde(default)]
    burst: Option<u64>,
    /// Limiters with the same key share one state: within the process, and in Redis with all that use it. Unless
    /// set, one of its own; in Redis that of the client's id.
    #[serde(default)]
    key: Option<String>,
    /// `fail` or `wait`.
    #[serde(default)]
    when_limited: WhenLimited,
    /// `redis://` or `rediss://`, `[USER][:PASSWORD]@HOST[:PORT][/DATABASE]`: the state is in Redis. For
    /// `sliding_window` and `concurrent`.
    #[serde(default, deserialize_with = "deserialize_secret_option")]
    url: Option<Secret>,
    /// With `rediss`: the certificates to trust (PEM) in place of the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
    /// With `url`: what follows when Redis does not answer.
    #[serde(default)]
    on_failure: Option<OnFailure>,
    /// With `url`: how long a send waits for Redis, 1 ms to 1 minute.
    #[serde(default)]
    store_timeout: Option<Span>,
    /// With `url` and `concurrent`: how long a slot stays taken when its process is gone, 1 s to 1 day.
    #[serde(default)]
    lease: Option<Span>,
}

/// What limiters with the same key must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) counting: Counting,
    pub(super) rate: u64,
    /// Zero for `concurrent`.
    pub(super) per: Duration,
    pub(super) burst: u64,
    pub(super) store: Option<StoreSettings>,
}

/// Where Redis is and how far it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoreSettings {
    pub(super) url: Secret,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) on_failure: OnFailure,
    pub(super) timeout: Duration,
    pub(super) lease: Duration,
}

/// The section, checked.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) settings: Settings,
    pub(super) key: Option<String>,
    pub(super) when_limited: WhenLimited,
}

fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::InvalidConfig, text))
}

fn within(key: &str, value: u64, most: u64) -> Result<u64> {
    if !(1..=most).contains(&value) {
        return wrong(format!("`{key}` is 1 to {most}, not {value}"));
    }
    Ok(value)
}

fn span_within(key: &str, span: Duration, least: Duration, most: Duration) -> Result<Duration> {
    if span < least || span > most {
        return wrong(format!("`{key}` is {least:?} to {} s", most.as_secs()));
    }
    Ok(span)
}

/// Reads and checks a section.
///
/// # Errors
/// `invalid_config`, naming the key.
pub(super) fn parse(section: Map<String, Value>) -> Result<Parsed> {
    let config: Config = from_value(Value::Object(section))?;
    let kind = config.limiter;
    let most = if kind == Counting::Concurrent && config.url.is_some() { MOST_LEASES } else { MOST };
    let rate = within("rate", config.rate, most)?;
    let per = match (config.per, kind) {
        (Some(_), Counting::Concurrent) => {
            return wrong("`per` does not go with `concurrent`, which counts no time");
        }
        (None, Counting::Concurrent) => Duration::ZERO,
        (Some(per), _) => span_within("per", per.0, Duration::from_millis(1), LONGEST_PERIOD)?,
        (None, _) => return wrong("`per` is missing: the period that `rate` is for, such as \"1s\""),
    };
    let burst = match (config.burst, kind) {
        (Some(burst), Counting::TokenBucket) => within("burst", burst, MOST)?,
        (None, Counting::TokenBucket) => rate,
        (Some(_), _) => {
            return wrong(format!("`burst` goes with `token_bucket`, not with `{}`", kind.name()));
        }
        (None, _) => 0,
    };
    if let Some(key) = &config.key
        && (key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control))
    {
        return wrong(format!("`key` is 1 to {LONGEST_KEY} bytes of text without control characters"));
    }
    let store = store(&config)?;
    let settings = Settings { counting: kind, rate, per, burst, store };
    Ok(Parsed { settings, key: config.key, when_limited: config.when_limited })
}

fn store(config: &Config) -> Result<Option<StoreSettings>> {
    let Some(url) = &config.url else {
        let without = [
            ("ca_file", config.ca_file.is_some()),
            ("on_failure", config.on_failure.is_some()),
            ("store_timeout", config.store_timeout.is_some()),
            ("lease", config.lease.is_some()),
        ];
        return match without.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => wrong(format!("`{key}` goes with `url`, which is not set")),
            None => Ok(None),
        };
    };
    let kind = config.limiter;
    if !matches!(kind, Counting::SlidingWindow | Counting::Concurrent) {
        return wrong(format!(
            "`url` goes with `sliding_window` and `concurrent`: a `{}` is kept within the process",
            kind.name()
        ));
    }
    check_url(url, config.ca_file.is_some())?;
    let second = Duration::from_secs(1);
    let timeout = match config.store_timeout {
        Some(span) => span_within("store_timeout", span.0, Duration::from_millis(1), LONGEST_STORE_TIMEOUT)?,
        None => STORE_TIMEOUT,
    };
    let lease = match (config.lease, kind) {
        (Some(span), Counting::Concurrent) => span_within("lease", span.0, second, 86_400 * second)?,
        (Some(_), _) => return wrong(format!("`lease` goes with `concurrent`, not with `{}`", kind.name())),
        (None, _) => LEASE,
    };
    Ok(Some(StoreSettings {
        url: url.clone(),
        ca_file: config.ca_file.clone(),
        on_failure: config.on_failure.unwrap_or_default(),
        timeout,
        lease,
    }))
}

#[cfg(feature = "redis")]
fn check_url(url: &Secret, ca_file: bool) -> Result<()> {
    let target = super::store::Target::parse(url)?;
    if ca_file && !target.tls() {
        return wrong("`ca_file` goes with a `rediss` URL");
    }
    Ok(())
}

#[cfg(not(feature = "redis"))]
fn check_url(_: &Secret, _: bool) -> Result<()> {
    wrong("`url`: this build has no Redis (the feature `redis`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(section: Value) -> Result<Parsed> {
        let Value::Object(section) = section else { panic!("no object") };
        parse(section)
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let window = |more: Value| {
            let mut section = json!({"limiter": "sliding_window", "rate": 5, "per": "1s"});
            section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            section
        };
        let redis = "redis://127.0.0.1";
        for (section, key) in [
            (json!({"rate": 5, "per": "1s"}), "limiter"),
            (json!({"limiter": "sliding", "rate": 5, "per": "1s"}), "limiter"),
            (json!({"limiter": "sliding_window", "per": "1s"}), "rate"),
            (json!({"limiter": "sliding_window", "rate": 5}), "`per`"),
            (window(json!({"rate": 0})), "`rate`"),
            (window(json!({"rate": 1_000_001})), "`rate`"),
            (window(json!({"rate": -1})), "rate"),
            (window(json!({"per": "0s"})), "`per`"),
            (window(json!({"per": "500us"})), "`per`"),
            (window(json!({"per": "367d"})), "`per`"),
            (window(json!({"burst": 2})), "`burst`"),
            (window(json!({"key": ""})), "`key`"),
            (window(json!({"key": "a\nb"})), "`key`"),
            (window(json!({"key": "k".repeat(257)})), "`key`"),
            (window(json!({"when_limited": "later"})), "when_limited"),
            (window(json!({"lease": "9s"})), "`lease`"),
            (window(json!({"on_failure": "open"})), "`on_failure`"),
            (window(json!({"store_timeout": "1s"})), "`store_timeout`"),
            (window(json!({"ca_file": "/x"})), "`ca_file`"),
            (window(json!({"window": 9})), "`window`"),
            (json!({"limiter": "concurrent", "rate": 5, "per": "1s"}), "`per`"),
            (json!({"limiter": "token_bucket", "rate": 5, "per": "1s", "burst": 0}), "`burst`"),
            (json!({"limiter": "token_bucket", "rate": 5, "per": "1s", "url": redis}), "`url`"),
            (json!({"limiter": "fixed_window", "rate": 5, "per": "1s", "url": redis}), "`url`"),
            (json!({"limiter": "leaky_bucket", "rate": 5, "per": "1s", "url": redis}), "`url`"),
            (window(json!({"url": "http://127.0.0.1"})), "`url`"),
            #[cfg(feature = "redis")]
            (window(json!({"url": redis, "lease": "9s"})), "`lease`"),
            #[cfg(feature = "redis")]
            (window(json!({"url": redis, "ca_file": "/x"})), "`ca_file`"),
            #[cfg(feature = "redis")]
            (window(json!({"url": redis, "store_timeout": "0s"})), "`store_timeout`"),
            (json!({"limiter": "concurrent", "rate": 10_001, "url": redis}), "`rate`"),
        ] {
            let error = parsed(section.clone()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig, "{section}");
            assert!(error.message().contains(key), "{section}: {error}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let bucket = parsed(json!({"limiter": "token_bucket", "rate": 5, "per": "1s"})).unwrap();
        assert_eq!((bucket.settings.burst, bucket.when_limited), (5, WhenLimited::Fail));
        assert_eq!(bucket.key, None);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_has_defaults_and_its_url_never_prints() {
        let url = "redis://:hunter2@127.0.0.1:6380/3";
        let parsed = parsed(json!({"limiter": "concurrent", "rate": 5, "url": url})).unwrap();
        assert!(!format!("{parsed:?}").contains("hunter2"));
        let store = parsed.settings.store.unwrap();
        assert_eq!(store.on_failure, OnFailure::Closed);
        assert_eq!((store.timeout, store.lease), (STORE_TIMEOUT, LEASE));
    }
}
