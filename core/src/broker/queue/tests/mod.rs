//! The queue alone: single rules first, then random lives against a simple model.

mod compare;
mod durable;
mod journal;
mod limits;
mod memory;
mod model;
mod rules;
mod shared;
mod simulation;

use std::sync::Arc;

use futures_util::task::AtomicWaker;

use super::{Accepted, Dead, Draft, Outgoing, Queue, Terms, Why, Window};
use crate::broker::config::DeliveryMode;
use crate::broker::delay::Tick;
use journal::Memory;

const SECOND: Tick = 1_000_000;
const WIDE: Window = Window { count: 1000, bytes: 1 << 20 };

/// Terms without any of the optional bounds.
fn terms(mode: DeliveryMode) -> Terms {
    Terms {
        mode,
        compat: false,
        redeliver_after: 10 * SECOND,
        unacked: 100,
        unacked_bytes: 10_000,
        max_attempts: 0,
        expiry_ms: 0,
        rate: None,
        depth: usize::MAX,
        bytes: usize::MAX,
        refuse: false,
        keys: None,
    }
}

/// A queue with its journal and clocks.
struct Bench {
    queue: Queue,
    journal: Memory,
    now: Tick,
    /// What the wall clock shows at tick 0, in milliseconds.
    epoch: i64,
    consumed: Vec<u64>,
    freed: usize,
    redelivered: u64,
    wakes: usize,
    dead: Vec<Dead>,
    durable: bool,
}

impl Bench {
    fn new(mode: DeliveryMode) -> Bench {
        Bench::with(terms(mode))
    }

    fn with(terms: Terms) -> Bench {
        Bench {
            queue: Queue::new(7, Arc::from("t"), terms),
            journal: Memory::default(),
            now: 0,
            epoch: 1_000_000,
            consumed: Vec::new(),
            freed: 0,
            redelivered: 0,
            wakes: 0,
            dead: Vec::new(),
            durable: false,
        }
    }

    fn wall(&self) -> i64 {
        self.epoch + (self.now / 1000) as i64
    }

    fn accept(&mut self, drafts: &[Draft<'_>]) -> Vec<Accepted> {
        let (mut results, wall) = (Vec::new(), self.wall());
        self.queue.accept(drafts.iter().copied(), self.now, wall, &mut self.journal, &mut results);
        results
    }

    fn send(&mut self, bodies: &[&str]) -> Vec<u64> {
        let drafts: Vec<Draft<'_>> =
            bodies.iter().map(|body| Draft { body: body.as_bytes(), ..Draft::default() }).collect();
        let sequence = |accepted: &Accepted| match accepted {
            Accepted::New(sequence) => *sequence,
            other => panic!("{other:?}"),
        };
        self.accept(&drafts).iter().map(sequence).collect()
    }

    fn send_later(&mut self, body: &str, seconds: i64) {
        let delay_ms = seconds.saturating_mul(1000);
        self.accept(&[Draft { body: body.as_bytes(), delay_ms, wire_delay: seconds, ..Draft::default() }]);
    }

    fn join(&mut self, number: u64, id: &str) {
        let waker = Arc::new(AtomicWaker::new());
        assert!(self.queue.join(number, &Arc::from(id), self.durable, waker, self.now, &mut self.journal));
    }

    fn leave(&mut self, number: u64) {
        self.queue.leave(number, self.now, &mut self.journal);
        self.settle();
    }

    fn take(&mut self, number: u64, window: Window) -> Vec<Outgoing> {
        let mut out = Vec::new();
        self.queue.take(number, window, self.now, &mut self.journal, &mut out);
        self.settle();
        out
    }

    fn text(&self, out: &[Outgoing]) -> Vec<String> {
        out.iter().map(|out| self.journal.body(out.position)).collect()
    }

    fn bodies(&mut self, number: u64) -> Vec<String> {
        let out = self.take(number, WIDE);
        self.text(&out)
    }

    fn ack(&mut self, number: u64, messages: &[Outgoing]) -> usize {
        let sequences: Vec<u64> = messages.iter().map(|out| out.sequence).collect();
        let counted = self.queue.ack(number, sequences, self.now, &mut self.journal);
        self.settle();
        counted
    }

    fn nack(&mut self, number: u64, messages: &[Outgoing], delay_ms: u64) -> usize {
        let refusals: Vec<(u64, u64)> = messages.iter().map(|out| (out.sequence, delay_ms)).collect();
        let wall = self.wall();
        let counted = self.queue.nack(number, refusals, self.now, wall, &mut self.journal);
        self.settle();
        counted
    }

    fn pass(&mut self, ticks: Tick) {
        self.now += ticks;
        self.queue.advance(self.now, &mut self.journal);
        self.settle();
    }

    fn settle(&mut self) {
        let events = self.queue.take_events();
        self.freed += events.freed;
        self.redelivered += events.redelivered;
        self.wakes += events.wakes.len();
        self.dead.extend(events.dead);
        let consumed = events.left.iter().filter(|left| left.why == Why::Consumed);
        self.consumed.extend(consumed.map(|left| left.sequence));
    }

    /// A crash after the first `kept` records, and a start after a while.
    fn crash(&mut self, kept: usize, pause: Tick) {
        self.journal.records.truncate(kept);
        self.dead.clear();
        let terms = self.queue.terms.clone();
        self.queue = Queue::new(7, Arc::from("t"), terms);
        self.journal.replay(&mut self.queue);
        self.now += pause;
        let wall = self.wall();
        self.queue.restored(self.now, wall, &mut self.journal);
        self.queue.advance(self.now, &mut self.journal);
        self.settle();
    }

    /// A crash that loses nothing.
    fn restart(&mut self) {
        self.crash(usize::MAX, SECOND);
    }
}
