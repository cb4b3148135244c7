//! What was appended and not yet taken by a commit, and the segments that are ready to be written to. All of it
//! is behind one lock that is held for an encode, never for I/O.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::codec::{self, MAX_PAYLOAD, OPENED_SIZE, Opened, SYNCED_SIZE};
use super::disk::DiskFile;
use super::record::{Journal, Position, Record};
use super::segment::{HEADER, Header, Segment, usable};
use super::shared::Shared;

/// Memory that batches share, so that small ones cost no allocation each.
pub(super) const SLAB: usize = 1 << 20;

/// What most records fit in that are no messages.
const SMALL: usize = 256;

/// Frames that lie together in one segment.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) segment: Arc<Segment>,
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

/// A file that is prepared to become a segment.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) header: Header,
    pub(super) file: Arc<dyn DiskFile>,
}

#[derive(Debug)]
pub(super) struct Pending {
    /// Of segments that were left within this batch.
    closed: Vec<(Arc<Segment>, u64, BytesMut)>,
    buffer: BytesMut,
    /// Position of the buffer's first byte.
    start: u64,
    pub(super) segment: Arc<Segment>,
    /// The batch begins with a `Synced` frame.
    marked: bool,
    /// Records in the batch.
    pub(super) records: usize,
    /// When the first of them came.
    pub(super) since: Instant,
    /// The writer thread is to commit without delay.
    pub(super) urgent: bool,
    /// The writer thread looks again within the bound on its own.
    pub(super) armed: bool,
    /// Nothing is kept any more.
    pub(super) failed: bool,
    pub(super) stop: bool,
    pub(super) ready: VecDeque<Ready>,
    /// Prepared files that turned out not to fit.
    pub(super) returned: Vec<Ready>,
    pub(super) last_number: u64,
    /// When a segment was begun because the one before was full.
    pub(super) rolled: Option<Instant>,
    /// How long the segment before the last one took to fill.
    pub(super) lasted: Duration,
}

impl Pending {
    /// Begins in a new segment.
    pub(super) fn new(segment: Arc<Segment>, opened: &Opened, last_number: u64) -> Pending {
        let mut pending = Pending {
            closed: Vec::new(),
            buffer: BytesMut::new(),
            start: segment.base + HEADER as u64,
            segment,
            marked: false,
            records: 1,
            since: Instant::now(),
            urgent: false,
            armed: false,
            failed: false,
            stop: false,
            ready: VecDeque::new(),
            returned: Vec::new(),
            last_number,
            rolled: None,
            lasted: Duration::MAX,
        };
        pending.put_opened(opened);
        pending
    }

    /// Where the next record would lie.
    pub(super) fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() + self.closed.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>()
    }

    /// Bytes that can be appended without a file that does not exist yet.
    pub(super) fn capacity(&self) -> u64 {
        let ready: u64 = self.ready.iter().map(|ready| usable(ready.header.size)).sum();
        self.segment.limit().saturating_sub(self.end()) + ready
    }

    fn put_opened(&mut self, opened: &Opened) {
        let at = self.buffer.len();
        codec::encode_opened(&mut self.buffer, opened);
        if let Some(frame) = self.buffer.get_mut(at..) {
            codec::seal(frame, self.segment.seed);
        }
    }

    fn put(&mut self, shared: &Shared, record: &Record<'_>) -> Position {
        let mut at = self.buffer.len();
        let needed = match record {
            Record::Message(message) => codec::message_size(message.key.len(), message.body.len()),
            _ => SMALL,
        };
        if self.buffer.capacity() - at < needed {
            let mut slab = shared.recent.slab(SLAB.max(2 * at + needed));
            slab.extend_from_slice(&self.buffer);
            self.buffer = slab;
        }
        let size = codec::encode(&mut self.buffer, record);
        if self.end() > self.segment.limit() {
            let frame = self.buffer.split_off(at);
            self.roll(shared, size);
            at = self.buffer.len();
            self.buffer.extend_from_slice(&frame);
        }
        if let Some(frame) = self.buffer.get_mut(at..) {
            codec::seal(frame, self.segment.seed);
        }
        Position(self.start + at as u64)
    }

    /// Goes on in a new segment that has room for a frame of this size.
    fn roll(&mut self, shared: &Shared, size: usize) {
        let end = self.end();
        let mut found = None;
        while let Some(ready) = self.ready.pop_front() {
            if ready.header.number > self.segment.number && usable(ready.header.size) >= size as u64 {
                found = Some(ready);
                break;
            }
            self.returned.push(ready);
        }
        let (header, file) = match found {
            Some(ready) => (ready.header, Some(ready.file)),
            None => {
                self.last_number += 1;
                let least = ((HEADER + OPENED_SIZE + size) as u64).next_multiple_of(HEADER as u64);
                let size = shared.options.segment_bytes.max(least);
                (Header { number: self.last_number, size, salt: shared.identity.salt }, None)
            }
        };
        let next = Arc::new(Segment::new(header, end, file));
        let opened = Opened {
            base: Position(end),
            previous: self.segment.number,
            previous_end: Position(end),
            next_topic: shared.next_topic.load(Ordering::Relaxed),
        };
        self.segment.end.store(end, Ordering::Release);
        shared.segments.push(Arc::clone(&next));
        let before = std::mem::replace(&mut self.segment, next);
        let bytes = std::mem::replace(&mut self.buffer, shared.recent.slab(SLAB));
        if !bytes.is_empty() {
            self.closed.push((before, self.start, bytes));
        }
        self.start = end + HEADER as u64;
        self.put_opened(&opened);
        let before = self.rolled.replace(Instant::now());
        self.lasted = before.map_or(Duration::MAX, |before| before.elapsed());
        shared.stock_work.notify_one();
    }

    /// Begins the batch with the word that all before it is on disk; what that is, is known when it is taken.
    fn mark(&mut self, shared: &Shared) {
        // Where there is no room, the next record begins a segment, which says the same.
        self.marked = self.end() + SYNCED_SIZE as u64 <= self.segment.limit();
        if self.marked {
            self.put(shared, &Record::Synced { position: Position(0) });
        }
    }

    /// Takes the batch; `synced` is the position up to which all is on disk.
    pub(super) fn take(&mut self, shared: &Shared, synced: u64) -> Vec<Chunk> {
        if self.records == 0 {
            return Vec::new();
        }
        if self.marked {
            let (seed, bytes) = match self.closed.first_mut() {
                Some((segment, _, bytes)) => (segment.seed, bytes),
                None => (self.segment.seed, &mut self.buffer),
            };
            if let Some(frame) = bytes.get_mut(..SYNCED_SIZE) {
                codec::reseal_synced(frame, seed, Position(synced));
            }
        }
        let mut chunks: Vec<Chunk> = self
            .closed
            .drain(..)
            .map(|(segment, start, bytes)| Chunk { segment, start, bytes: bytes.freeze() })
            .collect();
        let end = self.end();
        let bytes = self.buffer.split().freeze();
        if !bytes.is_empty() {
            chunks.push(Chunk { segment: Arc::clone(&self.segment), start: self.start, bytes });
        }
        self.start = end;
        self.marked = false;
        self.records = 0;
        shared.recent.push(&chunks);
        chunks
    }

    /// Drops what waits: the log has failed.
    pub(super) fn give_up(&mut self) {
        self.failed = true;
        self.start = self.end();
        self.closed.clear();
        self.buffer = BytesMut::new();
        self.marked = false;
        self.records = 0;
    }

    /// A copy of the frame at a position that waits here.
    pub(super) fn copy_frame(&self, position: u64) -> Option<Bytes> {
        let within = |start: u64, bytes: &[u8]| {
            let rest = bytes.get(usize::try_from(position.checked_sub(start)?).ok()?..)?;
            let size = codec::size_at(rest)?;
            Some(Bytes::copy_from_slice(rest.get(..size)?))
        };
        within(self.start, &self.buffer)
            .or_else(|| self.closed.iter().find_map(|(_, start, bytes)| within(*start, bytes)))
    }
}

/// Appends while the lock is held.
pub(in crate::broker) struct Appender<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pending: &'a mut Pending,
}

impl Journal for Appender<'_> {
    fn append(&mut self, record: &Record<'_>) -> Position {
        let pending = &mut *self.pending;
        if let Record::Message(message) = record
            && message.body.len().saturating_add(message.key.len()) > MAX_PAYLOAD - 64
        {
            // Refused by `admit`; whoever did not ask gets a log that fails rather than one that lies.
            self.shared.too_large();
            pending.give_up();
        }
        if pending.failed {
            return Position(pending.end());
        }
        if pending.records == 0 {
            pending.mark(self.shared);
        }
        pending.records += 1;
        let position = pending.put(self.shared, record);
        match record {
            Record::Message(message) => pending.segment.count(message.counted(), true),
            // What a start calls named too, see `Frame::is_named`: it alone is looked at where no message is alive.
            Record::Topic { .. } | Record::Subscribed { .. } | Record::Kept { .. } => {
                pending.segment.named.lock().push(position.0);
            }
            _ => {}
        }
        position
    }
}
