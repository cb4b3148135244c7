//! Group commit: whoever holds the writer takes all that waits and writes and syncs it at once. Few records on a
//! quick disk are committed by the waiting task itself, since waking a thread takes about as long as the sync;
//! more of them by the writer thread, which overlaps with the work of the tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Durability;
use super::disk::{DiskFile, is_shortage, write_full};
use super::pending::Chunk;
use super::segment::{Header, Segment};
use super::shared::Shared;
use super::stock::{self, Filling, Pace};
use crate::error::{Error, Kind, Result};

/// How long records that nobody waits for may wait.
const LINGER: Duration = Duration::from_millis(5);
/// The most records that a task commits itself.
const INLINE_RECORDS: usize = 64;
/// The slowest sync, on average, that a task does itself, in microseconds: much above that of a quick disk, because a
/// few slow ones raise the average for long.
const INLINE_SYNC: u32 = 2000;
/// How often a batch that found the disk full is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// What may wait for a full disk beside what was let in before that showed.
const MOST_HELD: usize = 64 << 20;

/// What was written, and how far it is on disk.
#[derive(Debug)]
pub(super) struct Writer {
    /// The segment written to last.
    segment: Arc<Segment>,
    /// What was taken and found no room.
    held: VecDeque<Chunk>,
    /// The most bytes that may be held; none known while nothing is.
    bound: Option<usize>,
    pub(super) written: u64,
    synced: u64,
    dirty: bool,
    last_sync: Instant,
}

impl Writer {
    pub(super) fn new(segment: Arc<Segment>, written: u64) -> Writer {
        let last_sync = Instant::now();
        let held = VecDeque::new();
        Writer { segment, held, bound: None, written, synced: written, dirty: false, last_sync }
    }
}

/// What a task found when it tried to commit.
enum Inline {
    Committed,
    /// Somebody else is at it and will say so.
    Busy,
    /// The thread has to.
    ForThread,
}

impl Shared {
    /// Waits until all before this position is as safe as the durability asks. Cancel-safe.
    pub(super) async fn wait_committed(&self, position: u64) -> Result<()> {
        if let Some(result) = self.outcome(position) {
            // As always where nothing has to reach a disk.
            return result;
        }
        let here = self.company.enter();
        loop {
            // Hears of every commit from here on, and is in nobody's list yet: a task that commits does not wake
            // itself, which would wake another thread of the runtime too.
            let advanced = self.advanced.notified();
            if let Some(result) = self.outcome(position) {
                return result;
            }
            if here.is_in_company() {
                // Others that are ready to append come first: one sync serves them all.
                tokio::task::yield_now().await;
                if let Some(result) = self.outcome(position) {
                    return result;
                }
            }
            match self.try_inline() {
                Inline::Committed => continue,
                Inline::Busy => {}
                Inline::ForThread => self.hurry(),
            }
            advanced.await;
        }
    }

    fn outcome(&self, position: u64) -> Option<Result<()>> {
        if self.is_committed(position) {
            return Some(Ok(()));
        }
        self.failure().map(Err)
    }

    fn try_inline(&self) -> Inline {
        if self.sync_average.load(Ordering::Relaxed) > INLINE_SYNC {
            return Inline::ForThread;
        }
        if self.pending.lock().records > INLINE_RECORDS {
            return Inline::ForThread;
        }
        match self.writer.try_lock() {
            None => Inline::Busy,
            Some(writer) if !writer.held.is_empty() => Inline::ForThread,
            Some(mut writer) => {
                self.commit(&mut writer, false);
                Inline::Committed
            }
        }
    }

    /// Has the writer thread commit now.
    pub(super) fn hurry(&self) {
        let mut pending = self.pending.lock();
        if !pending.urgent {
            pending.urgent = true;
            self.writer_work.notify_one();
        }
    }

    /// Commits on this thread, with a sync whatever the durability.
    ///
    /// # Errors
    /// `storage` when the log failed or what waits found no room.
    pub(super) fn commit_now(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.commit(&mut writer, true);
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if writer.held.is_empty() {
            return Ok(());
        }
        Err(self.short.lock().clone().unwrap_or_else(|| Error::new(Kind::Storage, "the disk is full")))
    }

    /// Writes all that waits and syncs it if that is asked for or the durability says so.
    fn commit(&self, writer: &mut Writer, force: bool) {
        if self.has_failed() {
            return;
        }
        let chunks = self.pending.lock().take(self, writer.synced);
        writer.held.extend(chunks);
        let result = self.write_held(writer).and_then(|()| {
            let sync = writer.dirty && (force || self.options.durability == Durability::Fsync);
            // A sync of the interval may still be under way, and what it is about counts as clean already.
            let aside = force && matches!(self.options.durability, Durability::Interval(_));
            if sync || aside { self.sync(writer) } else { Ok(()) }
        });
        if let Err(error) = result {
            writer.held.clear();
            self.fail(error);
            return;
        }
        let before = self.committed.swap(writer.written, Ordering::AcqRel);
        self.recent.written(writer.written);
        // Where nothing found room nobody is woken, or all would try again at once and for ever.
        if writer.held.is_empty() || before < writer.written {
            self.advanced.notify_waiters();
        }
    }

    /// Writes what is held, as far as there is room for it.
    fn write_held(&self, writer: &mut Writer) -> Result<()> {
        while let Some(chunk) = writer.held.front() {
            if chunk.segment.number != writer.segment.number {
                // All of a segment is on disk before a byte of the next is written. A sync of the interval may
                // still be under way, so there it is asked for in any case.
                if writer.dirty || matches!(self.options.durability, Durability::Interval(_)) {
                    self.sync(writer)?;
                }
            }
            let Some(chunk) = writer.held.front() else { break };
            let written = self.file_of(&chunk.segment).and_then(|file| {
                write_full(&*file, &chunk.bytes, chunk.start.saturating_sub(chunk.segment.base))
            });
            match written {
                Ok(()) => {}
                Err(error) if is_shortage(&error) => {
                    let held: usize = writer.held.iter().map(|chunk| chunk.bytes.len()).sum();
                    // First: who is told that there is room must see that there is none.
                    self.holding.store(true, Ordering::SeqCst);
                    self.say_short(&error);
                    // Where a file system takes no room ahead, much may have been let in by now.
                    let bound = *writer.bound.get_or_insert_with(|| {
                        let pending = self.pending.lock();
                        let rest = usize::try_from(pending.capacity()).unwrap_or(usize::MAX);
                        [pending.bytes(), rest, MOST_HELD].into_iter().fold(held, usize::saturating_add)
                    });
                    if held > bound {
                        let text = "the disk is full, and what waits for it is over its bound";
                        return Err(Error::new(Kind::Storage, text).caused_by(error));
                    }
                    return Ok(());
                }
                Err(error) => {
                    let text = format!("cannot write {}", self.disk.describe(&chunk.segment.name()));
                    return Err(Error::new(Kind::Storage, text).caused_by(error));
                }
            }
            writer.written = chunk.start + chunk.bytes.len() as u64;
            writer.segment = Arc::clone(&chunk.segment);
            writer.dirty = true;
            writer.held.pop_front();
        }
        if writer.bound.take().is_some() {
            self.holding.store(false, Ordering::SeqCst);
            self.stock_work.notify_one();
        }
        Ok(())
    }

    /// The file of a segment, made here where none was ready.
    fn file_of(&self, segment: &Segment) -> std::io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = segment.file.get() {
            return Ok(Arc::clone(file));
        }
        let header = Header { number: segment.number, size: segment.size, salt: self.identity.salt };
        let file = match stock::make(&*self.disk, header, Filling::None, &|| Pace::Fast) {
            Err(error) if is_shortage(&error) => self.use_reserve(header).unwrap_or(Err(error))?,
            made => made?,
        };
        Ok(Arc::clone(segment.file.get_or_init(|| file)))
    }

    fn sync(&self, writer: &mut Writer) -> Result<()> {
        let start = Instant::now();
        if let Some(file) = writer.segment.file.get() {
            file.sync().map_err(|error| self.cannot_sync(&writer.segment, error))?;
        }
        self.took(start.elapsed());
        writer.synced = writer.written;
        writer.dirty = false;
        writer.last_sync = start;
        Ok(())
    }

    fn cannot_sync(&self, segment: &Segment, error: std::io::Error) -> Error {
        let text = format!("cannot sync {}", self.disk.describe(&segment.name()));
        Error::new(Kind::Storage, text).caused_by(error)
    }

    fn took(&self, time: Duration) {
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).min(1_000_000);
        let average = self.sync_average.load(Ordering::Relaxed);
        let next = if average == 0 { time } else { (average * 7 + time) / 8 };
        self.sync_average.store(next, Ordering::Relaxed);
    }

    /// A sync of what was written, while others go on writing.
    fn sync_aside(&self) {
        let mut writer = self.writer.lock();
        let (segment, upto) = (Arc::clone(&writer.segment), writer.written);
        writer.dirty = false;
        writer.last_sync = Instant::now();
        drop(writer);
        let result = segment.file.get().map_or(Ok(()), |file| file.sync());
        match result {
            Ok(()) => {
                let mut writer = self.writer.lock();
                writer.synced = writer.synced.max(upto);
            }
            Err(error) => self.fail(self.cannot_sync(&segment, error)),
        }
    }

    /// The writer thread.
    pub(super) fn run_writer(&self) {
        loop {
            let mut pending = self.pending.lock();
            if pending.stop {
                return;
            }
            let (held, sync_at) = match self.writer.try_lock() {
                Some(writer) => (!writer.held.is_empty(), self.sync_due(&writer)),
                None => (false, None),
            };
            let now = Instant::now();
            let commit_at = if self.has_failed() {
                None
            } else if held {
                Some(now + RETRY)
            } else if pending.urgent {
                Some(now)
            } else {
                (pending.records > 0).then(|| pending.since + LINGER)
            };
            let due = match (commit_at, sync_at) {
                (Some(commit), Some(sync)) => Some(commit.min(sync)),
                (commit, sync) => commit.or(sync),
            };
            let Some(due) = due else {
                pending.armed = false;
                self.writer_work.wait(&mut pending);
                continue;
            };
            if due > now {
                pending.armed = true;
                self.writer_work.wait_until(&mut pending, due);
            }
            let now = Instant::now();
            let commit = commit_at.is_some_and(|at| at <= now) || (pending.urgent && !held);
            if commit {
                pending.urgent = false;
            }
            drop(pending);
            if commit && !self.has_failed() {
                self.commit(&mut self.writer.lock(), false);
            }
            if sync_at.is_some_and(|at| at <= now) && !self.has_failed() {
                self.sync_aside();
            }
        }
    }

    /// When the thread has to sync on its own: never once the log has failed, or it would find that overdue for ever.
    pub(super) fn sync_due(&self, writer: &Writer) -> Option<Instant> {
        match self.options.durability {
            Durability::Interval(interval) if writer.dirty && !self.has_failed() => {
                Some(writer.last_sync + interval)
            }
            _ => None,
        }
    }

    /// Wakes the thread after an append where it would not look in time.
    pub(super) fn appended(&self, pending: &mut super::pending::Pending, was_empty: bool) {
        const MUCH: usize = 4 << 20;
        if was_empty && pending.records > 0 {
            pending.since = Instant::now();
            if !pending.armed {
                pending.armed = true;
                self.writer_work.notify_one();
            }
        }
        if !pending.urgent && pending.bytes() > MUCH {
            pending.urgent = true;
            self.writer_work.notify_one();
        }
    }
}
