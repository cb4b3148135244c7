//! A consumer's connection: pushes out, pings and the close frame in. What was handed to the socket counts as
//! consumed, at most once: this protocol has no acks.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use futures_util::task::AtomicWaker;
use futures_util::{SinkExt, StreamExt};

use super::super::socket::End;
use super::outlet::{self, Frame, Outlet, Written};
use crate::broker::hub::Hub;
use crate::broker::session::{Role, Seat};

/// Frames read before anything else gets its turn.
const READS: usize = 64;
/// Rounds before other tasks get their turn.
const ROUNDS: usize = 8;

/// A place in the list of consumers and among those of its topic; dropping it leaves both.
pub(super) struct Place {
    seat: Seat,
    outlet: Outlet,
    waker: Arc<AtomicWaker>,
}

impl Place {
    /// Takes a place. To be done before the handshake is answered: whoever has the answer misses nothing.
    pub(super) fn take(hub: &Arc<Hub>, topic: &Arc<str>, id: &Arc<str>, ip: IpAddr) -> Result<Place, End> {
        let queue = outlet::open(hub, topic).map_err(|_| End::TOO_MANY_TOPICS)?;
        let seat = hub.sessions.join(Role::DpmqConsumer, topic, id, ip);
        let waker = Arc::new(AtomicWaker::new());
        let numbers = (seat.number, seat.before);
        let outlet = Outlet::join(Arc::clone(hub), queue, numbers, id, Arc::clone(&waker));
        let outlet = outlet.ok_or(End::TOO_MANY_CONSUMERS)?;
        Ok(Place { seat, outlet, waker })
    }

    /// Serves the consumer until its connection ends.
    pub(super) async fn serve(self, hub: &Hub, socket: &mut WebSocket) -> End {
        let Place { seat, outlet, waker } = self;
        let mut pump =
            Pump { outlet, socket, waker, frames: VecDeque::new(), written: Vec::new(), unflushed: false };
        tokio::select! {
            biased;
            () = hub.stopping.cancelled() => End::STOPPING,
            () = seat.replaced.cancelled() => End::REPLACED,
            end = poll_fn(|cx| pump.poll(cx)) => end,
        }
    }
}

struct Pump<'a> {
    outlet: Outlet,
    socket: &'a mut WebSocket,
    waker: Arc<AtomicWaker>,
    /// Not yet with the socket.
    frames: VecDeque<Frame>,
    written: Vec<Written>,
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
            let written = self.write(cx);
            if !self.written.is_empty() {
                self.outlet.consumed(self.written.drain(..));
            }
            let written = match written {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => false,
            };
            // Only with nothing left to write: then a consumer that waits to be woken can take at once.
            let taken = written && self.outlet.take(&mut self.frames);
            if !taken && !more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, which answers pings and sees the end. Says whether there may be more to read at once.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for _ in 0..READS {
            match self.socket.poll_next_unpin(cx) {
                // The answer waits for the next flush.
                Poll::Ready(Some(Ok(Message::Ping(_)))) => self.unflushed = true,
                // A consumer has nothing to say.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Err(End::of(error)),
                Poll::Ready(None) => return Err(End::Gone),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Writes all frames; pending until the last byte is with the kernel.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        while !self.frames.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if let Some(frame) = self.frames.pop_front() {
                let (text, message) = frame.part();
                self.socket.start_send_unpin(Message::Text(text))?;
                self.written.push(message);
                self.unflushed = true;
            }
        }
        if self.unflushed {
            ready!(self.socket.poll_flush_unpin(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
