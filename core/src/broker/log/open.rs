//! The start of a log: what is there is read, its tail made sure of, and a new segment begun.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{Disk, DiskFile, is_shortage, read_full, write_full};
use super::identity::{self, Identity};
use super::pending::Pending;
use super::record::{Position, Record};
use super::recover::{self, Loaded, Sound};
use super::segment::{
    HEADER, Header, SMALLEST, Segment, Segments, is_spare, name_of, number_of, spare_name, spare_number,
};
use super::shared::{Begun, Shared};
use super::stock::{self, Filling, Pace, Stock};
use super::writer::Writer;
use super::{LogOptions, codec};
use crate::error::{Error, Kind, Result};

/// The first segment of a start without a spare file: filled before anything is served, so a small one.
const FIRST: u64 = 4 << 20;
/// The first segment on a full disk.
const LEAST: u64 = 64 << 10;
/// Numbers of topics left out at each start: what was delivered before a crash may be of topics that never
/// reached the disk.
const GAP: u32 = 1 << 12;

pub(super) fn open(
    mut options: LogOptions,
    disk: Arc<dyn Disk>,
    visit: &mut dyn FnMut(Position, &Record<'_>),
) -> Result<Shared> {
    options.segment_bytes = options.segment_bytes.max(SMALLEST).next_multiple_of(HEADER as u64);
    let cannot = |what: &'static str| {
        let disk = Arc::clone(&disk);
        move |error: std::io::Error| {
            let full = is_shortage(&error);
            let why = if full { ": the disk is full" } else { "" };
            let text = format!("cannot {what} {}{why}", disk.describe(""));
            Error::new(Kind::Storage, text).caused_by(error).retryable_is(full)
        }
    };
    let survey = recover::survey(&*disk).map_err(cannot("read"))?;
    let salt = survey.parts.iter().find_map(|part| part.header).map(|header| header.salt);
    let identity = identify(&*disk, salt).map_err(cannot("keep the keys of"))?;
    let mut loaded = recover::load(&*disk, survey, visit)?;
    if !loaded.sound.is_empty() {
        loaded.next_topic = loaded.next_topic.saturating_add(GAP);
    }
    // A start that nothing was written after leaves no trace: its segment is free again.
    while let Some(last) = loaded.sound.pop_if(|last| last.records == 0) {
        loaded.unused.push(name_of(last.header.number));
    }
    if let Some(last) = loaded.sound.last() {
        make_sure(last).map_err(cannot("sync the end of"))?;
    }
    let mut last_number = loaded.last_number;
    let spares = gather(&*disk, &options, &loaded.unused, &mut last_number).map_err(cannot("tidy"))?;
    begin(options, disk.clone(), identity, loaded, spares, last_number).map_err(cannot("begin a segment in"))
}

fn identify(disk: &dyn Disk, salt: Option<u64>) -> std::io::Result<Identity> {
    if let Some(identity) = Identity::load(disk)? {
        return Ok(identity);
    }
    if salt.is_some() {
        tracing::warn!(
            file = disk.describe(identity::NAME),
            "the keys are lost: codes given out before lead nowhere"
        );
    }
    let identity = Identity::new(salt);
    identity.store(disk)?;
    Ok(identity)
}

/// Writes the last records again that may never have reached the disk: after a sync that failed, or a process
/// that was killed, the operating system may hold them in memory only and think otherwise.
fn make_sure(last: &Sound) -> std::io::Result<()> {
    let from = last.proven / codec::ALIGN * codec::ALIGN;
    let mut bytes = vec![0; last.end.saturating_sub(from)];
    let read = read_full(&*last.file, &mut bytes, from as u64)?;
    bytes.truncate(read);
    write_full(&*last.file, &bytes, from as u64)?;
    last.file.sync()
}

/// Gives files that are not in use names of spare ones, or removes them.
fn gather(
    disk: &dyn Disk,
    options: &LogOptions,
    unused: &[String],
    last_number: &mut u64,
) -> std::io::Result<Vec<String>> {
    let mut spares = Vec::new();
    for name in unused {
        let right = disk.open(name)?.size()? == options.segment_bytes;
        let spare = spare_number(name);
        if !right || spares.len() > 2 || (spare.is_none() && is_spare(name)) {
            disk.remove(name)?;
            continue;
        }
        if let Some(number) = spare {
            // Its number may be given again to a file that is being made.
            *last_number = (*last_number).max(number);
            spares.push(name.clone());
        } else if let Some(number) = number_of(name) {
            let spare = spare_name(number);
            disk.rename(name, &spare)?;
            spares.push(spare);
        }
    }
    disk.sync_names()?;
    Ok(spares)
}

fn begin(
    options: LogOptions,
    disk: Arc<dyn Disk>,
    identity: Identity,
    loaded: Loaded,
    mut spares: Vec<String>,
    last_number: u64,
) -> std::io::Result<Shared> {
    let segments = Segments::default();
    let (mut base, mut previous) = (0, 0);
    for sound in loaded.sound {
        let end = sound.end_position();
        let (number, position) = (sound.header.number, sound.opened.base.0);
        let segment = Segment::new(Header { size: sound.size, ..sound.header }, position, Some(sound.file));
        segment.end.store(end, Ordering::Relaxed);
        *segment.named.lock() = sound.named;
        segments.push(Arc::new(segment));
        (base, previous) = (end, number);
    }
    let header = Header { number: last_number + 1, size: options.segment_bytes, salt: identity.salt };
    let (header, file) = first(&*disk, header, spares.pop())?;
    let segment = Arc::new(Segment::new(header, base, Some(file)));
    segments.push(Arc::clone(&segment));
    let opened = codec::Opened {
        base: Position(base),
        previous,
        previous_end: Position(base),
        next_topic: loaded.next_topic,
    };
    let writer = Writer::new(Arc::clone(&segment), base + HEADER as u64);
    let pending = Pending::new(segment, &opened, header.number);
    let stock = Stock { spares, ..Stock::default() };
    let begun = Begun { segments, pending, writer, stock, next_topic: loaded.next_topic };
    let shared = Shared::new(options, disk, identity, begun);
    // On disk before anything is delivered, so that every later start sees where the last one ended.
    shared.commit_now().map_err(std::io::Error::other)?;
    match shared.make_reserve() {
        Err(error) if is_shortage(&error) => shared.say_short(&error),
        result => result?,
    }
    Ok(shared)
}

/// The file of the first segment.
fn first(
    disk: &dyn Disk,
    header: Header,
    spare: Option<String>,
) -> std::io::Result<(Header, Arc<dyn DiskFile>)> {
    if let Some(spare) = spare {
        return Ok((header, stock::name(disk, &spare, disk.open(&spare)?, header)?));
    }
    let small = Header { size: header.size.min(FIRST), ..header };
    match stock::make(disk, small, Filling::Zeros, &|| Pace::Fast) {
        Err(error) if is_shortage(&error) && small.size > LEAST => {
            let least = Header { size: LEAST, ..header };
            Ok((least, stock::make(disk, least, Filling::Zeros, &|| Pace::Fast)?))
        }
        result => Ok((small, result?)),
    }
}
