//! One live connection: frames in and out, and whether the other side still answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream, StreamExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::dial::Wire;
use super::target::Target;
use crate::error::Result;

/// Checks without a sign of life before the connection counts as dead.
const MISSES: u32 = 2;
/// Longer than any connection lives.
const SUSPENDED: Duration = Duration::from_secs(365 * 86_400);
/// How long a peer may take to answer the closing of a connection.
const FAREWELL: Duration = Duration::from_millis(500);

/// See the module. After an error it is of no more use.
#[derive(Debug)]
pub(in crate::provider) struct Link {
    wire: Wire,
    target: Arc<Target>,
    check_time: Duration,
    next_check: Instant,
    pinged: bool,
    misses: u32,
    unflushed: bool,
}

impl Link {
    pub(in crate::provider) fn new(
        wire: Wire,
        target: Arc<Target>,
        check_time: Duration,
        now: Instant,
    ) -> Link {
        let next_check = now + check_time;
        Link { wire, target, check_time, next_check, pinged: false, misses: 0, unflushed: false }
    }

    /// Whether the other side agreed to the extension that was offered.
    pub(in crate::provider) fn extended(&self) -> bool {
        self.wire.get_ref().extended()
    }

    /// The next frame of data.
    pub(in crate::provider) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.wire).poll_next(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(self.target.lost(error))),
                None => return Poll::Ready(Err(self.closed())),
            };
            match frame {
                Message::Text(text) => return Poll::Ready(Ok(text.into())),
                Message::Binary(bytes) => return Poll::Ready(Ok(bytes)),
                Message::Ping(_) => self.unflushed = true,
                Message::Close(_) => return Poll::Ready(Err(self.closed())),
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn closed(&self) -> crate::error::Error {
        self.target.unavailable(format!("{} closed the connection", self.target.label))
    }

    /// Whether a frame can be sent. Not while earlier ones wait for the socket: memory stays bounded.
    pub(in crate::provider) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.wire).poll_ready(cx).map_err(|error| self.target.lost(error))
    }

    /// Sends a frame of text; [`Link::poll_flush`] has to follow.
    pub(in crate::provider) fn send(&mut self, text: Bytes) -> Result<()> {
        self.unflushed = true;
        // Encoders of this crate write UTF-8: a frame made here is not checked again.
        let frame = Message::Frame(Frame::message(text, OpCode::Data(Data::Text), true));
        Pin::new(&mut self.wire).start_send(frame).map_err(|error| self.target.lost(error))
    }

    /// Writes what was sent.
    pub(in crate::provider) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.wire).poll_flush(cx)).map_err(|error| self.target.lost(error))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// It is not read for a while, so that its silence says nothing.
    pub(in crate::provider) fn suspend_checks(&mut self) {
        self.next_check = Instant::now() + SUSPENDED;
    }

    /// It is read again.
    pub(in crate::provider) fn resume_checks(&mut self, now: Instant) {
        (self.pinged, self.misses) = (false, 0);
        self.next_check = now + self.check_time;
    }

    /// When [`Link::check`] is due.
    pub(in crate::provider) fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Pings when it is time; an error when nothing was heard since two pings. Read before: what waits in
    /// the socket is a sign of life.
    pub(in crate::provider) fn check(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<()> {
        if now < self.next_check {
            return Ok(());
        }
        // Bytes count, not frames: a long frame on a slow line is no silence.
        let heard = self.wire.get_mut().moved();
        self.misses = if self.pinged && !heard { self.misses + 1 } else { 0 };
        if self.misses >= MISSES {
            let silent = self.check_time * MISSES;
            let text = format!("{} answered no ping for {silent:?}", self.target.label);
            return Err(self.target.unavailable(text));
        }
        self.pinged = true;
        self.next_check = now + self.check_time;
        // A socket that takes nothing gets no ping: its silence counts as a miss all the same.
        if let Poll::Ready(ready) = self.poll_ready(cx) {
            ready?;
            self.unflushed = true;
            Pin::new(&mut self.wire)
                .start_send(Message::Ping(Bytes::new()))
                .map_err(|error| self.target.lost(error))?;
        }
        Ok(())
    }

    /// Says good-bye and reads until the other side has done so too, for a bounded time: a socket closed with
    /// unread data resets the connection, and what was written last might never be read.
    pub(in crate::provider) async fn farewell(mut self) {
        let parting = async {
            if self.wire.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.wire.next().await {}
            }
        };
        let _ = tokio::time::timeout(FAREWELL, parting).await;
    }
}
