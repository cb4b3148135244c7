//! A bounded queue of finished asynchronous calls, with a file descriptor and a callback that tell of
//! completions to take.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Kind, Result};
use crate::message::Receipt;

/// How one submitted call ended.
#[derive(Debug)]
pub struct Completion {
    /// The caller's token.
    pub token: u64,
    /// Its receipt or error.
    pub result: Result<Receipt>,
}

/// Keeps what one thread writes often off the cache lines that others use: 128 bytes, because processors
/// fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// The most completions a queue can hold.
pub const MAX_CAPACITY: usize = 1 << 24;

struct Ready {
    items: Vec<Completion>,
    signalled: bool,
    closed: bool,
}

/// Finished calls, in the order they finished.
///
/// A slot is reserved when a call is submitted, so that completing never waits and never fails.
pub struct CompletionQueue {
    capacity: usize,
    reserved: Apart<AtomicUsize>,
    ready: Apart<Mutex<Ready>>,
    arrived: Condvar,
    fd: Wake,
    notify: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletionQueue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl CompletionQueue {
    /// A queue for `capacity` calls that are under way or finished and not yet taken.
    pub fn new(capacity: usize) -> Result<CompletionQueue> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(Error::new(
                Kind::InvalidArgument,
                format!("the capacity of a completion queue is 1 to {MAX_CAPACITY}, not {capacity}"),
            ));
        }
        Ok(CompletionQueue {
            capacity,
            reserved: Apart(AtomicUsize::new(0)),
            ready: Apart(Mutex::new(Ready { items: Vec::new(), signalled: false, closed: false })),
            arrived: Condvar::new(),
            fd: Wake::new()?,
            notify: OnceLock::new(),
        })
    }

    /// Reserves a slot, or says that there is none.
    pub fn reserve(&self) -> Result<()> {
        if self.reserve_up_to(1) == 1 {
            return Ok(());
        }
        Err(Error::new(
            Kind::QueueFull,
            format!("{} calls are under way or not yet polled: the completion queue is full", self.capacity),
        ))
    }

    /// Reserves up to `count` slots and returns how many.
    pub fn reserve_up_to(&self, count: usize) -> usize {
        let before = self.reserved.0.fetch_add(count, Ordering::AcqRel);
        let granted = self.capacity.saturating_sub(before).min(count);
        if granted < count {
            self.reserved.0.fetch_sub(count - granted, Ordering::AcqRel);
        }
        granted
    }

    /// Gives back slots that were reserved and will have no completion.
    pub fn unreserve(&self, count: usize) {
        self.reserved.0.fetch_sub(count, Ordering::AcqRel);
    }

    /// Adds finished calls, each in a slot reserved before. Never waits; leaves `finished` empty.
    pub fn complete(&self, finished: &mut Vec<Completion>) {
        if finished.is_empty() {
            return;
        }
        let mut ready = self.ready.0.lock();
        let was_empty = ready.items.is_empty();
        if was_empty && ready.items.capacity() < finished.len() {
            std::mem::swap(&mut ready.items, finished);
        } else {
            ready.items.append(finished);
        }
        if was_empty && !ready.signalled {
            ready.signalled = true;
            // Under the lock: written later, it could follow the poll that clears it, and the descriptor
            // would stay readable over an empty queue.
            self.fd.set();
        }
        drop(ready);
        if was_empty {
            self.arrived.notify_all();
            if let Some(notify) = self.notify.get() {
                notify();
            }
        }
    }

    /// Takes up to `max` completions without waiting. When it takes the last one the descriptor is cleared.
    pub fn poll(&self, max: usize, into: &mut Vec<Completion>) -> usize {
        let mut ready = self.ready.0.lock();
        self.take(&mut ready, max, into)
    }

    /// Takes up to `max`, waiting for the first until `timeout` (`None`: without end).
    ///
    /// Returns 0 when the time passes or the queue is closed.
    pub fn wait(&self, max: usize, timeout: Option<Duration>, into: &mut Vec<Completion>) -> usize {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ready = self.ready.0.lock();
        while ready.items.is_empty() && !ready.closed {
            match until {
                Some(until) => {
                    if self.arrived.wait_until(&mut ready, until).timed_out() {
                        break;
                    }
                }
                None => self.arrived.wait(&mut ready),
            }
        }
        self.take(&mut ready, max, into)
    }

    fn take(&self, ready: &mut Ready, max: usize, into: &mut Vec<Completion>) -> usize {
        let count = ready.items.len().min(max);
        if count == 0 {
            return 0;
        }
        if count == ready.items.len() && into.is_empty() {
            std::mem::swap(&mut ready.items, into);
        } else {
            into.extend(ready.items.drain(..count));
        }
        if ready.items.is_empty() && ready.signalled {
            ready.signalled = false;
            self.fd.clear();
        }
        self.reserved.0.fetch_sub(count, Ordering::AcqRel);
        count
    }

    /// Calls under way, and finished ones not yet taken.
    pub fn len(&self) -> usize {
        self.reserved.0.load(Ordering::Acquire)
    }

    /// Whether no call is under way and none waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether completions wait to be taken.
    pub fn has_ready(&self) -> bool {
        !self.ready.0.lock().items.is_empty()
    }

    /// How many calls it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A descriptor that is readable while completions wait. Watch it; do not read it or close it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.watch.as_fd()
    }

    /// Sets what is called, on the completing thread, when the queue goes from empty to non-empty.
    /// It must not block. Returns false when one is set already.
    pub fn on_ready(&self, notify: Box<dyn Fn() + Send + Sync>) -> bool {
        self.notify.set(notify).is_ok()
    }

    /// Wakes every waiting thread; later waits return at once. Completions can still be taken.
    pub fn close(&self) {
        self.ready.0.lock().closed = true;
        self.arrived.notify_all();
    }
}

/// A file descriptor that is readable from `set` to `clear`. Setting it never waits.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Wake {
    watch: OwnedFd,
}

#[cfg(target_os = "linux")]
impl Wake {
    /// One that is not set.
    ///
    /// # Errors
    /// `internal` when the process has no descriptors left.
    pub fn new() -> Result<Wake> {
        use rustix::event::{EventfdFlags, eventfd};
        let watch = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(no_descriptor)?;
        Ok(Wake { watch })
    }

    /// Makes it readable; once for each `clear`, the caller sees to that.
    pub fn set(&self) {
        // The counter cannot overflow: it is written once per change from empty to non-empty.
        let _ = rustix::io::write(&self.watch, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        // Empty already when the host read it itself.
        let _ = rustix::io::read(&self.watch, &mut [0u8; 8]);
    }
}

/// A file descriptor that is readable from `set` to `clear`. Setting it never waits.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Wake {
    watch: OwnedFd,
    write: OwnedFd,
}

#[cfg(not(target_os = "linux"))]
impl Wake {
    /// One that is not set.
    ///
    /// # Errors
    /// `internal` when the process has no descriptors left.
    pub fn new() -> Result<Wake> {
        let (watch, write) = rustix::pipe::pipe().map_err(no_descriptor)?;
        for end in [&watch, &write] {
            rustix::io::ioctl_fionbio(end, true).map_err(no_descriptor)?;
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).map_err(no_descriptor)?;
        }
        Ok(Wake { watch, write })
    }

    /// Makes it readable; once for each `clear`, the caller sees to that.
    pub fn set(&self) {
        let _ = rustix::io::write(&self.write, &[1]);
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.watch, &mut [0u8; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

fn no_descriptor(errno: rustix::io::Errno) -> Error {
    Error::new(Kind::Internal, "no file descriptor could be had").caused_by(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(token: u64) -> Completion {
        Completion { token, result: Ok(Receipt::sent("memory")) }
    }

    fn readable(queue: &CompletionQueue) -> bool {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(queue.fd(), rustix::event::PollFlags::IN)];
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&zero)).unwrap() == 1
    }

    #[test]
    fn slots_are_bounded_and_come_back_when_polled() {
        let queue = CompletionQueue::new(2).unwrap();
        queue.reserve().unwrap();
        assert_eq!(queue.reserve_up_to(5), 1);
        assert_eq!(queue.reserve().unwrap_err().kind(), Kind::QueueFull);
        queue.complete(&mut vec![done(7)]);
        assert_eq!(queue.reserve().unwrap_err().kind(), Kind::QueueFull);
        let mut taken = Vec::new();
        assert_eq!(queue.poll(10, &mut taken), 1);
        assert_eq!(taken[0].token, 7);
        queue.reserve().unwrap();
    }

    #[test]
    fn the_descriptor_is_readable_while_completions_wait() {
        let queue = CompletionQueue::new(4).unwrap();
        assert_eq!(queue.reserve_up_to(3), 3);
        assert!(!readable(&queue));
        queue.complete(&mut vec![done(1), done(2)]);
        assert!(readable(&queue));
        let mut taken = Vec::new();
        queue.poll(1, &mut taken);
        assert!(readable(&queue));
        queue.complete(&mut vec![done(3)]);
        taken.clear();
        assert_eq!(queue.poll(9, &mut taken), 2);
        assert!(!readable(&queue));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_waiting_thread_is_woken_by_a_completion_and_by_close() {
        let queue = std::sync::Arc::new(CompletionQueue::new(4).unwrap());
        queue.reserve().unwrap();
        let waiter = {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                let first = queue.wait(1, None, &mut taken);
                taken.clear();
                (first, queue.wait(1, None, &mut taken))
            })
        };
        queue.complete(&mut vec![done(1)]);
        while !queue.is_empty() {
            std::thread::yield_now();
        }
        queue.close();
        assert_eq!(waiter.join().unwrap(), (1, 0));
    }
}
