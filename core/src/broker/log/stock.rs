//! Segments made ahead: filled with zeros, since a write into bytes that were never written costs the file
//! system a change of its own records with every sync; paced, since filling competes with the commits. Files of
//! segments that were cleaned are used again. One file is a reserve for when the disk is full.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile, is_shortage, write_full};
use super::pending::{Pending, Ready};
use super::segment::{Header, name_of, spare_name, usable};
use super::shared::Shared;
use crate::error::{Error, Kind, Result};

/// Segments ready: the next one, and more while they are used up quickly.
const AHEAD: usize = 1;
const AHEAD_BUSY: usize = 3;
/// The most spare files that are kept.
const SPARES: usize = 3;
/// What is filled between two looks at the time.
const STEP: usize = 1 << 20;
/// How often a full disk is tried again, and what happens in passing is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A segment that is full after so short a time was written in batches so large that filling the next one first
/// costs more than it saves.
const RUSH: Duration = Duration::from_millis(600);
/// What is asked for beside the bytes of messages: heads of frames, ends of segments.
const SLACK: u64 = 4096;

/// Files that wait to be prepared.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// Names of files of the usual size.
    pub(super) spares: Vec<String>,
    /// A file that only acks and what is moved get, when there is room for nothing else; open, since there may
    /// be no handles either.
    pub(super) reserve: Option<(String, Arc<dyn DiskFile>)>,
    /// Numbers of segments that are not in use any more and could not be put away.
    pub(super) left: Vec<u64>,
    pub(super) stop: bool,
}

/// How a new file gets its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    /// Room is taken, the bytes are left to the writer.
    None,
    Zeros,
}

/// What to do with the rest of a file that is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is written in a quarter of the time.
    Slow,
    /// It is soon needed.
    Fast,
    /// Somebody waits for it: an unfilled one now is better than a filled one later.
    Enough,
    /// The log ends.
    Stop,
}

/// Makes a segment: a file that has room, a header on disk, and then its name.
pub(super) fn make(
    disk: &dyn Disk,
    header: Header,
    filling: Filling,
    pace: &dyn Fn() -> Pace,
) -> io::Result<Arc<dyn DiskFile>> {
    let spare = spare_name(header.number);
    let result = disk.create(&spare).and_then(|file| {
        file.preallocate(header.size)?;
        if filling != Filling::None {
            fill(&*file, header.size, pace)?;
        }
        name(disk, &spare, file, header)
    });
    if result.is_err() {
        // What is left of it would only take room; that it cannot be removed is no news.
        let _ = disk.remove(&spare);
    }
    result
}

/// Makes a segment out of a file that has its size already.
pub(super) fn name(
    disk: &dyn Disk,
    spare: &str,
    file: Arc<dyn DiskFile>,
    header: Header,
) -> io::Result<Arc<dyn DiskFile>> {
    write_full(&*file, &header.page(), 0)?;
    file.sync()?;
    disk.rename(spare, &name_of(header.number))?;
    disk.sync_names()?;
    Ok(file)
}

fn fill(file: &dyn DiskFile, size: u64, pace: &dyn Fn() -> Pace) -> io::Result<()> {
    let zeros = vec![0; STEP];
    let mut offset = 0;
    while offset < size {
        let slow = match pace() {
            Pace::Slow => true,
            Pace::Fast => false,
            Pace::Enough => return Ok(()),
            Pace::Stop => return Err(io::ErrorKind::Interrupted.into()),
        };
        let start = Instant::now();
        let length = (size - offset).min(STEP as u64);
        write_full(file, zeros.get(..usize::try_from(length).unwrap_or(STEP)).unwrap_or(&zeros), offset)?;
        offset += length;
        if slow || offset.is_multiple_of(4 * STEP as u64) {
            file.sync()?;
        }
        if slow {
            std::thread::sleep((start.elapsed() * 3).min(LOOK));
        }
    }
    file.sync()
}

/// Room for messages on their way into the log; dropped once they are appended.
#[derive(Debug)]
pub(in crate::broker) struct Admission {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.admitted.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.shared.demand.load(Ordering::Relaxed) > 0 {
            self.shared.stock_work.notify_one();
        }
    }
}

/// Whether segments are used up faster than it is worth to fill them.
fn in_rush(pending: &Pending) -> bool {
    pending.lasted < RUSH && pending.rolled.is_some_and(|rolled| rolled.elapsed() < 2 * RUSH)
}

impl Shared {
    /// Waits until there is room on disk for messages of so many bytes.
    pub(super) async fn admit(self: &Arc<Shared>, bytes: usize) -> Result<Admission> {
        // A frame that does not fit the rest of a segment leaves it unused.
        let bytes = (bytes as u64).saturating_mul(2).saturating_add(SLACK);
        loop {
            let stocked = self.stocked.notified();
            tokio::pin!(stocked);
            stocked.as_mut().enable();
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.try_admit(bytes) {
                return Ok(Admission { shared: Arc::clone(self), bytes });
            }
            if let Some(error) = self.short.lock().clone() {
                return Err(error);
            }
            self.demand.fetch_max(bytes, Ordering::Relaxed);
            self.stock_work.notify_one();
            stocked.await;
        }
    }

    fn try_admit(&self, bytes: u64) -> bool {
        // What is let in now would wait behind what found no room, for as long as that takes.
        if self.holding.load(Ordering::SeqCst) {
            return false;
        }
        let reserve = if self.short.lock().is_some() { usable(self.options.segment_bytes) } else { 0 };
        let pending = self.pending.lock();
        let asked = self.admitted.load(Ordering::Relaxed).saturating_add(bytes).saturating_add(reserve);
        let fits = asked <= pending.capacity();
        if fits {
            self.admitted.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Notes that no segment can be made: messages are refused until one can.
    pub(super) fn say_short(&self, error: &io::Error) {
        let text =
            if is_shortage(error) && error.raw_os_error().is_none_or(|number| !matches!(number, 23 | 24)) {
                "the disk is full"
            } else {
                "the log cannot get a further file"
            };
        let source = io::Error::from(error.kind());
        let error =
            Error::new(Kind::Storage, format!("{text}: messages are refused until that changes: {error}"))
                .caused_by(source)
                .retryable_is(true);
        let before = self.short.lock().replace(error.clone());
        if before.is_none() {
            tracing::error!(%error, "no message is accepted for the moment");
        }
        self.stocked.notify_waiters();
    }

    /// Messages are accepted, unless something waits for room as yet.
    fn say_stocked(&self) {
        let mut short = self.short.lock();
        if !self.holding.load(Ordering::SeqCst) && short.take().is_some() {
            tracing::info!("there is room again: messages are accepted");
        }
        drop(short);
        self.stocked.notify_waiters();
    }

    /// The stock thread: prepares segments and cleans.
    pub(super) fn run_stock(&self) {
        loop {
            {
                let mut stock = self.stock.lock();
                if stock.stop {
                    return;
                }
                // A shortage does not change within a moment.
                if !self.wants_more() || self.short.lock().is_some() {
                    self.stock_work.wait_for(&mut stock, LOOK);
                }
                if stock.stop {
                    return;
                }
            }
            if self.has_failed() {
                let mut stock = self.stock.lock();
                if !stock.stop {
                    self.stock_work.wait(&mut stock);
                }
                continue;
            }
            self.take_back();
            self.clean();
            if self.wants_more() {
                match self.prepare() {
                    Ok(()) => self.say_stocked(),
                    Err(_) if self.stopping.load(Ordering::Relaxed) => {}
                    Err(error) => self.say_short(&error),
                }
            } else if self.demand.swap(0, Ordering::Relaxed) > 0 || self.short.lock().is_some() {
                // Room came back without a new segment, or whoever asked is gone.
                self.say_stocked();
            }
        }
    }

    fn pace(&self) -> Pace {
        if self.stopping.load(Ordering::Relaxed) {
            return Pace::Stop;
        }
        if self.demand.load(Ordering::Relaxed) > 0 {
            return Pace::Enough;
        }
        let pending = self.pending.lock();
        if in_rush(&pending) {
            return Pace::Enough;
        }
        let used = pending.end().saturating_sub(pending.segment.base);
        let soon = pending.ready.is_empty() && used > pending.segment.size / 4;
        if soon { Pace::Fast } else { Pace::Slow }
    }

    fn wants_more(&self) -> bool {
        let demand = self.demand.load(Ordering::Relaxed);
        let pending = self.pending.lock();
        let busy = pending.rolled.is_some_and(|rolled| rolled.elapsed() < Duration::from_secs(2));
        let enough = pending.ready.len() >= if busy { AHEAD_BUSY } else { AHEAD };
        let asked = self.admitted.load(Ordering::Relaxed) + demand;
        !enough || (demand > 0 && pending.capacity() < asked) || !self.has_reserve.load(Ordering::Relaxed)
    }

    /// Makes the reserve, where there is none.
    pub(super) fn make_reserve(&self) -> io::Result<()> {
        if self.has_reserve.load(Ordering::Relaxed) {
            return Ok(());
        }
        let spare = self.stock.lock().spares.pop();
        let reserve = match spare {
            Some(spare) => {
                let opened = self.disk.open(&spare);
                let file = opened.inspect_err(|_| self.stock.lock().spares.push(spare.clone()))?;
                (spare, file)
            }
            None => {
                let name = {
                    let mut pending = self.pending.lock();
                    pending.last_number += 1;
                    spare_name(pending.last_number)
                };
                let file = self.disk.create(&name)?;
                let made = file.preallocate(self.options.segment_bytes).and_then(|()| self.disk.sync_names());
                if let Err(error) = made {
                    let _ = self.disk.remove(&name);
                    return Err(error);
                }
                (name, file)
            }
        };
        self.stock.lock().reserve = Some(reserve);
        self.has_reserve.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the segment of this header out of the reserve, if it fits.
    pub(super) fn use_reserve(&self, header: Header) -> Option<io::Result<Arc<dyn DiskFile>>> {
        if header.size != self.options.segment_bytes {
            return None;
        }
        let (spare, file) = self.stock.lock().reserve.take()?;
        self.has_reserve.store(false, Ordering::Relaxed);
        Some(name(&*self.disk, &spare, file, header))
    }

    /// Prepares one more segment.
    fn prepare(&self) -> io::Result<()> {
        self.make_reserve()?;
        let demand = self.demand.swap(0, Ordering::Relaxed);
        let usual = self.options.segment_bytes;
        // A message larger than a segment needs one of its own.
        let wanted =
            if demand > usable(usual) { (demand + 2 * SLACK).next_multiple_of(SLACK) } else { usual };
        let mut number = {
            let mut pending = self.pending.lock();
            pending.last_number += 1;
            pending.last_number
        };
        let header = |number| Header { number, size: wanted, salt: self.identity.salt };
        let spare = if wanted == usual { self.stock.lock().spares.pop() } else { None };
        let (disk, pace) = (&*self.disk, &|| self.pace());
        let mut file = match spare {
            Some(spare) => {
                let opened =
                    disk.open(&spare).inspect_err(|_| self.stock.lock().spares.push(spare.clone()))?;
                name(disk, &spare, opened, header(number))?
            }
            None if self.in_memory() || demand > 0 || in_rush(&self.pending.lock()) => {
                make(disk, header(number), Filling::None, pace)?
            }
            None => make(disk, header(number), Filling::Zeros, pace)?,
        };
        loop {
            let old = number;
            {
                let mut pending = self.pending.lock();
                if pending.segment.number < number {
                    pending.ready.push_back(Ready { header: header(number), file });
                    return Ok(());
                }
                pending.last_number += 1;
                number = pending.last_number;
            }
            // The log went past the old number meanwhile.
            let spare = spare_name(old);
            disk.rename(&name_of(old), &spare)?;
            disk.sync_names()?;
            file = name(disk, &spare, file, header(number))?;
        }
    }

    /// Makes spare files of prepared segments that did not fit.
    fn take_back(&self) {
        let returned = std::mem::take(&mut self.pending.lock().returned);
        for ready in returned {
            let keep = ready.header.size == self.options.segment_bytes;
            self.put_back(ready.header.number, keep);
        }
    }

    /// Keeps the file of a segment that is not in use any more, or removes it.
    pub(super) fn put_back(&self, number: u64, keep: bool) {
        let name = name_of(number);
        let keep = keep && self.stock.lock().spares.len() < SPARES;
        let result = if keep {
            let spare = spare_name(number);
            self.disk.rename(&name, &spare).and_then(|()| self.disk.sync_names()).map(|()| {
                self.stock.lock().spares.push(spare);
            })
        } else {
            self.disk.remove(&name).and_then(|()| self.disk.sync_names())
        };
        if let Err(error) = result {
            tracing::warn!(file = name, %error, "a segment that is not needed any more cannot be put away");
            self.stock.lock().left.push(number);
        }
    }

    /// Removes the files that could not be put away before; says whether none is left.
    pub(super) fn put_away(&self) -> bool {
        let left = std::mem::take(&mut self.stock.lock().left);
        let gone = |name: String| match self.disk.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        for number in left {
            // It may have its other name already.
            let both = gone(name_of(number)).and_then(|()| gone(spare_name(number)));
            if both.and_then(|()| self.disk.sync_names()).is_err() {
                self.stock.lock().left.push(number);
            }
        }
        self.stock.lock().left.is_empty()
    }
}
