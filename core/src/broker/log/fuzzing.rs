//! Checks of the log's reader against any bytes, for fuzzing. A crc keeps what is random out, so frames are sealed
//! here and their content is the input's: the reader meets records that make no sense, too.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::codec::{self, HEAD, OPENED_SIZE, Opened};
use super::identity::Identity;
use super::record::{Position, Record};
use super::segment::{self, HEADER, Header};
use super::{Disk, Durability, LogOptions, MemoryDisk, Reading, open, recover, repair};
use crate::error::{Kind, Result};

const SALT: u64 = 0x5eed;
const SEED: u32 = 7;
/// What stands between the segments of an input.
const BETWEEN: &[u8] = b"|segment|";
/// The most segments of an input.
const SEGMENTS: usize = 4;
/// Bytes before the frames of a segment: what is wrong with it, and two words.
const SHAPE: usize = 17;
/// A frame whose crc begins with this byte is left as it is.
const UNSEALED: u8 = 0xbd;

/// One frame, header page or identity.
pub(in crate::broker) fn log_record(data: &[u8]) {
    let _ = Header::parse(data);
    let disk = MemoryDisk::default();
    disk.put(super::identity::NAME, data.to_vec());
    let _ = Identity::load(&disk);
    let mut bytes = data.to_vec();
    let Some(size) = codec::size_at(&bytes) else {
        assert!(codec::check(&bytes, SEED).is_none() && codec::parse(&bytes).is_none());
        return;
    };
    assert!((HEAD..=bytes.len()).contains(&size) && size.is_multiple_of(codec::ALIGN));
    bytes.truncate(size);
    codec::seal(&mut bytes, SEED);
    let frame = codec::check(&bytes, SEED).expect("it was sealed");
    assert!(codec::check(&bytes, SEED ^ 1).is_none(), "another segment's frame passes");
    let (mut scratch, mut again) = (Vec::new(), Vec::new());
    let mut out = BytesMut::new();
    if let Some(opened) = frame.opened() {
        codec::encode_opened(&mut out, &opened);
        codec::seal(&mut out, SEED);
        assert_eq!(codec::check(&out, SEED).and_then(|frame| frame.opened()), Some(opened));
        out.clear();
    }
    let message = frame.message();
    let standing = frame.standing();
    let Some(record) = frame.record(&mut scratch) else {
        assert!(message.is_none() && standing.is_none());
        return;
    };
    let is_message = matches!(record, Record::Message(_));
    assert_eq!(message.map(Record::Message), Some(record).filter(|_| is_message));
    assert!(standing.is_none_or(|standing| standing == record));
    if let Record::Done { ranges, .. }
    | Record::Pushed { ranges, .. }
    | Record::Acked { ranges, .. }
    | Record::Leased { ranges, .. } = record
    {
        assert!(ranges.len() <= size / 2, "more ranges than the bytes hold");
    }
    let written = codec::encode(&mut out, &record);
    assert!(written <= size, "the same takes no more room when we write it");
    codec::seal(&mut out, SEED);
    let back = codec::check(&out, SEED).expect("our own frame");
    assert_eq!(back.record(&mut again), Some(record));
}

/// The segments that an input stands for.
fn disk_of(data: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let identity = Identity { key: [7; 32], salt: SALT };
    identity.store(&disk).expect("memory takes all");
    let (mut rest, mut number, mut end, mut next) = (data, 1, 0u64, Some(()));
    while next.take().is_some() && number <= SEGMENTS as u64 {
        let cut = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        let (part, behind) = match cut {
            Some(at) => {
                next = Some(());
                (rest.get(..at), rest.get(at + BETWEEN.len()..))
            }
            None => (Some(rest), None),
        };
        end = put_segment(&disk, number, end, part.unwrap_or_default());
        rest = behind.unwrap_or_default();
        number += 1;
    }
    disk
}

/// Writes the segment with this number that begins at this position, or where the input says; returns where its
/// good frames end.
fn put_segment(disk: &MemoryDisk, number: u64, begins: u64, part: &[u8]) -> u64 {
    let shape = |at: usize| part.get(at).copied().unwrap_or_default();
    let word = |at: usize| codec::u64_at(part, at).unwrap_or_default();
    let wrong = |bit: u8| shape(0) & (1 << bit) != 0;
    let base = if wrong(3) { word(1) } else { begins };
    let frames = part.get(SHAPE..).unwrap_or_default();
    // As large as the memory of a run allows, or impossible.
    let any_size = if word(1) >> 63 == 1 { word(1) } else { word(1) & 0xf_ffff };
    let size = if wrong(6) { any_size } else { (HEADER + OPENED_SIZE + frames.len()) as u64 };
    let header = Header { number, size, salt: SALT };
    let mut bytes = BytesMut::from(header.page().as_slice());
    if wrong(0) {
        bytes.fill(0);
    }
    if !wrong(1) {
        let opened = Opened {
            base: Position(base),
            previous: if wrong(5) { word(9) } else { number - 1 },
            previous_end: Position(if wrong(4) { word(9) } else { begins }),
            next_topic: 1 + u32::from(shape(16)),
        };
        let at = bytes.len();
        codec::encode_opened(&mut bytes, &opened);
        if let Some(frame) = bytes.get_mut(at..) {
            codec::seal(frame, header.seed());
        }
    }
    bytes.extend_from_slice(frames);
    let mut offset = HEADER + if wrong(1) { 0 } else { OPENED_SIZE };
    let mut end = None;
    while let Some(rest) = bytes.get_mut(offset..) {
        let Some(size) = codec::size_at(rest) else { break };
        let Some(frame) = rest.get_mut(..size) else { break };
        if frame.first() == Some(&UNSEALED) {
            end = end.or(Some(offset));
        } else {
            codec::seal(frame, header.seed());
        }
        offset += size;
    }
    let end = end.unwrap_or(offset);
    if wrong(7) {
        disk.put(&segment::spare_name(word(9)), vec![0; if wrong(2) { 8192 } else { 100 }]);
    }
    if wrong(2) {
        bytes.truncate(HEADER + word(9) as usize % bytes.len());
    }
    disk.put(&segment::name_of(number), bytes.to_vec());
    base.saturating_add(end as u64)
}

type Content = BTreeMap<Position, String>;

fn content_of(disk: &dyn Disk) -> Result<Content> {
    let mut content = Content::new();
    let survey = recover::survey(disk).expect("memory can be read");
    recover::load(disk, survey, &mut |position, record| {
        assert!(content.insert(position, format!("{record:?}")).is_none(), "a record is visited once");
    })?;
    Ok(content)
}

/// Segments with any content: what is damaged is named, what can be repaired is sound afterwards, and what is
/// served stays the same from start to start.
pub(in crate::broker) fn log_segments(data: &[u8]) {
    let disk = disk_of(data);
    let found = content_of(&disk);
    let reports = repair::verify(&disk).expect("memory can be read");
    let damaged = reports.iter().any(|report| report.damage.is_some());
    assert_eq!(damaged, found.is_err(), "a start and a verification say the same: {found:?}");
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Storage);
            match repair::repair(&disk) {
                Ok(repaired) => assert!(!repaired.is_empty()),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Storage);
                    return;
                }
            }
            content_of(&disk).expect("a repaired log is sound")
        }
    };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let options =
        LogOptions { durability: Durability::Fsync, segment_bytes: segment::SMALLEST, recent_bytes: 0 };
    let mut served = Content::new();
    let mut messages = Vec::new();
    let started = open::open(options, Arc::clone(&disk), &mut |position, record| {
        served.insert(position, format!("{record:?}"));
        if let Record::Message(message) = record {
            messages.push((position, message.sequence, message.body.to_vec()));
        }
    });
    let shared = match started {
        Ok(shared) => shared,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Storage);
            return;
        }
    };
    assert_eq!(served, found);
    let mut reading = Reading::new(&shared);
    for (position, sequence, body) in &messages {
        let read = reading.message(*position, body.len()).expect("what was visited can be read");
        assert_eq!((read.sequence, &read.body[..]), (*sequence, &body[..]));
    }
    assert_eq!(content_of(&*disk).expect("a start does no damage"), found);
}

/// The records of segments with any content, where they are sound.
pub(in crate::broker) fn records_of(data: &[u8], visit: &mut dyn FnMut(Position, &Record<'_>)) -> bool {
    let disk = disk_of(data);
    let survey = recover::survey(&disk).expect("memory can be read");
    recover::load(&disk, survey, visit).is_ok()
}
