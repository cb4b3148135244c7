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

/// The open producer with this id, held for `holder`, and how many strategies a message passes in it.
pub(super) fn hold(id: &str, holder: &Arc<str>) -> Result<(Arc<dyn Producer>, usize)> {
    let (client, hold) = clients()?.producers.hold(id, holder)?;
    let layers = client.layers;
    Ok((Arc::new(Held { client, hold: Mutex::new(Some(hold)) }), layers))
}

impl Producer for Held {
    fn provider(&self) -> &'static str {
        self.client.producer.provider()
    }

    fn capability(&self) -> Capability {
        self.client.producer.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            // The strategy may go on elsewhere: it needs the failure at once, and not at the end of its own time.
            let ctx = ctx.clone().at_most(self.client.deadline).failing_when_disconnected().without_room();
            self.client.send(&ctx, message).await
        })
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
