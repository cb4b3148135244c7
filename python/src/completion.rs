//! How submits ended.

use std::time::Duration;

use ceiba_core::completion as core_completion;
use pyo3::prelude::*;

use crate::failure::{self, Failure, invalid};
use crate::message::Receipt;
use crate::wait::wait_in_slices;
use crate::{input, state};

/// How one submit ended: with a receipt or with an error.
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Completion(core_completion::Completion);

#[pymethods]
impl Completion {
    /// The token that the submit returned.
    #[getter]
    fn token(&self) -> u64 {
        self.0.token
    }

    /// The receipt, if the message was sent.
    #[getter]
    fn receipt(&self) -> Option<Receipt> {
        self.0.result.as_ref().ok().cloned().map(Receipt)
    }

    /// The error, if it was not.
    #[getter]
    fn error<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.result.as_ref().err().map(|error| failure::instance(py, error)).transpose()
    }

    /// Whether the message was sent.
    #[getter]
    fn ok(&self) -> bool {
        self.0.result.is_ok()
    }

    /// The receipt; raises the error.
    fn result(&self) -> Result<Receipt, Failure> {
        match &self.0.result {
            Ok(receipt) => Ok(Receipt(receipt.clone())),
            Err(error) => Err(error.clone().into()),
        }
    }

    fn __repr__(&self) -> String {
        let ending = self.0.result.as_ref().map_or_else(|error| error.kind().name(), |_| "sent");
        format!("<ceiba.Completion {} {ending}>", self.0.token)
    }
}

/// How long to wait; `None` is without end, which differs from an argument left out.
pub(crate) struct Limit(Option<Duration>);

impl<'a, 'py> FromPyObject<'a, 'py> for Limit {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Limit> {
        let given = (!value.is_none()).then_some(&*value);
        Ok(Limit(input::timeout(given)?))
    }
}

/// Takes finished submits of all producers, up to `max`, waiting up to `timeout` for the first (`None`:
/// until one comes). Each accepted submit is told exactly once.
#[pyfunction]
#[pyo3(signature = (max=1024, timeout=Limit(Some(Duration::ZERO))), text_signature = "(max=1024, timeout=0)")]
pub(crate) fn completions(py: Python<'_>, max: usize, timeout: Limit) -> Result<Vec<Completion>, Failure> {
    if max == 0 {
        return Err(invalid("`max` must be at least 1"));
    }
    let queue = state::queue()?;
    let mut taken = Vec::new();
    if queue.poll(max, &mut taken) == 0 {
        let step = |slice| {
            let mut taken = Vec::new();
            (queue.wait(max, Some(slice), &mut taken) > 0).then_some(taken)
        };
        if timeout.0 != Some(Duration::ZERO) {
            taken = wait_in_slices(py, timeout.0, step)?.unwrap_or_default();
        }
    }
    Ok(taken.into_iter().map(Completion).collect())
}

/// A file descriptor that is readable while completions wait. Watch it; do not read or close it. A child of
/// a fork asks for its own.
#[pyfunction]
pub(crate) fn completions_fd() -> Result<i32, Failure> {
    use std::os::fd::AsRawFd;
    Ok(state::queue()?.fd().as_raw_fd())
}

/// Sets how many submits of all producers may be under way or not yet taken (1,048,576 unless set); before
/// the first client opens.
#[pyfunction]
pub(crate) fn set_completion_capacity(capacity: usize) -> Result<(), Failure> {
    Ok(state::set_capacity(capacity)?)
}
