//! What a broker is told at its start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::log::Durability;
use super::network::Network;
use crate::secret::Secret;
use crate::wire::kapokmq::Node;

/// Who gets a message of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// One of the topic's consumers.
    #[default]
    WorkQueue,
    /// Every consumer that is connected when the message is accepted (a delayed one: when it falls due), each
    /// with its own ack. With none connected, the first that comes.
    PublishSubscribe,
}

impl DeliveryMode {
    /// The name in snake case, as configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            DeliveryMode::WorkQueue => "work_queue",
            DeliveryMode::PublishSubscribe => "publish_subscribe",
        }
    }

    /// The mode with this name.
    pub fn from_name(name: &str) -> Option<DeliveryMode> {
        [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe].into_iter().find(|mode| mode.name() == name)
    }
}

/// What happens to a message for which a topic has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// It waits, and with it what its connection sends after it.
    #[default]
    Wait,
    /// It is refused.
    Refuse,
}

impl WhenFull {
    /// The name in snake case, as configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            WhenFull::Wait => "wait",
            WhenFull::Refuse => "refuse",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<WhenFull> {
        [WhenFull::Wait, WhenFull::Refuse].into_iter().find(|when| when.name() == name)
    }
}

/// How often a log is synced that is synced in intervals, where nothing is said.
const SYNC_EVERY: Duration = Duration::from_secs(1);

impl Durability {
    /// The one with this name; `every` is for `interval` alone, which without it is every second.
    pub fn from_name(name: &str, every: Option<Duration>) -> Option<Durability> {
        match (name, every) {
            ("fsync", None) => Some(Durability::Fsync),
            ("memory", None) => Some(Durability::Memory),
            ("interval", every) => Some(Durability::Interval(every.unwrap_or(SYNC_EVERY))),
            _ => None,
        }
    }
}

/// How one topic keeps and delivers its messages. Nothing of it is on unless set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Pushes after which a message that nobody acknowledged goes to the dead letters, the topic
    /// `<name>.dead`.
    pub max_attempts: Option<u32>,
    /// Age, counted from when it is due, at which a message goes to the dead letters.
    pub expire_after: Option<Duration>,
    /// The time between two pushes; with `push_burst`, the average time.
    pub push_interval: Option<Duration>,
    /// Messages that may go together.
    pub push_burst: u32,
    /// The most messages.
    pub max_messages: Option<usize>,
    /// The most bytes of bodies. One message always has room.
    pub max_bytes: Option<usize>,
    /// What happens past the two.
    pub when_full: WhenFull,
    /// How long a second message with the same key is taken for the first. Only clients that send a key are
    /// concerned.
    pub deduplicate: Option<Duration>,
    /// In publish-subscribe the first ack consumes a message for everybody, as the original server does.
    pub compat: bool,
}

impl TopicConfig {
    /// Pushes this many messages at a time, and again after this time.
    pub fn push_batches(&mut self, count: u32, every: Duration) {
        let count = count.max(1);
        // A finer average than the queue's clock would be none.
        self.push_interval = Some((every / count).max(Duration::from_micros(1)));
        self.push_burst = count;
    }
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            max_attempts: None,
            expire_after: None,
            push_interval: None,
            push_burst: 1,
            max_messages: None,
            max_bytes: None,
            when_full: WhenFull::Wait,
            deduplicate: None,
            compat: false,
        }
    }
}

/// The bounds of a broker. What comes on top of one waits or is refused; nothing grows without end.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections: usize,
    /// Topics at a time; a further one is refused unless an idle one can go.
    pub topics: usize,
    /// Bytes of stored messages, with about 100 bytes of bookkeeping each. Past it, WebSocket producers wait
    /// for their ack and HTTP sends are refused.
    pub stored_bytes: usize,
    /// Bytes of one frame and of one message.
    pub frame_bytes: usize,
    /// Bytes of one HTTP body.
    pub body_bytes: usize,
    /// Messages that may wait for the acks of one consumer.
    pub unacked: usize,
    /// Bytes of bodies that may wait for the acks of one consumer; one message may always.
    pub unacked_bytes: usize,
    /// Time for a connection to log in.
    pub login: Duration,
    /// Acknowledged messages that the console still shows.
    pub consumed_shown: usize,
    /// Bytes of one file of the log, rounded up to whole pages; a larger message gets a file of its own.
    pub segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            topics: 100_000,
            stored_bytes: 1 << 30,
            frame_bytes: 64 << 20,
            body_bytes: 64 << 20,
            unacked: 100_000,
            unacked_bytes: 32 << 20,
            login: Duration::from_secs(10),
            consumed_shown: 10_000,
            segment_bytes: 32 << 20,
        }
    }
}

/// The MNS front: an address of its own, and who may use it.
#[derive(Debug, Clone)]
pub struct MnsConfig {
    /// Address to listen on. Port 0 takes a free one.
    pub listen: String,
    /// Secrets by the ids of access keys. Each may do everything.
    pub keys: BTreeMap<String, Secret>,
    /// Whether subscriptions may push to HTTP endpoints at loopback, link-local and private addresses.
    pub private_endpoints: bool,
    /// Networks of such addresses that they may push to in any case.
    pub endpoints: Vec<Network>,
}

impl MnsConfig {
    /// A free port of 127.0.0.1, for whoever has this access key.
    pub fn new(key_id: impl Into<String>, key_secret: Secret) -> MnsConfig {
        MnsConfig {
            listen: "127.0.0.1:0".to_owned(),
            keys: BTreeMap::from([(key_id.into(), key_secret)]),
            private_endpoints: false,
            endpoints: Vec::new(),
        }
    }
}

/// How a broker runs.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address to listen on. Port 0 takes a free one.
    pub listen: String,
    /// The key that every client must know.
    pub secret: Secret,
    /// Who gets a message.
    pub delivery: DeliveryMode,
    /// Whether the DPMQ protocol is spoken too. It has no login: whoever reaches the address can send and
    /// receive. A topic that it uses first delivers to every consumer, whatever `delivery` says.
    pub dpmq: bool,
    /// The MNS protocol, where wanted. Its queues, topics and subscriptions have names of their own.
    pub mns: Option<MnsConfig>,
    /// Whether the extension of the KapokMQ wire is agreed to where a client offers it; else the wire is the
    /// original's for everybody.
    pub extension: bool,
    /// Folder for the messages. It is made with mode 0700 and locked for this process. Without one, messages
    /// are in memory and end with the broker.
    pub data: Option<PathBuf>,
    /// When a message in the folder counts as safe.
    pub durability: Durability,
    /// How topics keep and deliver their messages.
    pub topic: TopicConfig,
    /// The same for single topics, in place of `topic`.
    pub topics: BTreeMap<String, TopicConfig>,
    /// The host that `/Registry/GetNodes` names for this broker; by default the address listened on.
    pub advertise: Option<String>,
    /// Other brokers that `/Registry/GetNodes` names.
    pub nodes: Vec<Node>,
    /// How long a consumer may take to acknowledge before a message is delivered again.
    pub redeliver_after: Duration,
    /// Bounds.
    pub limits: Limits,
}

impl BrokerConfig {
    /// A work queue on a free port of 127.0.0.1, for clients that know this key.
    pub fn new(secret: Secret) -> BrokerConfig {
        BrokerConfig {
            listen: "127.0.0.1:0".to_owned(),
            secret,
            delivery: DeliveryMode::WorkQueue,
            dpmq: false,
            mns: None,
            extension: true,
            data: None,
            durability: Durability::Fsync,
            topic: TopicConfig::default(),
            topics: BTreeMap::new(),
            advertise: None,
            nodes: Vec::new(),
            redeliver_after: Duration::from_secs(300),
            limits: Limits::default(),
        }
    }
}
