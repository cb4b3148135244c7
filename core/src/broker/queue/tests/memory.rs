//! What a million waiting messages cost.

use super::journal::Memory;
use super::*;
use crate::broker::log::record::{Journal, MessageRecord, Position, Range, Record};

const MANY: u64 = 1_000_000;

/// A journal that keeps nothing.
#[derive(Default)]
struct Nowhere(u64);

impl Journal for Nowhere {
    fn append(&mut self, _: &Record<'_>) -> Position {
        self.0 += 136;
        Position(self.0)
    }
}

struct Case {
    name: &'static str,
    mode: DeliveryMode,
    delay_ms: i64,
    expiry_ms: u64,
    subscribers: u64,
}

#[test]
fn a_million_messages_take_at_most_32_bytes_each() {
    let (work, shared) = (DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe);
    let case =
        |name, mode, delay_ms, expiry_ms, subscribers| Case { name, mode, delay_ms, expiry_ms, subscribers };
    let cases = [
        case("work", work, 0, 0, 0),
        case("work, delayed", work, 3_600_000, 0, 0),
        case("work, expiring", work, 0, 3_600_000, 0),
        case("work, delayed, expiring", work, 3_600_000, 3_600_000, 0),
        case("shared, held", shared, 0, 0, 0),
        case("shared, ten subscribers", shared, 0, 0, 10),
        case("shared, delayed", shared, 3_600_000, 3_600_000, 10),
    ];
    for Case { name, mode, delay_ms, expiry_ms, subscribers } in cases {
        let mut journal = Nowhere::default();
        let mut queue = Queue::new(7, Arc::from("t"), Terms { expiry_ms, ..terms(mode) });
        let mut results = Vec::new();
        for number in 0..subscribers {
            let id = Arc::from(number.to_string());
            queue.join(number, &id, true, Arc::new(AtomicWaker::new()), 0, &mut journal);
        }
        let body = [0; 100];
        for number in 0..MANY {
            // In no order, over as much time again.
            let scattered = (number.wrapping_mul(2_654_435_761) % 3_600_000) as i64;
            let delay_ms = if delay_ms > 0 { delay_ms + scattered } else { 0 };
            results.clear();
            let draft = Draft { body: &body, delay_ms, ..Draft::default() };
            queue.accept([draft], number, 1000, &mut journal, &mut results);
        }
        let check = |queue: &Queue, when: &str| {
            let (waiting, delayed) = queue.counts();
            let count = (waiting + delayed) as f64;
            let each = queue.memory() as f64 / count;
            eprintln!("{name}, {when}: {each:.1} bytes each of {count}");
            assert!(each <= 32.0, "{name}, {when}: {each:.1} bytes each");
        };
        check(&queue, "accepted");
        if delay_ms > 0 {
            // As they fall due, half of them and all, and before any expires.
            for part in [1, 2, 3] {
                let now = SECOND * (3600 + 1200 * part - 1);
                let mut most = 0.0f64;
                while queue.alarm() <= now {
                    queue.advance(now, &mut journal);
                    let (waiting, delayed) = queue.counts();
                    if waiting + delayed > 900_000 {
                        most = most.max(queue.memory() as f64 / (waiting + delayed) as f64);
                    }
                }
                assert!(most <= 32.0, "{name}: {most:.1} bytes each on the way");
                if expiry_ms == 0 {
                    check(&queue, "falling due");
                }
            }
        }
        // What is gone takes nothing.
        queue.take_events();
        queue.purge(0, &mut journal);
        queue.take_events();
        assert!(queue.memory() < 100_000, "{name}: {} bytes of nothing", queue.memory());
    }
}

#[test]
fn a_million_records_are_replayed_quickly() {
    let mut queue = Queue::new(7, Arc::from("t"), terms(DeliveryMode::WorkQueue));
    let body = [0; 100];
    let start = std::time::Instant::now();
    for sequence in 0..MANY {
        let record =
            Record::Message(MessageRecord { created_ms: 1000, ..MessageRecord::plain(7, sequence, &body) });
        queue.replay(&record, Position(136 * sequence));
    }
    queue.replay(&Record::Done { topic: 7, ranges: &[Range { first: 0, count: 500_000 }] }, Position(0));
    queue.restored(0, 2000, &mut Memory::default());
    let took = start.elapsed();
    assert_eq!(queue.counts(), (500_000, 0));
    eprintln!("{MANY} records in {took:?}");
    // Unoptimised code is allowed twenty times as long.
    let bound = if cfg!(debug_assertions) { 4000 } else { 200 };
    assert!(took.as_millis() < bound, "{took:?}");
}
