//! What the fronts of one broker share: topics, connections, counters, and the way a message comes in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::code::{Codes, Place};
use super::config::{BrokerConfig, DeliveryMode};
use super::delay::{Clock, ticks};
use super::history::History;
use super::room::Room;
use super::session::Sessions;
use super::topic::{Draft, Queue, Shared, Terms, Topic};
use crate::error::{Error, Kind, Result};

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) pushed: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) failed_logins: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    last: u32,
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
    topics: RwLock<Topics>,
}

impl Hub {
    pub(super) fn new(config: BrokerConfig, address: SocketAddr) -> Hub {
        let log = Room::new(config.limits.stored_bytes);
        let history = History::new(config.limits.consumed_shown);
        Hub {
            address,
            codes: Codes::new(),
            counters: Counters::default(),
            sessions: Arc::new(Sessions::default()),
            stopping: CancellationToken::new(),
            aborted: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shared: Arc::new(Shared { clock: Clock::new(), log, history, redelivered: AtomicU64::new(0) }),
            topics: RwLock::new(Topics::default()),
            config,
        }
    }

    /// The log of bodies.
    pub(super) fn log(&self) -> &Room {
        &self.shared.log
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
        if topics.by_name.len() >= self.config.limits.topics && !forget_idle(&mut topics) {
            return Err(Error::new(Kind::Limited, "too many topics"));
        }
        topics.last = topics.last.wrapping_add(1);
        let name: Arc<str> = Arc::from(name);
        let limits = &self.config.limits;
        let terms = Terms {
            mode,
            redeliver_after: ticks(self.config.redeliver_after).max(1),
            unacked: limits.unacked.max(1),
            unacked_bytes: limits.unacked_bytes,
        };
        let queue = Queue::new(terms);
        let gone = self.aborted.child_token();
        let shared = Arc::clone(&self.shared);
        let topic = Arc::new(Topic::new(topics.last, Arc::clone(&name), queue, shared, gone));
        topics.by_name.insert(name, Arc::clone(&topic));
        drop(topics);
        tokio::spawn(Arc::clone(&topic).run());
        Ok(topic)
    }

    /// Every topic.
    pub(super) fn all_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().map(Arc::clone).collect()
    }

    /// The topic with this number.
    pub(super) fn topic_by_number(&self, number: u32) -> Option<Arc<Topic>> {
        self.topics.read().by_name.values().find(|topic| topic.number == number).map(Arc::clone)
    }

    /// The place that a code names, with its topic.
    pub(super) fn find(&self, code: &str) -> Option<(Arc<Topic>, Place)> {
        let place = self.codes.decode(code.as_bytes())?;
        Some((self.topic_by_number(place.topic)?, place))
    }

    /// Takes messages in whose cost was reserved; returns once they are safe. The place is the last one's.
    pub(super) async fn accept(&self, topic: &Topic, drafts: Vec<Draft>) -> Option<Place> {
        count(&self.counters.accepted, drafts.len());
        let last = topic.accept(drafts);
        self.log().commit().await;
        last.map(|(slot, sequence)| Place { topic: topic.number, slot, sequence })
    }

    /// Drops all messages and topics.
    pub(super) fn clear(&self) {
        let topics = std::mem::take(&mut self.topics.write().by_name);
        for topic in topics.values() {
            topic.gone.cancel();
        }
        self.shared.history.clear();
    }
}

/// Removes topics that nobody uses and that hold nothing; says whether any went.
fn forget_idle(topics: &mut Topics) -> bool {
    let before = topics.by_name.len();
    topics.by_name.retain(|_, topic| {
        // One reference is the map's and one its task's: nobody else can have it while the map is locked.
        let idle = Arc::strong_count(topic) <= 2 && topic.read(Queue::is_idle);
        if idle {
            topic.gone.cancel();
        }
        !idle
    });
    topics.by_name.len() < before
}
