//! A consumer's connection: pushes out as its window allows, acks in. Both at once, so that neither a
//! consumer that does not read nor one that does not stop writing blocks the other half.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::super::frames::{Frames, KEPT};
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
pub(super) async fn run(connection: &Connection, topic: &Arc<Topic>, socket: &mut Frames) -> End {
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
        taken: Vec::new(),
        acks: Vec::new(),
        nacks: Vec::new(),
        extended: connection.terms.extended,
        line: Vec::new(),
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
    socket: &'a mut Frames,
    waker: Arc<AtomicWaker>,
    taken: Vec<Delivery>,
    acks: Vec<Place>,
    /// Sequences, each with the milliseconds that it is to stay away.
    nacks: Vec<(u64, u64)>,
    extended: bool,
    /// One push at a time.
    line: Vec<u8>,
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
            let written = match self.socket.poll_flush(cx) {
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
            match self.socket.poll_message(cx) {
                Poll::Ready(Ok(_)) => self.note(),
                Poll::Ready(Err(gone)) => {
                    end = Some(gone);
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

    /// Notes the ack or refusal that was read. What is no code of this topic is ignored.
    fn note(&mut self) {
        let code = self.socket.payload();
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

    /// Fills the window from the queue. Says whether there was anything.
    fn take(&mut self) -> bool {
        self.topic.take(self.number, WINDOW, &mut self.taken);
        if self.taken.is_empty() {
            return false;
        }
        count(&self.hub.counters.pushed, self.taken.len());
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
            self.line.clear();
            if self.extended {
                encode_extended_push_line(&mut self.line, &push, taken.attempt, taken.stored.key.as_deref());
            } else {
                encode_push_line(&mut self.line, &push);
            }
            self.socket.push_text(&self.line);
        }
        self.line.clear();
        self.line.shrink_to(KEPT);
        true
    }

    /// Says that the broker stops, and takes the acks that were on their way.
    async fn close(&mut self) {
        let (code, reason) = STOPPING;
        self.socket.push_close(code, reason);
        if self.socket.flush().await.is_err() {
            return;
        }
        while self.socket.message().await.is_ok() {
            self.note();
            self.hand_on_acks();
        }
    }
}
