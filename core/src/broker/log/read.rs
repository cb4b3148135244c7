//! Reading messages back: from the batches that are still in memory, else from the files, many neighbours with
//! one read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLockReadGuard};

use super::codec::{self, Frame};
use super::disk::read_full;
use super::pending::{Chunk, SLAB};
use super::record::{MessageRecord, Position};
use super::recover::cannot_read;
use super::segment::Segment;
use super::shared::Shared;
use crate::error::{Error, Kind, Result};

/// The most that one read brings for a run of neighbours.
const WINDOW: usize = 256 << 10;
/// The least that a read brings.
const LEAST: usize = 4 << 10;
/// Memory of old batches that waits to be used again.
const SLABS: usize = 8;
/// What a batch in memory costs beside its bytes.
const BATCH_OVERHEAD: usize = 96;

/// A message as the log has it. The body shares memory with its neighbours: it is for passing on, not for keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct StoredMessage {
    pub(in crate::broker) topic: u32,
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) created_ms: i64,
    /// 0: at once.
    pub(in crate::broker) due_ms: i64,
    /// 0: never.
    pub(in crate::broker) expires_ms: i64,
    /// The delay as the wire shows it, in seconds.
    pub(in crate::broker) wire_delay: i64,
    /// Pushes before the record was written.
    pub(in crate::broker) attempts: u32,
    pub(in crate::broker) key: Option<Arc<str>>,
    pub(in crate::broker) body: Bytes,
}

impl StoredMessage {
    fn of(message: &MessageRecord<'_>, bytes: &Bytes) -> StoredMessage {
        StoredMessage {
            topic: message.topic,
            sequence: message.sequence,
            created_ms: message.created_ms,
            due_ms: message.due_ms,
            expires_ms: message.expires_ms,
            wire_delay: message.wire_delay,
            attempts: message.attempts,
            key: (!message.key.is_empty()).then(|| Arc::from(message.key)),
            body: bytes.slice_ref(message.body),
        }
    }
}

/// The batches written last.
#[derive(Debug)]
pub(super) struct Recent {
    budget: usize,
    inner: Mutex<Batches>,
}

#[derive(Debug, Default)]
struct Batches {
    list: VecDeque<(u64, Bytes)>,
    bytes: usize,
    written: u64,
    /// Memory that nobody reads any more. Fresh memory costs the system more than the copy into it.
    slabs: Vec<BytesMut>,
}

impl Batches {
    /// Lets the oldest go that are in the files.
    fn shrink(&mut self, budget: usize) {
        while self.bytes > budget {
            let Some((start, bytes)) = self.list.front() else { return };
            if start + bytes.len() as u64 > self.written {
                return;
            }
            self.bytes = self.bytes.saturating_sub(bytes.len() + BATCH_OVERHEAD);
            let Some((_, bytes)) = self.list.pop_front() else { return };
            // Fails while another batch or a reader has a part of the same memory.
            if let Ok(mut slab) = bytes.try_into_mut()
                && self.slabs.len() < SLABS
            {
                slab.clear();
                if slab.try_reclaim(SLAB) && slab.capacity() <= 2 * SLAB {
                    self.slabs.push(slab);
                }
            }
        }
    }
}

impl Recent {
    pub(super) fn new(budget: usize) -> Recent {
        Recent { budget, inner: Mutex::default() }
    }

    pub(super) fn push(&self, chunks: &[Chunk]) {
        let mut inner = self.inner.lock();
        for chunk in chunks {
            inner.bytes += chunk.bytes.len() + BATCH_OVERHEAD;
            inner.list.push_back((chunk.start, chunk.bytes.clone()));
        }
        inner.shrink(self.budget);
    }

    /// Empty memory for so many bytes, used before where there is some.
    pub(super) fn slab(&self, bytes: usize) -> BytesMut {
        let mut slab = self.inner.lock().slabs.pop().unwrap_or_default();
        slab.reserve(bytes);
        slab
    }

    /// All before this position is in the files.
    pub(super) fn written(&self, position: u64) {
        let mut inner = self.inner.lock();
        inner.written = inner.written.max(position);
        inner.shrink(self.budget);
    }

    /// The batch that holds a position, with the position of its first byte.
    fn find(&self, position: u64) -> Option<(u64, Bytes)> {
        let inner = self.inner.lock();
        let after = inner.list.partition_point(|(start, _)| *start <= position);
        let (start, bytes) = inner.list.get(after.checked_sub(1)?)?;
        (position < start + bytes.len() as u64).then(|| (*start, bytes.clone()))
    }
}

/// Bytes of the log that were read last.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Bytes,
    /// What the crcs start from; `None` for bytes that never left the memory.
    seed: Option<u32>,
}

impl Window {
    fn frame(&self, position: u64) -> Option<Frame<'_>> {
        let rest = self.bytes.get(usize::try_from(position.checked_sub(self.start)?).ok()?..)?;
        match self.seed {
            Some(seed) => codec::check(rest, seed),
            None => codec::parse(rest),
        }
    }
}

/// Reads while positions stay where they are: no file is used again before it is dropped. For synchronous code
/// only, not for long, and one at a time on a thread: a second one may wait for a cleaner that waits for the first.
#[derive(Debug)]
pub(in crate::broker) struct Reading<'a> {
    shared: &'a Shared,
    window: Window,
    /// Where the last read from a file ended.
    read_to: u64,
    _guard: RwLockReadGuard<'a, ()>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(shared: &'a Shared) -> Reading<'a> {
        // Behind a cleaner that waits: readers that overlap for ever would keep it out. So no thread may begin to
        // read while it reads.
        let guard = shared.readers.read();
        Reading { shared, window: Window::default(), read_to: 0, _guard: guard }
    }

    /// The message at a position. The length of its body is a hint that saves a second read.
    ///
    /// # Errors
    /// `storage` when it cannot be read or is damaged; `not_found` when no message lies there.
    pub(in crate::broker) fn message(&mut self, position: Position, body: usize) -> Result<StoredMessage> {
        if self.window.frame(position.0).is_none() {
            self.window = self.fetch(position.0, codec::message_size(0, body))?;
        }
        let message = self.window.frame(position.0).and_then(|frame| frame.message());
        match message {
            Some(message) => Ok(StoredMessage::of(&message, &self.window.bytes)),
            None => Err(Error::new(Kind::NotFound, format!("no message lies at {} of the log", position.0))),
        }
    }

    fn fetch(&mut self, position: u64, hint: usize) -> Result<Window> {
        let recent = |shared: &Shared| {
            shared.recent.find(position).map(|(start, bytes)| Window { start, bytes, seed: None })
        };
        if let Some(window) = recent(self.shared) {
            return Ok(window);
        }
        if !self.shared.is_committed(position) || self.shared.in_memory() {
            let copy = self.shared.pending.lock().copy_frame(position);
            if let Some(bytes) = copy {
                return Ok(Window { start: position, bytes, seed: None });
            }
            // Taken by a commit in between.
            if let Some(window) = recent(self.shared) {
                return Ok(window);
            }
        }
        let segment = self.shared.segments.find(Position(position)).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("position {position} is not in the log any more"))
        })?;
        // A reader that goes on from where it was gets more at once.
        let follows = (self.read_to..=self.read_to + WINDOW as u64).contains(&position);
        let least = if follows { WINDOW } else { LEAST };
        let window = self.shared.read_window(&segment, position, hint.max(least))?;
        self.read_to = window.start + window.bytes.len() as u64;
        Ok(window)
    }
}

impl Shared {
    /// The frame at a position, for the log's own use.
    pub(super) fn read_frame(&self, position: u64) -> Result<(Bytes, u32)> {
        let segment = self.segments.find(Position(position)).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("position {position} is not in the log any more"))
        })?;
        let window = self.read_window(&segment, position, LEAST)?;
        Ok((window.bytes, segment.seed))
    }

    /// Reads so many bytes from a position on, more where its frame is longer.
    fn read_window(&self, segment: &Segment, position: u64, length: usize) -> Result<Window> {
        let damaged = || {
            let offset = position.saturating_sub(segment.base);
            let name = self.disk.describe(&segment.name());
            Error::new(Kind::Storage, format!("the record at byte {offset} of {name} is damaged"))
        };
        let bytes = self.read_bytes(segment, position, length)?;
        if codec::check(&bytes, segment.seed).is_some() {
            return Ok(Window { start: position, bytes, seed: Some(segment.seed) });
        }
        // Perhaps only longer than what was read, and never longer than the segment.
        let size = codec::u32_at(&bytes, 4).map(|payload| codec::frame_size(payload as usize));
        let room = segment.limit().saturating_sub(position);
        let size = size.filter(|size| *size > bytes.len() && *size as u64 <= room).ok_or_else(damaged)?;
        let bytes = self.read_bytes(segment, position, size)?;
        codec::check(&bytes, segment.seed).ok_or_else(damaged)?;
        Ok(Window { start: position, bytes, seed: Some(segment.seed) })
    }

    fn read_bytes(&self, segment: &Segment, position: u64, length: usize) -> Result<Bytes> {
        let end = segment.end.load(Ordering::Acquire).min(segment.limit());
        let length = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        let Some(file) = segment.file.get() else { return Ok(Bytes::new()) };
        let read = read_full(&**file, &mut bytes, position.saturating_sub(segment.base))
            .map_err(|error| cannot_read(&*self.disk, &segment.name(), error))?;
        bytes.truncate(read);
        Ok(Bytes::from(bytes))
    }
}
