//! Strategies: producers that wrap other producers. They nest in any order; the first listed is outermost.
//!
//! Each file holds one strategy: its section of a config (`check`, `wrap` or `group`), what it does with a send, and
//! the state that `status` shows. Time is tokio's, which tests pause; randomness is a [`Random`].
//!
//! A control command is an object: `strategy` names the strategy it is for (its `name` in the config, or its `type`
//! where it has none; of several with the same name the outermost), the other keys are that strategy's own.

mod accepted;
mod backoff;
mod bounded;
mod breaker;
mod budget;
mod current;
mod layer;
mod member;
mod or_else;
mod recipients;
mod sync;
mod timed;
mod tried;
mod within;

mod circuit_breaker;
mod failover;
mod fan_out;
mod rate_limit;
mod retry;
mod timeout;
mod timeout_failover;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::Producer;
use crate::config::nearest;
use crate::error::{Error, Kind, Result};
use crate::random;

pub use member::Member;
pub use random::Random;
pub use within::within;

/// The strategies by the `type` in a config.
pub const NAMES: [&str; 7] =
    ["circuit_breaker", "failover", "fan_out", "rate_limit", "retry", "timeout", "timeout_failover"];

/// The strategies that have members of their own.
pub const WITH_MEMBERS: [&str; 3] = ["failover", "fan_out", "timeout_failover"];

/// What every strategy is opened with, beside its own section of the config.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The id of the client, for events.
    pub id: Arc<str>,
    /// What control commands call it.
    pub name: Arc<str>,
    /// Where waits are drawn from.
    pub random: Random,
}

/// What follows when it is unknown whether an attempt sent the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnUnknown {
    /// Another attempt: the message may arrive twice.
    #[default]
    Again,
    /// The error: the message may never arrive.
    Stop,
}

/// The `type` and the `name` of a strategy's section, the section without them, and its members where it has some.
#[derive(Debug)]
pub struct Section {
    /// The `type`.
    pub kind: &'static str,
    /// The `name`, or the type.
    pub name: Arc<str>,
    /// The rest but `members`.
    pub rest: Map<String, Value>,
    /// `members`, as they stand in the config; `None` for a strategy without.
    pub members: Option<Vec<Value>>,
}

impl Section {
    /// Reads the keys that all strategies share.
    ///
    /// # Errors
    /// `invalid_config`: the type is missing or unknown, or `members` is no list.
    pub fn parse(mut section: Map<String, Value>) -> Result<Section> {
        let wrong = |text: String| Error::new(Kind::InvalidConfig, text);
        let kind = match section.remove("type") {
            Some(Value::String(kind)) => kind,
            _ => return Err(wrong(format!("a strategy names its `type`, one of: {}", NAMES.join(", ")))),
        };
        let Some(kind) = NAMES.into_iter().find(|name| *name == kind) else {
            let hint = nearest(&kind, &NAMES).map(|name| format!(" (did you mean `{name}`?)"));
            let known = NAMES.join(", ");
            return Err(wrong(format!(
                "unknown strategy `{kind}`; known are: {known}{}",
                hint.unwrap_or_default()
            )));
        };
        let name = match section.remove("name") {
            None => kind.into(),
            Some(Value::String(name)) if !name.is_empty() => name.into(),
            Some(_) => return Err(wrong(format!("`name` of the {kind} must be a text"))),
        };
        let members = match (WITH_MEMBERS.contains(&kind), section.remove("members")) {
            (true, Some(Value::Array(members))) => Some(members),
            (true, None) => Some(Vec::new()),
            (true, Some(_)) => return Err(wrong(format!("`members` of the {kind} must be a list"))),
            (false, Some(_)) => return Err(wrong(format!("a {kind} takes no `members`"))),
            (false, None) => None,
        };
        Ok(Section { kind, name, rest: section, members })
    }

    /// Checks the keys of the strategy itself.
    ///
    /// # Errors
    /// `invalid_config`, naming the key.
    pub fn check(&self) -> Result<()> {
        let rest = self.rest.clone();
        match self.kind {
            "circuit_breaker" => circuit_breaker::check(rest),
            "failover" => failover::check(rest),
            "fan_out" => fan_out::check(rest),
            "rate_limit" => rate_limit::check(rest),
            "retry" => retry::check(rest),
            "timeout" => timeout::check(rest),
            _ => timeout_failover::check(rest),
        }
        .map_err(|error| {
            Error::new(error.kind(), format!("strategy `{}`: {}", self.name, error.message()))
                .caused_by(error)
        })
    }

    /// Wraps a producer in a strategy that has no members.
    ///
    /// # Errors
    /// `invalid_config`.
    pub fn wrap(self, setup: &Setup, inner: Arc<dyn Producer>) -> Result<Arc<dyn Producer>> {
        self.check()?;
        match self.kind {
            "circuit_breaker" => circuit_breaker::wrap(setup, self.rest, inner),
            "rate_limit" => rate_limit::wrap(setup, self.rest, inner),
            "retry" => retry::wrap(setup, self.rest, inner),
            "timeout" => timeout::wrap(setup, self.rest, inner),
            other => {
                Err(Error::new(Kind::Internal, format!("a {other} has members and cannot wrap one producer")))
            }
        }
    }

    /// Makes one producer of several.
    ///
    /// # Errors
    /// `invalid_config`.
    pub fn group(self, setup: &Setup, members: Vec<Member>) -> Result<Arc<dyn Producer>> {
        self.check()?;
        if members.is_empty() {
            let text = format!("strategy `{}`: `members` is empty: name at least one", self.name);
            return Err(Error::new(Kind::InvalidConfig, text));
        }
        match self.kind {
            "failover" => failover::group(setup, self.rest, members),
            "fan_out" => fan_out::group(setup, self.rest, members),
            "timeout_failover" => timeout_failover::group(setup, self.rest, members),
            other => Err(Error::new(Kind::Internal, format!("a {other} has no members"))),
        }
    }
}

#[cfg(test)]
#[cfg(not(ceiba_loom))]
mod tests;
