//! Records as bytes. A frame is 8-byte aligned and little-endian:
//! `crc u32 | payload length u32 | kind u8 | flags u8 | 0 u16 | topic u32 | payload | zeros to alignment`.
//! The crc covers all after it, from a seed that differs per segment: bytes of an earlier life of a file never
//! pass for records of the present one.

use bytes::{BufMut, BytesMut};

use super::record::{MessageRecord, Position, Range, Record, Sort};
use super::runs::{put_ranges, ranges};
use crate::broker::config::DeliveryMode;

/// Bytes before a payload.
pub(super) const HEAD: usize = 16;
/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The longest payload that is written or believed.
pub(super) const MAX_PAYLOAD: usize = 1 << 30;
/// Past every sequence that a topic reaches: there is always a next one.
pub(super) const SEQUENCES: u64 = 1 << 62;
/// Bytes of a whole `Synced` frame.
pub(super) const SYNCED_SIZE: usize = HEAD + 8;
/// Bytes of a whole `Opened` frame.
pub(super) const OPENED_SIZE: usize = HEAD + 24;

const TOPIC: u8 = 1;
const TOPIC_GONE: u8 = 2;
const MESSAGE: u8 = 3;
const DONE: u8 = 4;
const PUSHED: u8 = 5;
const POSTPONED: u8 = 6;
const SUBSCRIBED: u8 = 7;
const UNSUBSCRIBED: u8 = 8;
const ACKED: u8 = 9;
const PURGED: u8 = 10;
const SYNCED: u8 = 11;
const OPENED: u8 = 12;
const SKIP: u8 = 13;
const KEPT: u8 = 14;
const LEASED: u8 = 15;
const HIDDEN: u8 = 16;

const HAS_DUE: u8 = 1;
const HAS_EXPIRY: u8 = 2;
const HAS_DELAY: u8 = 4;
const HAS_ATTEMPTS: u8 = 8;
const HAS_KEY: u8 = 16;
const IS_MOVED: u8 = 32;

/// The first frame of a segment in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Position of the first byte of the file.
    pub(super) base: Position,
    /// Number of the segment before; 0 for none.
    pub(super) previous: u64,
    /// Where that one ended: all of it was on disk before this frame was written.
    pub(super) previous_end: Position,
    /// The number that the next new topic gets.
    pub(super) next_topic: u32,
}

impl Opened {
    /// Whether a segment can begin like this.
    pub(super) fn is_possible(&self) -> bool {
        self.base < Position::END && self.previous_end <= self.base
    }
}

/// A frame whose crc is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    kind: u8,
    flags: u8,
    topic: u32,
    payload: &'a [u8],
    /// Bytes of the whole frame with its padding.
    pub(super) size: usize,
}

/// Bytes of a whole frame around a payload.
pub(super) const fn frame_size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(ALIGN)
}

/// At most the bytes of a message's frame.
pub(super) const fn message_size(key: usize, body: usize) -> usize {
    frame_size(48 + key + body)
}

/// Appends a frame whose crc is still to come, see [`seal`]; returns its size.
pub(super) fn encode(out: &mut BytesMut, record: &Record<'_>) -> usize {
    let start = out.len();
    match *record {
        Record::Topic { topic, mode, next_sequence, name } => {
            let mode = u8::from(mode == DeliveryMode::PublishSubscribe);
            begin(out, TOPIC, mode, topic);
            out.put_u64_le(next_sequence);
            out.put_slice(name.as_bytes());
        }
        Record::TopicGone { topic } => begin(out, TOPIC_GONE, 0, topic),
        Record::Message(ref message) => put_message(out, message),
        Record::Done { topic, ranges } => {
            begin(out, DONE, 0, topic);
            put_ranges(out, ranges);
        }
        Record::Pushed { topic, ranges } => {
            begin(out, PUSHED, 0, topic);
            put_ranges(out, ranges);
        }
        Record::Postponed { topic, sequence, due_ms } => {
            begin(out, POSTPONED, 0, topic);
            out.put_u64_le(sequence);
            out.put_i64_le(due_ms);
        }
        Record::Subscribed { topic, subscription, durable, from, id } => {
            begin(out, SUBSCRIBED, u8::from(durable), topic);
            out.put_u32_le(subscription);
            out.put_u64_le(from);
            out.put_slice(id.as_bytes());
        }
        Record::Unsubscribed { topic, subscription } => {
            begin(out, UNSUBSCRIBED, 0, topic);
            out.put_u32_le(subscription);
        }
        Record::Acked { topic, subscription, ranges } => {
            begin(out, ACKED, 0, topic);
            out.put_u32_le(subscription);
            put_ranges(out, ranges);
        }
        Record::Purged { topic, below } => {
            begin(out, PURGED, 0, topic);
            out.put_u64_le(below);
        }
        Record::Kept { topic, sort, next_sequence, name, label } => {
            let sort = Sort::ALL.iter().position(|each| *each == sort).unwrap_or_default();
            begin(out, KEPT, sort as u8, topic);
            out.put_u64_le(next_sequence);
            // A name has 513 bytes at most.
            out.put_u16_le(u16::try_from(name.len()).unwrap_or(u16::MAX));
            out.put_slice(name.as_bytes());
            out.put_slice(label.as_bytes());
        }
        Record::Leased { topic, serial, at_ms, until_ms, ranges } => {
            begin(out, LEASED, 0, topic);
            out.put_u64_le(serial);
            out.put_i64_le(at_ms);
            out.put_i64_le(until_ms);
            put_ranges(out, ranges);
        }
        Record::Hidden { topic, sequence, serial, until_ms, first_ms } => {
            begin(out, HIDDEN, 0, topic);
            out.put_u64_le(sequence);
            out.put_u64_le(serial);
            out.put_i64_le(until_ms);
            out.put_i64_le(first_ms);
        }
        Record::Synced { position } => {
            begin(out, SYNCED, 0, 0);
            out.put_u64_le(position.0);
        }
    }
    finish(out, start)
}

/// Appends the first frame of a segment, without its crc.
pub(super) fn encode_opened(out: &mut BytesMut, opened: &Opened) -> usize {
    let start = out.len();
    begin(out, OPENED, 0, opened.next_topic);
    out.put_u64_le(opened.base.0);
    out.put_u64_le(opened.previous);
    out.put_u64_le(opened.previous_end.0);
    finish(out, start)
}

/// A frame of this size, a multiple of [`ALIGN`] from [`HEAD`] on, that says nothing; without its crc.
pub(super) fn encode_skip(out: &mut BytesMut, size: usize) -> usize {
    let start = out.len();
    begin(out, SKIP, 0, 0);
    out.put_bytes(0, size.saturating_sub(HEAD));
    finish(out, start)
}

/// Writes the crc of the frame that these bytes are.
pub(super) fn seal(frame: &mut [u8], seed: u32) {
    if let Some((crc, rest)) = frame.split_at_mut_checked(4) {
        crc.copy_from_slice(&checksum(seed, rest).to_le_bytes());
    }
}

/// Replaces the position of a `Synced` frame and seals it.
pub(super) fn reseal_synced(frame: &mut [u8], seed: u32, position: Position) {
    if let Some(place) = frame.get_mut(HEAD..SYNCED_SIZE) {
        place.copy_from_slice(&position.0.to_le_bytes());
    }
    seal(frame, seed);
}

/// The crc of these bytes from this seed.
pub(super) fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The size of the frame that seems to begin here, its crc unchecked.
pub(super) fn size_at(bytes: &[u8]) -> Option<usize> {
    let payload = u32_at(bytes, 4)? as usize;
    let size = frame_size(payload);
    (payload <= MAX_PAYLOAD && size <= bytes.len()).then_some(size)
}

/// Whether a frame of a known kind may begin here: most places need no closer look.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    bytes.get(8).is_some_and(|kind| (TOPIC..=HIDDEN).contains(kind))
}

/// The frame at the beginning of these bytes, whose crc is known to be right.
pub(super) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let size = size_at(bytes)?;
    let payload = u32_at(bytes, 4)? as usize;
    Some(Frame {
        kind: *bytes.get(8)?,
        flags: *bytes.get(9)?,
        topic: u32_at(bytes, 12)?,
        payload: bytes.get(HEAD..HEAD.checked_add(payload)?)?,
        size,
    })
}

/// The frame at the beginning of these bytes, if there is one with the right crc.
pub(super) fn check(bytes: &[u8], seed: u32) -> Option<Frame<'_>> {
    let size = size_at(bytes)?;
    let crc = u32_at(bytes, 0)?;
    if checksum(seed, bytes.get(4..size)?) != crc {
        return None;
    }
    parse(bytes)
}

impl<'a> Frame<'a> {
    /// Whether it says nothing.
    pub(super) fn is_skip(&self) -> bool {
        self.kind == SKIP
    }

    /// Whether it is a `Synced` record.
    pub(super) fn is_synced(&self) -> bool {
        self.kind == SYNCED
    }

    /// Whether it is a topic or a subscription: what others refer to.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.kind, TOPIC | SUBSCRIBED | KEPT)
    }

    /// The first frame of a segment.
    pub(super) fn opened(&self) -> Option<Opened> {
        if self.kind != OPENED || self.payload.len() != OPENED_SIZE - HEAD {
            return None;
        }
        Some(Opened {
            base: Position(u64_at(self.payload, 0)?),
            previous: u64_at(self.payload, 8)?,
            previous_end: Position(u64_at(self.payload, 16)?),
            next_topic: self.topic,
        })
    }

    /// The record; `None` for a frame that is none or that this version does not know. Ranges are kept in
    /// `scratch`.
    pub(super) fn record(&self, scratch: &'a mut Vec<Range>) -> Option<Record<'a>> {
        let (topic, payload) = (self.topic, self.payload);
        let exact = |length: usize| (payload.len() == length).then_some(());
        Some(match self.kind {
            TOPIC | SUBSCRIBED | KEPT | MESSAGE => self.standing()?,
            TOPIC_GONE => {
                exact(0)?;
                Record::TopicGone { topic }
            }
            DONE => Record::Done { topic, ranges: ranges(payload, scratch)? },
            PUSHED => Record::Pushed { topic, ranges: ranges(payload, scratch)? },
            POSTPONED => {
                exact(16)?;
                Record::Postponed {
                    topic,
                    sequence: sequence_at(payload, 0)?,
                    due_ms: u64_at(payload, 8)? as i64,
                }
            }
            UNSUBSCRIBED => {
                exact(4)?;
                Record::Unsubscribed { topic, subscription: u32_at(payload, 0)? }
            }
            ACKED => Record::Acked {
                topic,
                subscription: u32_at(payload, 0)?,
                ranges: ranges(payload.get(4..)?, scratch)?,
            },
            PURGED => {
                exact(8)?;
                Record::Purged { topic, below: sequence_at(payload, 0)? }
            }
            LEASED => Record::Leased {
                topic,
                serial: u64_at(payload, 0)?,
                at_ms: u64_at(payload, 8)? as i64,
                until_ms: u64_at(payload, 16)? as i64,
                ranges: ranges(payload.get(24..)?, scratch)?,
            },
            HIDDEN => {
                exact(32)?;
                Record::Hidden {
                    topic,
                    sequence: sequence_at(payload, 0)?,
                    serial: u64_at(payload, 8)?,
                    until_ms: u64_at(payload, 16)? as i64,
                    first_ms: u64_at(payload, 24)? as i64,
                }
            }
            SYNCED => {
                exact(8)?;
                Record::Synced { position: Position(u64_at(payload, 0)?) }
            }
            _ => return None,
        })
    }

    /// The record, if it is a topic, a subscription or a message: what stands until another record ends it.
    pub(super) fn standing(&self) -> Option<Record<'a>> {
        let (topic, payload) = (self.topic, self.payload);
        Some(match self.kind {
            TOPIC => Record::Topic {
                topic,
                mode: match self.flags {
                    0 => DeliveryMode::WorkQueue,
                    1 => DeliveryMode::PublishSubscribe,
                    _ => return None,
                },
                next_sequence: sequence_at(payload, 0)?,
                name: text(payload.get(8..)?)?,
            },
            SUBSCRIBED => Record::Subscribed {
                topic,
                subscription: u32_at(payload, 0)?,
                durable: match self.flags {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
                from: sequence_at(payload, 4)?,
                id: text(payload.get(12..)?)?,
            },
            KEPT => {
                let (length, rest) = payload.get(8..)?.split_first_chunk()?;
                let (name, label) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
                Record::Kept {
                    topic,
                    sort: *Sort::ALL.get(usize::from(self.flags))?,
                    next_sequence: sequence_at(payload, 0)?,
                    name: text(name)?,
                    label: text(label)?,
                }
            }
            MESSAGE => Record::Message(self.message()?),
            _ => return None,
        })
    }

    /// The message.
    pub(super) fn message(&self) -> Option<MessageRecord<'a>> {
        if self.kind != MESSAGE || self.flags & !0b11_1111 != 0 {
            return None;
        }
        let mut rest = self.payload;
        let sequence = take_u64(&mut rest).filter(|sequence| *sequence <= SEQUENCES)?;
        let created_ms = take_u64(&mut rest)? as i64;
        let mut optional = |flag: u8| if self.flags & flag == 0 { Some(0) } else { take_u64(&mut rest) };
        let due_ms = optional(HAS_DUE)? as i64;
        let expires_ms = optional(HAS_EXPIRY)? as i64;
        let wire_delay = optional(HAS_DELAY)? as i64;
        let attempts = if self.flags & HAS_ATTEMPTS == 0 { 0 } else { take_u32(&mut rest)? };
        let mut key = "";
        if self.flags & HAS_KEY != 0 {
            let length = take_u32(&mut rest)? as usize;
            let (bytes, body) = rest.split_at_checked(length)?;
            key = text(bytes)?;
            rest = body;
        }
        Some(MessageRecord {
            topic: self.topic,
            sequence,
            created_ms,
            due_ms,
            expires_ms,
            wire_delay,
            attempts,
            moved: self.flags & IS_MOVED != 0,
            key,
            noted: false,
            body: rest,
        })
    }
}

fn begin(out: &mut BytesMut, kind: u8, flags: u8, topic: u32) {
    let mut head = [0; HEAD];
    head[8] = kind;
    head[9] = flags;
    head[12..].copy_from_slice(&topic.to_le_bytes());
    out.put_slice(&head);
}

/// Fills in the length and pads.
fn finish(out: &mut BytesMut, start: usize) -> usize {
    let payload = out.len().saturating_sub(start + HEAD);
    if let Some(length) = out.get_mut(start + 4..start + 8) {
        // What does not fit is refused before it comes here, see `MAX_PAYLOAD`.
        length.copy_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    }
    let size = frame_size(payload);
    out.put_bytes(0, (start + size).saturating_sub(out.len()));
    size
}

fn put_message(out: &mut BytesMut, message: &MessageRecord<'_>) {
    out.reserve(message_size(message.key.len(), message.body.len()));
    let mut flags = 0;
    let mut set = |condition: bool, flag: u8| flags |= if condition { flag } else { 0 };
    set(message.due_ms != 0, HAS_DUE);
    set(message.expires_ms != 0, HAS_EXPIRY);
    set(message.wire_delay != 0, HAS_DELAY);
    set(message.attempts != 0, HAS_ATTEMPTS);
    set(!message.key.is_empty(), HAS_KEY);
    set(message.moved, IS_MOVED);
    begin(out, MESSAGE, flags, message.topic);
    out.put_u64_le(message.sequence);
    out.put_i64_le(message.created_ms);
    for time in [message.due_ms, message.expires_ms, message.wire_delay] {
        if time != 0 {
            out.put_i64_le(time);
        }
    }
    if message.attempts != 0 {
        out.put_u32_le(message.attempts);
    }
    if !message.key.is_empty() {
        out.put_u32_le(u32::try_from(message.key.len()).unwrap_or(u32::MAX));
        out.put_slice(message.key.as_bytes());
    }
    out.put_slice(message.body);
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*word))
}

/// The word at this offset.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// The half word at this offset.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// The sequence at this offset.
fn sequence_at(bytes: &[u8], offset: usize) -> Option<u64> {
    u64_at(bytes, offset).filter(|sequence| *sequence <= SEQUENCES)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
