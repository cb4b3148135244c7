//! The threads that call a host which may block: they belong to one producer and not to the runtime, so that the host
//! may make any call of the library in them, and a host that is stuck takes nothing from the other clients.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::NAME;
use crate::error::{Error, Kind, Result};

/// How long a thread waits for work before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Line {
    // The caller's bound on what is under way bounds it.
    work: VecDeque<Work>,
    idle: usize,
    threads: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

/// Up to `most` threads, started when they are needed. Those that are stuck in the host when this is dropped end when
/// the host returns.
pub(super) struct Threads {
    most: usize,
    shared: Arc<Shared>,
}

impl Threads {
    pub(super) fn new(most: usize) -> Threads {
        Threads { most, shared: Arc::default() }
    }

    /// Has a thread do this as soon as one is free.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut line = self.shared.line.lock();
        line.work.push_back(Box::new(work));
        if line.work.len() <= line.idle || line.threads >= self.most {
            drop(line);
            self.shared.changed.notify_one();
            return Ok(());
        }
        let shared = self.shared.clone();
        match std::thread::Builder::new().name("ceiba-host".into()).spawn(move || serve(&shared)) {
            Ok(_) => line.threads += 1,
            // Another thread takes it.
            Err(_) if line.threads > 0 => {}
            Err(error) => {
                let work = line.work.pop_back();
                drop(line);
                drop(work);
                let text = "no thread that calls the host can be started";
                return Err(Error::new(Kind::Internal, text).caused_by(error).by(NAME));
            }
        }
        Ok(())
    }

    /// Has the threads end when there is no work left.
    pub(super) fn close(&self) {
        self.shared.line.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(shared: &Shared) {
    let mut line = shared.line.lock();
    loop {
        if let Some(work) = line.work.pop_front() {
            drop(line);
            // What panics has answered by being dropped.
            let _ = catch_unwind(AssertUnwindSafe(work));
            line = shared.line.lock();
            continue;
        }
        let mut late = line.closed;
        if !late {
            line.idle += 1;
            late = shared.changed.wait_for(&mut line, PATIENCE).timed_out();
            line.idle -= 1;
        }
        if (late || line.closed) && line.work.is_empty() {
            line.threads -= 1;
            return;
        }
    }
}
