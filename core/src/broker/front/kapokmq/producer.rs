//! A producer's connection: frames in, one `ok` per message out, both in batches.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures_util::{SinkExt, StreamExt};

use super::super::socket::End;
use super::Connection;
use crate::broker::hub::count;
use crate::broker::room::Room;
use crate::broker::session::Role;
use crate::broker::topic::{Draft, Topic};
use crate::wire::kapokmq::{ACK, decode_send};

/// Frames and bytes that make a batch full. What is there makes a batch; nothing is waited for.
const BATCH_FRAMES: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

/// Messages read together.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    cost: usize,
    /// The connection ends once the drafts are answered.
    end: Option<End>,
}

/// Serves a producer until its connection ends.
pub(super) async fn run(connection: &Connection, topic: &Arc<Topic>, socket: &mut WebSocket) -> End {
    let hub = &connection.hub;
    let ip = connection.peer.address.ip();
    let seat = hub.sessions.join(Role::Producer, &connection.topic, &connection.id, ip);
    loop {
        let mut batch = Batch::default();
        tokio::select! {
            biased;
            () = hub.stopping.cancelled() => return End::STOPPING,
            () = seat.replaced.cancelled() => return End::REPLACED,
            () = poll_fn(|cx| read(socket, hub.log(), &mut batch, cx)) => {}
        }
        if !batch.drafts.is_empty() {
            // Not reading on while there is no room is the back-pressure.
            tokio::select! {
                () = hub.log().reserve(batch.cost) => {}
                () = hub.stopping.cancelled() => return End::STOPPING,
                () = seat.replaced.cancelled() => return End::REPLACED,
            }
            let messages = batch.drafts.len();
            hub.accept(topic, batch.drafts).await;
            let answered = tokio::select! {
                answered = answer(socket, messages) => answered,
                () = seat.replaced.cancelled() => return End::REPLACED,
            };
            if answered.is_err() {
                return End::Gone;
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
fn read(socket: &mut WebSocket, log: &Room, batch: &mut Batch, cx: &mut Context<'_>) -> Poll<()> {
    let mut bytes = 0;
    while batch.drafts.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
        let frame = match socket.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                batch.end = Some(End::of(error));
                break;
            }
            Poll::Ready(None) => {
                batch.end = Some(End::Gone);
                break;
            }
            Poll::Pending if batch.drafts.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        };
        let frame: &[u8] = match &frame {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        let Ok(send) = decode_send(frame) else {
            batch.end = Some(End::Dropped);
            break;
        };
        bytes += frame.len();
        batch.cost += Room::cost(send.body.len());
        batch.drafts.push(Draft { body: log.store(&send.body), delay: send.delay });
    }
    Poll::Ready(())
}

async fn answer(socket: &mut WebSocket, messages: usize) -> Result<(), axum::Error> {
    for _ in 0..messages {
        socket.feed(Message::Text(Utf8Bytes::from_static(ACK))).await?;
    }
    socket.flush().await
}
