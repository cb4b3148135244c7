use crate::broker::log::record::{Journal, Position, Record};
use crate::broker::queue::{LeaseDraft, LeaseQueue};

const MANY: u64 = 1_000_000;

/// A journal that keeps nothing.
struct Nowhere(u64);

impl Journal for Nowhere {
    fn append(&mut self, _: &Record<'_>) -> Position {
        self.0 += 136;
        Position(self.0)
    }
}

#[test]
fn a_million_messages_take_at_most_32_bytes_each() {
    for (what, delay_ms, retention_ms, received) in [
        ("ready", 0, 0, false),
        ("ready, retained", 0, 3_600_000, false),
        ("delayed", 3_600_000, 0, false),
        ("delayed, retained", 3_600_000, 3_600_000, false),
        ("received and back", 0, 3_600_000, true),
    ] {
        let mut journal = Nowhere(0);
        let mut queue = LeaseQueue::new(7);
        let body = [0; 100];
        for number in 0..MANY {
            let priority = (number % 16) as u8 + 1;
            // In no order, over as much time again.
            let scattered = number.wrapping_mul(2_654_435_761) % 3_600_000;
            let delay_ms = if delay_ms > 0 { delay_ms + scattered } else { 0 };
            let draft = LeaseDraft { body: &body, note: "", delay_ms, priority, retention_ms };
            queue.accept(&draft, number, 1_700_000_000_000, &mut journal);
        }
        if received {
            let mut out = Vec::new();
            queue.take(usize::MAX, 1000, MANY, 1_700_000_000_000, &mut journal, &mut out);
            assert_eq!(out.len() as u64, MANY);
            while queue.counts().leased > 0 {
                queue.advance(MANY + 1_000_064, &mut journal);
            }
        }
        if delay_ms > 0 {
            check(&queue, what);
            // Half of them fall due, in no order of their sending.
            for _ in 0..500 {
                queue.advance(5_400_000_000, &mut journal);
            }
            assert!(queue.counts().ready > 400_000);
        }
        drop(queue.take_events());
        check(&queue, what);
    }
}

fn check(queue: &LeaseQueue, what: &str) {
    let each = queue.memory() as f64 / MANY as f64;
    assert!(each <= 32.0, "{what}: {each} bytes each");
}
