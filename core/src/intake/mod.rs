//! The bounded way into a producer's task: callers push, the task takes all that waits at once.
//!
//! Bodies are copied into one buffer that the task swaps out whole, so that a submit costs no allocation
//! of its own and the lock is held for the copy alone. Deadlines are stamped when the task takes a call:
//! the task takes at once whatever the state of its connection, and a submit then needs no clock.

mod batch;
mod call;
mod limits;
mod pump;
mod room;
mod under_way;
mod wait;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::completion::{Apart, Completion, CompletionQueue};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};

use batch::{Batch, Full};
use call::Reply;
pub use call::{Call, Ended, Taken, Ticket};
pub use limits::{Limits, Whose};
pub use pump::pump;
pub use room::{Room, Roomed};
pub use under_way::UnderWay;

#[derive(Debug, Default)]
struct Pending {
    batch: Batch,
    cancels: Vec<Ticket>,
    accepted_calls: u64,
    accepted_bytes: u64,
    // What had ended when it was last looked up: the task counts on another core's cache line, and as long
    // as there is room by the old number there is room.
    known_calls: u64,
    known_bytes: u64,
    // Calls accepted since the last flush began, and how many flushes have.
    epoch: u64,
    epoch_calls: u64,
    next_number: u64,
    closed: bool,
    // The task was told of the closing.
    close_taken: bool,
}

impl Pending {
    fn count(&mut self, bytes: u64) {
        self.accepted_calls += 1;
        self.accepted_bytes += bytes;
        self.epoch_calls += 1;
    }
}

/// Buffers that the task swaps for the full ones.
#[derive(Debug, Default)]
struct Spare {
    batch: Batch,
    // The arena swapped out last: used again when all of its bodies are gone.
    lent: Bytes,
}

/// The largest arena that is kept for the next burst, in bytes.
const KEPT: usize = 1 << 20;

impl Spare {
    // Takes the full arena out and puts an empty one in its place.
    fn next_arena(&mut self) -> Bytes {
        let full = std::mem::take(&mut self.batch.arena);
        // The next burst is likely as large as this one.
        let likely = full.len().min(KEPT);
        self.batch.arena = match std::mem::take(&mut self.lent).try_into_mut() {
            Ok(free) if free.capacity() >= likely => {
                let mut free = Vec::from(free);
                free.clear();
                free
            }
            _ => Vec::with_capacity(likely),
        };
        let kept = full.capacity() <= KEPT;
        let full = Bytes::from(full);
        if kept {
            self.lent = full.clone();
        }
        full
    }
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    limits: Limits,
    provider: &'static str,
    pending: Apart<Mutex<Pending>>,
    task: Apart<AtomicWaker>,
    spare: Apart<Mutex<Spare>>,
    ended_calls: AtomicU64,
    ended_bytes: AtomicU64,
    open_epochs: Mutex<BTreeMap<u64, i64>>,
    waiting: AtomicU64,
    room: Notify,
    queue: OnceLock<Arc<CompletionQueue>>,
}

impl Intake {
    /// An empty intake.
    pub fn new(provider: &'static str, limits: Limits) -> Arc<Intake> {
        Arc::new(Intake {
            limits,
            provider,
            pending: Apart::default(),
            task: Apart::default(),
            spare: Apart::default(),
            ended_calls: AtomicU64::new(0),
            ended_bytes: AtomicU64::new(0),
            open_epochs: Mutex::default(),
            waiting: AtomicU64::new(0),
            room: Notify::new(),
            queue: OnceLock::new(),
        })
    }

    /// Where completions of submits go. Set once, before the first submit.
    pub fn set_queue(&self, queue: Arc<CompletionQueue>) {
        let _ = self.queue.set(queue);
    }

    /// The completion queue, where one was set.
    pub fn queue(&self) -> Option<&Arc<CompletionQueue>> {
        self.queue.get()
    }

    /// Calls pushed and not yet ended.
    pub fn under_way(&self) -> u64 {
        let accepted = self.pending.0.lock().accepted_calls;
        accepted.saturating_sub(self.ended_calls.load(Ordering::Acquire))
    }

    /// Submits one message without waiting; its completion comes to the queue.
    pub fn submit(&self, token: u64, body: &[u8], delay: Duration) -> Result<()> {
        let queue = self.queue_for_submit()?;
        queue.reserve()?;
        let result = {
            let mut pending = self.pending.0.lock();
            self.admit_copy(&mut pending, body.len()).map(|()| {
                let first = pending.batch.is_empty();
                let epoch = pending.epoch;
                pending.batch.submit(token, body, delay, epoch);
                first
            })
        };
        match result {
            Ok(first) => {
                if first {
                    self.task.0.wake();
                }
                Ok(())
            }
            Err(error) => {
                queue.unreserve(1);
                Err(error)
            }
        }
    }

    /// Submits several at one cost for lock and wake-up: tokens count up from `first_token`.
    ///
    /// Returns how many were accepted, from the first on; an error only when none was.
    pub fn submit_many<'a>(
        &self,
        first_token: u64,
        bodies: impl ExactSizeIterator<Item = &'a [u8]>,
        delay: Duration,
    ) -> Result<usize> {
        let queue = self.queue_for_submit()?;
        let wanted = bodies.len();
        if wanted == 0 {
            return Ok(0);
        }
        let granted = queue.reserve_up_to(wanted);
        if granted == 0 {
            queue.reserve()?;
            queue.unreserve(1);
        }
        let mut accepted = 0;
        let mut refused = None;
        let first;
        {
            let mut pending = self.pending.0.lock();
            first = pending.batch.is_empty();
            for (index, body) in bodies.take(granted).enumerate() {
                if let Err(error) = self.admit_copy(&mut pending, body.len()) {
                    refused = Some(error);
                    break;
                }
                let epoch = pending.epoch;
                pending.batch.submit(first_token.wrapping_add(index as u64), body, delay, epoch);
                accepted += 1;
            }
        }
        queue.unreserve(granted - accepted);
        if accepted > 0 && first {
            self.task.0.wake();
        }
        match refused {
            Some(error) if accepted == 0 => Err(error),
            _ if accepted == 0 => Err(Error::new(Kind::QueueFull, "the completion queue is full")),
            _ => Ok(accepted),
        }
    }

    /// Submits a full message without waiting; `timeout` overrides the client's deadline.
    pub fn submit_message(&self, token: u64, message: Message, timeout: Option<Duration>) -> Result<()> {
        let queue = self.queue_for_submit()?;
        queue.reserve()?;
        match self.push(message, timeout, false, |_| Reply::Queue(token)) {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                queue.unreserve(1);
                Err(error)
            }
        }
    }

    fn queue_for_submit(&self) -> Result<&Arc<CompletionQueue>> {
        self.queue.get().ok_or_else(|| {
            Error::new(
                Kind::InvalidArgument,
                "the producer was opened without a completion queue: submits need one",
            )
        })
    }

    // A message that was refused comes back: the caller may wait for room and push it again.
    #[allow(clippy::result_large_err)]
    fn push(
        &self,
        message: Message,
        timeout: Option<Duration>,
        counted: bool,
        reply: impl FnOnce(u64) -> Reply,
    ) -> Result<Ticket, (Error, Message)> {
        let first;
        let ticket;
        {
            let mut pending = self.pending.0.lock();
            let bytes = message.body().len() as u64;
            if let Err(error) = self.check(&mut pending, bytes, counted) {
                return Err((error, message));
            }
            pending.count(bytes);
            pending.next_number += 1;
            let reply = reply(pending.next_number);
            ticket = match &reply {
                Reply::Queue(token) => Ticket::Token(*token),
                _ => Ticket::Wait(pending.next_number),
            };
            first = pending.batch.is_empty();
            let epoch = pending.epoch;
            pending.batch.push(Full { message, timeout, epoch, reply });
        }
        if first {
            self.task.0.wake();
        }
        Ok(ticket)
    }

    // For a body that is to be copied: one that is refused takes no memory.
    fn admit_copy(&self, pending: &mut Pending, length: usize) -> Result<()> {
        self.check(pending, length as u64, false)?;
        if pending.batch.arena.try_reserve(length).is_err() {
            let text = format!("no memory for a body of {length} bytes");
            return Err(Error::new(Kind::TooLarge, text).by(self.provider));
        }
        pending.count(length as u64);
        Ok(())
    }

    // Whether there is room for one more call; one that was `counted` before needs none.
    fn check(&self, pending: &mut Pending, bytes: u64, counted: bool) -> Result<()> {
        if pending.closed {
            return Err(Error::new(Kind::Closed, "the producer is closed").by(self.provider));
        }
        if !counted && !self.has_room(pending, bytes) {
            pending.known_calls = self.ended_calls.load(Ordering::Acquire);
            pending.known_bytes = self.ended_bytes.load(Ordering::Acquire);
            if !self.has_room(pending, bytes) {
                return Err(self.full(pending));
            }
        }
        Ok(())
    }

    fn has_room(&self, pending: &Pending, bytes: u64) -> bool {
        let under_way = pending.accepted_calls.saturating_sub(pending.known_calls);
        let held = pending.accepted_bytes.saturating_sub(pending.known_bytes);
        // A body over the whole bound passes when it is alone: the provider has its own limit of size.
        under_way < self.limits.calls && (under_way == 0 || held.saturating_add(bytes) <= self.limits.bytes)
    }

    #[cold]
    fn full(&self, pending: &Pending) -> Error {
        let under_way = pending.accepted_calls.saturating_sub(pending.known_calls);
        let held = pending.accepted_bytes.saturating_sub(pending.known_bytes);
        let text = if under_way >= self.limits.calls {
            format!("{under_way} sends are under way: the producer takes {}", self.limits.calls)
        } else {
            format!("{held} bytes of sends are under way: the producer takes {}", self.limits.bytes)
        };
        Error::new(Kind::QueueFull, text).by(self.provider)
    }

    /// Asks for a call to end as cancelled. One that has ended is left alone.
    pub fn cancel(&self, ticket: Ticket) {
        let waits = {
            let mut pending = self.pending.0.lock();
            let waits = pending.batch.cancel(ticket);
            if waits.is_none() {
                // One request per call under way is enough to keep; more are repeats.
                let under_way =
                    pending.accepted_calls.saturating_sub(self.ended_calls.load(Ordering::Acquire));
                if (pending.cancels.len() as u64) < under_way && !pending.cancels.contains(&ticket) {
                    pending.cancels.push(ticket);
                }
            }
            waits
        };
        match waits {
            Some(taken) => {
                let error = Error::new(Kind::Cancelled, "the call was cancelled").by(self.provider);
                self.settle(taken.reply, Err(error), taken.size, taken.epoch);
                // Last: a lent body calls the host, which may wait for the end or the room of this call.
                drop(taken.message);
            }
            None => self.task.0.wake(),
        }
    }

    /// Takes no more calls; those pushed are still taken.
    pub fn close(&self) {
        self.pending.0.lock().closed = true;
        self.task.0.wake();
        self.room.notify_waiters();
    }

    /// Waits until there is something to take. Only one task may take from an intake.
    pub async fn take(self: &Arc<Self>, into: &mut Taken) {
        poll_fn(|cx| self.poll_take(cx, into)).await;
    }

    /// The poll form of [`Intake::take`].
    pub fn poll_take(self: &Arc<Self>, cx: &mut TaskContext<'_>, into: &mut Taken) -> Poll<()> {
        if self.try_take(into) {
            return Poll::Ready(());
        }
        self.task.0.register(cx.waker());
        if self.try_take(into) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn try_take(self: &Arc<Self>, into: &mut Taken) -> bool {
        let mut spare = std::mem::take(&mut *self.spare.0.lock());
        {
            let mut pending = self.pending.0.lock();
            let news = !pending.batch.is_empty()
                || !pending.cancels.is_empty()
                || (pending.closed && !pending.close_taken);
            if !news {
                drop(pending);
                *self.spare.0.lock() = spare;
                return false;
            }
            if pending.closed {
                pending.close_taken = true;
                into.closed = true;
            }
            // Swaps alone: whoever submits meanwhile waits for this lock.
            std::mem::swap(&mut pending.batch, &mut spare.batch);
            into.cancels.append(&mut pending.cancels);
        }
        let arena = spare.next_arena();
        let now = Instant::now();
        into.calls.reserve(spare.batch.len());
        spare.batch.drain(&arena, |Full { message, timeout, epoch, reply }| {
            let timeout = timeout.unwrap_or(self.limits.deadline);
            // A deadline that the clock cannot hold is a year away.
            let deadline =
                now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400));
            into.calls.push(Call {
                size: message.body().len() as u64,
                message,
                deadline,
                accepted: now,
                epoch,
                reply,
                intake: self.clone(),
            });
        });
        *self.spare.0.lock() = spare;
        true
    }

    // An epoch counts down as its calls end and up when it is sealed: it is over at zero.
    fn count(&self, epoch: u64, change: i64) {
        let mut epochs = self.open_epochs.lock();
        let count = epochs.entry(epoch).or_insert(0);
        *count += change;
        if *count == 0 {
            epochs.remove(&epoch);
        }
    }

    /// Held by the task that takes: when the task ends, also by a panic, later pushes are refused and
    /// what waits ends with an error, so that nobody waits for a task that is gone.
    pub fn task_guard(self: &Arc<Self>) -> TaskGuard {
        TaskGuard(self.clone())
    }

    // Room is there before the caller hears of the end, who may push the next call at once.
    fn free(&self, calls: u64, bytes: u64) {
        self.ended_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.ended_calls.fetch_add(calls, Ordering::AcqRel);
    }

    // A flush returns after the caller was told: it finds the completions of what it waited for.
    fn over(&self, calls: u64, epoch: u64) {
        self.count(epoch, -(calls as i64));
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.room.notify_waiters();
        }
    }

    fn settle(&self, reply: Reply, result: Result<Receipt>, size: u64, epoch: u64) {
        self.free(1, size);
        match reply {
            Reply::Queue(token) => {
                if let Some(queue) = self.queue.get() {
                    queue.complete(&mut vec![Completion { token, result }]);
                }
            }
            Reply::Once(_, sender) => {
                let _ = sender.send(result);
            }
            Reply::Done => {}
        }
        self.over(1, epoch);
    }
}

/// See [`Intake::task_guard`].
#[derive(Debug)]
pub struct TaskGuard(Arc<Intake>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.close();
        let mut taken = Taken::default();
        self.0.try_take(&mut taken);
        let mut ended = Ended::default();
        for call in taken.calls {
            let error = Error::new(Kind::Closed, "the producer was closed").by(self.0.provider);
            ended.push(call, Err(error));
        }
    }
}

#[cfg(test)]
mod tests;
