//! What the fronts of one broker share: topics, connections, counters, and the way a message comes in.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::code::{Codes, Place};
use super::config::{BrokerConfig, DeliveryMode};
use super::depot::Depot;
use super::history::History;
use super::log::record::{Journal, MessageRecord, Position, Record};
use super::log::{Living, Log};
use super::queue::{Accepted, Queue};
use super::room::{Reserved, Room};
use super::session::Sessions;
use super::store::Stored;
use super::terms::{self, DEAD};
use super::topic::{Drafts, Shared, Topic};
use crate::error::{Error, Kind, Result};

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) pushed: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) failed_logins: AtomicU64,
    pub(super) given_up: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_number: HashMap<u32, Arc<Topic>>,
}

/// One broker's state.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) config: BrokerConfig,
    pub(super) address: SocketAddr,
    pub(super) codes: Codes,
    pub(super) counters: Counters,
    pub(super) sessions: Arc<Sessions>,
    /// Connections finish what they have and close.
    pub(super) stopping: CancellationToken,
    /// Connections drop at once.
    pub(super) aborted: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) shared: Arc<Shared>,
    /// Queues of leases, with names of their own.
    pub(super) depot: Depot,
    topics: RwLock<Topics>,
    me: Weak<Hub>,
}

impl Hub {
    /// The state of a broker that listens at this address, with the topics that its log holds. Called on the
    /// runtime that the topics are to run on.
    pub(super) fn new(config: BrokerConfig, address: SocketAddr, stored: Stored) -> Arc<Hub> {
        let Stored { log, queues, kept, clock } = stored;
        let shared = Arc::new(Shared {
            clock,
            room: Room::new(config.limits.stored_bytes),
            history: History::new(config.limits.consumed_shown),
            redelivered: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            log,
        });
        let aborted = CancellationToken::new();
        for (_, there) in &kept {
            let counts = there.queue.counts();
            let messages = counts.ready + counts.leased + counts.delayed;
            let cost = Room::cost(0).saturating_mul(messages).saturating_add(there.queue.body_bytes());
            shared.room.charge(cost).keep(cost);
        }
        let hub = Arc::new_cyclic(|me| Hub {
            depot: Depot::new(&shared, kept, config.limits.topics, aborted.clone()),
            address,
            codes: Codes::new(&shared.log.code_key()),
            counters: Counters::default(),
            sessions: Arc::new(Sessions::default()),
            stopping: CancellationToken::new(),
            aborted,
            tasks: TaskTracker::new(),
            shared,
            topics: RwLock::new(Topics::default()),
            me: me.clone(),
            config,
        });
        for (number, name, queue) in queues {
            let (count, bytes) = (queue.counts(), queue.body_bytes());
            let messages = count.0.saturating_add(count.1);
            let cost = Room::cost(0).saturating_mul(messages).saturating_add(bytes);
            hub.shared.room.charge(cost).keep(cost);
            hub.start(&mut hub.topics.write(), number, name, queue);
        }
        let living: Weak<dyn Living> = hub.me.clone();
        hub.shared.log.attach(living);
        hub
    }

    /// The log of messages.
    pub(super) fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The bound on what is stored.
    pub(super) fn room(&self) -> &Room {
        &self.shared.room
    }

    /// The mode of delivery.
    pub(super) fn mode(&self) -> DeliveryMode {
        self.config.delivery
    }

    /// The topic of this name, made with the broker's mode if need be.
    ///
    /// # Errors
    /// `limited` when there are as many topics as there may be and none is idle.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.topic_as(name, self.config.delivery)
    }

    /// The topic of this name, made with this mode if need be: the first to use a topic fixes its mode.
    ///
    /// # Errors
    /// As [`Hub::topic`].
    pub(super) fn topic_as(&self, name: &str, mode: DeliveryMode) -> Result<Arc<Topic>> {
        if let Some(topic) = self.topics.read().by_name.get(name) {
            return Ok(Arc::clone(topic));
        }
        let mut topics = self.topics.write();
        if let Some(topic) = topics.by_name.get(name) {
            return Ok(Arc::clone(topic));
        }
        if topics.by_name.len() >= self.config.limits.topics && !self.forget_idle(&mut topics) {
            return Err(Error::new(Kind::Limited, "too many topics"));
        }
        let number = self.log().new_topic();
        let name: Arc<str> = Arc::from(name);
        let queue = Queue::new(number, Arc::clone(&name), terms::of(&self.config, &name, mode));
        // Safe with the first message in it, which comes after it in the log.
        let (_, _ticket) = self.log().append(|journal| queue.describe(journal));
        Ok(self.start(&mut topics, number, name, queue))
    }

    fn start(&self, topics: &mut Topics, number: u32, name: Arc<str>, queue: Queue) -> Arc<Topic> {
        let (shared, gone) = (Arc::clone(&self.shared), self.aborted.child_token());
        let topic = Arc::new(Topic::new(number, Arc::clone(&name), queue, shared, gone));
        topics.by_name.insert(name, Arc::clone(&topic));
        topics.by_number.insert(number, Arc::clone(&topic));
        tokio::spawn(Arc::clone(&topic).run(self.me.clone()));
        topic
    }

    /// Every topic.
    pub(super) fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().map(Arc::clone).collect()
    }

    /// The topic with this number.
    pub(super) fn topic_by_number(&self, number: u32) -> Option<Arc<Topic>> {
        self.topics.read().by_number.get(&number).map(Arc::clone)
    }

    /// The place that a code names, with its topic.
    pub(super) fn find(&self, code: &str) -> Option<(Arc<Topic>, Place)> {
        let place = self.codes.decode(code.as_bytes())?;
        Some((self.topic_by_number(place.topic)?, place))
    }

    /// Takes messages in, for whose cost room was reserved; returns what became of each once all of them are
    /// safe. Waits for room in the topic where the topic says so.
    ///
    /// # Errors
    /// `storage` when the disk is full, which nothing of the batch outlives, or when the log has failed, after
    /// which nobody knows.
    pub(super) async fn accept(
        &self,
        topic: &Topic,
        drafts: &Drafts,
        mut reserved: Reserved<'_>,
    ) -> Result<Vec<Accepted>> {
        let admission = self.log().admit(drafts.cost()).await?;
        let (mut waiter, mut results) = (topic.waiter(), Vec::with_capacity(drafts.len()));
        let ticket = poll_fn(|cx| {
            let known = results.len();
            let ticket = topic.accept(drafts, known, &mut waiter, cx.waker(), &mut results);
            for (index, result) in results.iter().enumerate().skip(known) {
                if matches!(result, Accepted::New(_)) {
                    reserved.keep(drafts.kept_of(index));
                }
            }
            if results.len() < drafts.len() { Poll::Pending } else { Poll::Ready(ticket) }
        })
        .await;
        drop((admission, waiter, reserved));
        let new = results.iter().filter(|result| matches!(result, Accepted::New(_))).count();
        count(&self.counters.accepted, new);
        self.log().committed(ticket).await?;
        Ok(results)
    }

    /// Stores dead messages of a topic in its dead letters; returns what became of each once they are safe.
    pub(super) async fn bury(&self, topic: &Topic, drafts: &Drafts) -> Result<Vec<Accepted>> {
        let letters = self.topic_as(&format!("{}{DEAD}", topic.name), DeliveryMode::WorkQueue)?;
        // They are in the room's count already, where they come from.
        self.accept(&letters, drafts, self.room().charge(drafts.cost())).await
    }

    /// Drops all topics, whose messages stay in the log.
    pub(super) fn clear(&self) {
        let mut topics = self.topics.write();
        topics.by_number.clear();
        let topics = std::mem::take(&mut topics.by_name);
        for topic in topics.values() {
            topic.gone.cancel();
        }
        self.depot.clear();
        self.shared.history.clear();
    }

    /// Removes topics that nobody uses and that hold nothing; says whether any went.
    fn forget_idle(&self, topics: &mut Topics) -> bool {
        let before = topics.by_name.len();
        let by_number = &mut topics.by_number;
        topics.by_name.retain(|_, topic| {
            // References are the two maps' and its task's: nobody else can have it while the maps are locked.
            let idle = Arc::strong_count(topic) <= 3 && topic.read(Queue::is_idle);
            if idle {
                by_number.remove(&topic.number);
                topic.gone.cancel();
                let gone = Record::TopicGone { topic: topic.number };
                let (_, _ticket) = self.log().append(|journal| journal.append(&gone));
            }
            !idle
        });
        topics.by_name.len() < before
    }
}

impl Living for Hub {
    fn renew(&self, records: &[(Position, Record<'_>)]) {
        let mut named: BTreeMap<u32, Position> = BTreeMap::new();
        let mut messages: BTreeMap<u32, Vec<(Position, MessageRecord<'_>)>> = BTreeMap::new();
        for (position, record) in records {
            match record {
                Record::Topic { topic, .. }
                | Record::Subscribed { topic, .. }
                | Record::Kept { topic, .. } => {
                    named.insert(*topic, *position);
                }
                Record::Message(message) => {
                    messages.entry(message.topic).or_default().push((*position, *message));
                }
                _ => {}
            }
        }
        // Topics first: a start reads them in this order.
        for (number, last) in named {
            if let Some(topic) = self.topic_by_number(number) {
                topic.describe(last);
            } else {
                self.depot.describe(number, last);
            }
        }
        for (number, messages) in messages {
            if self.depot.renew(number, &messages) {
                continue;
            }
            if let Some(topic) = self.topic_by_number(number) {
                topic.renew(&messages);
            }
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
