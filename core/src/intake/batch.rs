//! Calls that wait for the task, in the order they came.
//!
//! What is written here is read on another core, and each cache line that travels costs the caller more than
//! all the rest of a submit. So a submit with nothing but a body takes 16 bytes beside the body.

use std::time::Duration;

use bytes::Bytes;

use super::call::{Reply, Ticket};
use crate::message::Message;

/// A submit of a body: the body lies in the arena, after that of the one before.
#[derive(Debug)]
struct Small {
    token: u64,
    len: u32,
    // Milliseconds, or `CANCELLED`.
    delay: u32,
}

const CANCELLED: u32 = u32::MAX;

/// Any other call.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) message: Message,
    pub(super) timeout: Option<Duration>,
    pub(super) epoch: u64,
    pub(super) reply: Reply,
}

/// A call that was taken out to be cancelled.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) reply: Reply,
    pub(super) size: u64,
    pub(super) epoch: u64,
    /// Where it has one of its own.
    pub(super) message: Option<Message>,
}

#[derive(Debug)]
enum Item {
    /// The next so many small ones.
    Run {
        count: usize,
        epoch: u64,
    },
    Full(Full),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) arena: Vec<u8>,
    small: Vec<Small>,
    items: Vec<Item>,
}

impl Batch {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a submit of a copy of `body`.
    #[inline]
    pub(super) fn submit(&mut self, token: u64, body: &[u8], delay: Duration, epoch: u64) {
        let (Ok(len), Some(delay)) = (u32::try_from(body.len()), short(delay)) else {
            let message = Message::new(Bytes::copy_from_slice(body)).with_delay(delay);
            self.push(Full { message, timeout: None, epoch, reply: Reply::Queue(token) });
            return;
        };
        self.arena.extend_from_slice(body);
        self.small.push(Small { token, len, delay });
        match self.items.last_mut() {
            Some(Item::Run { count, epoch: of_run }) if *of_run == epoch => *count += 1,
            _ => self.items.push(Item::Run { count: 1, epoch }),
        }
    }

    /// Adds any other call.
    pub(super) fn push(&mut self, full: Full) {
        self.items.push(Item::Full(full));
    }

    /// Takes one out. To be dropped outside of the lock: a lent body calls the host when it is.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<Taken> {
        let full = self.items.iter().position(|item| match (item, ticket) {
            (Item::Full(Full { reply: Reply::Queue(token), .. }), Ticket::Token(wanted)) => *token == wanted,
            (Item::Full(Full { reply: Reply::Once(number, _), .. }), Ticket::Wait(wanted)) => {
                *number == wanted
            }
            _ => false,
        });
        if let Some(place) = full
            && let Item::Full(full) = self.items.remove(place)
        {
            let size = full.message.body().len() as u64;
            return Some(Taken { reply: full.reply, size, epoch: full.epoch, message: Some(full.message) });
        }
        let Ticket::Token(wanted) = ticket else { return None };
        let (place, small) = self
            .small
            .iter_mut()
            .enumerate()
            .find(|(_, small)| small.token == wanted && small.delay != CANCELLED)?;
        // Its body stays in the arena, where those after it are found by its length.
        small.delay = CANCELLED;
        let size = u64::from(small.len);
        let mut before = 0;
        let epoch = self.items.iter().find_map(|item| match item {
            Item::Run { count, epoch } => {
                before += count;
                (place < before).then_some(*epoch)
            }
            Item::Full(_) => None,
        })?;
        Some(Taken { reply: Reply::Queue(wanted), size, epoch, message: None })
    }

    /// Takes all out, in order. `arena` is this batch's, taken out before.
    pub(super) fn drain(&mut self, arena: &Bytes, mut each: impl FnMut(Full)) {
        let mut small = self.small.drain(..);
        let mut start = 0;
        for item in self.items.drain(..) {
            match item {
                Item::Full(full) => each(full),
                Item::Run { count, epoch } => {
                    for Small { token, len, delay } in small.by_ref().take(count) {
                        let end = start + len as usize;
                        if delay != CANCELLED {
                            let message = Message::new(arena.slice(start..end))
                                .with_delay(Duration::from_millis(u64::from(delay)));
                            each(Full { message, timeout: None, epoch, reply: Reply::Queue(token) });
                        }
                        start = end;
                    }
                }
            }
        }
    }

    /// How many calls wait, at most.
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.small.len()
    }
}

// A delay in whole milliseconds, where it fits.
#[inline]
fn short(delay: Duration) -> Option<u32> {
    if delay.is_zero() {
        return Some(0);
    }
    let whole = delay.subsec_nanos().is_multiple_of(1_000_000);
    u32::try_from(delay.as_millis()).ok().filter(|ms| whole && *ms != CANCELLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(batch: &mut Batch) -> Vec<(u64, Vec<u8>, Duration, u64)> {
        let arena = Bytes::from(std::mem::take(&mut batch.arena));
        let mut all = Vec::new();
        batch.drain(&arena, |full| {
            let Reply::Queue(token) = full.reply else { panic!("not a submit") };
            all.push((token, full.message.body().to_vec(), full.message.delay(), full.epoch));
        });
        all
    }

    #[test]
    fn all_come_out_in_order_whatever_their_form() {
        let mut batch = Batch::default();
        let odd = Duration::from_nanos(5);
        let long = Duration::from_secs(1 << 40);
        batch.submit(1, b"a", Duration::ZERO, 0);
        batch.submit(2, b"", Duration::from_millis(7), 0);
        batch.submit(3, b"odd", odd, 0);
        batch.submit(4, b"bcd", Duration::from_secs(1), 0);
        batch.submit(5, b"long", long, 1);
        batch.submit(6, b"e", Duration::from_millis(u64::from(u32::MAX)), 1);
        batch.submit(7, b"f", Duration::ZERO, 2);
        let expected = [
            (1, b"a".to_vec(), Duration::ZERO, 0),
            (2, b"".to_vec(), Duration::from_millis(7), 0),
            (3, b"odd".to_vec(), odd, 0),
            (4, b"bcd".to_vec(), Duration::from_secs(1), 0),
            (5, b"long".to_vec(), long, 1),
            (6, b"e".to_vec(), Duration::from_millis(u64::from(u32::MAX)), 1),
            (7, b"f".to_vec(), Duration::ZERO, 2),
        ];
        assert_eq!(drained(&mut batch), expected);
        assert!(batch.is_empty());
        assert_eq!(batch.len(), 0);
    }

    #[test]
    fn one_that_is_cancelled_leaves_the_others_their_bodies() {
        let mut batch = Batch::default();
        batch.submit(1, b"one", Duration::ZERO, 4);
        batch.submit(2, b"three", Duration::ZERO, 5);
        batch.submit(2, b"five", Duration::ZERO, 5);
        batch.submit(3, b"full", Duration::from_nanos(1), 6);
        let size = |found: Option<Taken>| found.map(|taken| (taken.size, taken.epoch));
        assert_eq!(size(batch.cancel(Ticket::Token(2))), Some((5, 5)));
        assert_eq!(size(batch.cancel(Ticket::Token(3))), Some((4, 6)));
        assert_eq!(size(batch.cancel(Ticket::Token(9))), None);
        assert_eq!(size(batch.cancel(Ticket::Wait(1))), None);
        let left: Vec<_> = drained(&mut batch).into_iter().map(|(token, body, ..)| (token, body)).collect();
        assert_eq!(left, [(1, b"one".to_vec()), (2, b"five".to_vec())]);
    }
}
