//! The line of those that wait for a limiter: first come, first served, and whoever goes away takes nothing along.
//!
//! The head of the line alone asks the limiter. It takes for itself, in the same moment in which it leaves; nothing
//! is handed to a waiter that may be gone.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// How many may wait. Submits are bounded by their client already, and this bounds the sends.
const MOST_WAITING: u64 = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    // Its queue is the line.
    turn: Mutex<()>,
    waiting: AtomicU64,
}

impl Turnstile {
    /// How many wait. Who comes while somebody does has to wait too.
    #[inline]
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// Enters the line; `None` when it is full.
    pub(super) fn join(&self) -> Option<InLine<'_>> {
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        let place = InLine { turnstile: self, ahead, left: false };
        (ahead < MOST_WAITING).then_some(place)
    }
}

/// A place in the line, left when this is dropped.
#[derive(Debug)]
pub(super) struct InLine<'a> {
    turnstile: &'a Turnstile,
    /// How many waited before.
    pub(super) ahead: u64,
    left: bool,
}

impl<'a> InLine<'a> {
    /// Resolves at the head of the line; the next one's turn comes when the guard is dropped.
    pub(super) async fn turn(&self) -> MutexGuard<'a, ()> {
        self.turnstile.turn.lock().await
    }

    /// Leaves: to be called in the moment of the grant, so that nobody is refused for a line that is empty.
    pub(super) fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.turnstile.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
