//! Calls of the host's functions: on a few threads of their own, never on a worker of the runtime, so that
//! a slow callback holds up no client. Each registration is called by one thread at a time and waits in
//! line at most once, which bounds the line by the number of registrations.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::runtime::{self, PerGeneration};
use parking_lot::{Condvar, Mutex};

use crate::boundary::Release;

/// Threads that call the host.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Pool {
    line: Mutex<Line>,
    arrived: Condvar,
}

// A child of a fork has none of the threads: it gets a pool of its own.
static POOL: PerGeneration<Pool> = PerGeneration::new();

impl Pool {
    fn push(&'static self, job: Job) {
        let mut line = self.line.lock();
        line.jobs.push_back(job);
        let wanted = line.jobs.len() > line.idle && line.threads < THREADS;
        if !wanted {
            drop(line);
            self.arrived.notify_one();
            return;
        }
        line.threads += 1;
        drop(line);
        let started = std::thread::Builder::new().name("ceiba-callback".into()).spawn(move || self.run());
        if started.is_err() {
            // `ready` started one at least, which takes it.
            self.line.lock().threads -= 1;
        }
    }

    fn ready(&'static self) -> Result<()> {
        let mut line = self.line.lock();
        if line.threads > 0 {
            return Ok(());
        }
        std::thread::Builder::new().name("ceiba-callback".into()).spawn(move || self.run()).map_err(
            |error| {
                Error::new(Kind::Internal, "no thread that calls the host can be started").caused_by(error)
            },
        )?;
        line.threads = 1;
        Ok(())
    }

    fn run(&self) {
        let mut line = self.line.lock();
        loop {
            match line.jobs.pop_front() {
                Some(job) => {
                    drop(line);
                    guarded(job);
                    line = self.line.lock();
                }
                None => {
                    line.idle += 1;
                    self.arrived.wait(&mut line);
                    line.idle -= 1;
                }
            }
        }
    }
}

fn guarded(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a callback panicked");
    }
}

/// Sees to it that there is a thread for calls of the host; before a function of the host is kept.
pub(crate) fn ready() -> Result<()> {
    POOL.get_or_try_init(|| Ok(Pool::default()))?.ready()
}

fn push(job: Job) {
    // Whoever keeps a function has called `ready`, so that there is a pool.
    if let Ok(pool) = POOL.get_or_try_init(|| Ok(Pool::default())) {
        pool.push(job);
    }
}

/// Runs this at once, or on the pool when the thread is one of the runtime.
pub(crate) fn off_the_runtime(job: impl FnOnce() + Send + 'static) {
    if runtime::refuse_on_runtime_thread().is_err() {
        push(Box::new(job));
    } else {
        job();
    }
}

#[derive(Default)]
struct State {
    queued: bool,
    running: bool,
    again: bool,
    closed: bool,
}

/// A function of the host that is called when something happens, until it is closed; then its release is.
pub(crate) struct Registration {
    generation: u32,
    work: Box<dyn Fn() + Send + Sync>,
    release: Mutex<Option<Release>>,
    state: Mutex<State>,
}

impl Registration {
    /// `work` calls the host. It must not hold a lock meanwhile.
    pub(crate) fn new(work: impl Fn() + Send + Sync + 'static, release: Release) -> Arc<Registration> {
        Arc::new(Registration {
            generation: runtime::generation(),
            work: Box::new(work),
            release: Mutex::new(Some(release)),
            state: Mutex::default(),
        })
    }

    /// Whether it was made by this process and not by one that it was forked from. A forked child must not
    /// touch the locks of its parent.
    pub(crate) fn is_own(&self) -> bool {
        self.generation == runtime::generation()
    }

    /// Has it called soon. Calls that wait already are enough.
    pub(crate) fn notify(self: &Arc<Self>) {
        if !self.is_own() {
            return;
        }
        {
            let mut state = self.state.lock();
            if state.closed || state.queued {
                return;
            }
            if state.running {
                state.again = true;
                return;
            }
            state.queued = true;
        }
        self.enqueue();
    }

    fn enqueue(self: &Arc<Self>) {
        let this = self.clone();
        push(Box::new(move || this.run()));
    }

    fn run(self: Arc<Self>) {
        let closed = {
            let mut state = self.state.lock();
            state.queued = false;
            state.running = !state.closed;
            state.closed
        };
        if closed {
            self.let_go();
            return;
        }
        let ended = Ended(&self);
        (self.work)();
        drop(ended);
    }

    /// Whether no further call should begin.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Has it called no more. The release is called before this returns, or by the thread that is calling
    /// when this comes.
    pub(crate) fn close(&self) {
        if !self.is_own() {
            return;
        }
        let idle = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.closed = true;
            !state.running && !state.queued
        };
        if idle {
            self.let_go();
        }
    }

    fn let_go(&self) {
        let release = self.release.lock().take();
        drop(release);
    }
}

// A panic in the work must not leave the registration running for ever.
struct Ended<'a>(&'a Arc<Registration>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let (closed, again) = {
            let mut state = self.0.state.lock();
            state.running = false;
            let again = std::mem::take(&mut state.again) && !state.closed;
            state.queued = again;
            (state.closed, again)
        };
        if closed {
            self.0.let_go();
        } else if again {
            self.0.enqueue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    extern "C" fn count(_user: *mut c_void) {
        RELEASES.fetch_add(1, Ordering::SeqCst);
    }

    static RELEASES: AtomicUsize = AtomicUsize::new(0);

    fn until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }

    #[test]
    fn calls_are_serial_and_the_release_comes_last_and_once() {
        let calls = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let registration = {
            let (calls, inside) = (calls.clone(), inside.clone());
            Registration::new(
                move || {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    assert_eq!(RELEASES.load(Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_micros(50));
                    calls.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                },
                Release::new(Some(count), std::ptr::null_mut()),
            )
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| registration.notify()));
            }
        });
        until(|| {
            let state = registration.state.lock();
            !state.queued && !state.running
        });
        assert!((1..=800).contains(&calls.load(Ordering::SeqCst)));
        registration.notify();
        registration.close();
        registration.close();
        until(|| RELEASES.load(Ordering::SeqCst) == 1);
        let before = calls.load(Ordering::SeqCst);
        registration.notify();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!((calls.load(Ordering::SeqCst), RELEASES.load(Ordering::SeqCst)), (before, 1));
    }
}
