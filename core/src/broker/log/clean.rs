//! Cleaning: the oldest segment goes once what is alive in it was written again at the end. An ack in it is about
//! a message of the same or an earlier segment, so it goes too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::codec::{self, OPENED_SIZE};
use super::disk::read_full;
use super::record::{Position, Record};
use super::recover::cannot_read;
use super::segment::{HEADER, Segment, usable};
use super::shared::Shared;
use crate::error::{Error, Kind, Result};

/// The log holds so many segments before what is alive is moved.
const FEW: u64 = 4;
/// Records that are asked about at a time.
const AT_A_TIME: usize = 4096;
/// A record is at most so many times as long as its message is counted: a head, and a key of up to 1 KiB.
const LONGER: u64 = 24;

/// Who knows what is alive.
pub(in crate::broker) trait Living: Send + Sync + std::fmt::Debug {
    /// Asked about topics, subscriptions and messages of the oldest segment, in the order of their positions, on
    /// a thread of the log. What is alive *at its position* is appended anew with all that is known about it now
    /// (a message with its attempts and due time, `moved` set, followed by the acks that single subscriptions
    /// gave), and its new position remembered, under the lock that guards what is known. The old positions need
    /// not be freed. Must not wait for a commit.
    fn renew(&self, records: &[(Position, Record<'_>)]);
}

impl Shared {
    /// Cleans as long as it is due.
    pub(super) fn clean(&self) {
        // A segment whose file is left must be followed by the next one's, or a start finds that missing.
        while self.put_away()
            && let Some(segment) = self.to_clean()
        {
            if let Err(error) = self.clean_segment(&segment) {
                if !self.has_failed() {
                    tracing::warn!(%error, segment = segment.number, "the oldest segment cannot be cleaned");
                }
                return;
            }
        }
    }

    /// The oldest segment, if it is to go.
    fn to_clean(&self) -> Option<Arc<Segment>> {
        self.living.get()?.strong_count().checked_sub(1)?;
        let (oldest, count) = self.segments.oldest()?;
        if count < 2 || !self.is_committed(oldest.end.load(Ordering::Acquire)) {
            return None;
        }
        let (_, bytes, live) = self.segments.sums();
        let over = bytes > (FEW * self.options.segment_bytes).max(live.saturating_mul(2));
        let dead = oldest.live.load(Ordering::Relaxed) == 0;
        (dead || (over && self.has_room_for(&oldest))).then_some(oldest)
    }

    /// Whether what is alive in a segment finds room at the end. On a full disk that is the segment written to,
    /// or one more of the usual size; what is moved and fits neither would only keep all behind it waiting.
    fn has_room_for(&self, segment: &Segment) -> bool {
        if self.short.lock().is_none() {
            return true;
        }
        let begun = segment.base.saturating_add((HEADER + OPENED_SIZE) as u64);
        let records = segment.end.load(Ordering::Acquire).saturating_sub(begun);
        let needed = records.min(segment.live.load(Ordering::Relaxed).saturating_mul(LONGER));
        let usual = usable(self.options.segment_bytes);
        let pending = self.pending.lock();
        let rest = pending.segment.limit().saturating_sub(pending.end());
        let another = self.has_reserve.load(Ordering::Relaxed)
            || pending.ready.iter().any(|ready| usable(ready.header.size) >= usual);
        let fits = needed <= rest || (another && needed <= usual);
        fits && !self.holding.load(Ordering::SeqCst)
    }

    fn clean_segment(&self, segment: &Segment) -> Result<()> {
        let Some(living) = self.living.get().and_then(std::sync::Weak::upgrade) else { return Ok(()) };
        if segment.live.load(Ordering::Relaxed) == 0 {
            let mut named = Vec::new();
            for position in segment.named.lock().clone() {
                named.push((Position(position), self.read_frame(position)?));
            }
            let records: Vec<_> = named
                .iter()
                .filter_map(|(position, (bytes, seed))| {
                    Some((*position, codec::check(bytes, *seed)?.standing()?))
                })
                .collect();
            if !records.is_empty() {
                living.renew(&records);
            }
        } else {
            self.renew_all(segment, &*living)?;
        }
        // Nothing goes before what was moved is on disk.
        self.commit_now()?;
        let readers = self.readers.write();
        let removed = self.segments.remove_oldest(segment.number);
        drop(readers);
        if removed {
            self.put_back(segment.number, segment.size == self.options.segment_bytes);
        }
        Ok(())
    }

    fn renew_all(&self, segment: &Segment, living: &dyn Living) -> Result<()> {
        let name = segment.name();
        let used = segment.end.load(Ordering::Acquire).saturating_sub(segment.base);
        let Some(file) = segment.file.get() else { return Ok(()) };
        let mut bytes = vec![0; usize::try_from(used).unwrap_or(0)];
        let read =
            read_full(&**file, &mut bytes, 0).map_err(|error| cannot_read(&*self.disk, &name, error))?;
        bytes.truncate(read);
        let mut offset = HEADER + OPENED_SIZE;
        let mut records = Vec::with_capacity(AT_A_TIME);
        while (offset as u64) < used {
            let Some(frame) = bytes.get(offset..).and_then(|bytes| codec::check(bytes, segment.seed)) else {
                let name = self.disk.describe(&name);
                let text = format!("the record at byte {offset} of {name} is damaged");
                return Err(Error::new(Kind::Storage, text));
            };
            records.extend(frame.standing().map(|record| (Position(segment.base + offset as u64), record)));
            offset += frame.size;
            if records.len() >= AT_A_TIME || (offset as u64 >= used && !records.is_empty()) {
                living.renew(&records);
                records.clear();
                // What was moved is bounded before the next is.
                self.commit_now()?;
            }
        }
        Ok(())
    }
}
