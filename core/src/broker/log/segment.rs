//! Segments: the files that the log is cut into. Page 0 of a file is its header, twice; then come frames, the
//! first of which is `Opened` once the segment is in use. A file gets its number as a name only when its header
//! is on disk, so a bad header is never an unfinished one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::codec::{OPENED_SIZE, checksum, u32_at, u64_at};
use super::disk::DiskFile;
use super::record::Position;

/// Bytes before the first frame.
pub(super) const HEADER: usize = 4096;
/// Where the second copy of the header lies.
const COPY: usize = HEADER / 2;
/// The smallest segment.
pub(super) const SMALLEST: u64 = 8 << 10;
/// The longest file that is believed to be a segment.
pub(super) const LONGEST: u64 = 2 << 30;
/// No segment has a higher number: there is always a next one.
const LAST_NUMBER: u64 = u64::MAX >> 1;
/// What a message is counted as beside its body when live bytes are summed up.
pub(super) const MESSAGE_OVERHEAD: u64 = 48;

const MAGIC: &[u8; 8] = b"ceibalog";
const VERSION: u32 = 1;
const HEADER_SIZE: usize = 48;

/// What the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Bytes of the whole file.
    pub(super) size: u64,
    /// The same in all segments of one log.
    pub(super) salt: u64,
}

impl Header {
    /// The first page.
    pub(super) fn page(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_SIZE);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&0u32.to_le_bytes());
        for word in [self.number, self.size, self.salt] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        let crc = u64::from(checksum(0, &header));
        header.extend_from_slice(&crc.to_le_bytes());
        let mut page = header.clone();
        page.resize(COPY, 0);
        page.extend_from_slice(&header);
        page.resize(HEADER, 0);
        page
    }

    /// What a page says, if one of its copies is whole.
    pub(super) fn parse(page: &[u8]) -> Option<Header> {
        Header::parse_copy(page).or_else(|| Header::parse_copy(page.get(COPY..)?))
    }

    fn parse_copy(bytes: &[u8]) -> Option<Header> {
        let covered = bytes.get(..HEADER_SIZE - 8)?;
        let sound = covered.starts_with(MAGIC)
            && u32_at(bytes, 8)? == VERSION
            && u64_at(bytes, HEADER_SIZE - 8)? == u64::from(checksum(0, covered));
        sound.then_some(())?;
        let header =
            Header { number: u64_at(bytes, 16)?, size: u64_at(bytes, 24)?, salt: u64_at(bytes, 32)? };
        (header.size <= LONGEST).then_some(header)
    }

    /// What the crcs of a segment start from.
    pub(super) fn seed(&self) -> u32 {
        seed(self.salt, self.number)
    }
}

/// What the crcs of the segment with this number start from.
pub(super) fn seed(salt: u64, number: u64) -> u32 {
    let mut word = salt ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (word ^ (word >> 32)) as u32
}

/// The name of the segment with this number.
pub(super) fn name_of(number: u64) -> String {
    format!("{number:020}.log")
}

/// The number of the segment with this name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(())?;
    digits.parse().ok().filter(|number| (1..=LAST_NUMBER).contains(number))
}

/// The name of a file that waits to become a segment.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number}.log")
}

/// The number in the name of such a file.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("spare-")?.strip_suffix(".log")?;
    digits.parse().ok().filter(|number| *number <= LAST_NUMBER)
}

/// Whether this is the name of such a file.
pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".log")
}

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Position of the first byte of the file.
    pub(super) base: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    pub(super) seed: u32,
    /// Missing until the writer has made it.
    pub(super) file: OnceLock<Arc<dyn DiskFile>>,
    /// Position where it ends; `u64::MAX` while it is the last one.
    pub(super) end: AtomicU64,
    /// Bytes of messages in it that are not gone.
    pub(super) live: AtomicU64,
    /// Where its topics and subscriptions lie, and what is kept beside them.
    pub(super) named: Mutex<Vec<u64>>,
}

impl Segment {
    pub(super) fn new(header: Header, base: u64, file: Option<Arc<dyn DiskFile>>) -> Segment {
        Segment {
            number: header.number,
            base,
            size: header.size,
            seed: header.seed(),
            file: file.map(OnceLock::from).unwrap_or_default(),
            end: AtomicU64::new(u64::MAX),
            live: AtomicU64::new(0),
            named: Mutex::default(),
        }
    }

    /// Where it is full.
    pub(super) fn limit(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    pub(super) fn name(&self) -> String {
        name_of(self.number)
    }

    /// Adds a message or takes one away.
    pub(super) fn count(&self, body: usize, alive: bool) {
        let weight = body as u64 + MESSAGE_OVERHEAD;
        if alive {
            self.live.fetch_add(weight, Ordering::Relaxed);
        } else {
            // Taken away twice by a caller at fault: it must not wrap round to "full of life".
            let less = |live: u64| Some(live.saturating_sub(weight));
            let _ = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// Bytes for frames in a segment of this size.
pub(super) const fn usable(size: u64) -> u64 {
    size.saturating_sub((HEADER + OPENED_SIZE) as u64)
}

/// All segments in use, oldest first.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: RwLock<VecDeque<Arc<Segment>>>,
}

impl Segments {
    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.list.write().push_back(segment);
    }

    /// The segment that holds a position.
    pub(super) fn find(&self, position: Position) -> Option<Arc<Segment>> {
        find(&self.list.read(), position.0).map(Arc::clone)
    }

    /// Counts messages as alive or gone.
    pub(super) fn count(&self, messages: impl Iterator<Item = (Position, u32)>, alive: bool) {
        let list = self.list.read();
        let mut last: Option<&Arc<Segment>> = None;
        for (position, body) in messages {
            let near = last
                .filter(|segment| (segment.base..segment.end.load(Ordering::Relaxed)).contains(&position.0));
            let Some(segment) = near.or_else(|| find(&list, position.0)) else { continue };
            segment.count(body as usize, alive);
            last = Some(segment);
        }
    }

    /// The oldest and how many there are.
    pub(super) fn oldest(&self) -> Option<(Arc<Segment>, usize)> {
        let list = self.list.read();
        Some((Arc::clone(list.front()?), list.len()))
    }

    /// Takes the oldest out, if it is this one.
    pub(super) fn remove_oldest(&self, number: u64) -> bool {
        let mut list = self.list.write();
        let is_it = list.front().is_some_and(|segment| segment.number == number);
        if is_it {
            list.pop_front();
        }
        is_it
    }

    /// Segments, bytes of their files, bytes of messages alive in them.
    pub(super) fn sums(&self) -> (usize, u64, u64) {
        let list = self.list.read();
        let bytes = list.iter().map(|segment| segment.size).sum();
        let live = list.iter().map(|segment| segment.live.load(Ordering::Relaxed)).sum();
        (list.len(), bytes, live)
    }
}

fn find(list: &VecDeque<Arc<Segment>>, position: u64) -> Option<&Arc<Segment>> {
    let after = list.partition_point(|segment| segment.base <= position);
    list.get(after.checked_sub(1)?).filter(|segment| position < segment.end.load(Ordering::Relaxed))
}
