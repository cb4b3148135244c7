//! All that this front asks of topics and queues.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use chrono::{Local, TimeZone};
use futures_util::task::AtomicWaker;

use super::super::text_of;
use crate::broker::code::Place;
use crate::broker::config::DeliveryMode;
use crate::broker::hub::{Hub, count};
use crate::broker::queue::{Accepted, Window};
use crate::broker::room::Room;
use crate::broker::topic::{Delivery, Drafts, Topic};
use crate::error::Result;
use crate::wire::dpmq::{NO_DISK, NO_ROOM, PUSHED, PushText, TOO_MANY_TOPICS, encode_push_line};

/// What is taken from the queue before it is written: the rest stays there for others.
const WINDOW: Window = Window { count: 256, bytes: 256 << 10 };

/// A frame to write, and the message in it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) text: Utf8Bytes,
    message: u64,
}

/// Why a message has no code.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is not in the queue.
    Refused(&'static str),
    /// The log has failed: whether it is in the queue, nobody knows.
    Unknown,
}

/// Takes a message in. Returns its code once it is safe.
pub(super) async fn accept(hub: &Hub, topic: &str, data: &str) -> Result<String, Failed> {
    let topic = open(hub, topic).map_err(|_| Failed::Refused(TOO_MANY_TOPICS))?;
    let Some(reserved) = hub.room().try_reserve(Room::cost(data.len())) else {
        return Err(Failed::Refused(NO_ROOM));
    };
    let mut drafts = Drafts::default();
    drafts.push(data, "", 0);
    let results = hub.accept(&topic, &drafts, reserved).await.map_err(|error| {
        tracing::warn!(topic = %topic.name, %error, "a message was not taken in");
        if error.retryable() { Failed::Refused(NO_DISK) } else { Failed::Unknown }
    })?;
    match results.first() {
        Some(Accepted::New(sequence) | Accepted::Duplicate(sequence)) => {
            Ok(code(hub, Place { topic: topic.number, sequence: *sequence }))
        }
        Some(Accepted::Full) | None => Err(Failed::Refused(NO_ROOM)),
    }
}

/// The topic of this name. One that this front uses first delivers to every consumer.
pub(super) fn open(hub: &Hub, topic: &str) -> Result<Arc<Topic>> {
    hub.topic_as(topic, DeliveryMode::PublishSubscribe)
}

/// The code of a message on this wire: the broker's 32 digits, and 8 that follow from them.
fn code(hub: &Hub, place: Place) -> String {
    let code = hub.codes.encode(place);
    let check = code
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |sum, digit| (sum ^ u32::from(digit)).wrapping_mul(0x0100_0193));
    format!("{}{check:08x}", code.as_str())
}

/// A place among a topic's consumers; dropping it leaves.
pub(super) struct Outlet {
    hub: Arc<Hub>,
    topic: Arc<Topic>,
    number: u64,
    taken: Vec<Delivery>,
    /// The last time that was written, with its text.
    time: (i64, String),
}

impl Outlet {
    /// Joins. `before` is the number of the connection that this one replaces; `waker` is woken when there may
    /// be something to take. None when the topic has as many consumers as it may.
    pub(super) fn join(
        hub: Arc<Hub>,
        topic: Arc<Topic>,
        (number, before): (u64, Option<u64>),
        id: &Arc<str>,
        waker: Arc<AtomicWaker>,
    ) -> Option<Outlet> {
        if let Some(before) = before {
            // Its deliveries go back before the new connection takes its first.
            topic.leave(before);
        }
        let joined = topic.join(number, id, false, waker);
        joined.then(|| Outlet { hub, topic, number, taken: Vec::new(), time: (i64::MIN, String::new()) })
    }

    /// Adds frames of what may be delivered now; says whether there was anything. The waker must be registered
    /// before.
    pub(super) fn take(&mut self, frames: &mut VecDeque<Frame>) -> bool {
        self.topic.take(self.number, WINDOW, &mut self.taken);
        if self.taken.is_empty() {
            return false;
        }
        count(&self.hub.counters.pushed, self.taken.len());
        let mut text = Vec::with_capacity(self.taken.iter().map(|taken| taken.stored.body.len() + 256).sum());
        for taken in self.taken.drain(..) {
            let created = taken.stored.created_ms / 1000;
            if self.time.0 != created {
                self.time = (created, local_text(created));
            }
            let place = Place { topic: self.topic.number, sequence: taken.sequence };
            let push = PushText {
                code: &code(&self.hub, place),
                body: &text_of(&taken.stored.body),
                topic: &self.topic.name,
                create_time: &self.time.1,
                status: PUSHED,
            };
            encode_push_line(&mut text, &push);
            let line = Bytes::from(std::mem::take(&mut text));
            // The encoder writes UTF-8.
            let line = Utf8Bytes::try_from(line).unwrap_or_default();
            frames.push_back(Frame { text: line, message: taken.sequence });
        }
        true
    }

    /// Counts messages as consumed: this protocol has no acks.
    pub(super) fn consumed(&mut self, frames: impl Iterator<Item = Written>) {
        let acked = self.topic.ack(self.number, frames.map(|written| written.0));
        count(&self.hub.counters.acknowledged, acked);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.topic.leave(self.number);
    }
}

/// A message that was written.
#[derive(Debug)]
pub(super) struct Written(u64);

impl Frame {
    /// Parts it into what goes to the socket and what is told to [`Outlet::consumed`].
    pub(super) fn part(self) -> (Utf8Bytes, Written) {
        (self.text, Written(self.message))
    }
}

/// Seconds since 1970 as local date and time.
fn local_text(seconds: i64) -> String {
    let time = Local.timestamp_opt(seconds, 0).earliest();
    time.map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}
