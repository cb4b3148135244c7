//! Log events for Python's `logging`: put into a bounded queue by whoever logs, taken out by one Python
//! thread. Nobody who logs waits or calls Python.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ceiba_core::error::Result as CoreResult;
use ceiba_core::log_line::LogLine;
use ceiba_core::runtime::PerGeneration;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::failure::{Failure, invalid};
use crate::wait::wait_in_slices;

/// Records that wait at most; further ones are dropped and counted.
const CAPACITY: usize = 4096;
/// Only events of our own are forwarded: those of the libraries below could quote what must not be told.
const OURS: &str = "ceiba_core";

// 0 is off, then 1 for errors to 5 for all.
static LEVEL: AtomicUsize = AtomicUsize::new(0);
static QUEUES: PerGeneration<Queue> = PerGeneration::new();

struct Record {
    level: Level,
    target: &'static str,
    text: String,
    created: f64,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Record>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    dropped: AtomicU64,
}

fn queue() -> CoreResult<&'static Queue> {
    QUEUES.get_or_try_init(|| Ok(Queue::default()))
}

const fn rank(level: Level) -> usize {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// The number that Python's `logging` has for a level.
const fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

struct Bridge;

impl<S: Subscriber> Layer<S> for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with(OURS) && rank(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(queue) = QUEUES.get() else { return };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let metadata = event.metadata();
        let record = Record {
            level: *metadata.level(),
            target: metadata.target(),
            text: LogLine::of(event).cut(),
            created: since.as_secs_f64(),
        };
        let mut waiting = queue.waiting.lock();
        if waiting.closed {
            return;
        }
        if waiting.records.len() >= CAPACITY {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.records.push_back(record);
        drop(waiting);
        queue.arrived.notify_one();
    }
}

/// Sets the least level that is forwarded, as `logging` numbers it; `None` turns it off.
#[pyfunction]
#[pyo3(signature = (level))]
pub(crate) fn _log_level(level: Option<u32>) -> Result<(), Failure> {
    let rank = match level {
        None => 0,
        Some(40..) => 1,
        Some(30..) => 2,
        Some(20..) => 3,
        Some(10..) => 4,
        Some(_) => 5,
    };
    let queue = queue()?;
    queue.waiting.lock().closed = false;
    LEVEL.store(rank, Ordering::Release);
    static INSTALLED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Bridge);
        tracing::subscriber::set_global_default(subscriber).is_ok()
    });
    if !installed {
        return Err(invalid("another receiver of log events is installed in this library"));
    }
    // Events that were found disabled are looked at again.
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

type Taken = (u32, &'static str, String, f64);

/// Takes up to `max` records, waiting up to `timeout` seconds for the first: records, how many were dropped
/// since the last call, and whether no more will come.
#[pyfunction]
pub(crate) fn _log_take(
    py: Python<'_>,
    max: usize,
    timeout: f64,
) -> Result<(Vec<Taken>, u64, bool), Failure> {
    let queue = queue()?;
    let timeout = Duration::try_from_secs_f64(timeout).map_err(|_| invalid("`timeout` is out of range"))?;
    let step = |slice: Duration| {
        let mut waiting = queue.waiting.lock();
        if waiting.records.is_empty() && !waiting.closed {
            queue.arrived.wait_for(&mut waiting, slice);
        }
        let count = waiting.records.len().min(max);
        let ended = waiting.closed && count == waiting.records.len();
        let records: Vec<Record> = waiting.records.drain(..count).collect();
        (count > 0 || ended).then_some((records, ended))
    };
    let (records, ended) = wait_in_slices(py, Some(timeout), step)?.unwrap_or_default();
    let records = records
        .into_iter()
        .map(|record| (number(record.level), record.target, record.text, record.created))
        .collect();
    Ok((records, queue.dropped.swap(0, Ordering::Relaxed), ended))
}

/// Says that no more records come: the thread that takes them ends after the last.
#[pyfunction]
pub(crate) fn _log_close() -> Result<(), Failure> {
    LEVEL.store(0, Ordering::Release);
    let queue = queue()?;
    queue.waiting.lock().closed = true;
    queue.arrived.notify_all();
    Ok(())
}

/// In the child of a fork of a process that logs: starts the thread that the fork did not copy.
pub(crate) fn resume(py: Python<'_>) -> Result<(), Failure> {
    if LEVEL.load(Ordering::Acquire) > 0 && QUEUES.get().is_none() {
        queue()?;
        py.import("ceiba._logging")?.call_method0("_start")?;
    }
    Ok(())
}
