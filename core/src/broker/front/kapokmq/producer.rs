//! A producer's connection: frames in, one answer per message out, both in batches.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::frames::Frames;
use super::super::socket::End;
use super::Connection;
use crate::broker::code::Place;
use crate::broker::hub::{Hub, count};
use crate::broker::queue::Accepted;
use crate::broker::session::Role;
use crate::broker::topic::{Drafts, Topic};
use crate::error::{Error, Kind};
use crate::wire::kapokmq::{ACK, decode_extended_send, decode_send, push_accepted, push_refused};

/// Frames and bytes that make a batch full. What is there makes a batch; nothing is waited for.
const BATCH_FRAMES: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

/// Messages read together.
#[derive(Default)]
struct Batch {
    drafts: Drafts,
    /// The connection ends once the drafts are answered.
    end: Option<End>,
}

/// Serves a producer until its connection ends.
pub(super) async fn run(connection: &Connection, topic: &Arc<Topic>, socket: &mut Frames) -> End {
    let hub = &connection.hub;
    let extended = connection.terms.extended;
    let ip = connection.peer.address.ip();
    let seat = hub.sessions.join(Role::Producer, &connection.topic, &connection.id, ip);
    let mut batch = Batch::default();
    loop {
        batch.drafts.clear();
        tokio::select! {
            biased;
            () = hub.stopping.cancelled() => return End::STOPPING,
            () = seat.replaced.cancelled() => return End::REPLACED,
            () = poll_fn(|cx| read(socket, extended, &mut batch, cx)) => {}
        }
        if !batch.drafts.is_empty() {
            // Not reading on while there is no room is the back-pressure.
            let reserved = tokio::select! {
                reserved = hub.room().reserve(batch.drafts.cost()) => reserved,
                () = hub.stopping.cancelled() => return End::STOPPING,
                () = seat.replaced.cancelled() => return End::REPLACED,
            };
            // It may wait for room in the topic: what was read meanwhile is not safe, and a lost connection
            // says so. Once it is taken in, it is taken in, whether the answer can be written or not.
            let accepted = tokio::select! {
                biased;
                () = hub.stopping.cancelled() => return End::STOPPING,
                () = seat.replaced.cancelled() => return End::REPLACED,
                accepted = hub.accept(topic, &batch.drafts, reserved) => accepted,
            };
            let full = match (accepted, extended) {
                (Ok(results), true) => {
                    put_words(socket, hub, topic, &results);
                    false
                }
                (Ok(results), false) => put_plain_words(socket, &results),
                // Nothing of the batch was taken in, and there may be room later.
                (Err(error), true) if error.retryable() => {
                    put_refusals(socket, &error, batch.drafts.len());
                    false
                }
                (Err(error), _) => return refusal(&error),
            };
            let answered = tokio::select! {
                answered = socket.flush() => answered,
                () = seat.replaced.cancelled() => return End::REPLACED,
            };
            if answered.is_err() {
                return End::Gone;
            }
            if full {
                return End::FULL;
            }
        }
        if let Some(end) = batch.end {
            if matches!(end, End::Dropped) {
                count(&hub.counters.bad_frames, 1);
                tracing::debug!(topic = %connection.topic, id = %connection.id, "a bad frame of a producer");
            }
            return end;
        }
    }
}

/// Reads all that is there, at least one frame or the end.
fn read(socket: &mut Frames, extended: bool, batch: &mut Batch, cx: &mut Context<'_>) -> Poll<()> {
    let mut bytes = 0;
    while batch.drafts.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
        match socket.poll_message(cx) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(end)) => {
                batch.end = Some(end);
                break;
            }
            Poll::Pending if batch.drafts.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
        let frame = socket.payload();
        let decode = if extended { decode_extended_send } else { decode_send };
        let Ok(send) = decode(frame) else {
            batch.end = Some(End::Dropped);
            break;
        };
        bytes += frame.len();
        batch.drafts.push(&send.body, &send.key, send.delay);
    }
    Poll::Ready(())
}

/// How a connection ends whose messages the log did not take.
fn refusal(error: &Error) -> End {
    tracing::warn!(%error, "messages were not taken in");
    if error.retryable() { End::NO_DISK } else { End::FAILED }
}

/// The original has no word for a refusal: those before the first one are answered, then the connection ends.
/// Says whether there was one.
fn put_plain_words(socket: &mut Frames, results: &[Accepted]) -> bool {
    let refused = results.iter().position(|result| *result == Accepted::Full);
    for _ in 0..refused.unwrap_or(results.len()) {
        socket.push_text(ACK.as_bytes());
    }
    refused.is_some()
}

/// The extension's answer to each.
fn put_words(socket: &mut Frames, hub: &Hub, topic: &Topic, results: &[Accepted]) {
    let mut text = String::with_capacity(40);
    for result in results {
        text.clear();
        match *result {
            Accepted::New(sequence) | Accepted::Duplicate(sequence) => {
                let place = Place { topic: topic.number, sequence };
                push_accepted(&mut text, hub.codes.encode(place).as_str());
            }
            Accepted::Full => push_refused(&mut text, &Error::new(Kind::QueueFull, "the topic is full")),
        }
        socket.push_text(text.as_bytes());
    }
}

/// The same refusal for all.
fn put_refusals(socket: &mut Frames, error: &Error, count: usize) {
    tracing::warn!(%error, count, "messages were refused");
    let mut text = String::new();
    push_refused(&mut text, &Error::new(error.kind(), "the disk is full"));
    for _ in 0..count {
        socket.push_text(text.as_bytes());
    }
}
