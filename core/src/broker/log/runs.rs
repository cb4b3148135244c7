//! Ranges of sequences as bytes, small where they are near each other.

use bytes::{BufMut, BytesMut};

use super::codec::SEQUENCES;
use super::record::Range;

/// Ranges as the count, then the distance from the end of the one before (zigzag) and the length of each.
pub(super) fn put_ranges(out: &mut BytesMut, ranges: &[Range]) {
    put_varint(out, ranges.len() as u64);
    let mut end = 0u64;
    for range in ranges {
        let distance = range.first.wrapping_sub(end) as i64;
        put_varint(out, ((distance << 1) ^ (distance >> 63)) as u64);
        put_varint(out, u64::from(range.count));
        end = range.first.wrapping_add(u64::from(range.count));
    }
}

/// The ranges of these bytes, kept in `scratch`.
pub(super) fn ranges<'a>(mut bytes: &[u8], scratch: &'a mut Vec<Range>) -> Option<&'a [Range]> {
    scratch.clear();
    let count = take_varint(&mut bytes)?;
    // Each range takes two bytes or more: no count leads to more room than the bytes justify.
    if count > bytes.len() as u64 / 2 {
        return None;
    }
    let mut end = 0u64;
    for _ in 0..count {
        let word = take_varint(&mut bytes)?;
        let distance = (word >> 1) as i64 ^ -((word & 1) as i64);
        let first = end.wrapping_add(distance as u64);
        let count = u32::try_from(take_varint(&mut bytes)?).ok()?;
        end = first.checked_add(u64::from(count)).filter(|end| *end <= SEQUENCES)?;
        scratch.push(Range { first, count });
    }
    bytes.is_empty().then_some(scratch)
}

fn put_varint(out: &mut BytesMut, mut word: u64) {
    while word >= 0x80 {
        out.put_u8(word as u8 | 0x80);
        word >>= 7;
    }
    out.put_u8(word as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut word = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        word |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(word);
        }
    }
    None
}
