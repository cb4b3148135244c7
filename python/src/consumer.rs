//! The calls of a consumer, by its id.

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind, Result as CoreResult};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::delivery::Delivery;
use crate::failure::{self, Failure, wrong_type};
use crate::input::{self, Text, text};
use crate::wait::wait;
use crate::{json, log, state};

/// Opens a consumer and returns its id: the one given, or the config's own.
///
/// Waits for the first connection, up to the config's `connect_timeout`.
#[pyfunction]
#[pyo3(signature = (config, id=None))]
pub(crate) fn consumer_open(
    py: Python<'_>,
    config: &Bound<'_, PyAny>,
    id: Option<Text<'_>>,
) -> Result<String, Failure> {
    let config = input::config(config)?;
    state::queue()?;
    log::resume(py)?;
    let id = wait(py, calls::consumer_open(id.map(|id| id.0), config))?;
    Ok(id.as_ref().to_owned())
}

/// Waits for deliveries and returns up to `max`; none when `timeout` (or the client's deadline) passes.
#[pyfunction]
#[pyo3(signature = (id, max=1, timeout=None))]
pub(crate) fn consumer_receive(
    py: Python<'_>,
    id: Text<'_>,
    max: usize,
    timeout: Option<&Bound<'_, PyAny>>,
) -> Result<Vec<Delivery>, Failure> {
    let timeout = input::timeout(timeout)?;
    let deliveries = wait(py, calls::consumer_receive(id.0, max, timeout))?;
    let id: Arc<str> = id.0.into();
    Ok(deliveries.into_iter().map(|delivery| Delivery::new(id.clone(), delivery)).collect())
}

/// Acknowledges a delivery by its code.
#[pyfunction]
pub(crate) fn consumer_ack(py: Python<'_>, id: Text<'_>, code: Text<'_>) -> Result<(), Failure> {
    ack_one(py, id.0, code.0.into())
}

/// Acknowledges several; `None` or an `Error` (not raised) for each code, in their order.
#[pyfunction]
pub(crate) fn consumer_ack_many<'py>(
    py: Python<'py>,
    id: Text<'_>,
    codes: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyList>, Failure> {
    let codes = read_codes(codes)?;
    results(py, wait(py, calls::consumer_ack(id.0, codes))?)
}

/// Gives a delivery back by its code, to come again after `delay`.
#[pyfunction]
#[pyo3(signature = (id, code, delay=None), text_signature = "(id, code, delay=0)")]
pub(crate) fn consumer_nack(
    py: Python<'_>,
    id: Text<'_>,
    code: Text<'_>,
    delay: Option<&Bound<'_, PyAny>>,
) -> Result<(), Failure> {
    let delay = input::delay(delay)?;
    nack_one(py, id.0, code.0.into(), delay)
}

/// Gives several back; `None` or an `Error` (not raised) for each code, in their order.
#[pyfunction]
#[pyo3(signature = (id, codes, delay=None), text_signature = "(id, codes, delay=0)")]
pub(crate) fn consumer_nack_many<'py>(
    py: Python<'py>,
    id: Text<'_>,
    codes: &Bound<'py, PyAny>,
    delay: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyList>, Failure> {
    let delay = input::delay(delay)?;
    let codes = read_codes(codes)?;
    results(py, wait(py, calls::consumer_nack(id.0, codes, delay))?)
}

/// The live state.
#[pyfunction]
pub(crate) fn consumer_status<'py>(py: Python<'py>, id: Text<'_>) -> Result<Bound<'py, PyAny>, Failure> {
    let status = calls::consumer_status(id.0)?;
    Ok(json::to_python(py, &status)?)
}

/// Closes a consumer; its id is free when this returns. Receives under way raise `Closed`.
#[pyfunction]
#[pyo3(signature = (id, *, timeout=None))]
pub(crate) fn consumer_close(
    py: Python<'_>,
    id: Text<'_>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> Result<(), Failure> {
    let timeout = input::timeout(timeout)?;
    wait(py, calls::consumer_close(id.0, timeout))
}

pub(crate) fn ack_one(py: Python<'_>, id: &str, code: Arc<str>) -> Result<(), Failure> {
    only(wait(py, calls::consumer_ack(id, vec![code]))?)
}

pub(crate) fn nack_one(py: Python<'_>, id: &str, code: Arc<str>, delay: Duration) -> Result<(), Failure> {
    only(wait(py, calls::consumer_nack(id, vec![code], delay))?)
}

fn only(results: Vec<CoreResult<()>>) -> Result<(), Failure> {
    let missing = || Err(Error::new(Kind::Internal, "no result came for a code"));
    Ok(results.into_iter().next().unwrap_or_else(missing)?)
}

fn read_codes(codes: &Bound<'_, PyAny>) -> Result<Vec<Arc<str>>, Failure> {
    if codes.is_instance_of::<PyString>() {
        return Err(wrong_type("`codes` is a list of str, not one str"));
    }
    codes.try_iter()?.map(|code| Ok(text("codes", &code?)?.into())).collect()
}

fn results<'py>(py: Python<'py>, results: Vec<CoreResult<()>>) -> Result<Bound<'py, PyList>, Failure> {
    let list = PyList::empty(py);
    for result in results {
        match result {
            Ok(()) => list.append(py.None())?,
            Err(error) => list.append(failure::instance(py, &error)?)?,
        }
    }
    Ok(list)
}
