//! What is read from a disk before a log is served: which files are segments in use, where each ends, and
//! whether all that was on disk is there.
//!
//! A segment that another one follows must be whole up to where the follower says it ended. In the last one the
//! first bad frame is the torn tail and is cut, unless a later `Synced` record says that the bad place had been
//! on disk: then it is damage, as it is everywhere else. Damage is named and never served past.

use std::io;
use std::sync::Arc;

use super::codec::{self, Frame, OPENED_SIZE, Opened, SYNCED_SIZE};
use super::disk::{Disk, DiskFile, read_full};
use super::record::{Position, Range, Record};
use super::segment::{self, HEADER, Header, LONGEST};
use crate::error::{Error, Kind, Result};

/// Where a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's name in its folder.
    pub name: String,
    /// Byte of the file.
    pub offset: u64,
    /// What is wrong there.
    pub why: &'static str,
}

impl Damage {
    /// As the error that keeps a broker from starting.
    pub(super) fn error(&self, disk: &dyn Disk) -> Error {
        let text = format!(
            "the log is damaged: {}, byte {}: {}; `ceiba broker repair` on the folder moves the file to `quarantine` and keeps its good records",
            disk.describe(&self.name),
            self.offset,
            self.why
        );
        Error::new(Kind::Storage, text)
    }
}

/// A file with a segment's name.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
    pub(super) header: Option<Header>,
    pub(super) opened: Option<Opened>,
}

impl Part {
    /// How it begins, if it can begin like that.
    pub(super) fn possible(&self) -> Option<Opened> {
        self.opened.filter(Opened::is_possible)
    }

    pub(super) fn damage(&self, offset: usize, why: &'static str) -> Damage {
        Damage { name: self.name.clone(), offset: offset as u64, why }
    }

    /// Reads the whole file into the buffer.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let size = usize::try_from(self.size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if buffer.len() != size {
            *buffer = vec![0; size];
        }
        let read = read_full(&*self.file, buffer, 0)?;
        buffer.truncate(read);
        Ok(())
    }
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// By number.
    pub(super) parts: Vec<Part>,
    /// Names of spare files.
    pub(super) spares: Vec<String>,
}

/// A segment in use that is sound, or sound up to its torn tail.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) header: Header,
    pub(super) opened: Opened,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
    /// Byte of the file after the last good frame.
    pub(super) end: usize,
    /// All before this byte was on disk once.
    pub(super) proven: usize,
    pub(super) records: u64,
    /// Positions of topics and subscriptions.
    pub(super) named: Vec<u64>,
}

impl Sound {
    /// Position of the end.
    pub(super) fn end_position(&self) -> u64 {
        self.opened.base.0 + self.end as u64
    }
}

/// What one look at a segment found.
#[derive(Debug)]
pub(super) enum Finding {
    /// Prepared, not written to.
    Unused,
    Sound(Sound),
    Damaged(Damage),
}

/// Looks at every file's first bytes.
pub(super) fn survey(disk: &dyn Disk) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for name in disk.list()? {
        if segment::is_spare(&name) {
            survey.spares.push(name);
        } else if let Some(number) = segment::number_of(&name) {
            let file = disk.open(&name)?;
            let size = file.size()?;
            let mut page = vec![0; HEADER + OPENED_SIZE];
            let read = read_full(&*file, &mut page, 0)?;
            page.truncate(read);
            let header = Header::parse(&page).filter(|header| header.number == number);
            let opened = header.and_then(|header| codec::check(page.get(HEADER..)?, header.seed())?.opened());
            survey.parts.push(Part { number, name, file, size, header, opened });
        }
    }
    survey.parts.sort_by_key(|part| part.number);
    Ok(survey)
}

/// Looks at the part at this index of all parts; `each` gets the good frames in order, also those before a
/// damage. The buffer holds the file afterwards.
pub(super) fn examine(
    parts: &[Part],
    index: usize,
    before: Option<&Sound>,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(Position, &Frame<'_>),
) -> io::Result<Finding> {
    let Some(part) = parts.get(index) else { return Ok(Finding::Unused) };
    let damaged = |offset, why| Ok(Finding::Damaged(part.damage(offset, why)));
    if part.size > LONGEST {
        return damaged(0, "the file is too long to be a segment");
    }
    let Some(header) = part.header else { return damaged(0, "the header is not a segment's") };
    part.read(buffer)?;
    let end_before = before.map_or(0, Sound::end_position);
    let next = parts.iter().skip(index + 1).find_map(Part::possible);
    let Some(opened) = part.opened else {
        // Used all the same if something in it was on disk, or if another one follows it.
        let used = next.is_some_and(|next| next.previous == part.number)
            || synced_after(buffer, header.seed(), HEADER, end_before);
        return if used { damaged(HEADER, "the first record is bad") } else { Ok(Finding::Unused) };
    };
    if !opened.is_possible() {
        return damaged(HEADER, "the first record tells of no possible place");
    }
    match before {
        Some(before) if opened.previous != before.header.number => {
            return damaged(HEADER, "the segment before it is missing");
        }
        Some(before) if opened.previous_end.0 != before.end_position() => {
            return damaged(HEADER, "the segment before it ends elsewhere");
        }
        _ => {}
    }
    if opened.base.0 < end_before {
        return damaged(HEADER, "it begins before the end of the one before it");
    }
    let mut sound = Sound {
        header,
        opened,
        file: Arc::clone(&part.file),
        size: part.size,
        end: HEADER + OPENED_SIZE,
        proven: HEADER,
        records: 0,
        named: Vec::new(),
    };
    let must_end = next.filter(|next| next.previous == part.number).map(|next| next.previous_end.0);
    let stop = must_end.map_or(buffer.len(), |end| {
        usize::try_from(end.saturating_sub(opened.base.0)).unwrap_or(usize::MAX).min(buffer.len())
    });
    let mut scratch = Vec::new();
    let bytes = buffer.get(..stop).unwrap_or_default();
    while let Some(frame) = good_frame(bytes, sound.end, header.seed(), &mut scratch) {
        let position = opened.base.0 + sound.end as u64;
        if frame.is_synced() {
            if let Some(Record::Synced { position }) = frame.record(&mut scratch) {
                let proven = position.0.saturating_sub(opened.base.0);
                sound.proven = sound.proven.max(usize::try_from(proven).unwrap_or(0).min(sound.end));
            }
        } else if !frame.is_skip() {
            sound.records += 1;
            if frame.is_named() {
                sound.named.push(position);
            }
            each(Position(position), &frame);
        }
        sound.end += frame.size;
    }
    match must_end {
        Some(end) if sound.end_position() != end => damaged(sound.end, "a record is bad"),
        None if synced_after(buffer, header.seed(), sound.end, sound.end_position()) => {
            damaged(sound.end, "a record is bad that had been on disk")
        }
        _ => Ok(Finding::Sound(sound)),
    }
}

/// The frame at this offset, if it is whole and known.
pub(super) fn good_frame<'a>(
    bytes: &'a [u8],
    offset: usize,
    seed: u32,
    scratch: &mut Vec<Range>,
) -> Option<Frame<'a>> {
    let frame = codec::check(bytes.get(offset..)?, seed)?;
    let known = frame.is_skip() || frame.record(scratch).is_some();
    known.then_some(frame)
}

/// Whether a `Synced` record from this offset on says that the log was on disk past this position.
fn synced_after(bytes: &[u8], seed: u32, from: usize, position: u64) -> bool {
    const LENGTH: [u8; 4] = ((SYNCED_SIZE - codec::HEAD) as u32).to_le_bytes();
    let mut scratch = Vec::new();
    let rest = bytes.get(from..).unwrap_or_default();
    rest.chunks_exact(codec::ALIGN).enumerate().any(|(index, word)| {
        // The length and nothing else: few places are looked at closer.
        if word.get(4..8) != Some(LENGTH.as_slice()) {
            return false;
        }
        let frame = rest.get(index * codec::ALIGN..).and_then(|bytes| codec::check(bytes, seed));
        let record = frame.as_ref().and_then(|frame| frame.record(&mut scratch));
        matches!(record, Some(Record::Synced { position: synced }) if synced.0 > position)
    })
}

/// What a sound log consists of.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) sound: Vec<Sound>,
    /// Segments that were prepared and not used, and spare files: names and numbers.
    pub(super) unused: Vec<String>,
    /// The highest number that any file has.
    pub(super) last_number: u64,
    pub(super) next_topic: u32,
    pub(super) records: u64,
}

/// Reads everything: first looks at all, calling `visit` with every topic and subscription; then calls it with
/// all other records, in the order they were written. So nothing names a topic that was not seen.
///
/// # Errors
/// `storage` when a file cannot be read or is damaged.
pub(super) fn load(
    disk: &dyn Disk,
    survey: Survey,
    visit: &mut dyn FnMut(Position, &Record<'_>),
) -> Result<Loaded> {
    let mut loaded = Loaded { unused: survey.spares, next_topic: 1, ..Loaded::default() };
    let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
    for (index, part) in survey.parts.iter().enumerate() {
        let failed = |error| cannot_read(disk, &part.name, error);
        loaded.last_number = part.number;
        let mut topic_after = 0;
        let mut each = |position, frame: &Frame<'_>| {
            if frame.is_named()
                && let Some(record) = frame.record(&mut scratch)
            {
                if let Record::Topic { topic, .. } | Record::Kept { topic, .. } = record {
                    topic_after = topic_after.max(topic.saturating_add(1));
                }
                visit(position, &record);
            }
        };
        let last = loaded.sound.last();
        match examine(&survey.parts, index, last, &mut buffer, &mut each).map_err(failed)? {
            Finding::Unused => loaded.unused.push(part.name.clone()),
            Finding::Damaged(damage) => return Err(damage.error(disk)),
            Finding::Sound(sound) => {
                loaded.next_topic = loaded.next_topic.max(sound.opened.next_topic).max(topic_after);
                loaded.records += sound.records;
                loaded.sound.push(sound);
            }
        }
    }
    for sound in &loaded.sound {
        let name = segment::name_of(sound.header.number);
        if buffer.len() < sound.end {
            buffer = vec![0; sound.end];
        }
        let bytes = buffer.get_mut(..sound.end).unwrap_or_default();
        let read = read_full(&*sound.file, bytes, 0).map_err(|error| cannot_read(disk, &name, error))?;
        let bytes = bytes.get(..read).unwrap_or_default();
        let mut offset = HEADER + OPENED_SIZE;
        // The crcs were right a moment ago.
        while let Some(frame) = bytes.get(offset..).and_then(codec::parse) {
            if !frame.is_named()
                && !frame.is_synced()
                && let Some(record) = frame.record(&mut scratch)
            {
                // A repair may have lost the topic's record, and the number is in use all the same.
                if let Record::Message(message) = record {
                    loaded.next_topic = loaded.next_topic.max(message.topic.saturating_add(1));
                }
                visit(Position(sound.opened.base.0 + offset as u64), &record);
            }
            offset += frame.size;
        }
    }
    Ok(loaded)
}

/// The error of a file that cannot be read.
pub(super) fn cannot_read(disk: &dyn Disk, name: &str, error: io::Error) -> Error {
    Error::new(Kind::Storage, format!("cannot read {}", disk.describe(name))).caused_by(error)
}
