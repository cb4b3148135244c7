//! Arguments as Python passes them: text, bodies, times.

use std::time::Duration;

use bytes::Bytes;
use ceiba_core::config::ClientConfig;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyMemoryView, PyString};

use crate::failure::{Failure, invalid, type_name, wrong_type};
use crate::json;

/// A `str` that has a UTF-8 form.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl<'a, 'py> FromPyObject<'a, 'py> for Text<'a> {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Text<'a>> {
        value.cast::<PyString>()?;
        Ok(Text(utf8(value)?))
    }
}

// Of an object that is a `str`: all that can be wrong is a lone surrogate.
fn utf8<'a>(text: Borrowed<'a, '_, PyAny>) -> Result<&'a str, Failure> {
    <&'a str>::extract(text).map_err(|_| invalid("a text has lone surrogates and no UTF-8 form"))
}

/// The UTF-8 form of an object that must be a `str`.
pub(crate) fn text<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> Result<&'a str, Failure> {
    if value.is_instance_of::<PyString>() {
        return utf8(value.as_borrowed());
    }
    Err(wrong_type(format!("`{name}` must be a str, not {}", type_name(value))))
}

/// A body: `bytes` and `str` borrowed for the call, all else copied; a `dict` becomes JSON.
pub(crate) enum Body<'a> {
    Borrowed(&'a [u8]),
    Copied(Vec<u8>),
}

impl Body<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Body::Borrowed(slice) => slice,
            Body::Copied(bytes) => bytes,
        }
    }

    /// The body for a call that goes on without the interpreter's lock.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            // Copied, because a reference to the Python object would have to be dropped on a thread of the
            // runtime, under a lock that a fork could leave taken.
            Body::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Body::Copied(bytes) => bytes.into(),
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Body<'a> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Body<'a>> {
        if let Ok(bytes) = <&'a [u8]>::extract(value) {
            return Ok(Body::Borrowed(bytes));
        }
        if value.is_instance_of::<PyString>() {
            return Ok(Body::Borrowed(utf8(value)?.as_bytes()));
        }
        if let Ok(array) = value.cast::<PyByteArray>() {
            return Ok(Body::Copied(array.to_vec()));
        }
        if value.is_instance_of::<PyDict>() {
            return Ok(Body::Copied(json::body(&value)?));
        }
        Ok(buffer(&value)?)
    }
}

// The stable interface of 3.10 has no access to buffers of its own: a memoryview reads any of them.
fn buffer<'a>(value: &Bound<'_, PyAny>) -> Result<Body<'a>, Failure> {
    let Ok(view) = PyMemoryView::from(value) else {
        let name = type_name(value);
        return Err(wrong_type(format!(
            "a body is bytes, bytearray, memoryview (or another buffer), str, or a dict for JSON, not {name}"
        )));
    };
    let bytes = view.call_method0("tobytes")?;
    Ok(Body::Copied(bytes.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes().to_vec()))
}

/// A delay: seconds as `int` or `float`, or a `timedelta`; none is zero.
#[inline]
pub(crate) fn delay(value: Option<&Bound<'_, PyAny>>) -> Result<Duration, Failure> {
    value.map_or(Ok(Duration::ZERO), |value| span("delay", value))
}

/// A timeout in the same forms; `None` stays `None`.
pub(crate) fn timeout(value: Option<&Bound<'_, PyAny>>) -> Result<Option<Duration>, Failure> {
    value.map(|value| span("timeout", value)).transpose()
}

fn span(name: &str, value: &Bound<'_, PyAny>) -> Result<Duration, Failure> {
    let wrong = || {
        let given = type_name(value);
        wrong_type(format!("`{name}` is a number of seconds or a timedelta, not {given}"))
    };
    if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    }
    if let Ok(whole) = value.cast::<PyInt>() {
        return match whole.extract::<i64>() {
            Ok(seconds) => u64::try_from(seconds).map(Duration::from_secs).map_err(|_| negative(name, value)),
            Err(_) if whole.lt(0).unwrap_or(false) => Err(negative(name, value)),
            Err(_) => Err(too_long(name)),
        };
    }
    let seconds = if let Ok(seconds) = value.cast::<PyFloat>() {
        seconds.value()
    } else if value.hasattr("total_seconds")? {
        value.call_method0("total_seconds")?.extract::<f64>()?
    } else {
        return Err(wrong());
    };
    if seconds < 0.0 {
        return Err(negative(name, value));
    }
    if seconds.is_nan() {
        return Err(invalid(format!("`{name}` is not a number")));
    }
    // Past the range of the whole seconds above, as there.
    if seconds >= i64::MAX as f64 {
        return Err(too_long(name));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| too_long(name))
}

fn negative(name: &str, value: &Bound<'_, PyAny>) -> Failure {
    let text = value.str().map_or_else(|_| String::new(), |text| text.to_string());
    invalid(format!("`{name}` is negative: {}", text.chars().take(40).collect::<String>()))
}

fn too_long(name: &str) -> Failure {
    invalid(format!("`{name}` is too long"))
}

/// A config: a `dict`, a JSON text or a URL.
pub(crate) fn config(value: &Bound<'_, PyAny>) -> Result<ClientConfig, Failure> {
    if value.is_instance_of::<PyString>() {
        return Ok(ClientConfig::parse(utf8(value.as_borrowed())?)?);
    }
    if value.is_instance_of::<PyDict>() {
        return Ok(ClientConfig::from_json(json::from_python("config", value)?)?);
    }
    let name = type_name(value);
    Err(wrong_type(format!("a config is a dict, a JSON text or a URL, not {name}")))
}
