//! An open producer as a member of a strategy of another client.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{ProducerClient, clients};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::Result;
use crate::message::{Message, Receipt};
use crate::registry::Hold;

/// Sends through a client that stays open for others; closing this lets go of it.
struct Held {
    client: Arc<ProducerClient>,
    hold: Mutex<Option<Hold>>,
}

/// The open producer with this id, held for `holder`.
pub(super) fn hold(id: &str, holder: &Arc<str>) -> Result<Arc<dyn Producer>> {
    let (client, hold) = clients()?.producers.hold(id, holder)?;
    Ok(Arc::new(Held { client, hold: Mutex::new(Some(hold)) }))
}

impl Producer for Held {
    fn provider(&self) -> &'static str {
        self.client.producer.provider()
    }

    fn capability(&self) -> Capability {
        self.client.producer.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(self.client.send(ctx, message))
    }

    // What was sent through it is waited for by the strategy; the rest is not its own.
    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Value {
        self.client.producer.status()
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        drop(self.hold.lock().take());
        Box::pin(async { Ok(()) })
    }
}
