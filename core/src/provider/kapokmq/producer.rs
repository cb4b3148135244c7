//! A producer as its callers see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::engine::{Command, Engine};
use super::section::{Place, Settings};
use super::{MAX_FRAME, PROVIDER};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::config::Connect;
use crate::error::Result;
use crate::intake::Intake;
use crate::message::{Message, Receipt};
use crate::provider::Setup;
use crate::provider::socket::{Board, Dialer, Front, Phase, opened};

/// Flushes that may wait for the task to see them.
const COMMANDS: usize = 64;

struct KapokProducer {
    front: Front,
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
    topic: Arc<str>,
    cluster: bool,
}

/// Starts the task, and unless open is lazy waits for the first connection.
pub(super) async fn open(
    setup: &Setup,
    settings: Settings,
    dialer: Arc<Dialer>,
) -> Result<Arc<dyn Producer>> {
    let (topic, label, cluster): (_, Arc<str>, _) = match &settings.place {
        Place::One(target) => (settings.topic.clone(), target.label.clone(), false),
        Place::Cluster { registry, .. } => (
            settings.topic.clone(),
            format!("a node of {}", registry.as_str().trim_end_matches('/')).into(),
            true,
        ),
    };
    let front = Front::new(PROVIDER, setup.limits);
    let (commands, requests) = mpsc::channel(COMMANDS);
    let (phase, mut opening) = watch::channel(Phase::Starting(None));
    let board = Arc::new(Board::default());
    let asked = (front.intake.clone(), requests, front.stop.clone());
    let engine = Engine::new(setup, settings, dialer, asked, board.clone(), phase)?;
    front.run(engine.run());
    let producer = Arc::new(KapokProducer { front, commands, board, topic, cluster });
    if setup.connect == Connect::Eager {
        // Dropped on failure, and also when the caller gives up: that stops the task.
        opened(&mut opening, PROVIDER, &label, setup.connect_timeout).await?;
    }
    Ok(producer)
}

impl Producer for KapokProducer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        let extended = self.board.extended.load(Ordering::Relaxed);
        Capability {
            delay_unit: Some(Duration::from_secs(1)),
            binary_body: false,
            ordered: !self.cluster,
            message_id: extended,
            ack: true,
            nack: extended,
            attempt: extended,
            redelivery: true,
            // Less when characters of it have to be escaped.
            max_body: Some(MAX_FRAME as u64 - 64),
        }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(self.front.intake.send(ctx, Message::clone(&message)))
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (done, flushed) = oneshot::channel();
            let waits = async {
                if self.commands.send(Command::Flush(done)).await.is_ok() {
                    // Dropped by a task that ended, and with it every call.
                    let _ = flushed.await;
                }
            };
            ctx.run(waits).await.map_err(|error| error.by(PROVIDER))
        })
    }

    fn status(&self) -> Value {
        self.board.producer(PROVIDER, &self.topic, self.front.intake.under_way())
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.front.close(ctx))
    }

    fn intake(&self) -> Option<&Arc<Intake>> {
        Some(&self.front.intake)
    }
}
