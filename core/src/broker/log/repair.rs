//! Verification and repair of a log that nobody serves. A repaired segment keeps its good records at their
//! places; what was between them becomes frames that say nothing. The damaged file is kept in `quarantine`.

use bytes::BytesMut;

use super::codec::{self, HEAD, Opened};
use super::disk::{Disk, write_full};
use super::record::{Position, Record};
use super::recover::{self, Damage, Finding, Part, Sound, cannot_read, good_frame};
use super::segment::{HEADER, Header, LONGEST};
use crate::error::{Error, Kind, Result};

/// Where damaged files go.
const QUARANTINE: &str = "quarantine";
/// The longest frame that says nothing.
const LONGEST_SKIP: usize = 256 << 20;

/// How one segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its name in the folder.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Good records before the first damage.
    pub records: u64,
    /// Where it is damaged first, if it is.
    pub damage: Option<Damage>,
}

/// What was done to one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Where it was damaged first.
    pub damage: Damage,
    /// Where the damaged file is now.
    pub quarantined: String,
    /// Records that were kept.
    pub records: u64,
    /// Bytes between them that say nothing any more.
    pub lost_bytes: u64,
}

/// Reads every segment and says how it is.
///
/// # Errors
/// `storage` when a file cannot be read.
pub(super) fn verify(disk: &dyn Disk) -> Result<Vec<SegmentReport>> {
    let survey = recover::survey(disk).map_err(|error| cannot_read(disk, "", error))?;
    let mut reports = Vec::new();
    let mut buffer = Vec::new();
    let mut before: Option<Sound> = None;
    // The number of a damaged one, of which nobody knows where it ends.
    let mut broken = None;
    for (index, part) in survey.parts.iter().enumerate() {
        let mut records = 0;
        let mut each = |_, _: &codec::Frame<'_>| records += 1;
        // What follows a damaged segment is only asked whether it follows that one.
        let follows = broken.is_some() && part.possible().map(|opened| opened.previous) == broken;
        let known = if follows { None } else { before.as_ref() };
        let finding = recover::examine(&survey.parts, index, known, &mut buffer, &mut each);
        let damage = match finding.map_err(|error| cannot_read(disk, &part.name, error))? {
            Finding::Unused => None,
            Finding::Sound(sound) => {
                (before, broken) = (Some(sound), None);
                None
            }
            Finding::Damaged(damage) => {
                broken = Some(part.number);
                Some(damage)
            }
        };
        reports.push(SegmentReport { name: part.name.clone(), bytes: part.size, records, damage });
    }
    Ok(reports)
}

/// Replaces every damaged segment by its good records, until the log is sound.
///
/// # Errors
/// `storage` when a file cannot be read or written, or is no segment at all.
pub(super) fn repair(disk: &dyn Disk) -> Result<Vec<Repaired>> {
    let mut done: Vec<Repaired> = Vec::new();
    let mut rounds = None;
    loop {
        let survey = recover::survey(disk).map_err(|error| cannot_read(disk, "", error))?;
        // A segment is repaired for itself and perhaps once more for the one before it.
        let left = rounds.get_or_insert(survey.parts.len() * 3 + 3);
        let salt = match super::identity::Identity::load(disk) {
            Ok(Some(identity)) => Some(identity.salt),
            _ => survey.parts.iter().find_map(|part| part.header).map(|header| header.salt),
        };
        let mut buffer = Vec::new();
        let mut before: Option<Sound> = None;
        let mut repaired = None;
        for (index, part) in survey.parts.iter().enumerate() {
            let failed = |error| cannot_read(disk, &part.name, error);
            let finding =
                recover::examine(&survey.parts, index, before.as_ref(), &mut buffer, &mut |_, _| {});
            match finding.map_err(failed)? {
                Finding::Unused => {}
                Finding::Sound(sound) => before = Some(sound),
                Finding::Damaged(damage) => {
                    part.read(&mut buffer).map_err(failed)?;
                    let next = survey.parts.iter().skip(index + 1).find_map(Part::possible);
                    repaired = Some(replace(disk, part, damage, &buffer, before.as_ref(), next, salt)?);
                    break;
                }
            }
        }
        match repaired {
            None => return Ok(done),
            Some(_) if *left == 0 => {
                return Err(Error::new(Kind::Storage, "the log stays damaged whatever is repaired"));
            }
            Some(repaired) => done.push(repaired),
        }
        *left -= 1;
    }
}

/// Writes a segment anew.
fn replace(
    disk: &dyn Disk,
    part: &Part,
    damage: Damage,
    bytes: &[u8],
    before: Option<&Sound>,
    next: Option<Opened>,
    salt: Option<u64>,
) -> Result<Repaired> {
    let failed = |error| {
        let text = format!("cannot repair {}", disk.describe(&part.name));
        Error::new(Kind::Storage, text).caused_by(error)
    };
    let header = match (part.header, salt) {
        (Some(header), _) => header,
        (None, Some(salt)) => Header { number: part.number, size: part.size, salt },
        (None, None) => {
            let text = format!("nothing says how to read {}", disk.describe(&part.name));
            return Err(Error::new(Kind::Storage, text));
        }
    };
    let next = next.filter(|next| next.previous == part.number);
    let opened = opening(part, header, bytes, before, next);
    let (content, records, lost_bytes) = rebuild(header, &opened, bytes, next).ok_or_else(|| {
        Error::new(Kind::Storage, format!("{} ends in no record", disk.describe(&part.name)))
    })?;
    let quarantined = put_aside(disk, &part.name, bytes).map_err(failed)?;
    let draft = format!("repair-{}", part.number);
    match disk.remove(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let write = || {
        let file = disk.create(&draft)?;
        write_full(&*file, &content, 0)?;
        file.sync()?;
        disk.rename(&draft, &part.name)?;
        disk.sync_names()
    };
    write().map_err(failed)?;
    Ok(Repaired { damage, quarantined, records, lost_bytes })
}

/// The first frame that the segment should have.
fn opening(
    part: &Part,
    header: Header,
    bytes: &[u8],
    before: Option<&Sound>,
    next: Option<Opened>,
) -> Opened {
    let there = part.possible();
    let base = match (there, before, next) {
        (Some(opened), _, _) => opened.base.0.max(before.map_or(0, Sound::end_position)),
        (None, Some(before), _) => before.end_position(),
        // The positions in it are all before the next one's, whatever they were.
        (None, None, Some(next)) => next.previous_end.0.saturating_sub(part.size),
        (None, None, None) => base_said_by(bytes, header.seed()),
    };
    Opened {
        base: Position(base),
        previous: before
            .map(|before| before.header.number)
            .or(there.map(|opened| opened.previous))
            .unwrap_or(0),
        previous_end: Position(
            before.map(Sound::end_position).or(there.map(|opened| opened.previous_end.0)).unwrap_or(base),
        ),
        next_topic: there.map_or(1, |opened| opened.next_topic),
    }
}

/// Where a segment began, as far as its `Synced` records tell.
fn base_said_by(bytes: &[u8], seed: u32) -> u64 {
    let (mut offset, mut base, mut scratch) = (HEADER, 0, Vec::new());
    while let Some(start) = next_good(bytes, offset, seed) {
        let Some(frame) = bytes.get(start..).and_then(|bytes| codec::check(bytes, seed)) else { break };
        if let Some(Record::Synced { position }) = frame.record(&mut scratch)
            && position < Position::END
        {
            base = base.max(position.0.saturating_sub(start as u64));
        }
        offset = start + frame.size;
    }
    base.next_multiple_of(codec::ALIGN as u64)
}

/// The content of a sound segment with the good records of a damaged one, how many they are, and the bytes that
/// are lost. `None` when it cannot end where it has to.
fn rebuild(
    header: Header,
    opened: &Opened,
    bytes: &[u8],
    next: Option<Opened>,
) -> Option<(Vec<u8>, u64, u64)> {
    let seed = header.seed();
    let must_end = match next {
        Some(next) => {
            Some(next.previous_end.0.checked_sub(opened.base.0).filter(|end| *end <= LONGEST)? as usize)
        }
        None => None,
    };
    let stop = must_end.unwrap_or(bytes.len()).min(bytes.len());
    let readable = bytes.get(..stop)?;
    let mut content = BytesMut::from(header.page().as_slice());
    let at = content.len();
    codec::encode_opened(&mut content, opened);
    codec::seal(content.get_mut(at..)?, seed);
    let (mut records, mut lost, mut scratch) = (0, 0, Vec::new());
    while let Some(start) = next_good(readable, content.len(), seed) {
        lost += skip_to(&mut content, start, seed)?;
        let frame = good_frame(readable, start, seed, &mut scratch)?;
        records += u64::from(!frame.is_skip() && !frame.is_synced());
        content.extend_from_slice(readable.get(start..start + frame.size)?);
    }
    if let Some(end) = must_end {
        lost += skip_to(&mut content, end, seed)?;
    }
    // A file that was cut short stays as it is: nothing asks for the rest.
    if content.len() < bytes.len() {
        content.resize(bytes.len(), 0);
    }
    Some((content.to_vec(), records, lost))
}

/// The next good frame from an offset on, with room for a frame that says nothing before it.
fn next_good(bytes: &[u8], from: usize, seed: u32) -> Option<usize> {
    let mut scratch = Vec::new();
    let mut good = |offset: usize| {
        bytes.get(offset..).is_some_and(codec::may_begin)
            && good_frame(bytes, offset, seed, &mut scratch).is_some()
    };
    if good(from) {
        return Some(from);
    }
    let first = from + HEAD;
    (first..bytes.len().saturating_sub(HEAD - 1)).step_by(codec::ALIGN).find(|offset| good(*offset))
}

/// Appends frames that say nothing up to this offset.
fn skip_to(content: &mut BytesMut, offset: usize, seed: u32) -> Option<u64> {
    let lost = offset.checked_sub(content.len())?;
    while content.len() < offset {
        let left = offset - content.len();
        let size = if left > LONGEST_SKIP { LONGEST_SKIP / 2 } else { left };
        if size < HEAD {
            return None;
        }
        let at = content.len();
        codec::encode_skip(content, size);
        codec::seal(content.get_mut(at..)?, seed);
    }
    Some(lost as u64)
}

/// Copies a damaged file to where nobody reads it by mistake; returns its name.
fn put_aside(disk: &dyn Disk, name: &str, bytes: &[u8]) -> std::io::Result<String> {
    const MOST: u32 = 1000;
    disk.make_folder(QUARANTINE)?;
    for turn in 0..MOST {
        let aside = match turn {
            0 => format!("{QUARANTINE}/{name}"),
            _ => format!("{QUARANTINE}/{name}.{turn}"),
        };
        match disk.create(&aside) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                write_full(&*file, bytes, 0)?;
                file.sync()?;
                disk.sync_names()?;
                return Ok(aside);
            }
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}
