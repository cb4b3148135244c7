//! A queue with its journal, which is kept as records and read again, and clocks that agree.

use std::sync::Arc;

use futures_util::task::AtomicWaker;

use crate::broker::delay::Tick;
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record, Sort};
use crate::broker::queue::{LeaseDraft, LeaseQueue, Received};

pub(super) const TOPIC: u32 = 7;

#[derive(Debug, Clone)]
enum Saved {
    Message { record: MessageRecord<'static>, note: String, body: Vec<u8> },
    Done(Vec<Range>),
    Leased { serial: u64, at_ms: i64, until_ms: i64, ranges: Vec<Range> },
    Hidden { sequence: u64, serial: u64, until_ms: i64, first_ms: i64 },
    Gone,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    records: Vec<Saved>,
}

impl Journal for Memory {
    fn append(&mut self, record: &Record<'_>) -> Position {
        self.records.push(match *record {
            Record::Message(message) => Saved::Message {
                record: MessageRecord { key: "", body: &[], ..message },
                note: message.key.to_owned(),
                body: message.body.to_vec(),
            },
            Record::Done { ranges, .. } => Saved::Done(ranges.to_vec()),
            Record::Leased { serial, at_ms, until_ms, ranges, .. } => {
                Saved::Leased { serial, at_ms, until_ms, ranges: ranges.to_vec() }
            }
            Record::Hidden { sequence, serial, until_ms, first_ms, .. } => {
                Saved::Hidden { sequence, serial, until_ms, first_ms }
            }
            ref other => panic!("a queue of leases writes no {other:?}"),
        });
        Position(self.records.len() as u64)
    }
}

pub(super) struct Bench {
    pub(super) queue: LeaseQueue,
    pub(super) journal: Memory,
    pub(super) now: Tick,
    pub(super) wakes: usize,
    pub(super) freed: usize,
    epoch: i64,
    /// What a record of its own would say in a log.
    next_sequence: u64,
}

/// A message with this priority and delay.
pub(super) fn draft(priority: u8, delay_ms: u64) -> LeaseDraft<'static> {
    LeaseDraft { body: b"body", note: "", delay_ms, priority, retention_ms: 0 }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench {
            queue: LeaseQueue::new(TOPIC),
            journal: Memory::default(),
            now: 0,
            wakes: 0,
            freed: 0,
            epoch: 1_700_000_000_000,
            next_sequence: 0,
        }
    }

    pub(super) fn wall(&self) -> i64 {
        self.epoch + (self.now / 1000) as i64
    }

    pub(super) fn send(&mut self, draft: LeaseDraft<'_>) -> u64 {
        let sequence = self.queue.accept(&draft, self.now, self.wall(), &mut self.journal);
        self.follow();
        sequence
    }

    pub(super) fn take(&mut self, most: usize, hidden_ms: u64) -> Vec<Received> {
        let mut out = Vec::new();
        self.queue.take(most, hidden_ms, self.now, self.wall(), &mut self.journal, &mut out);
        self.follow();
        out
    }

    pub(super) fn delete(&mut self, handle: (u64, u64)) -> bool {
        let done = self.queue.delete(&[handle], self.now, &mut self.journal);
        self.follow();
        done == [true]
    }

    pub(super) fn change(&mut self, handle: (u64, u64), hidden_ms: u64) -> Option<u64> {
        let changed = self.queue.change(handle, hidden_ms, self.now, self.wall(), &mut self.journal);
        self.follow();
        changed.map(|(serial, _)| serial)
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now += ms * 1000;
        self.queue.advance(self.now, &mut self.journal);
        self.follow();
    }

    pub(super) fn wait(&mut self, place: &mut Option<u64>) {
        self.queue.wait(&Arc::new(AtomicWaker::new()), place);
    }

    fn follow(&mut self) {
        let events = self.queue.take_events();
        self.wakes += events.wakes.len();
        self.freed += events.left.len();
    }

    /// The process ends, and another reads the journal; its clock begins anew.
    pub(super) fn restart(&mut self) {
        let wall = self.wall();
        self.next_sequence = self.queue.next_sequence();
        let mut queue = LeaseQueue::new(TOPIC);
        let (sort, next_sequence) = (Sort::Queue, self.next_sequence);
        let kept = Record::Kept { topic: TOPIC, sort, next_sequence, name: "q", label: "" };
        queue.replay(&kept, Position(0));
        for (at, saved) in (1u64..).zip(&self.journal.records) {
            let topic = TOPIC;
            let record = match saved {
                Saved::Message { record, note, body } => {
                    Record::Message(MessageRecord { key: note, body, ..*record })
                }
                Saved::Done(ranges) => Record::Done { topic, ranges },
                &Saved::Leased { serial, at_ms, until_ms, ref ranges } => {
                    Record::Leased { topic, serial, at_ms, until_ms, ranges }
                }
                &Saved::Hidden { sequence, serial, until_ms, first_ms } => {
                    Record::Hidden { topic, sequence, serial, until_ms, first_ms }
                }
                Saved::Gone => continue,
            };
            queue.replay(&record, Position(at));
        }
        self.epoch = wall;
        self.now = 0;
        queue.restored(0, wall, &mut self.journal);
        self.queue = queue;
        self.queue.advance(0, &mut self.journal);
        self.follow();
    }

    /// The first records go, after what is alive of them was written again.
    pub(super) fn clean(&mut self, records: usize) {
        let records = records.min(self.journal.records.len());
        let old: Vec<Saved> = self.journal.records[..records].to_vec();
        let messages: Vec<(Position, MessageRecord<'_>)> = (1u64..)
            .zip(&old)
            .filter_map(|(at, saved)| match saved {
                Saved::Message { record, note, body } => {
                    Some((Position(at), MessageRecord { key: note, body, ..*record }))
                }
                _ => None,
            })
            .collect();
        self.queue.rewrite(&messages, self.now, &mut self.journal);
        self.journal.records[..records].fill(Saved::Gone);
    }
}
