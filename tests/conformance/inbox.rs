//! Where the messages of a provider arrive that only sends: the cases take it for a consumer.

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{BoxFuture, Capability, Consumer, Context};
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::message::{Delivery, Message};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What the other side accepted: from the first of these numbers on, and at most so many.
pub(crate) type Arrived = Arc<dyn Fn(usize, usize) -> Vec<Message> + Send + Sync>;

/// Each message that the other side accepted, once, as a delivery.
pub(crate) struct Inbox {
    arrived: Arrived,
    // How many were received, by whichever inbox of this other side.
    taken: Arc<tokio::sync::Mutex<usize>>,
    closed: CancellationToken,
}

impl Inbox {
    pub(crate) fn new(arrived: Arrived, taken: &Arc<tokio::sync::Mutex<usize>>) -> Inbox {
        Inbox { arrived, taken: taken.clone(), closed: CancellationToken::new() }
    }

    async fn next(&self, max: usize) -> Vec<Delivery> {
        loop {
            {
                let mut taken = self.taken.lock().await;
                let messages = (self.arrived)(*taken, max);
                if !messages.is_empty() {
                    *taken += messages.len();
                    return messages.into_iter().map(delivery).collect();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn delivery(message: Message) -> Delivery {
    Delivery { message, topic: "inbox".into(), code: "".into(), created: None, attempt: None }
}

fn unsupported(codes: &[Arc<str>]) -> Vec<Result<()>> {
    codes.iter().map(|_| Err(Error::new(Kind::Unsupported, "an inbox has no acks"))).collect()
}

impl Consumer for Inbox {
    fn provider(&self) -> &'static str {
        "inbox"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => Err(Error::new(Kind::Closed, "the inbox is closed")),
                came = ctx.run(self.next(max)) => match came {
                    Err(error) if error.kind() == Kind::Timeout => Ok(Vec::new()),
                    came => came,
                },
            }
        })
    }

    fn ack<'a>(&'a self, _: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move { unsupported(&codes) })
    }

    fn nack<'a>(
        &'a self,
        _: &'a Context,
        codes: Vec<Arc<str>>,
        _: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move { unsupported(&codes) })
    }

    fn status(&self) -> Value {
        json!({"state": "connected"})
    }

    fn close<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.closed.cancel();
            Ok(())
        })
    }
}
