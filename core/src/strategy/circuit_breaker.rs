//! Stops sending for a while when sends fail, and tries with a few before it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Setup;
use super::breaker::{Breaker, Pass, Rules, State, Trip, Verdict};
use super::layer::{Layer, Strategy};
use super::sync::Lock;
use crate::client::{BoxFuture, Context, Producer};
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// A strategy with `"type": "circuit_breaker"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Opens after this many failures in a row.
    #[serde(default)]
    consecutive: Option<u32>,
    /// Opens when this share of the sends of the window failed: more than 0, at most 1.
    #[serde(default)]
    failure_rate: Option<f64>,
    /// With `failure_rate`: the window.
    #[serde(default)]
    window: Option<Span>,
    /// With `failure_rate`: sends in the window below which it stays closed.
    #[serde(default)]
    min_sends: Option<u32>,
    /// How long it stays open.
    #[serde(default = "open_for")]
    open_for: Span,
    /// Sends that probe at once when it has been open, and that must all go well to close it.
    #[serde(default = "probes")]
    probes: u32,
}

fn open_for() -> Span {
    Span(Duration::from_secs(30))
}

fn probes() -> u32 {
    1
}

fn parse(section: Map<String, Value>) -> Result<Rules> {
    let config: Config = from_value(Value::Object(section))?;
    let wrong = |text: &str| Err(Error::new(Kind::InvalidConfig, text));
    if config.probes == 0 || config.open_for.0.is_zero() {
        return wrong("`probes` must be at least 1, and `open_for` longer than 0");
    }
    let window = config.window.map_or(Duration::from_secs(10), |span| span.0);
    let trip = match (config.consecutive, config.failure_rate) {
        (Some(0), _) => return wrong("`consecutive` must be at least 1"),
        (Some(_), None) if config.window.is_some() || config.min_sends.is_some() => {
            return wrong("`window` and `min_sends` belong to `failure_rate`, not to `consecutive`");
        }
        (Some(most), None) => Trip::Consecutive(most),
        (None, Some(share)) if share > 0.0 && share <= 1.0 && !window.is_zero() => {
            Trip::Rate { share, least: config.min_sends.unwrap_or(20).max(1), window }
        }
        (None, Some(_)) => {
            return wrong("`failure_rate` is more than 0 and at most 1, and `window` is longer than 0");
        }
        _ => return wrong("name either `consecutive` or `failure_rate`"),
    };
    Ok(Rules { trip, open_for: config.open_for.0, probes: config.probes })
}

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

pub(super) fn wrap(
    setup: &Setup,
    section: Map<String, Value>,
    inner: Arc<dyn Producer>,
) -> Result<Arc<dyn Producer>> {
    let strategy = CircuitBreaker {
        id: setup.id.clone(),
        breaker: Lock::new(Breaker::new(parse(section)?)),
        started: Instant::now(),
        refused: AtomicU64::new(0),
        opened: AtomicU64::new(0),
    };
    Ok(Arc::new(Layer { name: setup.name.clone(), strategy, inner }))
}

struct CircuitBreaker {
    id: Arc<str>,
    breaker: Lock<Breaker>,
    started: Instant,
    refused: AtomicU64,
    opened: AtomicU64,
}

/// A send under way. One that is dropped, because its caller went away, says nothing and gives its place back.
struct UnderWay<'a> {
    strategy: &'a CircuitBreaker,
    pass: Pass,
    verdict: Verdict,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let strategy = self.strategy;
        let now = || strategy.started.elapsed();
        let change = strategy.breaker.with(|breaker| breaker.report(self.pass, self.verdict, now));
        if let Some(state) = change {
            if state == State::Open {
                self.strategy.opened.fetch_add(1, Ordering::Relaxed);
            }
            let id = &self.strategy.id;
            tracing::warn!(%id, strategy = CircuitBreaker::TYPE, state = state.name(), "changes");
        }
    }
}

/// What an error says of the other side: nothing, when it is the caller's or our own bounds', or when some of the
/// recipients have the message.
fn verdict(error: &Error) -> Verdict {
    match error.kind() {
        // As bad as the worst of them: a message that no member takes is no fault of theirs.
        Kind::AllFailed if !error.parts().is_empty() => {
            let bad = error.parts().iter().filter_map(|part| part.error.as_ref());
            if bad.map(verdict).any(|verdict| verdict == Verdict::Bad) { Verdict::Bad } else { Verdict::None }
        }
        Kind::Partial
        | Kind::InvalidArgument
        | Kind::InvalidConfig
        | Kind::Unsupported
        | Kind::TooLarge
        | Kind::Cancelled
        | Kind::Closed
        | Kind::Limited
        | Kind::QueueFull
        | Kind::CircuitOpen
        | Kind::WouldDeadlock
        | Kind::Forked => Verdict::None,
        _ => Verdict::Bad,
    }
}

impl Strategy for CircuitBreaker {
    const TYPE: &'static str = "circuit_breaker";

    fn send<'a>(
        &'a self,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let pass = match self.breaker.with(|breaker| breaker.ask(|| self.started.elapsed())) {
                Ok(pass) => pass,
                Err(wait) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(id = %self.id, strategy = Self::TYPE, "refuses");
                    let error =
                        Error::new(Kind::CircuitOpen, "the circuit breaker is open: too many sends failed")
                            .by(inner.provider());
                    return Err(if wait.is_zero() { error } else { error.after(wait) });
                }
            };
            if pass.half_opens {
                let state = State::HalfOpen.name();
                tracing::warn!(id = %self.id, strategy = Self::TYPE, state, "changes");
            }
            let mut under_way = UnderWay { strategy: self, pass, verdict: Verdict::None };
            let result = inner.send(ctx, message).await;
            under_way.verdict = match &result {
                Ok(_) => Verdict::Good,
                // The caller's own deadline may be as short as he likes; `timeout` below says what is too long.
                Err(error) if error.kind() == Kind::Timeout && ctx.check().is_err() => Verdict::None,
                Err(error) => verdict(error),
            };
            drop(under_way);
            result
        })
    }

    fn state(&self) -> Value {
        let (state, (in_a_row, good, bad)) = self.breaker.with(|breaker| (breaker.state(), breaker.seen()));
        json!({
            "state": state.name(),
            "failures_in_a_row": in_a_row,
            "window": {"good": good, "bad": bad},
            "refused": self.refused.load(Ordering::Relaxed),
            "opened": self.opened.load(Ordering::Relaxed),
        })
    }

    fn control(&self, command: &Map<String, Value>) -> Result<Value> {
        let state = match command.get("state").and_then(Value::as_str) {
            Some("open") => State::ForcedOpen,
            Some("closed") => State::ForcedClosed,
            Some("auto") => State::Closed,
            _ => {
                let text = "`state` is `open` or `closed`, both until it is `auto` again";
                return Err(Error::new(Kind::InvalidArgument, text));
            }
        };
        self.breaker.with(|breaker| breaker.force(state, self.started.elapsed()));
        tracing::warn!(id = %self.id, strategy = Self::TYPE, state = state.name(), "is set");
        Ok(json!({"state": state.name()}))
    }
}
