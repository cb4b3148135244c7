//! The atomics and the lock of the state that sends share: those of loom where it explores every order of them.

#[cfg(ceiba_loom)]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(ceiba_loom))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};

/// A lock that is held for one closure, never across an await.
#[derive(Debug)]
pub(super) struct Lock<T>(
    #[cfg(not(ceiba_loom))] parking_lot::Mutex<T>,
    #[cfg(ceiba_loom)] loom::sync::Mutex<T>,
);

impl<T> Lock<T> {
    #[cfg(not(ceiba_loom))]
    pub(super) fn new(value: T) -> Lock<T> {
        Lock(parking_lot::Mutex::new(value))
    }

    #[cfg(not(ceiba_loom))]
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock())
    }

    #[cfg(ceiba_loom)]
    pub(super) fn new(value: T) -> Lock<T> {
        Lock(loom::sync::Mutex::new(value))
    }

    #[cfg(ceiba_loom)]
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        match self.0.lock() {
            Ok(mut value) => change(&mut value),
            Err(poisoned) => change(&mut poisoned.into_inner()),
        }
    }
}
