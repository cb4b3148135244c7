//! The calls of a producer, by its id.

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyRange, PyString};

use crate::failure::{self, Failure, wrong_type};
use crate::input::{self, Body, Text};
use crate::message::{Receipt, build, take_timeout};
use crate::wait::wait;
use crate::{json, log, state};

/// Opens a producer and returns its id: the one given, or the config's own.
///
/// Waits for the first connection, up to the config's `connect_timeout`.
#[pyfunction]
#[pyo3(signature = (config, id=None))]
pub(crate) fn producer_open(
    py: Python<'_>,
    config: &Bound<'_, PyAny>,
    id: Option<Text<'_>>,
) -> Result<String, Failure> {
    let config = input::config(config)?;
    let queue = state::queue()?.clone();
    log::resume(py)?;
    let id = wait(py, calls::producer_open(id.map(|id| id.0), config, Some(queue)))?;
    Ok(id.as_ref().to_owned())
}

/// Sends a message and waits for its receipt, until `timeout` or the client's deadline.
#[pyfunction]
#[pyo3(signature = (id, data, delay=None, **fields),
       text_signature = "(id, data, delay=0, *, timeout=None, content_type=None, key=None, tag=None, topic=None, \
                         template=None, args=None, recipients=(), attributes=None, attachments=())")]
pub(crate) fn producer_send(
    py: Python<'_>,
    id: Text<'_>,
    data: &Bound<'_, PyAny>,
    delay: Option<&Bound<'_, PyAny>>,
    fields: Option<&Bound<'_, PyDict>>,
) -> Result<Receipt, Failure> {
    let timeout = take_timeout(fields)?;
    let message = build("producer_send", data, delay, fields)?;
    wait(py, calls::producer_send(id.0, message, timeout)).map(Receipt)
}

/// Sends several bodies or `Message`s; a `Receipt` or an `Error` (not raised) for each, in their order.
#[pyfunction]
#[pyo3(signature = (id, messages, *, timeout=None))]
pub(crate) fn producer_send_batch<'py>(
    py: Python<'py>,
    id: Text<'_>,
    messages: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyList>, Failure> {
    let timeout = input::timeout(timeout)?;
    refuse_one_body("messages", messages)?;
    let mut batch = Vec::new();
    for message in messages.try_iter()? {
        batch.push(build("producer_send_batch", &message?, None, None)?);
    }
    let results = wait(py, calls::producer_send_batch(id.0, batch, timeout))?;
    let list = PyList::empty(py);
    for result in results {
        match result {
            Ok(receipt) => list.append(Receipt(receipt))?,
            Err(error) => list.append(failure::instance(py, &error)?)?,
        }
    }
    Ok(list)
}

// A str or bytes is a sequence too, of pieces that nobody means to send one by one.
fn refuse_one_body(name: &str, value: &Bound<'_, PyAny>) -> Result<(), Failure> {
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(wrong_type(format!("`{name}` is a list of bodies, not one body")));
    }
    Ok(())
}

/// Submits a body without waiting and returns its token; `completions()` tells how it ended.
///
/// Raises `QueueFull` at once when too much is under way.
#[pyfunction]
#[pyo3(signature = (id, data, delay=None), text_signature = "(id, data, delay=0)")]
pub(crate) fn producer_submit(
    id: Text<'_>,
    data: Body<'_>,
    delay: Option<&Bound<'_, PyAny>>,
) -> Result<u64, Failure> {
    let delay = input::delay(delay)?;
    let token = state::tokens(1);
    calls::producer_submit(id.0, token, data.as_slice(), delay)?;
    Ok(token)
}

/// Submits several bodies at the cost of about one, and returns the range of their tokens.
///
/// The range is shorter than the list when there was room for the first ones only; `QueueFull` is raised
/// when there was room for none.
#[pyfunction]
#[pyo3(signature = (id, data, delay=None), text_signature = "(id, data, delay=0)")]
pub(crate) fn producer_submit_many<'py>(
    py: Python<'py>,
    id: Text<'_>,
    data: &Bound<'py, PyAny>,
    delay: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyRange>, Failure> {
    let delay = input::delay(delay)?;
    refuse_one_body("data", data)?;
    let items: Vec<Bound<'py, PyAny>> = match data.cast::<PyList>() {
        Ok(list) => list.iter().collect(),
        Err(_) => data.try_iter()?.collect::<PyResult<_>>()?,
    };
    let bodies = items.iter().map(|item| item.extract::<Body<'_>>()).collect::<PyResult<Vec<_>>>()?;
    let first = state::tokens(bodies.len() as u64);
    let slices = bodies.iter().map(Body::as_slice);
    let accepted = calls::producer_submit_many(id.0, first, slices, delay)?;
    let bound =
        |token: u64| isize::try_from(token).map_err(|_| Error::new(Kind::Internal, "the tokens are used up"));
    Ok(PyRange::new(py, bound(first)?, bound(first + accepted as u64)?)?)
}

/// Submits a full message without waiting and returns its token.
#[pyfunction]
#[pyo3(signature = (id, data, delay=None, **fields),
       text_signature = "(id, data, delay=0, *, timeout=None, content_type=None, key=None, tag=None, topic=None, \
                         template=None, args=None, recipients=(), attributes=None, attachments=())")]
pub(crate) fn producer_submit_message(
    id: Text<'_>,
    data: &Bound<'_, PyAny>,
    delay: Option<&Bound<'_, PyAny>>,
    fields: Option<&Bound<'_, PyDict>>,
) -> Result<u64, Failure> {
    let timeout = take_timeout(fields)?;
    let message = build("producer_submit_message", data, delay, fields)?;
    let token = state::tokens(1);
    calls::producer_submit_message(id.0, token, message, timeout)?;
    Ok(token)
}

/// Asks for a submit to end as cancelled. One that has ended is left alone.
#[pyfunction]
pub(crate) fn producer_cancel(id: Text<'_>, token: u64) -> Result<(), Failure> {
    Ok(calls::producer_cancel(id.0, token)?)
}

/// Waits until every earlier send and submit of this producer has ended.
#[pyfunction]
#[pyo3(signature = (id, *, timeout=None))]
pub(crate) fn producer_flush(
    py: Python<'_>,
    id: Text<'_>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> Result<(), Failure> {
    let timeout = input::timeout(timeout)?;
    wait(py, calls::producer_flush(id.0, timeout))
}

/// The live state.
#[pyfunction]
pub(crate) fn producer_status<'py>(py: Python<'py>, id: Text<'_>) -> Result<Bound<'py, PyAny>, Failure> {
    let status = calls::producer_status(id.0)?;
    Ok(json::to_python(py, &status)?)
}

/// Changes the live state of a strategy and returns what it is then. `command` names the strategy, as in
/// `{"strategy": "failover", "current": 0}` and `{"strategy": "circuit_breaker", "state": "open"}`.
#[pyfunction]
pub(crate) fn producer_control<'py>(
    py: Python<'py>,
    id: Text<'_>,
    command: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyAny>, Failure> {
    let command = json::from_python("command", command).map_err(|failed| match failed {
        Failure::Core(error) => Failure::Core(Error::new(Kind::InvalidArgument, error.message())),
        failed => failed,
    })?;
    let state = calls::producer_control(id.0, &command)?;
    Ok(json::to_python(py, &state)?)
}

/// Closes a producer; its id is free when this returns, or when a callable that is stuck has returned. Sends under way
/// end within `timeout` (or the client's deadline); `Timeout` says that some had to be ended.
#[pyfunction]
#[pyo3(signature = (id, *, timeout=None))]
pub(crate) fn producer_close(
    py: Python<'_>,
    id: Text<'_>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> Result<(), Failure> {
    let timeout = input::timeout(timeout)?;
    wait(py, calls::producer_close(id.0, timeout))
}
