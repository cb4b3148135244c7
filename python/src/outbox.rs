//! The rows of outboxes; the class over it is in the package.

use ceiba_core::calls::outbox::{self, Operation};
use ceiba_core::error::{Error, Kind};
use pyo3::prelude::*;
use serde_json::Value;

use crate::failure::{Failure, invalid};
use crate::input::{self, Text};
use crate::wait::wait;
use crate::{json, log};

/// Carries out an operation on an outbox.
#[pyfunction]
#[pyo3(signature = (operation, target, options=None, timeout=None))]
pub(crate) fn _outbox<'py>(
    py: Python<'py>,
    operation: Text<'_>,
    target: Text<'_>,
    options: Option<&Bound<'py, PyAny>>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>, Failure> {
    let timeout = input::timeout(timeout)?;
    let options = options.map_or(Ok(Value::Null), |options| json::from_python("options", options));
    let options = options.map_err(|failed| match failed {
        Failure::Core(error) => Failure::Core(Error::new(Kind::InvalidArgument, error.message())),
        failed => failed,
    })?;
    log::resume(py)?;
    let answer = match (operation.0, Operation::named(operation.0)) {
        (_, Some(operation)) => wait(py, outbox::run(operation, target.0, options, timeout))?,
        ("drain", None) => wait(py, outbox::drain(target.0, timeout))?,
        (unknown, None) => return Err(invalid(format!("an outbox has no operation `{unknown}`"))),
    };
    Ok(json::to_python(py, &answer)?)
}
