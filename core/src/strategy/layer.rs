//! A strategy around one producer: what each of them has in common.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

/// What one strategy does with the producer below it.
pub(super) trait Strategy: Send + Sync + 'static {
    /// The `type` in a config.
    const TYPE: &'static str;

    /// Sends through `inner`.
    fn send<'a>(
        &'a self,
        inner: &'a Arc<dyn Producer>,
        ctx: &'a Context,
        message: Arc<Message>,
    ) -> BoxFuture<'a, Result<Receipt>>;

    /// Its live state: an object without `type` and `name`.
    fn state(&self) -> Value;

    /// Ends what it still does, once the producer below is closed.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()> {
        let _ = ctx;
        Box::pin(std::future::ready(()))
    }

    /// Changes its live state; see the module of the strategies.
    fn control(&self, command: &Map<String, Value>) -> Result<Value> {
        let _ = command;
        Err(Error::new(Kind::Unsupported, format!("a {} takes no control commands", Self::TYPE)))
    }
}

/// A producer that is a strategy over another.
pub(super) struct Layer<S> {
    pub(super) name: Arc<str>,
    pub(super) strategy: S,
    pub(super) inner: Arc<dyn Producer>,
}

impl<S: Strategy> Producer for Layer<S> {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        self.strategy.send(&self.inner, ctx, message)
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.inner.flush(ctx)
    }

    fn status(&self) -> Value {
        stacked(S::TYPE, &self.name, self.strategy.state(), self.inner.status())
    }

    fn control(&self, command: &Value) -> Result<Value> {
        match addressed(command, &self.name)? {
            Some(command) => self.strategy.control(command),
            None => self.inner.control(command),
        }
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let closed = self.inner.close(ctx).await;
            self.strategy.close(ctx).await;
            closed
        })
    }
}

/// The status of a stack: what is below, with this strategy in front of its `strategies`.
pub(super) fn stacked(kind: &str, name: &str, state: Value, below: Value) -> Value {
    let mut own = json!({"type": kind});
    if let Some(own) = own.as_object_mut() {
        if name != kind {
            own.insert("name".into(), json!(name));
        }
        if let Value::Object(state) = state {
            own.extend(state);
        }
    }
    let mut below = match below {
        Value::Object(below) => below,
        _ => Map::new(),
    };
    match below.get_mut("strategies") {
        Some(Value::Array(strategies)) => strategies.insert(0, own),
        _ => {
            below.insert("strategies".into(), json!([own]));
        }
    }
    Value::Object(below)
}

/// The command, when it is for the strategy of this name.
///
/// # Errors
/// `invalid_argument` when it names no strategy.
pub(super) fn addressed<'a>(command: &'a Value, name: &str) -> Result<Option<&'a Map<String, Value>>> {
    let named = command.as_object().and_then(|command| {
        command.get("strategy").and_then(Value::as_str).map(|strategy| (command, strategy))
    });
    match named {
        Some((command, strategy)) => Ok((strategy == name).then_some(command)),
        None => Err(Error::new(
            Kind::InvalidArgument,
            "a control command is an object that names its `strategy`, such as {\"strategy\": \"failover\", \
             \"current\": 0}",
        )),
    }
}
