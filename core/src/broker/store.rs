//! The start of a broker: its log is opened, and the queues are made of what is in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::config::{BrokerConfig, DeliveryMode};
use super::delay::Clock;
use super::depot::Kept;
use super::log::record::{Journal, Position, Record};
use super::log::{Disk, Durability, Log, LogOptions, MemoryDisk, RealDisk};
use super::queue::{LeaseQueue, Queue};
use super::terms;
use super::topic::wall_ms;
use crate::error::Result;

/// What a broker begins with.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) log: Arc<Log>,
    /// Each with the number and name of its topic.
    pub(super) queues: Vec<(u32, Arc<str>, Queue)>,
    /// Each with its number.
    pub(super) kept: Vec<(u32, Kept)>,
    pub(super) clock: Clock,
}

/// Opens the log of the folder, or one in memory. Blocks while it reads.
///
/// # Errors
/// `in_use` when another process holds the folder, `storage` when it cannot be used or is damaged.
pub(super) fn open(config: &BrokerConfig) -> Result<Stored> {
    let (disk, durability): (Arc<dyn Disk>, _) = match (&config.data, config.durability) {
        (Some(path), durability) => (Arc::new(RealDisk::open(path)?), durability),
        (None, _) => (Arc::new(MemoryDisk::default()), Durability::Memory),
    };
    let segment_bytes = config.limits.segment_bytes;
    let options = LogOptions { durability, segment_bytes, ..LogOptions::default() };
    let mut replay = Replay::new(config);
    let log = Log::open(options, disk, |position, record| replay.take(position, record))?;
    let mut kept = Vec::with_capacity(replay.kept.len());
    let leased = std::mem::take(&mut replay.kept);
    let queues = replay.finish();
    let clock = Clock::new();
    let mut restored = Vec::with_capacity(queues.len());
    for (number, (name, mut queue)) in queues {
        // Safe with the commit that the start waits for.
        let ((), _ticket) = log.append(|journal| queue.restored(clock.now(), wall_ms(), journal));
        // Messages that left meanwhile were never counted as kept: told as gone, they would take the life of
        // others in their file away, and the file would be dropped with those in it.
        drop(queue.take_events());
        log.keep(queue.all().map(|message| (message.position, message.length)));
        restored.push((number, name, queue));
    }
    for (number, mut there) in leased {
        let queue = &mut there.queue;
        let ((), _ticket) = log.append(|journal| {
            queue.restored(clock.now(), wall_ms(), journal);
            // From where its sequences go on.
            journal.append(&Record::Kept {
                topic: number,
                sort: there.sort,
                next_sequence: queue.next_sequence(),
                name: &there.name,
                label: &there.label,
            });
        });
        drop(queue.take_events());
        log.keep(queue.all());
        kept.push((number, there));
    }
    Ok(Stored { log, queues: restored, kept, clock })
}

/// Queues that are made of the records of a log.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    config: &'a BrokerConfig,
    /// Each with its name, by the number of its topic.
    pub(super) queues: HashMap<u32, (Arc<str>, Queue)>,
    /// Queues of leases, by number.
    pub(super) kept: HashMap<u32, Kept>,
    /// Those of `queues` that no record tells of but their messages'.
    lost: HashSet<u32>,
}

impl Replay<'_> {
    pub(super) fn new(config: &BrokerConfig) -> Replay<'_> {
        Replay { config, queues: HashMap::new(), kept: HashMap::new(), lost: HashSet::new() }
    }

    /// Takes the next record, topics and subscriptions before all others. A message of a topic that is none makes
    /// one: it may be of one that is gone, which is told later, or a repair may have lost the topic's record. What
    /// else names such a topic is passed over.
    pub(super) fn take(&mut self, position: Position, record: &Record<'_>) {
        let number = match *record {
            Record::Topic { topic, mode, name, .. } => {
                self.queues.entry(topic).or_insert_with(|| {
                    let name: Arc<str> = Arc::from(name);
                    let terms = terms::of(self.config, &name, mode);
                    (Arc::clone(&name), Queue::new(topic, name, terms))
                });
                topic
            }
            Record::Kept { topic, sort, name, label, .. } => {
                let new = || Kept {
                    sort,
                    name: Arc::from(name),
                    label: String::new(),
                    queue: LeaseQueue::new(topic),
                };
                // The last word holds.
                self.kept.entry(topic).or_insert_with(new).label = label.to_owned();
                topic
            }
            Record::TopicGone { topic } => {
                self.kept.remove(&topic);
                self.queues.remove(&topic);
                self.lost.remove(&topic);
                return;
            }
            Record::Synced { .. } => return,
            Record::Message(message) => {
                if !self.queues.contains_key(&message.topic) && !self.kept.contains_key(&message.topic) {
                    self.add_lost(message.topic);
                }
                message.topic
            }
            Record::Done { topic, .. }
            | Record::Pushed { topic, .. }
            | Record::Postponed { topic, .. }
            | Record::Subscribed { topic, .. }
            | Record::Unsubscribed { topic, .. }
            | Record::Acked { topic, .. }
            | Record::Purged { topic, .. }
            | Record::Leased { topic, .. }
            | Record::Hidden { topic, .. } => topic,
        };
        if let Some((_, queue)) = self.queues.get_mut(&number) {
            queue.replay(record, position);
        } else if let Some(kept) = self.kept.get_mut(&number) {
            kept.queue.replay(record, position);
        }
    }

    fn add_lost(&mut self, number: u32) {
        let taken = |name: &str| self.queues.values().any(|(there, _)| **there == *name);
        let mut name = format!("lost-{number}");
        while taken(&name) {
            name.push('-');
        }
        // Who had subscribed is not known: each message is for whoever comes, whatever the broker's mode, and what
        // some acknowledged and others perhaps did not comes once more.
        let (name, mode): (Arc<str>, _) = (Arc::from(name), DeliveryMode::WorkQueue);
        let queue = Queue::new(number, Arc::clone(&name), terms::of(self.config, &name, mode));
        self.queues.insert(number, (name, queue));
        self.lost.insert(number);
    }

    /// The topics of the whole log.
    fn finish(mut self) -> HashMap<u32, (Arc<str>, Queue)> {
        for number in self.lost {
            let Some((name, queue)) = self.queues.get(&number) else { continue };
            let count = queue.all().count();
            if count == 0 {
                self.queues.remove(&number);
            } else {
                tracing::error!(topic = %name, messages = count, "the record of a topic is lost: its messages are in another one now");
            }
        }
        self.queues
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
