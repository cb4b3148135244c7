//! The log as its callers see it. What disks do to it is in `damage` and `faults`.

mod cleaning;
mod damage;
mod faults;
mod frames;
mod model;
mod power;
mod serving;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::record::{Journal, MessageRecord, Position, Range, Record, Sort};
use super::{Disk, Log, LogOptions, MemoryDisk, RealDisk};
use crate::broker::config::DeliveryMode;
use crate::error::Result;

/// A record that owns what it holds.
#[derive(Clone, PartialEq, Eq)]
struct Owned {
    /// The record with empty texts, bytes and ranges.
    shape: String,
    text: String,
    body: Vec<u8>,
    ranges: Vec<Range>,
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {} bytes {} ranges", self.shape, self.text, self.body.len(), self.ranges.len())
    }
}

impl Owned {
    fn of(record: &Record<'_>) -> Owned {
        let (mut text, mut body, mut ranges) = (String::new(), Vec::new(), Vec::new());
        let mut bare = *record;
        match &mut bare {
            Record::Topic { name, .. } => text = std::mem::take(name).to_owned(),
            Record::Subscribed { id, .. } => text = std::mem::take(id).to_owned(),
            Record::Kept { name, label, .. } => {
                text = std::mem::take(name).to_owned();
                body = std::mem::take(label).as_bytes().to_vec();
            }
            Record::Message(message) => {
                text = std::mem::take(&mut message.key).to_owned();
                body = std::mem::take(&mut message.body).to_vec();
            }
            Record::Done { ranges: r, .. }
            | Record::Pushed { ranges: r, .. }
            | Record::Acked { ranges: r, .. }
            | Record::Leased { ranges: r, .. } => {
                ranges = std::mem::take(r).to_vec();
            }
            _ => {}
        }
        Owned { shape: format!("{bare:?}"), text, body, ranges }
    }
}

/// What a log was found to hold.
type Content = BTreeMap<Position, Owned>;

fn open(options: &LogOptions, disk: Arc<dyn Disk>) -> Result<(Arc<Log>, Content)> {
    let mut content = Content::new();
    let log = Log::open(options.clone(), disk, |position, record| {
        assert!(content.insert(position, Owned::of(record)).is_none(), "visited once");
    })?;
    Ok((log, content))
}

/// Small segments, so that every test rolls over.
fn small() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, recent_bytes: 16 << 10, ..LogOptions::default() }
}

fn message(sequence: u64, body: &[u8]) -> Record<'_> {
    Record::Message(MessageRecord::plain(1, sequence, body))
}

/// Any record, with what it borrows.
#[derive(Debug, Default)]
struct Material {
    text: String,
    body: Vec<u8>,
    ranges: Vec<Range>,
}

impl Material {
    fn random(random: &mut StdRng, longest: usize) -> Material {
        let text: String = (0..random.random_range(0..12)).map(|_| random.random::<char>()).collect();
        let length = random.random_range(0..=longest);
        let mut body = vec![0; length];
        random.fill(&mut body[..]);
        let ranges = (0..random.random_range(0..6))
            .map(|_| Range {
                first: random.random::<u64>() >> random.random_range(3..64),
                count: random.random(),
            })
            .collect();
        Material { text, body, ranges }
    }

    fn record(&self, random: &mut StdRng) -> Record<'_> {
        let topic = random.random();
        let sequence = random.random::<u64>() >> 2;
        let some = |random: &mut StdRng| if random.random() { random.random() } else { 0 };
        match random.random_range(0..19) {
            0 => Record::Topic {
                topic,
                mode: if random.random() { DeliveryMode::WorkQueue } else { DeliveryMode::PublishSubscribe },
                next_sequence: sequence,
                name: &self.text,
            },
            1 => Record::TopicGone { topic },
            2 | 3 => Record::Done { topic, ranges: &self.ranges },
            4 => Record::Pushed { topic, ranges: &self.ranges },
            5 => Record::Postponed { topic, sequence, due_ms: random.random() },
            6 => Record::Subscribed {
                topic,
                subscription: random.random(),
                durable: random.random(),
                from: sequence,
                id: &self.text,
            },
            7 => Record::Unsubscribed { topic, subscription: random.random() },
            8 => Record::Acked { topic, subscription: random.random(), ranges: &self.ranges },
            9 => Record::Purged { topic, below: sequence },
            10 => Record::Kept {
                topic,
                sort: Sort::ALL[random.random_range(0..4)],
                next_sequence: sequence,
                name: &self.text,
                label: &self.text,
            },
            11 => Record::Leased {
                topic,
                serial: random.random(),
                at_ms: random.random(),
                until_ms: random.random(),
                ranges: &self.ranges,
            },
            12 => Record::Hidden {
                topic,
                sequence,
                serial: random.random(),
                until_ms: random.random(),
                first_ms: random.random(),
            },
            _ => Record::Message(MessageRecord {
                topic,
                sequence,
                created_ms: random.random(),
                due_ms: some(random),
                expires_ms: some(random),
                wire_delay: some(random),
                attempts: some(random) as u32,
                moved: random.random(),
                key: if random.random() { &self.text } else { "" },
                noted: false,
                body: &self.body,
            }),
        }
    }
}

/// Appends random records in batches of a few and commits each batch; what was committed.
async fn write_some(log: &Log, random: &mut StdRng, batches: usize, longest: usize) -> Content {
    let mut content = Content::new();
    for _ in 0..batches {
        let few = random.random_range(1..5);
        let materials: Vec<Material> = (0..few).map(|_| Material::random(random, longest)).collect();
        let (batch, ticket) = log.append(|journal| {
            materials
                .iter()
                .map(|material| {
                    let record = material.record(random);
                    (journal.append(&record), Owned::of(&record))
                })
                .collect::<Vec<_>>()
        });
        log.committed(ticket).await.unwrap();
        content.extend(batch);
    }
    content
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let name = format!("ceiba-log-{}-{:x}", std::process::id(), rand::random::<u64>());
        Scratch(std::env::temp_dir().join(name))
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk::open(&self.0).unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
