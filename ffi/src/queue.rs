//! Completion queues: where submits end.

use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ceiba_core::completion::{Completion, CompletionQueue};
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::runtime;
use parking_lot::Mutex;

use crate::boundary::{
    HostFn, Release, User, asked_for, give, in_place, invalid, lend, needed, needed_mut, put, take_back, view,
};
use crate::callback::{self, Registration};
use crate::error::{CEIBA_OK, HeldError, ceiba_error};
use crate::receipt::ceiba_receipt;

/// A queue as the caller holds it. Producers hold the inner one, which outlives this.
pub(crate) struct HeldQueue {
    queue: Arc<CompletionQueue>,
    generation: u32,
    callback: Arc<Mutex<Option<Arc<Registration>>>>,
    closed: AtomicBool,
}

impl HeldQueue {
    // Before anything else is touched: the locks and the descriptor are shared with the parent.
    fn own(&self) -> Result<&HeldQueue> {
        if self.generation != runtime::generation() {
            return Err(Error::new(
                Kind::Forked,
                "the completion queue was made before the fork and belongs to the parent process: make a new one",
            ));
        }
        Ok(self)
    }
}

opaque! {
    /// A bounded queue of completions. Made by the caller, given to producers when they open, and freed with
    /// ceiba_queue_free(). All functions but that may be called by any number of threads at once.
    ceiba_queue => HeldQueue
}

/// The queue that a producer is opened with; `None` for NULL.
pub(crate) fn of_this_process(queue: *const ceiba_queue) -> Result<Option<Arc<CompletionQueue>>> {
    view(queue).map(|held| held.own().map(|held| held.queue.clone())).transpose()
}

/// Makes a queue for `capacity` submits that are under way or not yet polled: 1 to 16777216. `queue` gets
/// it; the caller frees it.
///
/// Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the capacity is out of range.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_new(
    capacity: usize,
    queue: *mut *mut ceiba_queue,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        asked_for("queue", queue)?;
        let held = HeldQueue {
            queue: Arc::new(CompletionQueue::new(capacity)?),
            generation: runtime::generation(),
            callback: Arc::default(),
            closed: AtomicBool::new(false),
        };
        put(queue, || give(held));
        Ok(())
    })
}

/// A file descriptor that is readable while completions wait, for poll(), epoll or kqueue. It belongs to the
/// queue: do not close it. It need not be read: polling the queue empty clears it. -1 for NULL and in a
/// forked child.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_fd(queue: *const ceiba_queue) -> i32 {
    ffi_call!(else -1, {
        let held = view(queue).and_then(|held| held.own().ok());
        held.map_or(-1, |held| held.queue.fd().as_raw_fd())
    })
}

/// How many submits it has room for; 0 for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_capacity(queue: *const ceiba_queue) -> usize {
    ffi_call!(else 0, { view(queue).map_or(0, |held| held.queue.capacity()) })
}

/// How many submits are under way or not yet polled; 0 for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_length(queue: *const ceiba_queue) -> usize {
    ffi_call!(else 0, { view(queue).map_or(0, |held| held.queue.len()) })
}

/// Has `function` called with `user` when the queue goes from empty to non-empty, and once when it is set if
/// completions wait already. It replaces the function set before; NULL sets none. Several changes may give
/// one call, so poll until nothing is left.
///
/// `function` is called on a thread of the library's own, by one thread at a time, and may call any ceiba
/// function. `release` (may be NULL) is called once with `user` when no call can follow: soon after the
/// function is replaced or the queue freed, and also when this call fails.
///
/// Any thread; does not block. CEIBA_ERR_FORKED: the queue is the parent's.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_set_callback(
    queue: *const ceiba_queue,
    function: Option<extern "C" fn(user: *mut c_void)>,
    user: *mut c_void,
    release: Option<extern "C" fn(user: *mut c_void)>,
    error: *mut *mut ceiba_error,
) -> i32 {
    let release = Release::new(release, user);
    ffi_call!(error, {
        let held = needed("queue", queue)?.own()?;
        let registration = match function {
            Some(function) => {
                callback::ready()?;
                Some(registration(function, User(user), release))
            }
            None => {
                drop(release);
                None
            }
        };
        let before = std::mem::replace(&mut *held.callback.lock(), registration.clone());
        if let Some(before) = before {
            before.close();
        }
        if let Some(registration) = registration {
            let callback = held.callback.clone();
            // One closure for the life of the queue: it finds the function that is set then.
            let _ = held.queue.on_ready(Box::new(move || {
                let registration = callback.lock().clone();
                if let Some(registration) = registration {
                    registration.notify();
                }
            }));
            if held.queue.has_ready() {
                registration.notify();
            }
        }
        Ok(())
    })
}

fn registration(function: HostFn, user: User, release: Release) -> Arc<Registration> {
    let work = move || {
        let user = user;
        function(user.0);
    };
    Registration::new(work, release)
}

/// Takes up to `max` completions. `timeout_ms`: 0 takes what is there, a positive one waits so long for the
/// first, a negative one without end.
///
/// `completions` is in and out: a NULL gets a new batch, which the caller frees; the batch of an earlier poll
/// is emptied and filled again, which spares memory, and what was asked of it before is valid no more. The
/// batch may come out empty.
///
/// Any thread, each with its own batch; blocks as long as `timeout_ms` says. Errors: CEIBA_ERR_CLOSED (the
/// queue was closed and nothing is left), CEIBA_ERR_INVALID_ARGUMENT (`max` is 0), CEIBA_ERR_FORKED,
/// CEIBA_ERR_WOULD_DEADLOCK (to wait on a thread of the runtime).
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_poll(
    queue: *const ceiba_queue,
    max: usize,
    timeout_ms: i64,
    completions: *mut *mut ceiba_completions,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let held = needed("queue", queue)?.own()?;
        if max == 0 {
            return Err(invalid("`max` is 0: a poll takes at least 1 completion"));
        }
        let batch = in_place("completions", completions)?;
        if timeout_ms != 0 {
            runtime::refuse_on_runtime_thread()?;
        }
        let queue = held.queue.clone();
        if batch.is_null() {
            let mut new = Completions::default();
            new.fill(held, &queue, max, timeout_ms)?;
            put(completions, || give(new));
            Ok(())
        } else {
            needed_mut("completions", batch)?.fill(held, &queue, max, timeout_ms)
        }
    })
}

/// Ends waiting: threads in ceiba_queue_poll() return, and further polls do not wait. Completions that are
/// there, or still come, can be taken as before; when none are left, a poll gives CEIBA_ERR_CLOSED.
/// Producers that are open go on.
///
/// Any thread; does not block. CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_close(queue: *const ceiba_queue, error: *mut *mut ceiba_error) -> i32 {
    ffi_call!(error, {
        let held = needed("queue", queue)?.own()?;
        held.closed.store(true, Ordering::Release);
        held.queue.close();
        Ok(())
    })
}

/// Frees a queue. Producers opened with it keep it alive inside until they are closed: their submits go on
/// until it is full, and their completions can be polled no more. No other thread may be in a call with the
/// queue. The callback's release follows. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_queue_free(queue: *mut ceiba_queue) {
    ffi_call!(else (), {
        let Some(held) = take_back(queue) else { return };
        if held.own().is_err() {
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(held);
            return;
        }
        let callback = held.callback.lock().take();
        if let Some(callback) = callback {
            callback.close();
        }
    })
}

/// A batch of completions, with what is asked most often laid out as arrays.
#[derive(Default)]
pub(crate) struct Completions {
    items: Vec<Completion>,
    tokens: Vec<u64>,
    codes: Vec<i32>,
    // By place in the batch, rising.
    errors: Vec<(usize, HeldError)>,
}

impl Completions {
    fn fill(&mut self, held: &HeldQueue, queue: &CompletionQueue, max: usize, timeout_ms: i64) -> Result<()> {
        self.items.clear();
        self.tokens.clear();
        self.codes.clear();
        self.errors.clear();
        let count = match u64::try_from(timeout_ms) {
            Ok(0) => queue.poll(max, &mut self.items),
            Ok(wait) => queue.wait(max, Some(Duration::from_millis(wait)), &mut self.items),
            Err(_) => queue.wait(max, None, &mut self.items),
        };
        if count == 0 && held.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                Kind::Closed,
                "the completion queue was closed, and nothing is left in it",
            ));
        }
        for (place, item) in self.items.iter().enumerate() {
            self.tokens.push(item.token);
            self.codes.push(match &item.result {
                Ok(_) => CEIBA_OK,
                Err(error) => {
                    self.errors.push((place, HeldError::new(error.clone())));
                    error.kind().code()
                }
            });
        }
        Ok(())
    }
}

opaque! {
    /// A batch of completions. The caller frees it with ceiba_completions_free(), or gives it to the next
    /// poll. One thread at a time.
    ceiba_completions => Completions
}

/// How many completions the batch has; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_count(completions: *const ceiba_completions) -> usize {
    ffi_call!(else 0, { view(completions).map_or(0, |batch| batch.tokens.len()) })
}

/// The tokens, as an array of ceiba_completions_count() numbers; valid until the batch is freed or polled
/// into again.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_tokens(completions: *const ceiba_completions) -> *const u64 {
    ffi_call!(else std::ptr::null(), { view(completions).map_or(std::ptr::null(), |batch| first(&batch.tokens)) })
}

/// The codes, CEIBA_OK or CEIBA_ERR_*, as an array of ceiba_completions_count() numbers; valid until the
/// batch is freed or polled into again.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_codes(completions: *const ceiba_completions) -> *const i32 {
    ffi_call!(else std::ptr::null(), { view(completions).map_or(std::ptr::null(), |batch| first(&batch.codes)) })
}

// NULL for an empty array: some hosts refuse pointers into nowhere.
fn first<T>(items: &[T]) -> *const T {
    items.first().map_or(std::ptr::null(), std::ptr::from_ref)
}

/// The error of one, NULL where it succeeded. It belongs to the batch.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_error(
    completions: *const ceiba_completions,
    index: usize,
) -> *const ceiba_error {
    ffi_call!(else std::ptr::null(), {
        let error = view(completions).and_then(|batch| {
            let place = batch.errors.binary_search_by_key(&index, |(place, _)| *place).ok()?;
            batch.errors.get(place)
        });
        error.map_or(std::ptr::null(), |(_, error)| lend(error))
    })
}

/// The receipt of one, NULL where it failed. It belongs to the batch.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_receipt(
    completions: *const ceiba_completions,
    index: usize,
) -> *const ceiba_receipt {
    ffi_call!(else std::ptr::null(), {
        match view(completions).and_then(|batch| batch.items.get(index)) {
            Some(Completion { result: Ok(receipt), .. }) => lend(receipt),
            _ => std::ptr::null(),
        }
    })
}

/// Frees a batch, with the errors and receipts in it. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_completions_free(completions: *mut ceiba_completions) {
    ffi_call!(else (), { drop(take_back(completions)) })
}
