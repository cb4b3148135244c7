//! The administration of MNS; the class over it is in the package.

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind};
use pyo3::prelude::*;

use crate::failure::Failure;
use crate::input;
use crate::wait::wait;
use crate::{json, log};

/// Carries out a command on an MNS account.
#[pyfunction]
#[pyo3(signature = (config, command, timeout=None))]
pub(crate) fn _mns_admin<'py>(
    py: Python<'py>,
    config: &Bound<'py, PyAny>,
    command: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>, Failure> {
    let config = input::config(config)?;
    let timeout = input::timeout(timeout)?;
    let command = json::from_python("command", command).map_err(|failed| match failed {
        Failure::Core(error) => Failure::Core(Error::new(Kind::InvalidArgument, error.message())),
        failed => failed,
    })?;
    log::resume(py)?;
    let answer = wait(py, async move { calls::mns::admin(&config, command, timeout).await })?;
    Ok(json::to_python(py, &answer)?)
}
