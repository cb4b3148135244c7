//! Calls that wait for one another go into one command: each waits for a majority of the servers to have it on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::body::LARGEST;
use super::fault::Fault;
use crate::client::{BoxFuture, Context};
use crate::error::{Error, Kind, Outcome, Result};

/// Calls that may wait.
const CALLS: usize = 65_536;
/// Their bytes, in units of 1 KiB.
const KIBIBYTES: u32 = (LARGEST >> 10) as u32;
/// Calls and bytes that go into one command.
const GROUP: (usize, u64) = (1000, 16 << 20);

/// What one call holds while it waits.
pub(super) struct Held(#[expect(dead_code)] [OwnedSemaphorePermit; 2]);

/// How many calls may wait, and with how many bytes.
pub(super) struct Room {
    calls: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Room {
        Room {
            calls: Arc::new(Semaphore::new(CALLS)),
            kibibytes: Arc::new(Semaphore::new(KIBIBYTES as usize)),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `queue_full` and `cancelled`, of the context; `too_large`.
    pub(super) async fn take(&self, ctx: &Context, bytes: u64) -> Result<Held> {
        if bytes > LARGEST {
            let text = format!("{bytes} bytes are more than an outbox takes at once: {LARGEST}");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let units = u32::try_from(bytes.div_ceil(1024)).unwrap_or(KIBIBYTES).min(KIBIBYTES);
        let taken = async {
            let call = self.calls.clone().acquire_owned().await;
            Ok::<_, tokio::sync::AcquireError>(Held([
                call?,
                self.kibibytes.clone().acquire_many_owned(units).await?,
            ]))
        };
        match ctx.run(taken).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(_)) => Err(Error::new(Kind::Storage, "the outbox's store is closed")),
            Err(error) if error.kind() == Kind::Timeout => Err(Error::new(
                Kind::QueueFull,
                "the outbox's store has more to write than it can: the deadline passed before there was room",
            )),
            Err(error) => Err(error),
        }
    }
}

struct Job<I, O> {
    item: I,
    bytes: u64,
    until: Option<Instant>,
    reply: oneshot::Sender<Result<O>>,
}

impl<I, O> Job<I, O> {
    fn wanted(&self) -> bool {
        !self.reply.is_closed() && self.until.is_none_or(|until| Instant::now() < until)
    }
}

struct Waiting<I, O> {
    jobs: VecDeque<Job<I, O>>,
    led: bool,
}

/// What the calls of a group do together: an answer for each.
pub(super) type Work<I, O> = Arc<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O>>> + Send + Sync>;

/// See the module.
pub(super) struct Group<I, O> {
    waiting: Arc<Mutex<Waiting<I, O>>>,
    work: Work<I, O>,
}

impl<I: Send + 'static, O: Send + 'static> Group<I, O> {
    pub(super) fn new(work: Work<I, O>) -> Group<I, O> {
        let waiting = Waiting { jobs: VecDeque::new(), led: false };
        Group { waiting: Arc::new(Mutex::new(waiting)), work }
    }

    /// Does it together with what else waits.
    pub(super) async fn run(&self, ctx: &Context, item: I, bytes: u64) -> Result<O> {
        let (reply, answer) = oneshot::channel();
        let leads = {
            let mut waiting = self.waiting.lock();
            waiting.jobs.push_back(Job { item, bytes, until: ctx.deadline(), reply });
            !std::mem::replace(&mut waiting.led, true)
        };
        if leads {
            tokio::spawn(lead(Leader { waiting: self.waiting.clone(), leads: true }, self.work.clone()));
        }
        match ctx.run(answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::new(Kind::Internal, "a call of the outbox's store had no answer")
                .outcome_is(Outcome::Unknown)),
            Err(ended) if ended.kind() == Kind::Timeout => Err(late(Outcome::Unknown)),
            Err(ended) => Err(ended.outcome_is(Outcome::Unknown)),
        }
    }
}

fn late(outcome: Outcome) -> Error {
    let text = format!("{}: the deadline passed", Fault::Late);
    Error::new(Kind::Timeout, text).caused_by(Fault::Late).outcome_is(outcome)
}

/// Who calls the work. However it ends, the next call leads anew.
struct Leader<I, O> {
    waiting: Arc<Mutex<Waiting<I, O>>>,
    leads: bool,
}

impl<I, O> Drop for Leader<I, O> {
    fn drop(&mut self) {
        if self.leads {
            let mut waiting = self.waiting.lock();
            waiting.led = false;
            waiting.jobs.clear();
        }
    }
}

impl<I, O> Leader<I, O> {
    fn next(&mut self) -> Option<Vec<Job<I, O>>> {
        let mut waiting = self.waiting.lock();
        let (mut group, mut bytes) = (Vec::new(), 0_u64);
        while group.len() < GROUP.0
            && let Some(job) = waiting.jobs.front()
            && (group.is_empty() || bytes.saturating_add(job.bytes) <= GROUP.1)
        {
            bytes = bytes.saturating_add(job.bytes);
            group.extend(waiting.jobs.pop_front());
        }
        if group.is_empty() {
            waiting.led = false;
            self.leads = false;
            return None;
        }
        Some(group)
    }
}

async fn lead<I: Send + 'static, O: Send + 'static>(mut leader: Leader<I, O>, work: Work<I, O>) {
    while let Some(group) = leader.next() {
        let (mut items, mut replies) = (Vec::new(), Vec::new());
        for job in group {
            if job.wanted() {
                items.push(job.item);
                replies.push(job.reply);
            } else {
                let _ = job.reply.send(Err(late(Outcome::NotSent)));
            }
        }
        if items.is_empty() {
            continue;
        }
        for (reply, answer) in replies.into_iter().zip(work(items).await) {
            let _ = reply.send(answer);
        }
    }
}
