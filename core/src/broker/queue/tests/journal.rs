//! A journal in memory, for tests: it keeps every record and shows any prefix again.

use crate::broker::config::DeliveryMode;
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record};
use crate::broker::queue::Queue;

/// A message record that owns its text.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) record: MessageRecord<'static>,
    pub(super) key: String,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn record(&self) -> MessageRecord<'_> {
        MessageRecord { key: &self.key, body: &self.body, ..self.record }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Saved {
    Topic {
        mode: DeliveryMode,
        next_sequence: u64,
        name: String,
    },
    Message(Message),
    Done(Vec<Range>),
    Pushed(Vec<Range>),
    Postponed {
        sequence: u64,
        due_ms: i64,
    },
    Subscribed {
        subscription: u32,
        durable: bool,
        from: u64,
        id: String,
    },
    Unsubscribed {
        subscription: u32,
    },
    Acked {
        subscription: u32,
        ranges: Vec<Range>,
    },
    Purged {
        below: u64,
    },
    /// Its segment was recycled.
    Cleaned,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) records: Vec<Saved>,
}

impl Journal for Memory {
    fn append(&mut self, record: &Record<'_>) -> Position {
        let saved = match *record {
            Record::Topic { mode, next_sequence, name, .. } => {
                Saved::Topic { mode, next_sequence, name: name.to_owned() }
            }
            Record::Message(message) => Saved::Message(Message {
                record: MessageRecord { key: "", body: &[], ..message },
                key: message.key.to_owned(),
                body: message.body.to_owned(),
            }),
            Record::Done { ranges, .. } => Saved::Done(ranges.to_owned()),
            Record::Pushed { ranges, .. } => Saved::Pushed(ranges.to_owned()),
            Record::Postponed { sequence, due_ms, .. } => Saved::Postponed { sequence, due_ms },
            Record::Subscribed { subscription, durable, from, id, .. } => {
                Saved::Subscribed { subscription, durable, from, id: id.to_owned() }
            }
            Record::Unsubscribed { subscription, .. } => Saved::Unsubscribed { subscription },
            Record::Acked { subscription, ranges, .. } => {
                Saved::Acked { subscription, ranges: ranges.to_owned() }
            }
            Record::Purged { below, .. } => Saved::Purged { below },
            Record::TopicGone { .. }
            | Record::Synced { .. }
            | Record::Kept { .. }
            | Record::Leased { .. }
            | Record::Hidden { .. } => panic!("a queue writes no such record"),
        };
        self.records.push(saved);
        Position(self.records.len() as u64 * 8)
    }
}

impl Memory {
    pub(super) fn message(&self, position: Position) -> &Message {
        match &self.records[position.0 as usize / 8 - 1] {
            Saved::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    pub(super) fn body(&self, position: Position) -> String {
        String::from_utf8(self.message(position).body.clone()).unwrap()
    }

    /// Shows all records to a queue.
    pub(super) fn replay(&self, queue: &mut Queue) {
        let topic = 7;
        for (saved, position) in self.records.iter().zip((8..).step_by(8).map(Position)) {
            let record = match saved {
                Saved::Topic { mode, next_sequence, name } => {
                    Record::Topic { topic, mode: *mode, next_sequence: *next_sequence, name }
                }
                Saved::Message(message) => Record::Message(message.record()),
                Saved::Done(ranges) => Record::Done { topic, ranges },
                Saved::Pushed(ranges) => Record::Pushed { topic, ranges },
                Saved::Postponed { sequence, due_ms } => {
                    Record::Postponed { topic, sequence: *sequence, due_ms: *due_ms }
                }
                Saved::Subscribed { subscription, durable, from, id } => Record::Subscribed {
                    topic,
                    subscription: *subscription,
                    durable: *durable,
                    from: *from,
                    id,
                },
                Saved::Unsubscribed { subscription } => {
                    Record::Unsubscribed { topic, subscription: *subscription }
                }
                Saved::Acked { subscription, ranges } => {
                    Record::Acked { topic, subscription: *subscription, ranges }
                }
                Saved::Purged { below } => Record::Purged { topic, below: *below },
                Saved::Cleaned => continue,
            };
            queue.replay(&record, position);
        }
    }
}
