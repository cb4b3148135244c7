//! Sends again what failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::accepted::{Accepted, Again};
use super::backoff::Backoff;
use super::budget::{self, Budget};
use super::layer::{Layer, Strategy};
use super::or_else::OrElse;
use super::random::Random;
use super::tried::Tried;
use super::{OnUnknown, Setup};
use crate::client::{BoxFuture, Context, Producer};
use crate::config::from_value;
use crate::error::{Error, Kind, Outcome, Result, Whole};
use crate::message::{Message, Receipt};

/// The most attempts: an error holds each of them.
const MAX_ATTEMPTS: u32 = 100;

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A strategy with `"type": "retry"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Attempts in all, 1 to 100.
    max_attempts: u32,
    /// The wait between them; none unless set.
    #[serde(default)]
    backoff: Backoff,
    /// Which errors are tried again.
    #[serde(default)]
    retry_on: RetryOn,
    /// What follows when it is unknown whether an attempt sent the message.
    #[serde(default)]
    on_unknown: OnUnknown,
    /// How much of the traffic may be retries; all of it unless set.
    #[serde(default)]
    budget: Option<budget::Config>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RetryOn {
    /// Those that say that a retry may help.
    #[default]
    Retryable,
    /// All but those of the caller: cancelled, closed, and the passed deadline.
    Any,
}

fn parse(section: Map<String, Value>) -> Result<(Config, Option<Budget>)> {
    let config: Config = from_value(Value::Object(section))?;
    if !(1..=MAX_ATTEMPTS).contains(&config.max_attempts) {
        let text = format!(
            "`max_attempts` is 1 to {MAX_ATTEMPTS}, the first attempt included, not {}",
            config.max_attempts
        );
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    config.backoff.check()?;
    let budget = config.budget.map(Budget::new).transpose()?;
    Ok((config, budget))
}

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

pub(super) fn wrap(
    setup: &Setup,
    section: Map<String, Value>,
    inner: Arc<dyn Producer>,
) -> Result<Arc<dyn Producer>> {
    let (config, budget) = parse(section)?;
    let strategy = Retry {
        id: setup.id.clone(),
        config,
        budget,
        random: setup.random.clone(),
        attempts: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        waited_ms: AtomicU64::new(0),
        given_up: AtomicU64::new(0),
        refused_by_budget: AtomicU64::new(0),
    };
    Ok(Arc::new(Layer { name: setup.name.clone(), strategy, inner }))
}

struct Retry {
    id: Arc<str>,
    config: Config,
    budget: Option<Budget>,
    random: Random,
    attempts: AtomicU64,
    retries: AtomicU64,
    waits: AtomicU64,
    waited_ms: AtomicU64,
    given_up: AtomicU64,
    refused_by_budget: AtomicU64,
}

impl Strategy for Retry {
    const TYPE: &'static str = "retry";

    fn send<'a>(
        &'a self,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>> {
        let first = move |message| {
            if let Some(budget) = &self.budget {
                budget.send();
            }
            self.attempts.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(id = %self.id, strategy = Self::TYPE, attempt = 1, "tries");
            inner.send(ctx, message)
        };
        let then = move |accepted, error| -> BoxFuture<'a, Result<Receipt>> {
            Box::pin(self.again(inner, ctx, accepted, error))
        };
        Box::pin(OrElse::new(message, first, then))
    }

    fn state(&self) -> Value {
        let mut state = json!({
            "max_attempts": self.config.max_attempts,
            "attempts": self.attempts.load(Ordering::Relaxed),
            "retries": self.retries.load(Ordering::Relaxed),
            "waits": self.waits.load(Ordering::Relaxed),
            "waited_ms": self.waited_ms.load(Ordering::Relaxed),
            "given_up": self.given_up.load(Ordering::Relaxed),
        });
        if let (Some(budget), Some(state)) = (&self.budget, state.as_object_mut()) {
            let refused = self.refused_by_budget.load(Ordering::Relaxed);
            state.insert("budget_left".into(), json!(budget.left()));
            state.insert("refused_by_budget".into(), json!(refused));
        }
        state
    }
}

impl Retry {
    async fn again(
        &self,
        inner: &Arc<dyn Producer>,
        ctx: &Context,
        accepted: Accepted,
        first: Error,
    ) -> Result<Receipt> {
        let mut waits = self.config.backoff.waits(&self.random);
        let mut tried = Tried::new(accepted);
        let mut error = first;
        for number in 2..=self.config.max_attempts {
            let failed_at = Instant::now();
            add(&mut tried, &error);
            if let Some(why) = self.stops(ctx, &error) {
                return Err(self.give_up(tried, error, why));
            }
            let again = match self.config.retry_on {
                RetryOn::Retryable => Again::Retryable,
                RetryOn::Any => Again::Any,
            };
            if let Err(why) = tried.go_on(&error, again) {
                return Err(self.give_up(tried, error, why));
            }
            let wait = waits.draw().max(error.retry_after().unwrap_or_default());
            if !wait.is_zero() {
                // The other side may ask for more time than the clock has.
                let Some(until) = failed_at.checked_add(wait).filter(|_| wait <= LONGEST) else {
                    return Err(self.give_up(tried, error, "the wait is longer than a year"));
                };
                if ctx.deadline().is_some_and(|deadline| deadline <= until) {
                    return Err(self.give_up(tried, error, "the wait would pass the deadline"));
                }
                self.waits.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(id = %self.id, strategy = Self::TYPE, attempt = number, ?wait, "waits");
                let ended = ctx.run(tokio::time::sleep_until(until)).await;
                self.waited_ms.fetch_add(millis(failed_at.elapsed()), Ordering::Relaxed);
                // Where this thread was late the wait may be over, and the caller's time too.
                if let Err(ended) = ended.and_then(|()| ctx.check()) {
                    return Err(self.give_up(tried, ended, "the caller's time is over"));
                }
            }
            if self.budget.as_ref().is_some_and(|budget| !budget.retry()) {
                self.refused_by_budget.fetch_add(1, Ordering::Relaxed);
                return Err(self.give_up(tried, error, "the budget of retries is used up"));
            }
            self.attempts.fetch_add(1, Ordering::Relaxed);
            self.retries.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(id = %self.id, strategy = Self::TYPE, attempt = number, after = %error, "tries again");
            match inner.send(ctx, tried.now()).await {
                Ok(receipt) => return tried.sent(receipt),
                Err(next) => error = next,
            }
        }
        add(&mut tried, &error);
        Err(self.give_up(tried, error, ""))
    }

    // Why this error is not tried again, where it is not.
    fn stops(&self, ctx: &Context, error: &Error) -> Option<&'static str> {
        if ctx.check().is_err() || matches!(error.kind(), Kind::Cancelled | Kind::Closed) {
            return Some("the caller's time is over");
        }
        if error.outcome() == Outcome::Unknown && self.config.on_unknown == OnUnknown::Stop {
            return Some("whether it was sent is unknown, and `on_unknown` says stop");
        }
        match self.config.retry_on {
            RetryOn::Retryable if !error.retryable() => Some("a retry cannot help"),
            _ => None,
        }
    }

    // Kind and wait are those of the last attempt.
    fn give_up(&self, tried: Tried, last: Error, why: &'static str) -> Error {
        self.given_up.fetch_add(1, Ordering::Relaxed);
        let attempts = tried.count();
        tracing::debug!(id = %self.id, strategy = Self::TYPE, attempts, why, "gives up");
        if tried.is_only(&last) {
            return last;
        }
        let mut text = format!("{} after {attempts} attempts", last.message());
        if !why.is_empty() {
            text.push_str(&format!(" ({why})"));
        }
        let error = tried.into_error(last.kind(), text, &last);
        let error = match last.retry_after() {
            Some(wait) => error.after(wait),
            None => error,
        };
        error.caused_by(last)
    }
}

fn add(tried: &mut Tried, error: &Error) {
    let number = tried.count() + 1;
    tried.failed(Whole::Attempt, number.to_string(), error);
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
