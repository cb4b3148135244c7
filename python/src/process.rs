//! What concerns the whole process: its threads, its end, its forks, its files of clients.

use std::path::PathBuf;
use std::time::Duration;

use ceiba_core::calls::{self, ShutdownReport};
use ceiba_core::config::Role;
use ceiba_core::error::{Error, Kind};
use ceiba_core::runtime;
use pyo3::prelude::*;

use crate::failure::Failure;
use crate::wait::wait;
use crate::{input, log, state};

/// How long the end of the program may wait for sends under way.
const AT_EXIT: Duration = Duration::from_secs(5);

/// The largest file of clients.
const FILE: u64 = 16 << 20;

/// Opens every client of a JSON file, or the one whose config the file is; none is left open when one fails. Returns roles and ids in order.
#[pyfunction]
pub(crate) fn open_file(py: Python<'_>, path: PathBuf) -> Result<Vec<(&'static str, String)>, Failure> {
    let text = py.detach(|| read(&path))?;
    let queue = state::queue()?.clone();
    log::resume(py)?;
    let opened = wait(py, calls::open_file(&text, Some(queue)))?;
    Ok(opened
        .into_iter()
        .map(|(role, id)| {
            let role = match role {
                Role::Producer => "producer",
                Role::Consumer => "consumer",
            };
            (role, id.as_ref().to_owned())
        })
        .collect())
}

fn read(path: &std::path::Path) -> Result<String, Error> {
    let wrong = |text: String| Error::new(Kind::InvalidArgument, format!("{}: {text}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong("cannot be read".into()).caused_by(error))?;
    if size.len() > FILE {
        return Err(wrong(format!("has {} bytes; a file of clients has at most {FILE}", size.len())));
    }
    std::fs::read_to_string(path).map_err(|error| wrong("cannot be read as text".into()).caused_by(error))
}

/// Closes every client, all within `timeout` seconds. Returns how many ended `clean`, `forced` (some of
/// their sends had to be ended) and `failed`. New ones can be opened afterwards.
#[pyfunction]
#[pyo3(signature = (timeout=None), text_signature = "(timeout=10)")]
pub(crate) fn shutdown<'py>(
    py: Python<'py>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, pyo3::types::PyDict>, Failure> {
    let timeout = input::timeout(timeout)?.unwrap_or(Duration::from_secs(10));
    let report = close_all(py, timeout)?;
    let dict = pyo3::types::PyDict::new(py);
    dict.set_item("clean", report.clean)?;
    dict.set_item("forced", report.forced)?;
    dict.set_item("failed", report.failed)?;
    Ok(dict)
}

/// What all open producers and consumers count, as Prometheus text: each number of their statuses with the client's
/// id, and those of strategies and members with their names. Empty where nothing is open.
#[pyfunction]
pub(crate) fn metrics(py: Python<'_>) -> String {
    py.detach(calls::metrics)
}

fn close_all(py: Python<'_>, timeout: Duration) -> Result<ShutdownReport, Failure> {
    // A process that opened nothing starts no threads for its end.
    if !state::in_use() {
        return Ok(ShutdownReport::default());
    }
    wait(py, calls::shutdown(timeout))
}

/// Sets how many threads run the clients (one per processor unless set); before the first client opens.
#[pyfunction]
pub(crate) fn set_workers(workers: usize) -> Result<(), Failure> {
    Ok(runtime::configure_workers(workers)?)
}

/// The id that a config names, or `None`.
#[pyfunction]
pub(crate) fn _config_id(config: &Bound<'_, PyAny>) -> Result<Option<String>, Failure> {
    Ok(input::config(config)?.id)
}

/// Called in the child of a fork, before anything else of this module.
#[pyfunction]
pub(crate) fn _after_fork() {
    runtime::after_fork_in_child();
}

/// Called once when the interpreter ends.
#[pyfunction]
pub(crate) fn _at_exit(py: Python<'_>) -> Result<(), Failure> {
    close_all(py, AT_EXIT).map(drop)
}
