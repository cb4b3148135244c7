//! The one runtime of a process, what a fork does to it, and the guard against blocking it.
//!
//! After a fork the child has none of its parent's threads, and locks may be held by threads that are
//! gone. So whatever is global lives in a slot per generation: the child handler raises the generation
//! (one atomic), the parent's slot is never touched again, and the child fills its own when it opens.

use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Kind, Result};

/// How deep forks may nest: each child of a child uses one generation.
const GENERATIONS: usize = 64;

static GENERATION: AtomicU32 = AtomicU32::new(0);
static WORKERS: AtomicUsize = AtomicUsize::new(0);
static RUNTIMES: PerGeneration<Runtime> = PerGeneration::new();

/// A global with one value per generation of forks.
pub struct PerGeneration<T> {
    slots: [OnceCell<T>; GENERATIONS],
}

impl<T> Default for PerGeneration<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PerGeneration<T> {
    /// No value in any generation.
    pub const fn new() -> Self {
        PerGeneration { slots: [const { OnceCell::new() }; GENERATIONS] }
    }

    /// This generation's value, made if there is none.
    pub fn get_or_try_init(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        match self.slots.get(generation() as usize) {
            Some(slot) => slot.get_or_try_init(make),
            None => Err(Error::new(
                Kind::Forked,
                format!("forks are nested more than {GENERATIONS} deep: start a new program instead"),
            )),
        }
    }

    /// This generation's value, if it was made.
    pub fn get(&self) -> Option<&T> {
        self.slots.get(generation() as usize)?.get()
    }

    /// The values of the processes that this one was forked from.
    pub fn of_ancestors(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().take(generation() as usize).filter_map(OnceCell::get)
    }
}

/// How many forks lie between the first process and this one, as far as the handler was told.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Acquire)
}

/// To be called in the child right after a fork, before anything else of this crate. Safe in a
/// `pthread_atfork` handler: it is one atomic addition.
pub fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// Sets how many threads run the clients; before the first client opens. The default is the number of
/// processors.
pub fn configure_workers(workers: usize) -> Result<()> {
    if workers == 0 || workers > 1024 {
        return Err(Error::new(
            Kind::InvalidArgument,
            format!("the workers must be 1 to 1024, not {workers}"),
        ));
    }
    if RUNTIMES.get().is_some() {
        return Err(Error::new(
            Kind::InvalidArgument,
            "the runtime is started already: set the workers before the first client opens",
        ));
    }
    WORKERS.store(workers, Ordering::Release);
    Ok(())
}

/// The runtime of this process, started if need be.
pub fn handle() -> Result<&'static Handle> {
    let runtime = RUNTIMES.get_or_try_init(|| {
        let mut builder = Builder::new_multi_thread();
        let workers = WORKERS.load(Ordering::Acquire);
        if workers > 0 {
            builder.worker_threads(workers);
        }
        builder.thread_name("ceiba").enable_all().build().map_err(|error| {
            Error::new(Kind::Internal, "the threads of the runtime could not be started").caused_by(error)
        })
    })?;
    Ok(runtime.handle())
}

/// Runs a future to its end on the calling thread; `would_deadlock` on a thread of a runtime.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    refuse_on_runtime_thread()?;
    handle()?.block_on(future)
}

/// The error that a blocking call gets on a thread of a runtime.
pub fn refuse_on_runtime_thread() -> Result<()> {
    if Handle::try_current().is_ok() {
        return Err(Error::new(
            Kind::WouldDeadlock,
            "a blocking call was made on a thread of the runtime: call it from another thread, or submit",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_on_a_runtime_thread_is_refused() {
        let error = handle().unwrap().block_on(async {
            handle().unwrap().spawn(async { block_on(async { Ok(()) }) }).await.unwrap().unwrap_err()
        });
        assert_eq!(error.kind(), Kind::WouldDeadlock);
        block_on(async { Ok(()) }).unwrap();
    }
}
