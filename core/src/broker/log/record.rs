//! What the log holds: every change of every topic, as one record each.

use crate::broker::config::DeliveryMode;

/// Where a record lies: bytes since the beginning of the log, over all segments that ever were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(in crate::broker) struct Position(pub(in crate::broker) u64);

impl Position {
    /// Past every position that is ever reached: a queue keeps them in 56 bits.
    pub(in crate::broker) const END: Position = Position(1 << 55);
}

/// A run of sequences: `count` from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Range {
    pub(in crate::broker) first: u64,
    pub(in crate::broker) count: u32,
}

/// A message as the log keeps it. Times are milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct MessageRecord<'a> {
    pub(in crate::broker) topic: u32,
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) created_ms: i64,
    /// 0: at once.
    pub(in crate::broker) due_ms: i64,
    /// 0: never.
    pub(in crate::broker) expires_ms: i64,
    /// The delay as the wire shows it, in seconds.
    pub(in crate::broker) wire_delay: i64,
    /// Pushes before this record.
    pub(in crate::broker) attempts: u32,
    /// Written again for a message that an earlier record holds.
    pub(in crate::broker) moved: bool,
    /// For de-duplication; empty for none.
    pub(in crate::broker) key: &'a str,
    /// The key is a note, which may be long, and counts as the body does. Not written.
    pub(in crate::broker) noted: bool,
    pub(in crate::broker) body: &'a [u8],
}

impl MessageRecord<'_> {
    /// What it is counted with where live bytes are summed up: whoever frees it names the same.
    pub(in crate::broker) fn counted(&self) -> usize {
        self.body.len() + if self.noted { self.key.len() } else { 0 }
    }
}

#[cfg(test)]
impl<'a> MessageRecord<'a> {
    /// One of which a test says no more: due at once, never pushed, without a key.
    pub(in crate::broker) fn plain(topic: u32, sequence: u64, body: &'a [u8]) -> MessageRecord<'a> {
        MessageRecord {
            topic,
            sequence,
            created_ms: 1_700_000_000_000,
            due_ms: 0,
            expires_ms: 0,
            wire_delay: 0,
            attempts: 0,
            moved: false,
            key: "",
            noted: false,
            body,
        }
    }
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Record<'a> {
    /// A topic exists.
    Topic {
        topic: u32,
        mode: DeliveryMode,
        next_sequence: u64,
        name: &'a str,
    },
    /// It exists no more.
    TopicGone {
        topic: u32,
    },
    Message(MessageRecord<'a>),
    /// Messages left: acknowledged by all, expired, purged, deleted or moved to the dead letters.
    Done {
        topic: u32,
        ranges: &'a [Range],
    },
    /// Messages were pushed once more.
    Pushed {
        topic: u32,
        ranges: &'a [Range],
    },
    /// A message falls due later.
    Postponed {
        topic: u32,
        sequence: u64,
        due_ms: i64,
    },
    Subscribed {
        topic: u32,
        subscription: u32,
        durable: bool,
        from: u64,
        id: &'a str,
    },
    Unsubscribed {
        topic: u32,
        subscription: u32,
    },
    /// Acks of one subscription.
    Acked {
        topic: u32,
        subscription: u32,
        ranges: &'a [Range],
    },
    /// All messages below this sequence are gone.
    Purged {
        topic: u32,
        below: u64,
    },
    /// A queue whose deliveries are leases exists, or something beside queues of which only this record tells.
    Kept {
        topic: u32,
        sort: Sort,
        next_sequence: u64,
        name: &'a str,
        /// JSON: what its owner knows of it.
        label: &'a str,
    },
    /// Messages were received, each once more, and are hidden until a time.
    Leased {
        topic: u32,
        serial: u64,
        at_ms: i64,
        until_ms: i64,
        ranges: &'a [Range],
    },
    /// A message is hidden until a time, whatever was said before; 0 in `first_ms`: it was never received.
    Hidden {
        topic: u32,
        sequence: u64,
        serial: u64,
        until_ms: i64,
        first_ms: i64,
    },
    /// All before this position is on disk.
    Synced {
        position: Position,
    },
}

/// What a [`Record::Kept`] is of. The names of each sort are apart from the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::broker) enum Sort {
    Queue,
    Topic,
    /// Its name is its topic's, a slash, and its own.
    Subscription,
    Account,
}

impl Sort {
    pub(in crate::broker) const ALL: [Sort; 4] =
        [Sort::Queue, Sort::Topic, Sort::Subscription, Sort::Account];
}

/// What a queue writes its changes to.
pub(in crate::broker) trait Journal {
    /// Appends a record and says where it lies. Cheap: nothing is written to disk here.
    fn append(&mut self, record: &Record<'_>) -> Position;
}
