//! One connection of a producer and the messages that wait for their ack on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::jobs::{Book, Job};
use crate::error::{Error, Result};
use crate::provider::socket::{Change, Connection};
use crate::wire::kapokmq::{ACK, Answer, decode_answer, delay_seconds, encode_keyed_send, encode_send};

/// Acks read before others get their turn.
const ACKS_PER_TURN: usize = 4096;

/// See the module.
pub(super) struct Lane {
    pub(super) connection: Connection,
    /// Written, in order. A job that ended before its ack leaves `None`, so that later acks still pair.
    unacked: VecDeque<Option<Job>>,
    pub(super) gauge: Arc<AtomicU64>,
    /// The registry no longer lists the node: it gets no more messages.
    pub(super) retiring: bool,
    pub(super) last_error: Option<Error>,
}

impl Lane {
    pub(super) fn new(connection: Connection) -> Lane {
        Lane {
            connection,
            unacked: VecDeque::new(),
            gauge: Arc::default(),
            retiring: false,
            last_error: None,
        }
    }

    /// Messages that wait for their ack, and places of those that no longer do.
    pub(super) fn pending(&self) -> usize {
        self.unacked.len()
    }

    /// Whether a message may be written to it, as far as the window goes.
    pub(super) fn open(&self, window: usize) -> bool {
        !self.retiring && self.connection.is_up() && self.unacked.len() < window
    }

    /// Whether it may have the message's fields: a key needs the extension.
    pub(super) fn carries(&self, job: &Job) -> bool {
        job.key().is_none() || self.connection.extended()
    }

    /// Goes on with dialing.
    pub(super) fn poll_dial(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Change> {
        let change = self.connection.poll_dial(cx, now);
        if let Some(Change::Failed(error)) = &change {
            self.last_error = Some(error.clone());
        }
        change
    }

    /// Reads acks and keeps the connection alive: how many came, or why the connection is lost.
    pub(super) fn poll_acks(&mut self, cx: &mut Context<'_>, now: Instant, book: &mut Book) -> Result<usize> {
        let target = self.connection.target.clone();
        let Some(link) = self.connection.link() else { return Ok(0) };
        let extended = link.extended();
        let mut acks = 0;
        while acks < ACKS_PER_TURN {
            let Poll::Ready(frame) = link.poll_frame(cx) else { break };
            let frame = frame?;
            let answer = match extended {
                true => decode_answer(&frame)
                    .map_err(|_| target.strange("answered a message with neither `ok` nor `no`"))?,
                false if frame == ACK => Answer::Accepted(""),
                false => return Err(target.strange("answered a message with something else than `ok`")),
            };
            match (self.unacked.pop_front(), answer) {
                (Some(Some(job)), Answer::Accepted(code)) => {
                    book.acked(job, Some(code).filter(|code| !code.is_empty()));
                }
                (Some(Some(job)), Answer::Refused { kind, text }) => book.refused(job, kind, text),
                (Some(None), _) => {}
                (None, _) => return Err(target.strange("acknowledged more than was sent")),
            }
            acks += 1;
        }
        link.check(cx, now)?;
        Ok(acks)
    }

    /// Whether the socket takes more.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.connection.link().map_or(Poll::Pending, |link| link.poll_ready(cx))
    }

    /// Writes a job; whatever happens next, the broker may have it.
    pub(super) fn write(&mut self, mut job: Job, now: Instant, keep_body: bool) -> Result<()> {
        let message = &job.call.message;
        let waited = now.saturating_duration_since(job.call.accepted);
        let delay = delay_seconds(message.delay().saturating_sub(waited));
        let mut frame = Vec::with_capacity(message.body().len() + 48);
        // Checked when the job was taken.
        let body = std::str::from_utf8(message.body()).unwrap_or_default();
        match job.key() {
            Some(key) => encode_keyed_send(&mut frame, body, delay, key),
            None => encode_send(&mut frame, body, delay),
        }
        job.writes += 1;
        if !keep_body {
            // The buffer that it is part of can be freed before the ack comes.
            job.call.message.set_body(Bytes::new());
        }
        self.unacked.push_back(Some(job));
        match self.connection.link() {
            Some(link) => link.send(Bytes::from(frame)),
            None => Ok(()),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.connection.link().map_or(Poll::Ready(Ok(())), |link| link.poll_flush(cx))
    }

    /// Drops the connection and gives back the jobs that were written on it.
    pub(super) fn lose(&mut self, now: Instant, error: Error) -> Vec<Job> {
        self.connection.lose(now);
        self.last_error = Some(error);
        self.unacked.drain(..).flatten().collect()
    }

    /// Ends the unacknowledged jobs that `which` names; their acks, should they come, are skipped.
    pub(super) fn take_where(&mut self, which: &mut dyn FnMut(&Job) -> bool) -> Vec<Job> {
        self.unacked.iter_mut().filter_map(|slot| slot.take_if(|job| which(job))).collect()
    }

    /// The jobs that wait for their ack.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.unacked.iter().flatten()
    }

    /// Shows how many wait.
    pub(super) fn gauge(&self) {
        self.gauge.store(self.unacked.len() as u64, Ordering::Relaxed);
    }
}
