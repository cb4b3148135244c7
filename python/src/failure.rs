//! From errors of the core to Python exceptions.

use std::any::Any;

use ceiba_core::error::{Error, Kind, Outcome, Part};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};

/// Why a call failed: an error of the core, or an exception that Python raised on the way.
pub(crate) enum Failure {
    Core(Error),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        match failure {
            Failure::Python(error) => error,
            Failure::Core(error) => {
                Python::attach(|py| instance(py, &error).map_or_else(|failed| failed, PyErr::from_value))
            }
        }
    }
}

/// An `invalid_argument`.
pub(crate) fn invalid(text: impl Into<String>) -> Failure {
    Failure::Core(Error::new(Kind::InvalidArgument, text))
}

/// A `TypeError`.
pub(crate) fn wrong_type(text: impl Into<String>) -> Failure {
    Failure::Python(PyTypeError::new_err(text.into()))
}

/// The name of an object's type, for messages.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The error `internal` for a panic: a fault here ends one call, not the program.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Error {
    let detail = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::new(Kind::Internal, format!("a fault of the library ended the call: {detail}"))
        .outcome_is(Outcome::Unknown)
}

static CLASSES: PyOnceLock<Vec<Py<PyAny>>> = PyOnceLock::new();

/// The exception object of an error, of the class for its kind.
pub(crate) fn instance<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let classes = CLASSES.get_or_try_init(py, || {
        let by_code = py.import("ceiba._errors")?.getattr("BY_CODE")?;
        PyResult::Ok(by_code.cast::<PyList>()?.iter().map(Bound::unbind).collect())
    })?;
    let place = usize::try_from(error.kind().code()).unwrap_or_default();
    let class = classes
        .get(place)
        .ok_or_else(|| PyTypeError::new_err(format!("no exception class for code {place}")))?
        .bind(py);
    class.call1((
        error.text(),
        error.outcome().name(),
        error.retryable(),
        error.retry_after().map(|wait| wait.as_secs_f64()),
        error.provider(),
        error.attempts(),
        parts(py, error.parts())?,
    ))
}

/// The objects of what an error or a receipt is made of.
pub(crate) fn parts<'py>(py: Python<'py>, parts: &[Part]) -> PyResult<Bound<'py, PyTuple>> {
    if parts.is_empty() {
        return Ok(PyTuple::empty(py));
    }
    let class = py.import("ceiba._errors")?.getattr("Part")?;
    let mut objects = Vec::with_capacity(parts.len());
    for part in parts {
        let error = part.error.as_ref().map(|error| instance(py, error)).transpose()?;
        objects.push(class.call1((part.of.name(), &*part.name, part.message_id.as_deref(), error))?);
    }
    PyTuple::new(py, objects)
}
