//! A consumer's task: reads what is pushed, writes acks, and comes back after a loss.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::board::{Board, LaneState, Phase};
use super::connection::{Change, Connection};
use super::inbox::{Flow, Inbox, Weighed, Word};
use super::{Dialect, permanent};
use crate::config::Connect;
use crate::error::Error;
use crate::provider::Setup;

/// Frames read before callers and acks get their turn.
const FRAMES_PER_TURN: usize = 512;
/// Rounds before other tasks of the runtime get their turn.
const ROUNDS: usize = 16;

/// See the module.
pub(in crate::provider) struct Receiver {
    id: String,
    dialect: Dialect,
    topic: Arc<str>,
    connection: Connection,
    inbox: Arc<Inbox>,
    fresh: Vec<Weighed>,
    outgoing: VecDeque<Word>,
    board: Arc<Board>,
    unreadable: Arc<AtomicU64>,
    phase: watch::Sender<Phase>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    last_error: Option<Error>,
    opened: bool,
    // Open waits, and fails with the first error that no further try would mend.
    eager: bool,
    hopeless: bool,
    // The connection is not read until callers have received enough.
    held: bool,
}

impl Receiver {
    pub(in crate::provider) fn new(
        setup: &Setup,
        (dialect, topic): (Dialect, Arc<str>),
        connection: Connection,
        inbox: Arc<Inbox>,
        shown: (Arc<Board>, Arc<AtomicU64>),
        phase: watch::Sender<Phase>,
        stop: CancellationToken,
    ) -> Receiver {
        let (board, unreadable) = shown;
        let receiver = Receiver {
            id: setup.id.clone(),
            dialect,
            topic,
            connection,
            inbox,
            fresh: Vec::new(),
            outgoing: VecDeque::new(),
            board,
            unreadable,
            phase,
            stop: Box::pin(stop.cancelled_owned()),
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            timer_at: None,
            last_error: None,
            opened: false,
            eager: setup.connect == Connect::Eager,
            hopeless: false,
            held: false,
        };
        receiver.publish();
        receiver
    }

    /// Runs until the inbox is closed and the acks are written, or until it is stopped.
    pub(in crate::provider) async fn run(mut self) {
        let _closes = CloseOnDrop(self.inbox.clone());
        poll_fn(|cx| self.poll_run(cx)).await;
        self.board.shown.lock().closed = true;
        if let Some(link) = self.connection.pause() {
            link.farewell().await;
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.inbox.task.register(cx.waker());
        for _ in 0..ROUNDS {
            let now = Instant::now();
            if self.connection.paused() && self.inbox.drained() {
                self.connection.resume(now);
            }
            let mut progress = self.poll_dial(cx, now);
            if self.hopeless {
                return Poll::Ready(());
            }
            // Acks go first: when the connection is dropped for want of room they are under way.
            progress |= self.poll_acks(cx, now);
            let closed = self.inbox.closed();
            if closed && self.inbox.counts().unsent_acks == 0 && self.poll_flush(cx, now).is_ready() {
                return Poll::Ready(());
            }
            progress |= self.poll_frames(cx, now, closed);
            let _ = self.poll_flush(cx, now);
            if !progress && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match self.connection.poll_dial(cx, now) {
            None => return false,
            Some(Change::Up) => {
                tracing::info!(id = self.id, address = %self.connection.target.label, "connected");
                self.inbox.set_live(self.connection.extended());
                // Shown first: who waited for the opening may look at once.
                self.publish();
                self.opened = true;
                self.phase.send_replace(Phase::Up);
            }
            Some(Change::Failed(error)) => {
                tracing::warn!(id = self.id, %error, "no connection");
                self.last_error = Some(error.clone());
                // A pause that ended without a connection is over too.
                self.inbox.set_flow(Flow::Down);
                self.publish();
                if !self.opened {
                    let failed = permanent(&error);
                    self.hopeless = failed && self.eager;
                    let phase = if failed { Phase::Failed(error) } else { Phase::Starting(Some(error)) };
                    self.phase.send_replace(phase);
                }
            }
        }
        true
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>, now: Instant, closed: bool) -> bool {
        let room = self.inbox.room();
        let Some(link) = self.connection.link() else { return false };
        if self.held && !closed {
            if !self.inbox.drained() {
                return false;
            }
            self.held = false;
            self.inbox.set_flow(Flow::Live);
            link.resume_checks(now);
        }
        let (mut frames, mut bytes) = (0, 0);
        let (mut broken, mut skipped) = (None, false);
        while frames < FRAMES_PER_TURN && bytes < room {
            match link.poll_frame(cx) {
                Poll::Ready(Ok(frame)) => {
                    frames += 1;
                    if closed {
                        // Not acknowledged: they come again, to whoever consumes next.
                        continue;
                    }
                    bytes += frame.len();
                    match (self.dialect.decode)(&frame, &self.topic) {
                        Ok(delivery) => self.fresh.push((delivery, frame.len())),
                        Err(error) => {
                            tracing::warn!(id = self.id, %error, "a pushed frame cannot be read and is skipped");
                            self.unreadable.fetch_add(1, Ordering::Relaxed);
                            self.last_error = Some(error);
                            skipped = true;
                        }
                    }
                }
                Poll::Ready(Err(error)) => {
                    broken = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let broken = match broken {
            Some(error) => Err(error),
            None => link.check(cx, now),
        };
        self.inbox.push(&mut self.fresh);
        if skipped {
            self.publish();
        }
        if let Err(error) = broken {
            self.lose(now, error);
            return true;
        }
        if !closed && bytes >= room {
            self.pause();
            return true;
        }
        frames > 0
    }

    /// The bound of bytes is met. With acks the connection goes: unread it would block other consumers of some
    /// servers, and what it still brings comes again.
    fn pause(&mut self) {
        if !self.dialect.capability.ack {
            // What is on its way would be lost with the connection: it is left unread instead.
            self.held = true;
            if let Some(link) = self.connection.link() {
                link.suspend_checks();
            }
            self.inbox.set_flow(Flow::Paused);
            return;
        }
        let counts = self.inbox.counts();
        tracing::warn!(
            id = self.id,
            waiting = counts.waiting,
            bytes = counts.waiting_bytes,
            "the prefetched deliveries meet `prefetch_bytes`: disconnected until some are received"
        );
        if let Some(link) = self.connection.pause() {
            // Bounded by the link; what it still reads comes again.
            tokio::spawn(link.farewell());
        }
        self.inbox.set_flow(Flow::Paused);
        self.publish();
    }

    fn poll_acks(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.inbox.take_acks(&mut self.outgoing);
        let Some(link) = self.connection.link() else { return false };
        let mut written = 0;
        let mut broken = None;
        while let Some(code) = self.outgoing.front() {
            match link.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    broken = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
            let said = match code {
                Word::Ack(frame) => Some(frame),
                Word::Nack(frame) => Some(frame).filter(|_| link.extended()),
            };
            let sent = match said {
                Some(frame) => link.send(Bytes::copy_from_slice(frame.as_bytes())),
                // It was for a connection that is gone, and with that the delivery was given back.
                None => Ok(()),
            };
            if let Err(error) = sent {
                broken = Some(error);
                break;
            }
            self.outgoing.pop_front();
            written += 1;
        }
        self.inbox.wrote_acks(written);
        if let Some(error) = broken {
            self.lose(now, error);
            return true;
        }
        written > 0
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(link) = self.connection.link() else { return Poll::Ready(()) };
        match link.poll_flush(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                self.lose(now, error);
                Poll::Ready(())
            }
        }
    }

    fn lose(&mut self, now: Instant, error: Error) {
        tracing::warn!(id = self.id, %error, "the connection was lost");
        self.connection.lose(now);
        self.held = false;
        self.inbox.set_flow(Flow::Down);
        self.last_error = Some(error);
        self.publish();
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.connection.timer() else { return Poll::Pending };
        if self.timer_at != Some(at) {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(at);
        }
        let fired = self.timer.as_mut().poll(cx);
        if fired.is_ready() {
            self.timer_at = None;
        }
        fired
    }

    fn publish(&self) {
        let mut shown = self.board.shown.lock();
        shown.lanes = vec![LaneState {
            label: self.connection.target.label.clone(),
            state: self.connection.state_name(),
            unacked: Arc::default(),
            last_error: None,
        }];
        shown.last_error = self.last_error.clone();
    }
}

struct CloseOnDrop(Arc<Inbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
