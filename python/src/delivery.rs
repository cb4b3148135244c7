//! What a consumer gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use ceiba_core::message as core_message;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use crate::consumer::{ack_one, nack_one};
use crate::failure::Failure;
use crate::input;

/// A message that was received, with the code that acknowledges it.
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Delivery {
    consumer: Arc<str>,
    delivery: core_message::Delivery,
    body: PyOnceLock<Py<PyBytes>>,
}

impl Delivery {
    pub(crate) fn new(consumer: Arc<str>, delivery: core_message::Delivery) -> Delivery {
        Delivery { consumer, delivery, body: PyOnceLock::new() }
    }

    fn fields(&self) -> Option<&core_message::Fields> {
        self.delivery.message.fields()
    }
}

#[pymethods]
impl Delivery {
    /// The body.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.body.get_or_init(py, || PyBytes::new(py, self.delivery.message.body()).unbind()).bind(py)
    }

    /// The body, under the name that a send has for it.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.body(py)
    }

    /// The body as text; raises `UnicodeDecodeError` when it is not UTF-8.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        PyString::from_bytes(py, self.delivery.message.body())
    }

    /// The code that acknowledges it.
    #[getter]
    fn code(&self) -> &str {
        &self.delivery.code
    }

    /// The topic or queue it came from.
    #[getter]
    fn topic(&self) -> &str {
        &self.delivery.topic
    }

    /// When the other side accepted it (UTC), where the wire tells.
    #[getter]
    fn created(&self) -> Option<SystemTime> {
        self.delivery.created
    }

    /// How often it was delivered, from 1, where the wire tells.
    #[getter]
    fn attempt(&self) -> Option<u32> {
        self.delivery.attempt
    }

    /// The id of the consumer that received it.
    #[getter]
    fn consumer(&self) -> &str {
        &self.consumer
    }

    /// The key, where the message has one.
    #[getter]
    fn key(&self) -> Option<&str> {
        self.fields()?.key.as_deref()
    }

    /// The tag, where the message has one.
    #[getter]
    fn tag(&self) -> Option<&str> {
        self.fields()?.tag.as_deref()
    }

    /// The MIME type of the body, where the message has one.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.fields()?.content_type.as_deref()
    }

    /// The attributes of the message.
    #[getter]
    fn attributes(&self) -> BTreeMap<String, String> {
        self.fields().map(|fields| fields.attributes.clone()).unwrap_or_default()
    }

    /// Acknowledges it.
    fn ack(&self, py: Python<'_>) -> Result<(), Failure> {
        ack_one(py, &self.consumer, self.delivery.code.clone())
    }

    /// Gives it back, to come again after `delay`.
    #[pyo3(signature = (delay=None), text_signature = "($self, delay=0)")]
    fn nack(&self, py: Python<'_>, delay: Option<&Bound<'_, PyAny>>) -> Result<(), Failure> {
        let delay = input::delay(delay)?;
        nack_one(py, &self.consumer, self.delivery.code.clone(), delay)
    }

    fn __repr__(&self) -> String {
        let length = self.delivery.message.body().len();
        format!("<ceiba.Delivery {} of {length} bytes from {}>", self.delivery.code, self.delivery.topic)
    }
}
