//! A consumer's connection: pushes out as its window allows, acks in. Both at once, so that neither a
//! consumer that does not read nor one that does not stop writing blocks the other half.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{SinkExt, StreamExt};

use super::super::socket::{CLOSE_TIMEOUT, End, STOPPING};
use super::super::text_of;
use super::Connection;
use crate::broker::code::Place;
use crate::broker::hub::{Hub, count};
use crate::broker::queue::Window;
use crate::broker::session::Role;
use crate::broker::topic::{Delivery, Topic};
use crate::wire::kapokmq::{PushText, WAITING, decode_nack, encode_extended_push_line, encode_push_line};

/// What is taken from the queue before it is written: the rest stays there for others.
const WINDOW: Window = Window { count: 256, bytes: 256 << 10 };
/// Acks taken together.
const ACKS: usize = 1024;
/// Rounds before other tasks get their turn.
const ROUNDS: usize = 8;
/// The longest time that a message which was given back stays away: a hundred years, in milliseconds.
const LONGEST_AWAY: u64 = 100 * 365 * 86_400_000;

/// Serves a consumer until its connection ends.
pub(super) async fn run(connection: &Connection, topic: &Arc<Topic>, socket: &mut WebSocket) -> End {
    let hub = &connection.hub;
    let ip = connection.peer.address.ip();
    let seat = hub.sessions.join(Role::Consumer, &connection.topic, &connection.id, ip);
    if let Some(before) = seat.before {
        // Its deliveries go back before the new connection takes its first.
        topic.leave(before);
    }
    let waker = Arc::new(AtomicWaker::new());
    if !topic.join(seat.number, &connection.id, connection.terms.durable, Arc::clone(&waker)) {
        return End::TOO_MANY_CONSUMERS;
    }
    let _membership = Membership { topic, number: seat.number };
    let mut pump = Pump {
        hub,
        topic,
        number: seat.number,
        socket,
        waker,
        frames: VecDeque::new(),
        taken: Vec::new(),
        acks: Vec::new(),
        nacks: Vec::new(),
        extended: connection.terms.extended,
        unflushed: false,
    };
    tokio::select! {
        biased;
        () = hub.stopping.cancelled() => {}
        () = seat.replaced.cancelled() => return End::REPLACED,
        end = poll_fn(|cx| pump.poll(cx)) => return end,
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, pump.close()).await;
    End::Gone
}

/// A place among a topic's consumers; dropping it leaves.
struct Membership<'a> {
    topic: &'a Topic,
    number: u64,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.topic.leave(self.number);
    }
}

struct Pump<'a> {
    hub: &'a Hub,
    topic: &'a Topic,
    number: u64,
    socket: &'a mut WebSocket,
    waker: Arc<AtomicWaker>,
    /// Encoded and not yet with the socket.
    frames: VecDeque<Message>,
    taken: Vec<Delivery>,
    acks: Vec<Place>,
    /// Sequences, each with the milliseconds that it is to stay away.
    nacks: Vec<(u64, u64)>,
    extended: bool,
    unflushed: bool,
}

impl Pump<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // Before looking into the queue, so that no message comes in unnoticed between look and sleep.
        self.waker.register(cx.waker());
        for _ in 0..ROUNDS {
            let more = match self.read(cx) {
                Ok(more) => more,
                Err(end) => return Poll::Ready(end),
            };
            let written = match self.write(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => false,
            };
            // Only with nothing left to write: then a consumer that waits to be woken can take at once.
            let taken = written && self.take();
            if !taken && !more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads acks and hands them on. Says whether there may be more to read at once.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut end = None;
        let mut more = true;
        for _ in 0..ACKS {
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Message::Text(code)))) => self.note(code.as_bytes()),
                Poll::Ready(Some(Ok(Message::Binary(code)))) => self.note(&code),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    end = Some(End::of(error));
                    break;
                }
                Poll::Ready(None) => {
                    end = Some(End::Gone);
                    break;
                }
                Poll::Pending => {
                    more = false;
                    break;
                }
            }
        }
        self.hand_on_acks();
        end.map_or(Ok(more), Err)
    }

    /// What is no code of this topic is ignored.
    fn note(&mut self, code: &[u8]) {
        if self.extended
            && let Some((code, away)) = decode_nack(code)
        {
            let place = self.hub.codes.decode(code).filter(|place| place.topic == self.topic.number);
            self.nacks.extend(place.map(|place| (place.sequence, away.min(LONGEST_AWAY))));
            return;
        }
        let place = self.hub.codes.decode(code);
        self.acks.extend(place.filter(|place| place.topic == self.topic.number));
    }

    fn hand_on_acks(&mut self) {
        if !self.acks.is_empty() {
            let acks = self.acks.drain(..).map(|place| place.sequence);
            count(&self.hub.counters.acknowledged, self.topic.ack(self.number, acks));
        }
        if !self.nacks.is_empty() {
            self.topic.nack(self.number, self.nacks.drain(..));
        }
    }

    /// Writes all frames; pending until the last byte is with the kernel.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        while !self.frames.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if let Some(frame) = self.frames.pop_front() {
                self.socket.start_send_unpin(frame)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            ready!(self.socket.poll_flush_unpin(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the window from the queue. Says whether there was anything.
    fn take(&mut self) -> bool {
        self.topic.take(self.number, WINDOW, &mut self.taken);
        if self.taken.is_empty() {
            return false;
        }
        count(&self.hub.counters.pushed, self.taken.len());
        let mut text = Vec::with_capacity(self.taken.iter().map(|taken| taken.stored.body.len() + 256).sum());
        let mut ends = Vec::with_capacity(self.taken.len());
        for taken in self.taken.drain(..) {
            let place = Place { topic: self.topic.number, sequence: taken.sequence };
            let code = self.hub.codes.encode(place);
            let push = PushText {
                code: code.as_str(),
                body: &text_of(&taken.stored.body),
                topic: &self.topic.name,
                create_time: taken.stored.created_ms / 1000,
                consumed_time: 0,
                delay_time: taken.delay,
                status: WAITING,
            };
            if self.extended {
                encode_extended_push_line(&mut text, &push, taken.attempt, taken.stored.key.as_deref());
            } else {
                encode_push_line(&mut text, &push);
            }
            ends.push(text.len());
        }
        let mut text = Bytes::from(text);
        let mut start = 0;
        for end in ends {
            let frame = text.split_to(end - start);
            start = end;
            // The encoder writes UTF-8.
            self.frames.extend(Utf8Bytes::try_from(frame).ok().map(Message::Text));
        }
        true
    }

    /// Says that the broker stops, and takes the acks that were on their way.
    async fn close(&mut self) {
        let (code, reason) = STOPPING;
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        if self.socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(Ok(frame)) = self.socket.recv().await {
            match frame {
                Message::Text(code) => self.note(code.as_bytes()),
                Message::Binary(code) => self.note(&code),
                _ => {}
            }
            self.hand_on_acks();
        }
    }
}
