//! The compact state machine of one topic: no lock, no clock, no I/O. The time is an argument, and every
//! change that must outlive the process goes to a `Journal`; the records alone rebuild the queue (`replay`).
//!
//! A waiting message takes 16 bytes (`entries`), one with a due time or a place in a list 12 more (`pair`).
//! Its body is in the log; the owner reads it at the position that [`Outgoing`] names.
//!
//! The way of a message:
//! 1. `intake` gives it a sequence and appends it. With a delay it waits in `delays`.
//! 2. It is in line (`lines`): at its sequence when it is fresh, in the list of due ones when it waited, or
//!    among those that came back. In a work queue there is one line; in publish-subscribe each subscription
//!    has its own, and what nobody is there for is held in the queue's.
//! 3. `delivery` gives it to a consumer, who holds it (`held`) until an ack, a nack, its loss or `time`.
//! 4. `ending` takes it out: consumed, deleted, purged, or dead. A dead one stays until the owner has stored
//!    it elsewhere and says so ([`Queue::buried`]): a crash in between shows it again.
//!
//! What must stay true: while a message waits in a work queue and may be pushed, no consumer sleeps unless
//! another one is awake to take it; acks count only from whom the message was last pushed to; each list is
//! bounded by the messages there are.

mod chunk;
mod cleaning;
mod dedup;
mod delays;
mod delivery;
mod ending;
mod entries;
mod expiry;
mod held;
mod inspect;
mod intake;
mod leased;
mod lines;
mod pair;
mod ranges;
mod rate;
mod replay;
mod subscriptions;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures_util::task::AtomicWaker;

pub(in crate::broker) use dedup::KeyWindow;
pub(in crate::broker) use inspect::Shown;
pub(in crate::broker) use intake::{Accepted, Draft};
pub(in crate::broker) use leased::{LeaseCounts, LeaseDraft, LeaseQueue, Received};
pub(in crate::broker) use rate::Rate;

use crate::broker::config::DeliveryMode;
use crate::broker::delay::{NEVER, Tick};
use crate::broker::log::record::{Journal, Position, Range, Record};
use dedup::Dedup;
use delays::Delays;
use entries::Entries;
use expiry::Expiries;
use held::Held;
use lines::{DueList, Line};
use rate::Meter;
use subscriptions::{Departed, Subscription};

/// What bounds a queue and how it delivers.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Terms {
    pub(in crate::broker) mode: DeliveryMode,
    /// In publish-subscribe the first ack consumes a message for all.
    pub(in crate::broker) compat: bool,
    pub(in crate::broker) redeliver_after: Tick,
    /// Deliveries that one consumer may hold.
    pub(in crate::broker) unacked: usize,
    /// Bytes of bodies that it may hold; one message always passes.
    pub(in crate::broker) unacked_bytes: usize,
    /// Pushes after which a message that is not acknowledged is dead; 0 for no end.
    pub(in crate::broker) max_attempts: u32,
    /// Milliseconds after which a message is dead, from when it is due; 0 for never.
    pub(in crate::broker) expiry_ms: u64,
    /// How fast a line gives its messages.
    pub(in crate::broker) rate: Option<Rate>,
    /// The most messages.
    pub(in crate::broker) depth: usize,
    /// The most bytes of bodies; one message always passes.
    pub(in crate::broker) bytes: usize,
    /// Each message past a bound is refused by itself; else all after the first are, so that they can wait
    /// in order.
    pub(in crate::broker) refuse: bool,
    /// For how long a key stands for one message.
    pub(in crate::broker) keys: Option<KeyWindow>,
}

/// A message to write to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Outgoing {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) position: Position,
    /// Bytes of its body.
    pub(in crate::broker) length: u32,
    /// 1 for the first push. From the second on the wire shows the message's age as its delay.
    pub(in crate::broker) attempt: u32,
}

/// How much one call of [`Queue::take`] may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Window {
    pub(in crate::broker) count: usize,
    pub(in crate::broker) bytes: usize,
}

/// Why a message left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Why {
    /// Everybody acknowledged it.
    Consumed,
    /// By name.
    Deleted,
    Purged,
    /// It is with the dead letters now.
    Buried,
}

/// A message that left: its record in the log is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Left {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) position: Position,
    pub(in crate::broker) length: u32,
    pub(in crate::broker) why: Why,
}

/// Why a message is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Reason {
    Expired,
    Attempts,
}

/// A message for the dead letters. The owner reads it, stores it there, then calls [`Queue::buried`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Dead {
    pub(in crate::broker) sequence: u64,
    pub(in crate::broker) position: Position,
    pub(in crate::broker) length: u32,
    pub(in crate::broker) reason: Reason,
    /// Pushes before.
    pub(in crate::broker) attempts: u32,
    /// Dead for this subscription alone; 0 for the whole message.
    pub(in crate::broker) subscription: u32,
}

/// What happened; read and reset by the owner.
#[derive(Debug, Default)]
pub(in crate::broker) struct Events {
    pub(in crate::broker) redelivered: u64,
    /// Of a queue of leases: messages past their retention.
    pub(in crate::broker) expired: u64,
    /// What the messages that left had cost, see [`crate::broker::room::Room::cost`].
    pub(in crate::broker) freed: usize,
    pub(in crate::broker) left: Vec<Left>,
    pub(in crate::broker) dead: Vec<Dead>,
    pub(in crate::broker) wakes: Vec<Arc<AtomicWaker>>,
}

/// A connected consumer.
#[derive(Debug)]
struct Consumer {
    id: Arc<str>,
    /// Stands for the id: the same for each connection of it, 48 bits, never 0.
    who: u64,
    waker: Arc<AtomicWaker>,
    held: Held,
    /// It is among those to wake for a new message.
    waiting: bool,
    /// It holds as much unacknowledged as it may.
    stalled: bool,
    /// Its subscription in publish-subscribe.
    subscription: u32,
}

/// One topic's messages and consumers.
#[derive(Debug)]
pub(in crate::broker) struct Queue {
    topic: u32,
    name: Arc<str>,
    terms: Terms,
    entries: Entries,
    /// Bytes of bodies.
    bytes: usize,
    /// Messages that are not due yet.
    delayed: usize,
    /// Deliveries that wait for an ack, of all consumers.
    holding: usize,
    /// Messages on their way to the dead letters.
    dying: BTreeMap<u64, (Reason, u32)>,
    /// The same for one subscription each, with its pushes.
    dying_shares: BTreeMap<(u64, u32), u32>,
    /// The line of a work queue; in publish-subscribe what is held for the first that comes.
    line: Line,
    meter: Meter,
    due: DueList,
    delays: Delays,
    expiries: Expiries,
    consumers: BTreeMap<u64, Consumer>,
    by_id: HashMap<Arc<str>, u64>,
    /// Consumers with an open window and nothing to take, the longest waiting first.
    waiting: VecDeque<u64>,
    subscriptions: BTreeMap<u32, Subscription>,
    departed: VecDeque<Departed>,
    last_subscription: u32,
    dedup: Option<Dedup>,
    /// Producers that wait for room, the longest waiting first.
    room: BTreeMap<u64, Arc<AtomicWaker>>,
    last_waiter: u64,
    next_sequence: u64,
    /// What a replay gathers.
    replay: Option<Box<replay::Gathered>>,
    events: Events,
    hasher: RandomState,
    now: Tick,
    alarm: Tick,
}

impl Queue {
    /// An empty queue for the topic of this number and name.
    pub(in crate::broker) fn new(topic: u32, name: Arc<str>, terms: Terms) -> Queue {
        Queue {
            topic,
            name,
            entries: Entries::default(),
            bytes: 0,
            delayed: 0,
            holding: 0,
            dying: BTreeMap::new(),
            dying_shares: BTreeMap::new(),
            line: Line::default(),
            meter: Meter::default(),
            due: DueList::default(),
            delays: Delays::default(),
            expiries: Expiries::default(),
            consumers: BTreeMap::new(),
            by_id: HashMap::new(),
            waiting: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            departed: VecDeque::new(),
            last_subscription: 0,
            dedup: terms.keys.map(Dedup::new),
            room: BTreeMap::new(),
            last_waiter: 0,
            next_sequence: 0,
            replay: None,
            events: Events::default(),
            hasher: RandomState::new(),
            now: 0,
            alarm: NEVER,
            terms,
        }
    }

    /// What happened since the last call.
    pub(in crate::broker) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// When [`Queue::advance`] must be called.
    pub(in crate::broker) fn alarm(&self) -> Tick {
        self.alarm
    }

    fn alarm_by(&mut self, tick: Tick) {
        self.alarm = self.alarm.min(tick);
    }

    fn is_shared(&self) -> bool {
        self.terms.mode == DeliveryMode::PublishSubscribe
    }

    /// A number for a consumer's id, as good as unique.
    fn who(&self, id: &str) -> u64 {
        (self.hasher.hash_one(id) & (pair::MOST >> 1)) | 1
    }

    /// Messages that a consumer of a work queue may take.
    fn in_line(&self) -> usize {
        self.entries.len().saturating_sub(self.delayed + self.dying.len() + self.holding)
    }

    /// Wakes consumers for this many new messages.
    fn wake_waiting(&mut self, messages: usize) {
        let mut count = match messages {
            0 => 0,
            _ if self.is_shared() => self.waiting.len(),
            _ => messages.min(self.waiting.len()),
        };
        if let Some(rate) = self.terms.rate.filter(|_| !self.is_shared()) {
            // Whoever wakes may take one: the others are woken when there is one for them.
            let allowed = self.meter.allowed(rate, self.now);
            if allowed < count {
                self.alarm_by(self.now.saturating_add(rate.interval.max(1)));
            }
            count = count.min(allowed);
        }
        for number in self.waiting.drain(..count) {
            if let Some(consumer) = self.consumers.get_mut(&number) {
                consumer.waiting = false;
                self.events.wakes.push(Arc::clone(&consumer.waker));
            }
        }
    }

    fn append(&self, journal: &mut dyn Journal, sequences: &mut Vec<u64>, kind: Kind) {
        if sequences.is_empty() {
            return;
        }
        sequences.sort_unstable();
        sequences.dedup();
        let mut ranges: Vec<Range> = Vec::new();
        for &sequence in &*sequences {
            match ranges.last_mut() {
                Some(last) if last.first + u64::from(last.count) == sequence && last.count < u32::MAX => {
                    last.count += 1;
                }
                _ => ranges.push(Range { first: sequence, count: 1 }),
            }
        }
        let (topic, ranges) = (self.topic, &*ranges);
        journal.append(&match kind {
            Kind::Done => Record::Done { topic, ranges },
            Kind::Pushed => Record::Pushed { topic, ranges },
            Kind::Acked(subscription) => Record::Acked { topic, subscription, ranges },
        });
    }
}

/// Which record lists some sequences.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Done,
    Pushed,
    Acked(u32),
}
