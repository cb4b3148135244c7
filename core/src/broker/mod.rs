//! The embedded broker: the KapokMQ protocol, and where wanted the DPMQ one and MNS, over WebSocket and HTTP. Messages are
//! in a log, whose files are in a folder or in memory.
//!
//! It runs on the tokio runtime that starts it. The way of a message:
//! 1. `front` reads all frames of a producer that are there, decodes them and reserves `room` for them;
//!    while there is none the connection is not read.
//! 2. `hub` puts the batch into the queue of its `topic` under one lock, waits until the log says that
//!    it is safe (in memory: at once), and the front answers one `ok` per message with one write.
//! 3. The queue wakes as many waiting consumers as it got messages. A consumer's front takes a batch only
//!    when everything before it is with the kernel, so one that does not read keeps nothing from others.
//! 4. An ack, or the loss of a consumer, a passed due time (`delay`) or a passed redelivery time moves the
//!    message on. Acknowledged ones stay visible in `history` for a while.
//!
//! What must stay true: while a message waits in a work queue, no consumer sleeps unless another one is awake
//! to take it; a consumer sleeps only with nothing left to write; acks count only from whom the message was
//! last pushed to; nothing that a peer sends is kept without a bound.

mod code;
mod config;
mod delay;
mod depot;
mod folder;
mod front;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod history;
mod hub;
mod listen;
mod log;
mod network;
mod queue;
mod room;
mod session;
mod store;
mod terms;
mod topic;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

pub use config::{BrokerConfig, DeliveryMode, Limits, MnsConfig, TopicConfig, WhenFull};
pub use log::{Damage, Durability, Repaired, SegmentReport};
pub use network::Network;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use hub::Hub;
use log::{Log, LogState};
use queue::Queue;
use session::Role;

/// What a broker did and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Pushes to consumers since the start, further ones included.
    pub pushed: u64,
    /// Pushes of a message to a consumer after its first.
    pub redelivered: u64,
    /// Acks that counted.
    pub acknowledged: u64,
    /// Producer frames that closed their connection.
    pub bad_frames: u64,
    /// Wrong keys.
    pub failed_logins: u64,
    /// Messages that are due and not acknowledged.
    pub waiting: usize,
    /// Messages whose delay has not passed.
    pub delayed: usize,
    /// Deliveries that wait for an ack.
    pub unacked: usize,
    /// Bytes of stored messages with their bookkeeping, and of batches on their way in.
    pub stored_bytes: usize,
    /// Topics.
    pub topics: usize,
    /// Connected producers.
    pub producers: usize,
    /// Connected consumers.
    pub consumers: usize,
    /// Messages that went to the dead letters since the start.
    pub dead: u64,
    /// Messages of MNS queues and topics that left because their time was over, since the start.
    pub expired: u64,
    /// Messages of MNS topics that a subscription's endpoint did not take in all tries, since the start.
    pub given_up: u64,
    /// When an accepted message counts as safe.
    pub durability: Durability,
    /// Whether the log can be relied on.
    pub log: LogHealth,
    /// How long a sync of the disk took lately.
    pub sync: Duration,
    /// Bytes of memory that the messages which wait take, without their bodies.
    pub queue_bytes: usize,
    /// Files of the log in use.
    pub segments: usize,
    /// Bytes of these files.
    pub log_bytes: u64,
    /// Bytes of them that messages take which are not gone.
    pub live_bytes: u64,
}

/// Whether a broker's log takes messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogHealth {
    /// It does.
    #[default]
    Serving,
    /// It has no room on disk: messages are refused, deliveries and acks go on. Why.
    Short(String),
    /// It has failed: nothing is accepted until a restart. Why.
    Failed(String),
}

/// Reads the log of a data folder that no broker uses and says how each of its files is. Blocks.
///
/// # Errors
/// `in_use` when a broker has the folder, `storage` when it cannot be read.
pub fn verify(folder: &Path) -> Result<Vec<SegmentReport>> {
    Log::verify(folder)
}

/// Replaces each damaged file of a data folder that no broker uses by its good records, and keeps the damaged one
/// in the folder `quarantine` inside. Says what was done. Blocks.
///
/// # Errors
/// `in_use` when a broker has the folder, `storage` when it cannot be read or written.
pub fn repair(folder: &Path) -> Result<Vec<Repaired>> {
    Log::repair(folder)
}

/// A running broker. Dropping it is [`Broker::abort`].
#[derive(Debug)]
pub struct Broker {
    hub: Arc<Hub>,
    mns_address: Option<SocketAddr>,
    // The log is closed once.
    stopped: AtomicBool,
}

/// Opens the log on a thread that may block.
async fn open(config: BrokerConfig) -> Result<(BrokerConfig, store::Stored)> {
    let opened =
        tokio::task::spawn_blocking(move || store::open(&config).map(|stored| (config, stored))).await;
    opened.unwrap_or_else(|error| Err(Error::new(Kind::Internal, "the log was not opened").caused_by(error)))
}

impl Broker {
    /// Starts a broker on the current tokio runtime, which needs its I/O and time drivers.
    ///
    /// # Errors
    /// `unavailable` when the address cannot be listened on, `in_use` or `storage` for the data folder,
    /// `invalid_config` for an access key that has no id or no secret, `internal` outside of a tokio runtime.
    pub async fn start(config: BrokerConfig) -> Result<Broker> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(Kind::Internal, "a broker starts on a tokio runtime"));
        }
        // With an empty secret whoever knows the id could sign.
        let is_empty = |(id, secret): (&String, &Secret)| id.is_empty() || secret.expose().is_empty();
        if config.mns.as_ref().is_some_and(|mns| mns.keys.iter().any(is_empty)) {
            return Err(Error::new(Kind::InvalidConfig, "an access key of MNS has no id or no secret"));
        }
        let failed = |error| listen::failed(&config.listen, error);
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mns = match &config.mns {
            Some(mns) => {
                let failed = |error| listen::failed(&mns.listen, error);
                let listener = TcpListener::bind(&mns.listen).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Some((listener, address, mns.clone()))
            }
            None => None,
        };
        let (config, stored) = open(config).await?;
        // From where the sequences go on must be on disk before anything is delivered.
        stored.log.committed(stored.log.ticket()).await?;
        let hub = Hub::new(config, address, stored);
        let router = front::router(Arc::clone(&hub));
        hub.tasks.spawn(listen::run(listener, Arc::clone(&hub), router, None));
        let mns_address = mns.as_ref().map(|(_, address, _)| *address);
        if let Some((listener, address, mns)) = mns {
            let router = front::mns::router(&hub, mns).await;
            hub.tasks.spawn(listen::run(listener, Arc::clone(&hub), router, Some(front::mns::UNREAD)));
            tracing::info!(%address, "the broker listens for MNS");
        }
        tracing::info!(%address, delivery = hub.mode().name(), dpmq = hub.config.dpmq, "the broker listens");
        if hub.config.dpmq && !address.ip().is_loopback() {
            tracing::warn!(%address, "DPMQ has no login: whoever reaches this address can send and receive");
        }
        Ok(Broker { hub, mns_address, stopped: AtomicBool::new(false) })
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.hub.address
    }

    /// The address listened on for MNS.
    pub fn mns_address(&self) -> Option<SocketAddr> {
        self.mns_address
    }

    /// Stops: accepts no more, answers what was read, closes every connection and the log. What is
    /// not done at the deadline is cut off. A further call does nothing.
    ///
    /// Returns whether all connections had closed in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.hub.stopping.cancel();
        self.hub.tasks.close();
        let closed = tokio::time::timeout(deadline, self.hub.tasks.wait()).await.is_ok();
        self.end();
        if !closed {
            // What is left ends at its next step, which needs no peer.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.hub.tasks.wait()).await;
        }
        if self.stopped.swap(true, Ordering::AcqRel) {
            return closed;
        }
        let log = Arc::clone(&self.hub.shared.log);
        match tokio::task::spawn_blocking(move || log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log was not closed well"),
            Err(error) => tracing::error!(%error, "the log was not closed well"),
        }
        tracing::info!(address = %self.hub.address, closed, "the broker stopped");
        closed
    }

    /// Stops at once, as a crash would: connections drop without a close frame, and messages in memory are
    /// lost. May wait for a sync of the disk that is under way.
    pub fn abort(&self) {
        self.end();
        self.hub.shared.log.abort();
    }

    fn end(&self) {
        // Not `stopping`: nobody says goodbye.
        self.hub.aborted.cancel();
        self.hub.tasks.close();
        self.hub.clear();
    }

    /// Drops all messages of a topic, delivered ones without an ack too; says how many. Returns once that is safe.
    ///
    /// # Errors
    /// `not_found` when there is no such topic, `storage` when the log has failed.
    pub async fn purge(&self, topic: &str) -> Result<usize> {
        let found = self.hub.all_topics().into_iter().find(|there| *there.name == *topic);
        let found =
            found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no topic `{topic}`")))?;
        let count = found.purge();
        self.hub.log().committed(self.hub.log().ticket()).await?;
        Ok(count)
    }

    /// The durable subscriptions of a topic by id, and whether their consumers are connected.
    pub fn subscriptions(&self, topic: &str) -> Vec<(String, bool)> {
        let found = self.hub.all_topics().into_iter().find(|there| *there.name == *topic);
        let list = |queue: &Queue| queue.durable().map(|(id, there)| (id.to_owned(), there)).collect();
        found.map(|topic| topic.read(list)).unwrap_or_default()
    }

    /// Ends a durable subscription whose consumer is not connected: what it did not get is kept for it no more.
    /// Says whether there was one.
    pub fn unsubscribe(&self, topic: &str, id: &str) -> bool {
        let found = self.hub.all_topics().into_iter().find(|there| *there.name == *topic);
        found.is_some_and(|topic| topic.unsubscribe(id))
    }

    /// What the broker did and holds now.
    pub fn status(&self) -> BrokerStatus {
        let counters = &self.hub.counters;
        let mut status = BrokerStatus {
            accepted: counters.accepted.load(Ordering::Relaxed),
            pushed: counters.pushed.load(Ordering::Relaxed),
            redelivered: self.hub.shared.redelivered.load(Ordering::Relaxed),
            acknowledged: counters.acknowledged.load(Ordering::Relaxed),
            bad_frames: counters.bad_frames.load(Ordering::Relaxed),
            failed_logins: counters.failed_logins.load(Ordering::Relaxed),
            stored_bytes: self.hub.room().used(),
            producers: self.hub.sessions.count(Role::Producer),
            consumers: self.hub.sessions.consumers().len(),
            dead: self.hub.shared.dead.load(Ordering::Relaxed),
            expired: self.hub.shared.expired.load(Ordering::Relaxed),
            given_up: counters.given_up.load(Ordering::Relaxed),
            ..BrokerStatus::default()
        };
        let log = self.hub.log().status();
        (status.durability, status.sync) = (log.durability, log.sync);
        (status.segments, status.log_bytes, status.live_bytes) = (log.segments, log.bytes, log.live_bytes);
        status.log = match log.state {
            LogState::Serving => LogHealth::Serving,
            LogState::Short(error) => LogHealth::Short(error.to_string()),
            LogState::Failed(error) => LogHealth::Failed(error.to_string()),
        };
        for topic in self.hub.all_topics() {
            let (waiting, delayed) = topic.read(Queue::counts);
            status.waiting += waiting;
            status.delayed += delayed;
            status.unacked += topic.read(Queue::unacked);
            status.queue_bytes += topic.read(Queue::memory);
            status.topics += 1;
        }
        for shelf in self.hub.depot.all() {
            let counts = shelf.counts();
            status.waiting += counts.ready + counts.leased;
            status.delayed += counts.delayed;
            status.unacked += counts.leased;
            status.queue_bytes += shelf.memory();
        }
        status
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.abort();
    }
}
