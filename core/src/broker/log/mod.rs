//! The log: every change of every topic in the order it happened, on disk, in segments. It knows bytes, positions
//! and records; what they mean for a topic is the queues' matter.
//!
//! A record is appended under a short lock (`pending`), is safe once a commit has written and synced it
//! (`writer`), is read back by its position (`read`), and goes with its segment when nothing in it is alive any
//! more (`clean`). A start reads everything once (`recover`). What must stay true: no ticket counts before a
//! sync that returned well; after a write or sync that failed, none counts any more; all of a segment is on disk
//! before the next one is written to; a segment is only ever begun, never gone on with, after a start.

mod clean;
mod codec;
mod company;
mod disk;
#[cfg(test)]
mod faulty;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod identity;
mod memory;
mod open;
mod pending;
mod read;
pub(super) mod record;
mod recover;
mod repair;
mod runs;
mod segment;
mod shared;
mod status;
mod stock;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;

pub(super) use clean::Living;
pub(super) use disk::{Disk, RealDisk};
pub(super) use memory::MemoryDisk;
pub(super) use pending::Appender;
pub(super) use read::{Reading, StoredMessage};
pub use recover::Damage;
pub use repair::{Repaired, SegmentReport};
pub use status::Durability;
pub(super) use status::{LogState, LogStatus};
pub(super) use stock::Admission;

use crate::error::{Error, Kind, Result};
use record::{Position, Record};
use shared::Shared;

/// How a log runs.
#[derive(Debug, Clone)]
pub(super) struct LogOptions {
    pub(super) durability: Durability,
    /// Bytes of a segment, a multiple of 4096; a record that needs more gets one of its own.
    pub(super) segment_bytes: u64,
    /// Bytes of the latest batches that are kept in memory for reading.
    pub(super) recent_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { durability: Durability::Fsync, segment_bytes: 32 << 20, recent_bytes: 16 << 20 }
    }
}

/// What is waited for with [`Log::committed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "nothing is safe before its ticket is committed"]
pub(super) struct Ticket(u64);

/// An open log. Dropping it stops it as a crash would.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log on a disk. `visit` gets every record that is there: first all topics and subscriptions,
    /// then all others, each in the order they were written. Blocks while it reads.
    ///
    /// Messages that turn out to be alive are to be told with [`Log::keep`].
    ///
    /// # Errors
    /// `storage` when the disk cannot be read or written, is full, or the log is damaged.
    pub(super) fn open(
        options: LogOptions,
        disk: Arc<dyn Disk>,
        mut visit: impl FnMut(Position, &Record<'_>),
    ) -> Result<Arc<Log>> {
        let shared = Arc::new(open::open(options, disk, &mut visit)?);
        let log = Log { shared: Arc::clone(&shared), threads: Mutex::default() };
        let start = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
            let failed =
                |error| Error::new(Kind::Internal, "cannot start a thread of the log").caused_by(error);
            thread.map_err(failed)
        };
        for (name, run) in [
            ("ceiba-log", Shared::run_writer as fn(&Shared)),
            ("ceiba-log-stock", Shared::run_stock as fn(&Shared)),
        ] {
            log.threads.lock().push(start(name, run)?);
        }
        Ok(Arc::new(log))
    }

    /// Reads every segment of a folder that nobody serves and says how it is. Blocks.
    ///
    /// # Errors
    /// `in_use` when a broker has the folder, `storage` when it cannot be read.
    pub(super) fn verify(folder: &Path) -> Result<Vec<SegmentReport>> {
        repair::verify(&RealDisk::open(folder)?)
    }

    /// Replaces each damaged segment of a folder that nobody serves by its good records, and keeps the damaged
    /// file in `quarantine`. Says what was done; nothing, where nothing is damaged. Blocks.
    ///
    /// # Errors
    /// `in_use` when a broker has the folder, `storage` when it cannot be read or written.
    pub(super) fn repair(folder: &Path) -> Result<Vec<Repaired>> {
        repair::repair(&RealDisk::open(folder)?)
    }

    /// Names the one who knows what is alive; before that nothing is cleaned.
    pub(super) fn attach(&self, living: std::sync::Weak<dyn Living>) {
        let _ = self.shared.living.set(living);
    }

    /// The key of message codes, the same in every run on this folder.
    pub(super) fn code_key(&self) -> [u8; 32] {
        self.shared.identity.key
    }

    /// A number for a new topic; none is given twice.
    pub(super) fn new_topic(&self) -> u32 {
        self.shared.next_topic.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until there is room on disk for messages of so many bytes, frames included (about 64 each beside
    /// key and body). To be held until they are appended. Only sends ask: acks and what is moved always go in.
    ///
    /// # Errors
    /// `storage`, retryable, when the disk is full; `storage` when the log failed; `too_large`.
    pub(super) async fn admit(&self, bytes: usize) -> Result<Admission> {
        if bytes > codec::MAX_PAYLOAD / 2 {
            return Err(Error::new(Kind::TooLarge, "more than the log takes at once"));
        }
        self.shared.admit(bytes).await
    }

    /// Appends what the closure writes, all in a row. Never waits for the disk; the ticket says when it is safe.
    pub(super) fn append<R>(&self, write: impl FnOnce(&mut Appender<'_>) -> R) -> (R, Ticket) {
        let shared = &*self.shared;
        let mut pending = shared.pending.lock();
        let before = pending.records;
        let result = write(&mut Appender { shared, pending: &mut pending });
        // What was not written needs no wait; what cannot be kept must not look safe.
        let ticket = match pending.failed {
            true => u64::MAX,
            false if pending.records == before => 0,
            false => pending.end(),
        };
        shared.appended(&mut pending, before == 0);
        (result, Ticket(ticket))
    }

    /// Stands for all that was appended so far.
    pub(super) fn ticket(&self) -> Ticket {
        let pending = self.shared.pending.lock();
        Ticket(if pending.failed { u64::MAX } else { pending.end() })
    }

    /// Waits until what the ticket stands for is as safe as the durability asks. Cancel-safe.
    ///
    /// # Errors
    /// `storage` once the log has failed: whether the record outlives a restart is unknown.
    pub(super) async fn committed(&self, ticket: Ticket) -> Result<()> {
        if self.shared.in_memory() && !self.shared.has_failed() {
            return Ok(());
        }
        self.shared.wait_committed(ticket.0).await
    }

    /// Begins to read: while the guard lives, positions that a queue holds stay readable. For synchronous code.
    pub(super) fn reading(&self) -> Reading<'_> {
        Reading::new(&self.shared)
    }

    #[cfg(test)]
    /// One message; see [`Reading::message`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn read(&self, position: Position) -> Result<StoredMessage> {
        self.reading().message(position, 0)
    }

    /// After a start: messages that are alive, with the lengths of their bodies. Appended ones are counted
    /// already.
    pub(super) fn keep(&self, messages: impl Iterator<Item = (Position, u32)>) {
        self.shared.segments.count(messages, true);
    }

    /// Messages that are gone from these positions, moved or dead, with the lengths of their bodies.
    pub(super) fn free(&self, messages: impl Iterator<Item = (Position, u32)>) {
        self.shared.segments.count(messages, false);
    }

    /// How it does and what it holds.
    pub(super) fn status(&self) -> LogStatus {
        self.shared.status()
    }

    /// Writes and syncs what waits, then takes nothing any more and lets the folder go. Blocks.
    ///
    /// # Errors
    /// `storage` when something could not be written.
    pub(super) fn close(&self) -> Result<()> {
        self.stop_threads();
        let result = self.shared.commit_now().and_then(|()| {
            // The last word: from here on a bad byte before it is damage, not a torn tail.
            let position = Position(self.shared.committed.load(Ordering::Acquire));
            let (_, ticket) = self.append(|journal| {
                record::Journal::append(journal, &Record::Synced { position });
            });
            let _ = ticket;
            self.shared.commit_now()
        });
        self.shared.fail(Error::new(Kind::Closed, "the log is closed"));
        self.shared.disk.release();
        result
    }

    /// Takes nothing any more and lets the folder go at once, as a crash would.
    pub(super) fn abort(&self) {
        self.stop_threads();
        self.shared.fail(Error::new(Kind::Closed, "the log is closed"));
        self.shared.disk.release();
    }

    fn stop_threads(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.pending.lock().stop = true;
        self.shared.stock.lock().stop = true;
        self.shared.writer_work.notify_all();
        self.shared.stock_work.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last owner may be the stock thread itself, while it asks what is alive.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop_threads();
        self.shared.disk.release();
    }
}
