//! Records as bytes and back.

use bytes::BytesMut;
use rand::Rng;

use super::super::codec::{self, Opened};
use super::super::segment::{self, Header};
use super::*;

#[test]
fn what_is_written_is_read() {
    let mut random = seeded(1);
    for _ in 0..3000 {
        let seed = random.random();
        let material = Material::random(&mut random, 300);
        let record = material.record(&mut random);
        let mut bytes = BytesMut::from(&b"before!!"[..]);
        let size = codec::encode(&mut bytes, &record);
        assert_eq!(bytes.len(), 8 + size);
        assert!(size.is_multiple_of(codec::ALIGN));
        if let Record::Message(message) = record {
            assert!(size <= codec::message_size(message.key.len(), message.body.len()));
        }
        codec::seal(&mut bytes[8..], seed);
        bytes.extend_from_slice(b"after");
        let frame = codec::check(&bytes[8..], seed).unwrap();
        let mut scratch = Vec::new();
        // Counts that run past the last sequence are no ranges.
        let sound =
            material.ranges.iter().all(|range| range.first.checked_add(u64::from(range.count)).is_some());
        assert!(sound);
        assert_eq!(frame.record(&mut scratch), Some(record));
        assert_eq!(frame.size, size);
        assert!(codec::check(&bytes[8..], seed ^ 1).is_none(), "another segment's seed");
        let at = 8 + random.random_range(0..size);
        bytes[at] ^= 1 << random.random_range(0..8);
        assert!(codec::check(&bytes[8..], seed).is_none(), "byte {at} of {record:?}");
    }
}

#[test]
fn no_bytes_are_too_bad() {
    let mut random = seeded(2);
    let mut scratch = Vec::new();
    for _ in 0..30_000 {
        let mut bytes = vec![0u8; random.random_range(0..120)];
        random.fill(&mut bytes[..]);
        if bytes.len() >= 16 && random.random() {
            // Lengths and kinds that lead further.
            let length = bytes.len() as u32 - 16;
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            bytes[8] = random.random_range(0..18);
            bytes[9] &= 63;
        }
        let _ = codec::check(&bytes, random.random());
        if let Some(frame) = codec::parse(&bytes) {
            assert!(frame.size <= bytes.len());
            let _ = (frame.record(&mut scratch), frame.message().is_some(), frame.opened());
        }
        let _ = Header::parse(&bytes);
    }
}

#[test]
fn frames_of_the_log_itself() {
    let opened = Opened { base: Position(7 << 40), previous: 3, previous_end: Position(9), next_topic: 77 };
    let mut bytes = BytesMut::new();
    assert_eq!(codec::encode_opened(&mut bytes, &opened), codec::OPENED_SIZE);
    codec::seal(&mut bytes, 5);
    assert_eq!(codec::check(&bytes, 5).unwrap().opened(), Some(opened));
    let mut bytes = BytesMut::new();
    assert_eq!(codec::encode(&mut bytes, &Record::Synced { position: Position(0) }), codec::SYNCED_SIZE);
    codec::reseal_synced(&mut bytes, 5, Position(123));
    let record = codec::check(&bytes, 5).unwrap().record(&mut Vec::new()).map(|record| Owned::of(&record));
    assert_eq!(record, Some(Owned::of(&Record::Synced { position: Position(123) })));
    for size in [16, 24, 4096] {
        let mut bytes = BytesMut::new();
        assert_eq!(codec::encode_skip(&mut bytes, size), size);
        codec::seal(&mut bytes, 5);
        assert!(codec::check(&bytes, 5).unwrap().is_skip());
    }
}

#[test]
fn a_header_survives_the_loss_of_one_copy() {
    let header = Header { number: 12, size: 32 << 20, salt: 99 };
    let page = header.page();
    assert_eq!(page.len(), segment::HEADER);
    for bit in 0..page.len() * 8 {
        let mut page = page.clone();
        page[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Header::parse(&page), Some(header));
    }
    let mut torn = page.clone();
    torn[8] = 9;
    torn[2048 + 8] = 9;
    assert_eq!(Header::parse(&torn), None, "another version");
}

#[test]
fn names() {
    assert_eq!(segment::number_of(&segment::name_of(12)), Some(12));
    for name in ["lock", "12.log", "spare-12.log", "0000000000000000001x.log", "00000000000000000000.log"] {
        assert_eq!(segment::number_of(name), None);
    }
    assert!(segment::is_spare(&segment::spare_name(3)));
}
