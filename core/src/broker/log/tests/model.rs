//! A simple owner of a log: it knows which messages are alive and where they lie, as the queues do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::super::{Living, Ticket};
use super::*;

/// Sequence to place and body.
type Alive = BTreeMap<u64, (Position, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Model {
    pub(super) log: Arc<Log>,
    alive: Mutex<Alive>,
    pub(super) topic: Mutex<Option<Position>>,
    /// Messages that were written again.
    pub(super) moved: Mutex<u64>,
}

impl Model {
    pub(super) fn open(options: &LogOptions, disk: Arc<dyn Disk>) -> Result<Arc<Model>> {
        let (mut alive, mut topic) = (Alive::new(), None);
        let mut gone = BTreeSet::new();
        let log = Log::open(options.clone(), disk, |position, record| match record {
            Record::Topic { .. } => topic = Some(position),
            Record::Message(message) => {
                assert!(!gone.contains(&message.sequence), "a message came back after its end");
                let before = alive.insert(message.sequence, (position, message.body.to_vec()));
                assert!(before.is_none() || message.moved);
            }
            Record::Done { ranges, .. } => {
                for sequence in
                    ranges.iter().flat_map(|range| range.first..range.first + u64::from(range.count))
                {
                    alive.remove(&sequence);
                    gone.insert(sequence);
                }
            }
            other => panic!("nobody wrote {other:?}"),
        })?;
        log.keep(alive.values().map(|(position, body)| (*position, body.len() as u32)));
        let model =
            Arc::new(Model { log, alive: Mutex::new(alive), topic: Mutex::new(topic), moved: Mutex::new(0) });
        let weak: Weak<Model> = Arc::downgrade(&model);
        model.log.attach(weak);
        if topic.is_none() {
            let mut place = model.topic.lock();
            let record =
                Record::Topic { topic: 1, mode: DeliveryMode::WorkQueue, next_sequence: 0, name: "model" };
            let (position, ticket) = model.log.append(|journal| journal.append(&record));
            let _ = ticket;
            *place = Some(position);
        }
        Ok(model)
    }

    pub(super) fn send(&self, sequence: u64, body: &[u8]) -> Ticket {
        let mut alive = self.alive.lock();
        let (position, ticket) = self.log.append(|journal| journal.append(&message(sequence, body)));
        alive.insert(sequence, (position, body.to_vec()));
        ticket
    }

    pub(super) fn ack(&self, sequence: u64) -> Option<Ticket> {
        let mut alive = self.alive.lock();
        let (position, body) = alive.remove(&sequence)?;
        let ranges = [Range { first: sequence, count: 1 }];
        let (_, ticket) =
            self.log.append(|journal| journal.append(&Record::Done { topic: 1, ranges: &ranges }));
        self.log.free([(position, body.len() as u32)].into_iter());
        Some(ticket)
    }

    /// Sends one and acknowledges the one before it. The ticket is that of the last record: the message may be on disk
    /// before the acknowledgement is.
    pub(super) fn replace(&self, sequence: u64, body: &[u8]) -> Ticket {
        let ticket = self.send(sequence, body);
        sequence.checked_sub(1).and_then(|before| self.ack(before)).unwrap_or(ticket)
    }

    pub(super) fn alive(&self) -> BTreeMap<u64, Vec<u8>> {
        self.alive.lock().iter().map(|(sequence, (_, body))| (*sequence, body.clone())).collect()
    }

    /// Reads every message that is alive, as a delivery does.
    pub(super) fn read_all(&self) {
        let mut reading = self.log.reading();
        // Places are looked up while the guard is held, or they might be gone.
        let places: Vec<_> =
            self.alive.lock().iter().map(|(sequence, place)| (*sequence, place.clone())).collect();
        for (sequence, (position, body)) in places {
            let stored = reading.message(position, body.len()).unwrap();
            assert_eq!((stored.sequence, &stored.body[..]), (sequence, &body[..]));
        }
    }
}

impl Living for Model {
    fn renew(&self, records: &[(Position, Record<'_>)]) {
        for (position, record) in records {
            match record {
                Record::Topic { .. } => {
                    let mut place = self.topic.lock();
                    if *place == Some(*position) {
                        *place = Some(self.log.append(|journal| journal.append(record)).0);
                    }
                }
                Record::Message(message) => {
                    let mut alive = self.alive.lock();
                    let Some(place) = alive.get_mut(&message.sequence).filter(|place| place.0 == *position)
                    else {
                        continue;
                    };
                    let moved = Record::Message(MessageRecord { moved: true, ..*message });
                    place.0 = self.log.append(|journal| journal.append(&moved)).0;
                    *self.moved.lock() += 1;
                }
                other => panic!("nobody asks for {other:?}"),
            }
        }
    }
}
