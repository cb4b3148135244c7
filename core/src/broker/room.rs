//! How much all topics together may store. Asked before a message is taken in, told when it left.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a message costs beside its body.
const OVERHEAD: usize = 100;

/// Room that was taken for messages on their way in. What of it was not kept goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    room: &'a Room,
    left: usize,
}

impl Reserved<'_> {
    /// So much of it stays taken: for messages that came in, which give it back when they leave.
    pub(super) fn keep(&mut self, cost: usize) {
        self.left = self.left.saturating_sub(cost);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.room.release(self.left);
    }
}

/// The bound, and what is used of it.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    used: AtomicUsize,
    room: Notify,
}

impl Room {
    pub(super) fn new(limit: usize) -> Room {
        Room { limit, used: AtomicUsize::new(0), room: Notify::new() }
    }

    /// What a body of this length costs.
    pub(super) const fn cost(length: usize) -> usize {
        length.saturating_add(OVERHEAD)
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes room for this cost, or says that there is none. A cost over the whole bound fits an empty log.
    pub(super) fn try_reserve(&self, cost: usize) -> Option<Reserved<'_>> {
        let fits = |used: usize| {
            let after = used.saturating_add(cost);
            (after <= self.limit || used == 0).then_some(after)
        };
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).ok()?;
        Some(Reserved { room: self, left: cost })
    }

    /// Takes room for this cost, waiting for it. Cancel-safe.
    pub(super) async fn reserve(&self, cost: usize) -> Reserved<'_> {
        loop {
            // Registered before the try, so that room made in between is not missed.
            let freed = self.room.notified();
            if let Some(reserved) = self.try_reserve(cost) {
                return reserved;
            }
            freed.await;
        }
    }

    /// Takes room that nobody could ask for before: past the bound too, so that the next ones wait.
    pub(super) fn charge(&self, cost: usize) -> Reserved<'_> {
        self.used.fetch_add(cost, Ordering::AcqRel);
        Reserved { room: self, left: cost }
    }

    /// Gives room back.
    pub(super) fn release(&self, cost: usize) {
        if cost == 0 {
            return;
        }
        // Never below zero: what is released was reserved.
        let _ = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| Some(used.saturating_sub(cost)));
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn room_is_bounded_and_waited_for() {
        let log = Arc::new(Room::new(1000));
        log.try_reserve(900).unwrap().keep(900);
        assert!(log.try_reserve(200).is_none());
        let waiter = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.reserve(200).await.keep(200) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiter.is_finished());
        log.release(100);
        tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap();
        assert_eq!(log.used(), 1000);
    }

    #[test]
    fn one_message_over_the_bound_fits_an_empty_log() {
        let log = Room::new(10);
        log.try_reserve(50).unwrap().keep(50);
        assert!(log.try_reserve(1).is_none());
        log.release(50);
        assert_eq!(log.used(), 0);
    }

    #[test]
    fn what_is_not_kept_goes_back() {
        let log = Room::new(100);
        let mut reserved = log.try_reserve(60).unwrap();
        reserved.keep(20);
        assert_eq!(log.used(), 60);
        drop(reserved);
        assert_eq!(log.used(), 20);
        drop(log.charge(500));
        assert_eq!(log.used(), 20);
    }
}
