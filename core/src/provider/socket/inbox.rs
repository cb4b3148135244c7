//! Between a consumer's callers and its task: deliveries that wait for a receive, acks that wait for the wire.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::keys::Prefetch;
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::message::Delivery;

/// A delivery and the length of its frame.
pub(in crate::provider) type Weighed = (Delivery, usize);

/// What is said of a delivery, as it is written.
#[derive(Debug, Clone)]
pub(in crate::provider) enum Word {
    /// It is done.
    Ack(Arc<str>),
    /// It is given back, which only the extension has.
    Nack(Arc<str>),
}

/// Whether acks can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum Flow {
    /// No connection.
    Down,
    /// Connected.
    Live,
    /// Disconnected on purpose, or not read, until callers have received enough. Acks are taken: a caller that
    /// receives and acks in turn would otherwise never get that far.
    Paused,
}

#[derive(Debug)]
struct State {
    deliveries: VecDeque<Weighed>,
    bytes: usize,
    received: u64,
    acks: Vec<Word>,
    // Acks taken and not yet written.
    backlog: usize,
    acked: u64,
    flow: Flow,
    // The last connection had the extension.
    extended: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(in crate::provider) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    // The flow changed, there is room for acks, or the consumer was closed.
    changed: Notify,
    pub(in crate::provider) task: AtomicWaker,
    provider: &'static str,
    prefetch: Prefetch,
    max_acks: usize,
}

/// Counts, for people.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Counts {
    pub(in crate::provider) waiting: usize,
    pub(in crate::provider) waiting_bytes: usize,
    pub(in crate::provider) received: u64,
    pub(in crate::provider) unsent_acks: usize,
    pub(in crate::provider) acked: u64,
}

impl Inbox {
    pub(in crate::provider) fn new(provider: &'static str, prefetch: Prefetch, max_acks: usize) -> Inbox {
        let state = State {
            deliveries: VecDeque::new(),
            bytes: 0,
            received: 0,
            acks: Vec::new(),
            backlog: 0,
            acked: 0,
            flow: Flow::Down,
            extended: false,
            closed: false,
        };
        Inbox {
            state: Mutex::new(state),
            arrived: Notify::new(),
            changed: Notify::new(),
            task: AtomicWaker::new(),
            provider,
            prefetch,
            max_acks,
        }
    }

    /// Adds deliveries, leaving `fresh` empty.
    pub(in crate::provider) fn push(&self, fresh: &mut Vec<Weighed>) {
        if fresh.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.closed {
            fresh.clear();
            return;
        }
        state.bytes += fresh.iter().map(|(_, weight)| weight).sum::<usize>();
        state.deliveries.extend(fresh.drain(..));
        drop(state);
        // A receiver that leaves some behind wakes the next one.
        self.arrived.notify_one();
    }

    /// Bytes that may still be added before the bound is met.
    pub(in crate::provider) fn room(&self) -> usize {
        self.prefetch.bytes.saturating_sub(self.state.lock().bytes)
    }

    /// Whether a consumer that paused should connect again: callers have received enough, or so many acks
    /// wait that they have to be written.
    pub(in crate::provider) fn drained(&self) -> bool {
        self.state.lock().drained(self)
    }

    /// Receives up to `max` deliveries; none when the context's deadline passes.
    pub(in crate::provider) async fn receive(&self, ctx: &Context, max: usize) -> Result<Vec<Delivery>> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(taken) = self.take(max)? {
                return Ok(taken);
            }
            match ctx.run(arrived).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Timeout => return Ok(Vec::new()),
                Err(error) => return Err(error.by(self.provider)),
            }
        }
    }

    fn take(&self, max: usize) -> Result<Option<Vec<Delivery>>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(self.refused());
        }
        let count = state.deliveries.len().min(max);
        if count == 0 {
            return Ok(None);
        }
        let mut taken = Vec::with_capacity(count);
        let mut bytes = 0;
        for (delivery, weight) in state.deliveries.drain(..count) {
            bytes += weight;
            taken.push(delivery);
        }
        state.bytes -= bytes;
        state.received += count as u64;
        let more = !state.deliveries.is_empty();
        let resume = state.flow == Flow::Paused && state.drained(self);
        drop(state);
        if more {
            self.arrived.notify_one();
        }
        if resume {
            self.task.wake();
        }
        Ok(Some(taken))
    }

    /// Queues acks, or nacks, waiting for a connection and for room within the context unless `fail` says not to.
    pub(in crate::provider) async fn ack(&self, ctx: &Context, codes: &[Word], fail: bool) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let obstacle = match self.try_ack(codes) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let waits = match obstacle.kind() {
                Kind::Unavailable => !fail,
                Kind::QueueFull => true,
                _ => false,
            };
            if !waits {
                return Err(obstacle);
            }
            ctx.run(changed).await.map_err(|ended| match ended.kind() {
                Kind::Timeout if obstacle.kind() == Kind::QueueFull => obstacle,
                _ => ended.caused_by(obstacle).by(self.provider),
            })?;
        }
    }

    fn try_ack(&self, codes: &[Word]) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(self.refused());
        }
        if state.flow == Flow::Down {
            let text = "there is no connection to write the ack to";
            return Err(Error::new(Kind::Unavailable, text).by(self.provider));
        }
        if !state.extended && codes.iter().any(|word| matches!(word, Word::Nack(_))) {
            let text =
                format!("the {} wire has no nack: what is not acknowledged comes again", self.provider);
            return Err(Error::new(Kind::Unsupported, text).by(self.provider));
        }
        // More codes than there is room for pass when nothing else waits.
        if state.backlog > 0 && state.backlog + codes.len() > self.max_acks {
            let text =
                format!("{} acks wait to be written: the consumer takes {}", state.backlog, self.max_acks);
            return Err(Error::new(Kind::QueueFull, text).by(self.provider));
        }
        let first = state.acks.is_empty();
        state.acks.extend_from_slice(codes);
        state.backlog += codes.len();
        drop(state);
        if first {
            self.task.wake();
        }
        Ok(())
    }

    /// Moves the acks to write to the end of `into`.
    pub(in crate::provider) fn take_acks(&self, into: &mut VecDeque<Word>) {
        into.extend(self.state.lock().acks.drain(..));
    }

    /// Acks were written.
    pub(in crate::provider) fn wrote_acks(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut state = self.state.lock();
        let was_full = state.backlog >= self.max_acks / 2;
        state.backlog -= count;
        state.acked += count as u64;
        drop(state);
        if was_full {
            self.changed.notify_waiters();
        }
    }

    /// There is a connection, with the extension or not.
    pub(in crate::provider) fn set_live(&self, extended: bool) {
        self.state.lock().extended = extended;
        self.set_flow(Flow::Live);
    }

    /// Whether the last connection had the extension.
    pub(in crate::provider) fn extended(&self) -> bool {
        self.state.lock().extended
    }

    pub(in crate::provider) fn set_flow(&self, flow: Flow) {
        self.state.lock().flow = flow;
        self.changed.notify_waiters();
    }

    /// Ends receives and refuses acks; those taken are still written.
    pub(in crate::provider) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.deliveries);
        state.bytes = 0;
        drop(state);
        drop(waiting);
        self.arrived.notify_waiters();
        // For one that was about to wait.
        self.arrived.notify_one();
        self.changed.notify_waiters();
        self.task.wake();
    }

    pub(in crate::provider) fn closed(&self) -> bool {
        self.state.lock().closed
    }

    fn refused(&self) -> Error {
        Error::new(Kind::Closed, "the consumer is closed").by(self.provider)
    }

    pub(in crate::provider) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts {
            waiting: state.deliveries.len(),
            waiting_bytes: state.bytes,
            received: state.received,
            unsent_acks: state.backlog,
            acked: state.acked,
        }
    }
}

impl State {
    fn drained(&self, inbox: &Inbox) -> bool {
        let received =
            self.deliveries.len() <= inbox.prefetch.count && self.bytes <= inbox.prefetch.bytes / 2;
        received || self.backlog > inbox.max_acks / 2
    }
}
