//! Producers that the host implements: a callable of Python is called for each send.

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::provider::callback::{Host, HostCall, receipt};
use pyo3::prelude::*;

use crate::failure::{Failure, wrong_type};
use crate::message::Message;

struct Callable(Py<PyAny>);

impl Host for Callable {
    fn send(&self, call: HostCall) {
        let message = Message((**call.message()).clone());
        let result = Python::attach(|py| {
            // Coroutines run in a loop of their own on this thread; see `ceiba._host`.
            let sent = py.import("ceiba._host")?.call_method1("run", (&self.0, message))?;
            sent.extract::<Option<String>>()
        });
        call.finish(match result {
            Ok(id) => Ok(receipt(id.map(Into::into))),
            Err(raised) => Err(error_of(&raised)),
        });
    }
}

// An exception of this package keeps what it says; any other is `unavailable`, and whether it was sent is unknown.
fn error_of(raised: &PyErr) -> Error {
    Python::attach(|py| {
        let value = raised.value(py);
        let text =
            value.str().map_or_else(|_| "an exception without a text".to_owned(), |text| text.to_string());
        let code = value.getattr("code").and_then(|code| code.extract::<i32>());
        let Some(kind) = code.ok().and_then(Kind::from_code) else {
            let class =
                value.get_type().name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
            return Error::new(Kind::Unavailable, format!("{class}: {text}"))
                .outcome_is(Outcome::Unknown)
                .tried(1);
        };
        let mut error = Error::new(kind, text).tried(1);
        if value
            .getattr("outcome")
            .is_ok_and(|outcome| outcome.extract::<String>().is_ok_and(|o| o == "unknown"))
        {
            error = error.outcome_is(Outcome::Unknown);
        }
        if let Ok(retryable) = value.getattr("retryable").and_then(|value| value.extract::<bool>()) {
            error = error.retryable_is(retryable);
        }
        if let Ok(wait) = value.getattr("retry_after").and_then(|value| value.extract::<f64>())
            && let Ok(wait) = Duration::try_from_secs_f64(wait)
        {
            error = error.after(wait);
        }
        error.by("callback")
    })
}

/// Makes a callable known under a name, for configs such as
/// `{"provider": {"type": "callback", "name": "sms"}}`. It gets the `Message` and returns the other side's id of it, or
/// `None`; a coroutine function is awaited. It is called on threads of the library, several at once.
#[pyfunction]
pub(crate) fn register_host(py: Python<'_>, name: &str, sender: Py<PyAny>) -> Result<(), Failure> {
    if !sender.bind(py).is_callable() {
        return Err(wrong_type("the sender must be callable"));
    }
    Ok(calls::callback_register(name, Arc::new(Callable(sender)))?)
}

/// Forgets a name. Producers that were opened with it go on with it until they are closed.
#[pyfunction]
pub(crate) fn unregister_host(name: &str) -> Result<(), Failure> {
    drop(calls::callback_unregister(name)?);
    Ok(())
}
