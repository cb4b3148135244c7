use std::path::PathBuf;

use super::*;
use crate::broker::delay::NEVER;
use crate::broker::log::record::{Journal, MessageRecord, Range};
use crate::secret::Secret;

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn message(topic: u32, sequence: u64, body: &[u8]) -> Record<'_> {
    Record::Message(MessageRecord::plain(topic, sequence, body))
}

fn topic(number: u32, name: &str) -> Record<'_> {
    Record::Topic { topic: number, mode: DeliveryMode::PublishSubscribe, next_sequence: 0, name }
}

/// What a start finds in a log of these records.
fn found(records: &[Record<'_>]) -> Vec<(String, usize)> {
    let mut config = BrokerConfig::new(Secret::new("key"));
    config.delivery = DeliveryMode::PublishSubscribe;
    let mut replay = Replay::new(&config);
    for (at, record) in (64u64..).step_by(64).zip(records) {
        replay.take(Position(at), record);
    }
    let queues = replay.finish().into_values();
    let mut found: Vec<_> = queues.map(|(name, queue)| (name.to_string(), queue.all().count())).collect();
    found.sort();
    found
}

#[test]
fn messages_of_a_topic_that_is_gone_stay_gone() {
    let ranges = [Range { first: 1, count: 2 }];
    let done = Record::Done { topic: 3, ranges: &ranges };
    // The segment with the topic's record went first.
    let of_gone = [message(3, 1, b"a"), message(3, 2, b"b"), done];
    assert_eq!(found(&of_gone), []);
    assert_eq!(found(&[message(3, 1, b"a"), Record::TopicGone { topic: 3 }]), []);
    assert_eq!(found(&[message(3, 1, b"a"), Record::Purged { topic: 3, below: 2 }]), []);
    assert_eq!(found(&[done, Record::Acked { topic: 3, subscription: 1, ranges: &ranges }]), []);
    let lost = [topic(9, "lost-3"), message(3, 1, b"a"), message(3, 2, b"b"), message(3, 3, b"c"), done];
    assert_eq!(found(&lost), [("lost-3".to_owned(), 0), ("lost-3-".to_owned(), 1)]);
}

#[test]
fn messages_whose_topic_a_repair_lost_are_in_another_one() {
    let name = format!("ceiba-store-{}-{:x}", std::process::id(), rand::random::<u64>());
    let scratch = Scratch(std::env::temp_dir().join(name));
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let disk = || Arc::new(RealDisk::open(&scratch.0).unwrap());
    let log = Log::open(options, disk(), |_, _| {}).unwrap();
    let number = log.new_topic();
    let (place, _ticket) = log.append(|journal| journal.append(&topic(number, "orders")));
    for sequence in 0..200 {
        let (_, _ticket) = log.append(|journal| journal.append(&message(number, sequence, &[7; 1000])));
    }
    log.close().unwrap();
    drop(log);
    let first = scratch.0.join(format!("{:020}.log", 1));
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[place.0 as usize + 12] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    assert_eq!(Log::repair(&scratch.0).unwrap().len(), 1);

    let mut config = BrokerConfig::new(Secret::new("key"));
    config.data = Some(scratch.0.clone());
    for round in 0..2 {
        let stored = open(&config).unwrap();
        let [(found, name, queue)] = &stored.queues[..] else { panic!("{:?}", stored.queues) };
        assert_eq!((*found, &**name), (number, format!("lost-{number}").as_str()), "round {round}");
        assert_eq!((queue.counts(), queue.alarm() < NEVER), ((200, 0), true));
        assert!(stored.log.status().live_bytes >= 200 * 1000, "they are kept");
        assert!(stored.log.new_topic() > number, "no other topic gets the number");
        stored.log.close().unwrap();
    }
}
