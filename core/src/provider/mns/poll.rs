//! Asks for messages: each poller has one receive that waits at the service.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::PROVIDER;
use super::consumer::Engine;
use super::content::{incoming, time};
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::log_line::printable;
use crate::message::Delivery;
use crate::provider::socket::Backoff;
use crate::wire::mns::{MAX_BATCH, Operation, Received, decode_each_received};

/// How long the answer to a receive may take beyond the time that it waits.
const MARGIN: Duration = Duration::from_secs(15);
/// The least time between two receives that found nothing: a service that does not wait must not be asked in a loop.
const PAUSE: Duration = Duration::from_millis(200);
/// What is believed of the time that a delivery is hidden, whatever clocks say.
const LEAST_HIDDEN: Duration = Duration::from_millis(500);
const MOST_HIDDEN: Duration = Duration::from_secs(43_200);

/// Runs until the consumer is closed.
pub(super) async fn run(engine: Arc<Engine>) {
    let mut backoff =
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10), engine.service.random.number());
    // Fewer after an answer that cannot be read as a whole: what spoils it then keeps no other message back.
    let mut most = MAX_BATCH;
    loop {
        let Some(reserved) = engine.held.reserve(most).await else { return };
        let asked = Instant::now();
        let (came, wait) = match receive(&engine, reserved).await {
            Ok(came) => {
                most = (most * 2).min(MAX_BATCH);
                backoff.reset();
                engine.show(None);
                let early = PAUSE.saturating_sub(asked.elapsed());
                let wait = if came.is_empty() { early } else { Duration::ZERO };
                (came, wait)
            }
            Err(error) => {
                if engine.polling.is_cancelled() {
                    return;
                }
                tracing::warn!(id = %engine.id, %error, "no messages could be received");
                if error.kind() == Kind::Protocol {
                    most = 1;
                }
                // What no other try would mend is tried all the same: somebody may mend it.
                let least = if error.retryable() { Duration::ZERO } else { Duration::from_secs(2) };
                engine.show(Some(error));
                (Vec::new(), backoff.next().max(least).max(PAUSE))
            }
        };
        let back = engine.held.arrive(reserved, came);
        if !back.is_empty() {
            // The close waits for no poller: these go back by themselves, or come again when their time is over.
            engine.give_back(&Context::within(Duration::from_secs(1)), back).await;
        }
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = engine.polling.cancelled() => return,
            }
        }
    }
}

async fn receive(engine: &Engine, number: usize) -> Result<Vec<(Delivery, Duration)>> {
    let wait = engine.settings.wait;
    let time = Duration::from_secs(u64::from(wait)) + MARGIN;
    let ctx = Context::within(time).cancelled_by(engine.polling.clone()).failing_when_disconnected();
    let asked = Operation::ReceiveBatch {
        queue: Cow::Borrowed(&engine.queue),
        number: u32::try_from(number).unwrap_or(1),
        wait: Some(wait),
    };
    let Some(answer) = engine.service.receive(&ctx, &asked).await? else { return Ok(Vec::new()) };
    let messages =
        decode_each_received(&answer.body).map_err(|malformed| Error::from(malformed).by(PROVIDER))?;
    let mut came = Vec::with_capacity(messages.len());
    for received in messages {
        // Not handed over and not deleted: it comes again, and whoever looks after the queue sees it.
        let damaged = |message_id: &str, error: Error| {
            engine.counts.damaged.fetch_add(1, Ordering::Relaxed);
            let message_id = printable(message_id);
            tracing::warn!(id = %engine.id, %message_id, %error, "a message is not delivered");
            engine.service.note(&error);
        };
        match received {
            Ok(received) => match delivery(engine, &received) {
                Ok(delivery) => came.push((delivery, hidden(engine, &received, answer.time))),
                Err(error) => damaged(&received.message_id, error),
            },
            Err(unread) => damaged(&unread.message_id, Error::from(unread.why).by(PROVIDER)),
        }
    }
    Ok(came)
}

fn delivery(engine: &Engine, received: &Received<'_>) -> Result<Delivery> {
    let Some(handle) = &received.receipt_handle else {
        return Err(Error::new(Kind::Protocol, "a message came without a receipt handle").by(PROVIDER));
    };
    Ok(Delivery {
        message: incoming(received, engine.settings.encoding)?,
        topic: engine.queue.clone(),
        code: handle.as_ref().into(),
        created: time(received.enqueue_time),
        attempt: Some(received.dequeue_count.max(1)),
    })
}

/// For how long a delivery is hidden from others, by the service's own times. Its `Date` has whole seconds: what they
/// may hide is taken off.
fn hidden(engine: &Engine, received: &Received<'_>, now: SystemTime) -> Duration {
    let standard = Duration::from_secs(u64::from(engine.settings.visibility));
    let Some(until) = received.next_visible_time.and_then(time) else { return standard };
    hidden_until(until, now).unwrap_or(standard)
}

pub(super) fn hidden_until(until: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = until.duration_since(now).ok()?;
    let left = left.saturating_sub(Duration::from_secs(1)).max(LEAST_HIDDEN);
    (left <= MOST_HIDDEN).then_some(left)
}
