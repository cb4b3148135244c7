//! Bounds the time of a send: of each attempt inside a retry, of all of them outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Setup;
use super::bounded;
use super::layer::{Layer, Strategy};
use crate::client::{BoxFuture, Context, Producer};
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// A strategy with `"type": "timeout"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The longest a send may take, longer than 0.
    after: Span,
}

fn parse(section: Map<String, Value>) -> Result<Config> {
    let config: Config = from_value(Value::Object(section))?;
    if config.after.0.is_zero() {
        return Err(Error::new(Kind::InvalidConfig, "`after` must be longer than 0"));
    }
    Ok(config)
}

pub(super) fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

pub(super) fn wrap(
    setup: &Setup,
    section: Map<String, Value>,
    inner: Arc<dyn Producer>,
) -> Result<Arc<dyn Producer>> {
    let config = parse(section)?;
    let strategy = Timeout { id: setup.id.clone(), after: config.after.0, timeouts: AtomicU64::new(0) };
    Ok(Arc::new(Layer { name: setup.name.clone(), strategy, inner }))
}

struct Timeout {
    id: Arc<str>,
    after: Duration,
    timeouts: AtomicU64,
}

impl Strategy for Timeout {
    const TYPE: &'static str = "timeout";

    fn send<'a>(
        &'a self,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>> {
        // The caller's own deadline is no news of this strategy.
        let late = |_: &Error| {
            self.timeouts.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(id = %self.id, strategy = "timeout", after = ?self.after, "timed out");
        };
        Box::pin(bounded::send(inner, ctx, || Instant::now() + self.after, message, late))
    }

    fn state(&self) -> Value {
        let after = u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX);
        json!({"after_ms": after, "timeouts": self.timeouts.load(Ordering::Relaxed)})
    }
}
