//! A thread with a connection. What waits for it goes into one transaction: each commit costs a sync of the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::fault::{Fault, error_of, unknown};
use crate::client::Context;
use crate::error::{Error, Kind, Outcome, Result};

/// Jobs that may wait.
const JOBS: usize = 65_536;
/// Their bytes, in units of 1 KiB: 512 MiB.
const KIBIBYTES: u32 = 512 << 10;
/// Jobs and bytes that go into one transaction.
const GROUP: (usize, u64) = (4096, 64 << 20);

/// The most bytes that one job may have.
pub(super) const LARGEST: u64 = (KIBIBYTES as u64) << 10;

/// How long a thread waits for a lock before it looks who still waits for it.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// How long an opening may take: another process may hold the file.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// A job that did not begin is answered so long before its deadline, so that the answer says why.
const EARLY: Duration = Duration::from_millis(100);

/// A thread that writes without a rest lets go of the lock for so long, after so long: other processes look every half
/// a millisecond whether it is free.
const REST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Where a job is: it waits, runs, or nobody wants it any more.
const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const LEFT: u8 = 2;

/// Why a job failed.
enum Failed {
    Sqlite(rusqlite::Error),
    Panicked,
}

impl Failed {
    fn error(&self) -> Error {
        match self {
            Failed::Sqlite(error) => error_of(error),
            Failed::Panicked => Error::new(Kind::Internal, "a job of the outbox's store panicked"),
        }
    }

    fn is_damage(&self) -> bool {
        matches!(self, Failed::Sqlite(error) if Fault::of(error) == Fault::Damaged)
    }
}

trait Work: Send {
    fn run(&mut self, connection: &Connection) -> Result<(), Failed>;
    fn end(self: Box<Self>, failed: Option<Error>);
    /// Whether somebody waits for it who still has time.
    fn wanted(&self) -> bool;
    /// Begins it; false where it was given up.
    fn begin(&self) -> bool;
    /// What it did was undone: it waits again.
    fn undone(&self);
    fn bytes(&self) -> u64;
}

struct Job<T, F> {
    run: F,
    made: Option<T>,
    reply: oneshot::Sender<Result<T>>,
    until: Option<Instant>,
    stage: Arc<AtomicU8>,
    bytes: u64,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Failed> {
        // The thread must outlive it: others wait too.
        let made = catch_unwind(AssertUnwindSafe(|| (self.run)(connection)));
        self.made = Some(made.map_err(|_| Failed::Panicked)?.map_err(Failed::Sqlite)?);
        Ok(())
    }

    fn end(self: Box<Self>, failed: Option<Error>) {
        let result = match (failed, self.made) {
            (Some(error), _) => Err(error),
            (None, Some(made)) => Ok(made),
            (None, None) => Err(Error::new(Kind::Internal, "a job of the store was not run")),
        };
        let _ = self.reply.send(result);
    }

    fn wanted(&self) -> bool {
        !self.reply.is_closed() && self.until.is_none_or(|until| Instant::now() < until)
    }

    fn begin(&self) -> bool {
        self.stage.compare_exchange(WAITS, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn undone(&self) {
        self.stage.store(WAITS, Ordering::Release);
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// See the module.
pub(super) struct Worker {
    jobs: Mutex<Option<Sender<Box<dyn Work>>>>,
    room: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    state: Arc<State>,
}

/// What the thread tells of itself.
#[derive(Default)]
struct State {
    /// Another process has the file locked.
    locked_out: AtomicBool,
    gone: AtomicBool,
}

/// Says that the thread is gone, whatever ended it.
struct Gone(Arc<State>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
    }
}

/// Whether the jobs of a worker write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Write,
    Read,
}

impl Worker {
    /// Starts the thread; `open` runs on it, and its error is that of the start.
    pub(super) async fn start(
        name: &str,
        does: Does,
        open: impl FnOnce() -> Result<Connection> + Send + 'static,
    ) -> Result<Worker> {
        let (jobs, waiting) = channel::<Box<dyn Work>>();
        let (opened, is_open) = oneshot::channel();
        let (ends, ended) = oneshot::channel::<()>();
        let state = Arc::new(State::default());
        let theirs = state.clone();
        let counted = super::generation::Opened::count()?;
        let run = move || {
            // The last to go: who waits for it may fork then.
            let _ends = ends;
            let _counted = counted;
            let _gone = Gone(theirs.clone());
            let connection = match open() {
                Ok(connection) => connection,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(())).is_ok() {
                serve(&connection, &waiting, does, &theirs);
            }
            if let Err((_, error)) = connection.close() {
                tracing::warn!(%error, "the file of an outbox was not closed well");
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
            Error::new(Kind::Storage, "the thread of the outbox's store could not be started")
                .caused_by(error)
        })?;
        match tokio::time::timeout(OPENING, is_open).await {
            Ok(opened) => opened.unwrap_or_else(|_| Err(broken()))?,
            Err(_) => return Err(Fault::Busy.error(None).at("it could not be opened in time")),
        }
        Ok(Worker {
            jobs: Mutex::new(Some(jobs)),
            room: Arc::new(Semaphore::new(JOBS)),
            bytes: Arc::new(Semaphore::new(KIBIBYTES as usize)),
            ended: Mutex::new(Some(ended)),
            state,
        })
    }

    /// Whether its thread takes jobs.
    pub(super) fn serves(&self) -> bool {
        !self.state.gone.load(Ordering::Acquire) && self.jobs.lock().is_some()
    }

    fn gone(&self) -> Error {
        if self.jobs.lock().is_none() { gone() } else { broken() }
    }

    /// Runs a job; it may run again, what it did before undone: the last time alone, where something is damaged.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        ctx: &Context,
        bytes: u64,
        run: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        if bytes > LARGEST {
            let text = format!("{bytes} bytes are more than an outbox takes at once: {LARGEST}");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let place = self.place(&self.room, 1, ctx).await?;
        let units = u32::try_from(bytes.div_ceil(1024)).unwrap_or(KIBIBYTES).min(KIBIBYTES);
        let held = self.place(&self.bytes, units, ctx).await?;
        let (reply, made) = oneshot::channel();
        let early = ctx.remaining().map(|left| (left / 8).min(EARLY)).unwrap_or_default();
        let until = ctx.deadline().map(|until| until.checked_sub(early).unwrap_or(until));
        let stage = Arc::new(AtomicU8::new(WAITS));
        let of_job = stage.clone();
        let job = Box::new(Job { run, made: None, reply, until, stage: of_job, bytes, _room: (place, held) });
        let sent = self.jobs.lock().as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(self.gone());
        }
        let never_began = || stage.compare_exchange(WAITS, LEFT, Ordering::AcqRel, Ordering::Acquire).is_ok();
        match ctx.run(made).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if never_began() => Err(self.gone()),
            Ok(Err(_)) => Err(self.gone().outcome_is(Outcome::Unknown)),
            Err(ended) if !never_began() => Err(ended.outcome_is(Outcome::Unknown)),
            Err(ended) if ended.kind() == Kind::Timeout && self.state.locked_out.load(Ordering::Acquire) => {
                Err(Fault::Busy.error(None))
            }
            Err(ended) => Err(ended.outcome_is(Outcome::NotSent)),
        }
    }

    async fn place(&self, of: &Arc<Semaphore>, units: u32, ctx: &Context) -> Result<OwnedSemaphorePermit> {
        if let Ok(place) = of.clone().try_acquire_many_owned(units) {
            return Ok(place);
        }
        match ctx.run(of.clone().acquire_many_owned(units)).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.gone()),
            Err(error) if error.kind() == Kind::Timeout => Err(Error::new(
                Kind::QueueFull,
                "the outbox's store has more to write than it can: the deadline passed before there was room",
            )),
            Err(error) => Err(error),
        }
    }

    /// Takes no more jobs.
    pub(super) fn take_no_more(&self) {
        drop(self.jobs.lock().take());
    }

    /// Takes no more jobs; those that wait are done, and the file is closed.
    pub(super) async fn close(&self, ctx: &Context) -> Result<()> {
        self.take_no_more();
        let ended = self.ended.lock().take();
        match ended {
            Some(ended) => ctx.run(ended).await.map(drop),
            None => Ok(()),
        }
    }
}

fn gone() -> Error {
    Error::new(Kind::Storage, "the outbox's store is closed")
}

fn broken() -> Error {
    let text =
        "the thread of the outbox's store broke down: close the producers of its file and open them anew";
    Error::new(Kind::Storage, text)
}

fn serve(connection: &Connection, waiting: &Receiver<Box<dyn Work>>, does: Does, state: &State) {
    let mut rested = std::time::Instant::now();
    loop {
        let asked = std::time::Instant::now();
        let Ok(first) = waiting.recv() else { return };
        if asked.elapsed() >= REST.0 {
            rested = std::time::Instant::now();
        }
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < GROUP.0
            && bytes < GROUP.1
            && let Ok(next) = waiting.try_recv()
        {
            bytes = bytes.saturating_add(next.bytes());
            group.push(next);
        }
        match does {
            Does::Write => write(connection, group, state, false),
            Does::Read => group.into_iter().for_each(|job| read(connection, job)),
        }
        if does == Does::Write && rested.elapsed() >= REST.1 {
            std::thread::sleep(REST.0);
            rested = std::time::Instant::now();
        }
    }
}

fn read(connection: &Connection, mut job: Box<dyn Work>) {
    let mut busy = None;
    loop {
        if !job.wanted() || !job.begin() {
            return job.end(Some(late(busy.as_ref())));
        }
        match job.run(connection) {
            Ok(()) => return job.end(None),
            Err(Failed::Sqlite(error)) if Fault::of(&error) == Fault::Busy => busy = Some(error),
            Err(failed) => return job.end(Some(failed.error())),
        }
        job.undone();
    }
}

fn write(connection: &Connection, group: Vec<Box<dyn Work>>, state: &State, again: bool) {
    let Some(mut group) = begin(connection, group, state) else { return };
    let failed = group.iter_mut().find_map(|job| job.run(connection).err());
    let Some(failed) = failed else { return commit(connection, group) };
    undo(connection);
    // Those that can go round what is damaged do so at their second run.
    if group.len() == 1 && (again || !failed.is_damage()) {
        return group.into_iter().for_each(|job| job.end(Some(failed.error())));
    }
    // One of them failed: each by itself, so that the others do not.
    let alone = group.len() == 1;
    for job in group {
        job.undone();
        write(connection, vec![job], state, alone);
    }
}

// Begins a transaction for those who wait long enough for it.
fn begin(
    connection: &Connection,
    mut group: Vec<Box<dyn Work>>,
    state: &State,
) -> Option<Vec<Box<dyn Work>>> {
    let mut busy = None;
    loop {
        let (wanted, late_ones): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.wanted());
        for job in late_ones {
            job.end(Some(late(busy.as_ref())));
        }
        if wanted.is_empty() {
            return None;
        }
        group = wanted;
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => {
                state.locked_out.store(false, Ordering::Release);
                let (begun, left): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.begin());
                left.into_iter().for_each(|job| job.end(Some(late(None))));
                if begun.is_empty() {
                    undo(connection);
                    return None;
                }
                return Some(begun);
            }
            Err(error) if Fault::of(&error) == Fault::Busy => {
                state.locked_out.store(true, Ordering::Release);
                busy = Some(error);
            }
            Err(error) => {
                let failed = error_of(&error);
                group.into_iter().for_each(|job| job.end(Some(failed.clone())));
                return None;
            }
        }
    }
}

fn late(busy: Option<&rusqlite::Error>) -> Error {
    match busy {
        Some(error) => Fault::Busy.error(Some(error)),
        None => Error::new(Kind::Timeout, "the deadline passed before the outbox's store came to it"),
    }
}

fn commit(connection: &Connection, group: Vec<Box<dyn Work>>) {
    let failed = connection.execute_batch("COMMIT").err().map(|error| {
        undo(connection);
        unknown(&error)
    });
    for job in group {
        job.end(failed.clone());
    }
}

fn undo(connection: &Connection) {
    // After some errors SQLite has rolled back by itself.
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a transaction of an outbox was not rolled back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn worker() -> Worker {
        let open = || Ok(Connection::open_in_memory().unwrap());
        Worker::start("test", Does::Write, open).await.unwrap()
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let (worker, ctx) = (worker().await, Context::within(Duration::from_secs(20)));
        let bad = worker.run::<()>(&ctx, 0, |_| std::panic::panic_any("by the test"));
        let good = worker.run(&ctx, 0, |connection| connection.execute("CREATE TABLE x (y)", []));
        let (bad, good) = tokio::join!(bad, good);
        assert_eq!(bad.unwrap_err().kind(), Kind::Internal);
        good.unwrap();
        assert!(worker.serves());
        worker.close(&ctx).await.unwrap();
        assert!(!worker.serves());
    }

    #[tokio::test]
    async fn a_job_that_never_began_was_not_done() {
        let (worker, ctx) = (worker().await, Context::within(Duration::from_millis(200)));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let long = Context::within(Duration::from_secs(20));
        let first = worker.run(&long, 0, move |_| {
            let _ = held.recv();
            Ok(())
        });
        let second = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let ended = worker.run(&ctx, 0, |connection| connection.execute("CREATE TABLE x (y)", [])).await;
            drop(hold);
            ended.unwrap_err()
        };
        let (first, second) = tokio::join!(first, second);
        first.unwrap();
        assert_eq!((second.kind(), second.outcome()), (Kind::Timeout, Outcome::NotSent));
        // It is not done later either.
        worker.run(&long, 0, |connection| connection.execute("CREATE TABLE x (y)", [])).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_under_way_at_the_deadline_may_have_been_done() {
        let (worker, ctx) = (worker().await, Context::within(Duration::from_millis(100)));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let ended = worker.run(&ctx, 0, move |_| {
            let _ = held.recv();
            Ok(())
        });
        assert_eq!(ended.await.unwrap_err().outcome(), Outcome::Unknown);
        drop(hold);
    }
}
