//! A stack of strategies with its own bound on the sends under way: those that a provider counts are not all of them
//! where a strategy above it holds some back, and strategies over members have no provider.

use std::sync::Arc;

use serde_json::Value;

use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::Result;
use crate::intake::{Limits, Room};
use crate::message::{Message, Receipt};

/// The producer, with as much room as the limits say. A send that finds none is `queue_full`, at once or at its deadline:
/// see [`crate::intake::Whose`].
pub fn within(producer: Arc<dyn Producer>, limits: &Limits) -> Arc<dyn Producer> {
    Arc::new(Within { producer, room: Room::new(limits) })
}

struct Within {
    producer: Arc<dyn Producer>,
    room: Room,
}

impl Producer for Within {
    fn provider(&self) -> &'static str {
        self.producer.provider()
    }

    fn capability(&self) -> Capability {
        self.producer.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let room = self.room.enter(ctx, &message).await;
            let _room = room.map_err(|error| error.by(self.producer.provider()))?;
            self.producer.send(ctx, message).await
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.producer.flush(ctx)
    }

    fn status(&self) -> Value {
        self.producer.status()
    }

    fn control(&self, command: &Value) -> Result<Value> {
        self.producer.control(command)
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.producer.close(ctx)
    }
}
