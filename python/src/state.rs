//! What a process has of its own: one completion queue, and the tokens of its submits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ceiba_core::completion::{CompletionQueue, MAX_CAPACITY};
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::runtime::PerGeneration;

/// Submits of all producers that are under way or not yet taken, unless set.
const CAPACITY: usize = 1 << 20;

static QUEUES: PerGeneration<Arc<CompletionQueue>> = PerGeneration::new();
static WANTED: AtomicUsize = AtomicUsize::new(CAPACITY);
static TOKENS: AtomicU64 = AtomicU64::new(1);

/// The completion queue of this process, made if there is none.
pub(crate) fn queue() -> Result<&'static Arc<CompletionQueue>> {
    QUEUES.get_or_try_init(|| CompletionQueue::new(WANTED.load(Ordering::Acquire)).map(Arc::new))
}

/// Whether this process has opened or asked for anything.
pub(crate) fn in_use() -> bool {
    QUEUES.get().is_some()
}

/// Sets the capacity of the queue, before it is made.
pub(crate) fn set_capacity(capacity: usize) -> Result<()> {
    if capacity == 0 || capacity > MAX_CAPACITY {
        return Err(Error::new(
            Kind::InvalidArgument,
            format!("the capacity of the completion queue is 1 to {MAX_CAPACITY}, not {capacity}"),
        ));
    }
    if in_use() {
        return Err(Error::new(
            Kind::InvalidArgument,
            "the completion queue is in use already: set its capacity before the first client opens",
        ));
    }
    WANTED.store(capacity, Ordering::Release);
    Ok(())
}

/// The first of `count` new tokens. None is ever used twice.
#[inline]
pub(crate) fn tokens(count: u64) -> u64 {
    TOKENS.fetch_add(count, Ordering::Relaxed)
}
