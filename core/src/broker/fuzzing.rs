//! Checks of what the broker reads from disk and from its peers against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use super::code::Codes;
use super::config::{BrokerConfig, TopicConfig};
use super::log::record::{Journal, Position, Record};
use super::queue::{Queue, Window};
use super::store::Replay;
use crate::secret::Secret;

/// One record.
pub(crate) fn log_record(data: &[u8]) {
    super::log::fuzzing::log_record(data);
}

/// Whole segments.
pub(crate) fn log_segments(data: &[u8]) {
    super::log::fuzzing::log_segments(data);
}

/// The form of a request.
pub(crate) fn broker_form(data: &[u8]) {
    super::front::fuzzing::broker_form(data);
}

/// The frames of a WebSocket.
pub(crate) fn ws_frames(data: &[u8]) {
    super::front::fuzzing::ws_frames(data);
}

/// A message code: what leads somewhere is what that place is called.
pub(crate) fn broker_code(data: &[u8]) {
    let codes = Codes::new(&[7; 32]);
    if let Some(place) = codes.decode(data) {
        assert_eq!(codes.encode(place).as_str().as_bytes(), data);
    }
    // The digits, so that some of them are codes.
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let codes = Codes::new(&bytes);
    let word = |at: usize| {
        let bytes = data.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let place = super::code::Place { topic: word(32) as u32, sequence: word(36) };
    assert_eq!(codes.decode(codes.encode(place).as_str().as_bytes()), Some(place));
}

const WINDOW: Window = Window { count: 256, bytes: 256 << 10 };

/// Positions and nothing else.
struct Counting(u64);

impl Journal for Counting {
    fn append(&mut self, _record: &Record<'_>) -> Position {
        self.0 += 64;
        Position(self.0)
    }
}

/// Queues made of any records, sound for themselves and senseless together: they are served to the end.
pub(crate) fn log_queues(data: &[u8]) {
    const WALL: i64 = 1_800_000_000_000;
    let (shape, data) = data.split_first().map_or((0, data), |(shape, rest)| (*shape, rest));
    let on = |bit: u8| shape & (1 << bit) != 0;
    let mut config = BrokerConfig::new(Secret::new("key"));
    config.topic = TopicConfig {
        max_attempts: on(0).then_some(3),
        expire_after: on(1).then_some(Duration::from_secs(60)),
        deduplicate: on(2).then_some(Duration::from_secs(60)),
        compat: on(3),
        ..TopicConfig::default()
    };
    let mut replay = Replay::new(&config);
    let mut records = 0;
    if !super::log::fuzzing::records_of(data, &mut |position, record| {
        replay.take(position, record);
        records += 1;
    }) {
        return;
    }
    let mut queues: Vec<_> = replay.queues.into_iter().collect();
    queues.sort_by_key(|(number, _)| *number);
    for (_, (_, queue)) in queues {
        serve(queue, records, WALL);
    }
}

/// Two consumers take what there is; one acknowledges, the other refuses and leaves.
fn serve(mut queue: Queue, records: usize, wall: i64) {
    let mut journal = Counting(1 << 40);
    let mut now = 1_000_000;
    queue.restored(now, wall, &mut journal);
    let (due, delayed) = queue.counts();
    assert!(due + delayed <= records, "messages that no record tells of");
    assert!(queue.all().count() == due + delayed);
    for number in [1, 2] {
        let id = Arc::from(format!("c{number}"));
        queue.join(number, &id, false, Arc::new(AtomicWaker::new()), now, &mut journal);
    }
    let mut out = Vec::new();
    for _ in 0..3 {
        for number in [1, 2] {
            queue.take(number, WINDOW, now, &mut journal, &mut out);
            let sequences: Vec<u64> = out.drain(..).map(|outgoing| outgoing.sequence).collect();
            if number == 1 {
                queue.ack(number, sequences, now, &mut journal);
            } else {
                queue.nack(number, sequences.into_iter().map(|at| (at, 1000)), now, wall, &mut journal);
            }
        }
        now += 1_000_000_000;
        queue.advance(now, &mut journal);
        let dead = queue.unburied(100);
        queue.buried(&dead, now, &mut journal);
        drop(queue.take_events());
    }
    queue.leave(2, now, &mut journal);
    queue.purge(now, &mut journal);
    queue.leave(1, now, &mut journal);
    let _ = (queue.memory(), queue.counts(), queue.body_bytes());
}
