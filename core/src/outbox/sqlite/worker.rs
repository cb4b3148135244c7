//! A thread with a connection. What waits for it goes into one transaction: each commit costs a sync of the disk.

use std::sync::Arc;
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
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

trait Work: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn end(self: Box<Self>, failed: Option<Error>);
    /// Whether somebody waits for it who still has time.
    fn wanted(&self) -> bool;
    fn bytes(&self) -> u64;
}

struct Job<T, F> {
    run: F,
    made: Option<T>,
    reply: oneshot::Sender<Result<T>>,
    until: Option<Instant>,
    bytes: u64,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.made = Some((self.run)(connection)?);
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
        let run = move || {
            let connection = match open() {
                Ok(connection) => connection,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(())).is_ok() {
                serve(&connection, &waiting, does);
            }
            if let Err((_, error)) = connection.close() {
                tracing::warn!(%error, "the file of an outbox was not closed well");
            }
            drop(ends);
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
            Error::new(Kind::Storage, "the thread of the outbox's store could not be started")
                .caused_by(error)
        })?;
        is_open.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(Worker {
            jobs: Mutex::new(Some(jobs)),
            room: Arc::new(Semaphore::new(JOBS)),
            bytes: Arc::new(Semaphore::new(KIBIBYTES as usize)),
            ended: Mutex::new(Some(ended)),
        })
    }

    /// Runs a job; it may run twice, the first time undone.
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
        let until = ctx.deadline();
        let job = Box::new(Job { run, made: None, reply, until, bytes, _room: (place, held) });
        {
            let jobs = self.jobs.lock();
            let sent = jobs.as_ref().map(|jobs| jobs.send(job));
            if !matches!(sent, Some(Ok(()))) {
                return Err(gone());
            }
        }
        match ctx.run(made).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone().outcome_is(Outcome::Unknown)),
            // It may be under way.
            Err(ended) => Err(ended.outcome_is(Outcome::Unknown)),
        }
    }

    async fn place(&self, of: &Arc<Semaphore>, units: u32, ctx: &Context) -> Result<OwnedSemaphorePermit> {
        if let Ok(place) = of.clone().try_acquire_many_owned(units) {
            return Ok(place);
        }
        match ctx.run(of.clone().acquire_many_owned(units)).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(gone()),
            Err(error) if error.kind() == Kind::Timeout => Err(Error::new(
                Kind::QueueFull,
                "the outbox's store has more to write than it can: the deadline passed before there was room",
            )),
            Err(error) => Err(error),
        }
    }

    /// Takes no more jobs; those that wait are done, and the file is closed.
    pub(super) async fn close(&self, ctx: &Context) -> Result<()> {
        drop(self.jobs.lock().take());
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

fn serve(connection: &Connection, waiting: &Receiver<Box<dyn Work>>, does: Does) {
    while let Ok(first) = waiting.recv() {
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
            Does::Write => write(connection, group),
            Does::Read => group.into_iter().for_each(|job| read(connection, job)),
        }
    }
}

fn read(connection: &Connection, mut job: Box<dyn Work>) {
    loop {
        if !job.wanted() {
            return job.end(Some(late(None)));
        }
        match job.run(connection) {
            Ok(()) => return job.end(None),
            Err(error) if Fault::of(&error) == Fault::Busy => {}
            Err(error) => return job.end(Some(error_of(&error))),
        }
    }
}

fn write(connection: &Connection, group: Vec<Box<dyn Work>>) {
    let Some(mut group) = begin(connection, group) else { return };
    let failed = group.iter_mut().find_map(|job| job.run(connection).err());
    let Some(error) = failed else { return commit(connection, group) };
    undo(connection);
    if group.len() == 1 {
        return group.into_iter().for_each(|job| job.end(Some(error_of(&error))));
    }
    // One of them failed: each by itself, so that the others do not.
    for job in group {
        write(connection, vec![job]);
    }
}

// Begins a transaction for those who wait long enough for it.
fn begin(connection: &Connection, mut group: Vec<Box<dyn Work>>) -> Option<Vec<Box<dyn Work>>> {
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
            Ok(()) => return Some(group),
            Err(error) if Fault::of(&error) == Fault::Busy => busy = Some(error),
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
