//! A consumer as its callers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Phase, error_json, opened};
use super::connection::Connection;
use super::dial::Dialer;
use super::inbox::{Inbox, Word};
use super::keys::{Pace, Prefetch};
use super::receiver::Receiver;
use super::target::Target;
use super::{Dialect, Extension, Speech};
use crate::client::{BoxFuture, Capability, Consumer, Context};
use crate::config::{Connect, WhenDisconnected};
use crate::error::{Error, Kind, Result};
use crate::message::Delivery;
use crate::provider::Setup;

/// The longest code that is taken for one.
const MAX_CODE: usize = 1024;
/// What no ack may begin with: it would be another word where an extension is spoken.
const RESERVED: &str = "nack ";

struct SocketConsumer {
    dialect: Dialect,
    extension: Option<Extension>,
    inbox: Arc<Inbox>,
    board: Arc<Board>,
    unreadable: Arc<AtomicU64>,
    topic: Arc<str>,
    fail: bool,
    // Ends the task at once.
    stop: CancellationToken,
    // The task has ended.
    finished: CancellationToken,
}

/// Starts the task, and unless open is lazy waits for the first connection.
pub(in crate::provider) async fn open(
    setup: &Setup,
    speech: impl Into<Speech>,
    (target, topic): (Target, Arc<str>),
    dialer: Arc<Dialer>,
    (pace, prefetch): (Pace, Prefetch),
) -> Result<Arc<dyn Consumer>> {
    let Speech { dialect, extension } = speech.into();
    let provider = dialect.server.provider;
    let max_acks = usize::try_from(setup.limits.calls).unwrap_or(usize::MAX);
    let inbox = Arc::new(Inbox::new(provider, prefetch, max_acks));
    let board = Arc::new(Board::default());
    let unreadable = Arc::<AtomicU64>::default();
    let (phase, mut opening) = watch::channel(Phase::Starting(None));
    let label = target.label.clone();
    let connection = Connection::new(Arc::new(target), dialer, pace, &setup.random, board.reconnects.clone());
    let consumer = Arc::new(SocketConsumer {
        dialect,
        extension,
        inbox: inbox.clone(),
        board: board.clone(),
        unreadable: unreadable.clone(),
        topic: topic.clone(),
        fail: setup.when_disconnected == WhenDisconnected::Fail,
        stop: CancellationToken::new(),
        finished: CancellationToken::new(),
    });
    let receiver = Receiver::new(
        setup,
        (dialect, topic),
        connection,
        inbox,
        (board, unreadable),
        phase,
        consumer.stop.clone(),
    );
    let ended = consumer.finished.clone().drop_guard();
    tokio::spawn(async move {
        let _ended = ended;
        receiver.run().await;
    });
    if setup.connect == Connect::Eager {
        // Dropped on failure, and also when the caller gives up: that stops the task.
        opened(&mut opening, provider, &label, setup.connect_timeout).await?;
    }
    Ok(consumer)
}

impl Drop for SocketConsumer {
    fn drop(&mut self) {
        self.inbox.close();
        self.stop.cancel();
    }
}

impl Consumer for SocketConsumer {
    fn provider(&self) -> &'static str {
        self.dialect.server.provider
    }

    fn capability(&self) -> Capability {
        match &self.extension {
            Some(extension) if self.inbox.extended() => extension.capability,
            _ => self.dialect.capability,
        }
    }

    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            if max == 0 {
                return Err(Error::new(Kind::InvalidArgument, "`max` must be at least 1").by(self.provider()));
            }
            self.inbox.receive(ctx, max).await
        })
    }

    fn ack<'a>(&'a self, ctx: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move {
            if !self.dialect.capability.ack {
                let refused = || self.unsupported("ack: a delivery counts as consumed when it is written");
                return codes.iter().map(|_| Err(refused())).collect();
            }
            self.say(ctx, codes, |code| !code.starts_with(RESERVED), Word::Ack).await
        })
    }

    fn nack<'a>(
        &'a self,
        ctx: &'a Context,
        codes: Vec<Arc<str>>,
        delay: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move {
            if !self.dialect.capability.ack {
                let refused = || self.unsupported("nack: a delivery counts as consumed when it is written");
                return codes.iter().map(|_| Err(refused())).collect();
            }
            let Some(extension) = &self.extension else {
                let refused = || self.unsupported("nack: what is not acknowledged comes again");
                return codes.iter().map(|_| Err(refused())).collect();
            };
            let word = |code: Arc<str>| Word::Nack((extension.nack)(&code, delay).into());
            self.say(ctx, codes, |code| !code.contains(' '), word).await
        })
    }

    fn status(&self) -> Value {
        let counts = self.inbox.counts();
        let shown = self.board.shown.lock();
        let up: Vec<&str> =
            shown.lanes.iter().filter(|lane| lane.state == "connected").map(|lane| &*lane.label).collect();
        json!({
            "provider": self.provider(),
            "topic": &*self.topic,
            "state": shown.state(),
            "connected_to": up,
            "prefetched": counts.waiting,
            "prefetched_bytes": counts.waiting_bytes,
            "received": counts.received,
            "unsent_acks": counts.unsent_acks,
            "acked": counts.acked,
            "unreadable": self.unreadable.load(Ordering::Relaxed),
            "reconnects": self.board.reconnects.load(Ordering::Relaxed),
            "last_error": error_json(shown.last_error.as_ref()),
        })
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.inbox.close();
            if ctx.run(self.finished.cancelled()).await.is_ok() {
                return Ok(());
            }
            let left = self.inbox.counts().unsent_acks;
            self.stop.cancel();
            // Bounded: the task only says good-bye to its connection.
            self.finished.cancelled().await;
            if left == 0 {
                return Ok(());
            }
            let text =
                format!("{left} acks could not be written before the close: those messages come again");
            Err(Error::new(Kind::Timeout, text).by(self.provider()))
        })
    }
}

impl SocketConsumer {
    /// Queues what is said of each delivery; a result for each.
    async fn say(
        &self,
        ctx: &Context,
        codes: Vec<Arc<str>>,
        fits: impl Fn(&str) -> bool,
        word: impl Fn(Arc<str>) -> Word,
    ) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> =
            codes.iter().map(|code| self.plausible(code, fits(code))).collect();
        let good: Vec<Word> = codes
            .into_iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(code, _)| word(code))
            .collect();
        if good.is_empty() {
            return results;
        }
        if let Err(error) = self.inbox.ack(ctx, &good, self.fail).await {
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
        }
        results
    }

    fn unsupported(&self, what: &str) -> Error {
        let provider = self.provider();
        Error::new(Kind::Unsupported, format!("the {provider} wire has no {what}")).by(provider)
    }

    /// Refuses what no broker gave out, and what would break the wire.
    fn plausible(&self, code: &str, fits: bool) -> Result<()> {
        let odd = |byte: u8| byte.is_ascii_control();
        if !fits || code.is_empty() || code.len() > MAX_CODE || code.bytes().any(odd) {
            let text = "a code is the short text that came with a delivery";
            return Err(Error::new(Kind::InvalidArgument, text).by(self.provider()));
        }
        Ok(())
    }
}
