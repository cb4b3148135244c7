//! Waiting without the interpreter's lock, in slices between which signals are looked for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::runtime;
use pyo3::prelude::*;

use crate::failure::{Failure, panicked};

/// How long a Ctrl-C may go unseen.
const SLICE: Duration = Duration::from_millis(100);

/// Runs a future to its end. An exception of a signal handler drops it, which cancels its call.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send,
) -> Result<T, Failure> {
    let generation = runtime::generation();
    let mut future = Box::pin(future);
    loop {
        let step = py.detach(|| {
            let slice = || {
                runtime::block_on(async {
                    match tokio::time::timeout(SLICE, future.as_mut()).await {
                        Ok(result) => result.map(Some),
                        Err(_) => Ok(None),
                    }
                })
            };
            catch_unwind(AssertUnwindSafe(slice)).unwrap_or_else(|panic| Err(panicked(&*panic)))
        });
        if let Some(value) = step? {
            return Ok(value);
        }
        let signals = py.check_signals();
        if runtime::generation() != generation {
            // A signal handler forked, and this is the child: the future belongs to threads that are gone.
            std::mem::forget(future);
            signals?;
            return Err(forked().into());
        }
        signals?;
    }
}

/// Calls `step` with the time it may take, until it returns something or `timeout` passes (`None`: never).
pub(crate) fn wait_in_slices<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> Result<Option<T>, Failure> {
    let generation = runtime::generation();
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()));
        let slice = left.min(SLICE);
        if let Some(value) = py.detach(|| step(slice)) {
            return Ok(Some(value));
        }
        py.check_signals()?;
        if runtime::generation() != generation {
            return Err(forked().into());
        }
        if left <= slice && until.is_some() {
            return Ok(None);
        }
    }
}

fn forked() -> Error {
    Error::new(Kind::Forked, "the process was forked while the call waited: this is the child")
}
