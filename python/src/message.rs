//! Messages to send and the receipts of sends.

use std::time::Duration;

use ceiba_core::config::nearest;
use ceiba_core::message::{self as core_message, Attachment, Disposition, Fields};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::failure::{self, Failure, invalid, type_name, wrong_type};
use crate::input::{self, Body, text};
use crate::json;

/// The keyword arguments that describe a message.
const FIELDS: [&str; 9] =
    ["content_type", "key", "tag", "topic", "template", "args", "recipients", "attributes", "attachments"];

/// Takes `timeout` out of the keyword arguments of a send.
pub(crate) fn take_timeout(fields: Option<&Bound<'_, PyDict>>) -> Result<Option<Duration>, Failure> {
    let Some(fields) = fields else { return Ok(None) };
    let Some(value) = fields.get_item("timeout")? else { return Ok(None) };
    fields.del_item("timeout")?;
    if value.is_none() { Ok(None) } else { input::timeout(Some(&value)) }
}

/// The message of a call: a `Message` as it is, or one made from the arguments.
pub(crate) fn build(
    call: &str,
    data: &Bound<'_, PyAny>,
    delay: Option<&Bound<'_, PyAny>>,
    fields: Option<&Bound<'_, PyDict>>,
) -> Result<core_message::Message, Failure> {
    let no_fields = fields.is_none_or(|fields| fields.is_empty());
    if let Ok(message) = data.cast::<Message>() {
        if delay.is_some() || !no_fields {
            return Err(invalid("a Message carries its delay and fields: the call takes no others"));
        }
        return Ok(message.get().0.clone());
    }
    let body: Body<'_> = data.extract()?;
    let mut message = core_message::Message::new(body.into_bytes()).with_delay(input::delay(delay)?);
    if let Some(fields) = fields {
        for (name, value) in fields.iter() {
            let name = text("name", &name)?;
            if !FIELDS.contains(&name) {
                let hint = nearest(name, &FIELDS).map(|near| format!(": did you mean '{near}'?"));
                return Err(wrong_type(format!(
                    "{call}() got an unexpected keyword argument '{name}'{}",
                    hint.unwrap_or_default()
                )));
            }
            if !value.is_none() {
                set(message.fields_mut(), name, &value)?;
            }
        }
    }
    Ok(message)
}

fn set(fields: &mut Fields, name: &str, value: &Bound<'_, PyAny>) -> Result<(), Failure> {
    let owned = || text(name, value).map(|text| Some(text.to_owned()));
    match name {
        "content_type" => fields.content_type = owned()?,
        "key" => fields.key = owned()?,
        "tag" => fields.tag = owned()?,
        "topic" => fields.topic = owned()?,
        "template" => fields.template = owned()?,
        "args" => fields.args = Some(json::from_python("args", value)?),
        "recipients" => {
            if value.is_instance_of::<PyString>() {
                return Err(wrong_type("`recipients` is a list of str, not one str"));
            }
            for recipient in value.try_iter()? {
                fields.recipients.push(text("recipients", &recipient?)?.to_owned());
            }
        }
        "attributes" => {
            let Ok(attributes) = value.cast::<PyDict>() else {
                return Err(wrong_type(format!("`attributes` must be a dict, not {}", type_name(value))));
            };
            for (key, value) in attributes.iter() {
                let key = text("attributes", &key)?.to_owned();
                fields.attributes.insert(key, text("attributes", &value)?.to_owned());
            }
        }
        _ => {
            for attachment in value.try_iter()? {
                let attachment = attachment?;
                let (name, content_type, data) = attachment
                    .cast::<PyTuple>()
                    .ok()
                    .and_then(|tuple| {
                        tuple.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>().ok()
                    })
                    .ok_or_else(|| wrong_type("an attachment is a tuple (name, content type, data)"))?;
                fields.attachments.push(Attachment {
                    name: text("name", &name)?.to_owned(),
                    content_type: text("content type", &content_type)?.to_owned(),
                    body: data.extract::<Body<'_>>()?.into_bytes(),
                });
            }
        }
    }
    Ok(())
}

/// A message with all that goes along with its body. It does not change; one can be sent many times.
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Message(pub(crate) core_message::Message);

#[pymethods]
impl Message {
    #[new]
    #[pyo3(signature = (data, delay=None, **fields),
           text_signature = "(data, delay=0, *, content_type=None, key=None, tag=None, topic=None, \
                             template=None, args=None, recipients=(), attributes=None, attachments=())")]
    fn new(
        data: &Bound<'_, PyAny>,
        delay: Option<&Bound<'_, PyAny>>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> Result<Message, Failure> {
        build("Message", data, delay, fields).map(Message)
    }

    /// The body.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.body())
    }

    /// The body, under the name that the call has for it.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.body(py)
    }

    /// The delay in seconds.
    #[getter]
    fn delay(&self) -> f64 {
        self.0.delay().as_secs_f64()
    }

    /// The fields that are set, by name.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let Some(fields) = self.0.fields() else { return Ok(dict) };
        let texts = [
            ("content_type", &fields.content_type),
            ("key", &fields.key),
            ("tag", &fields.tag),
            ("topic", &fields.topic),
            ("template", &fields.template),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                dict.set_item(name, value)?;
            }
        }
        if let Some(args) = &fields.args {
            dict.set_item("args", json::to_python(py, args)?)?;
        }
        if !fields.recipients.is_empty() {
            dict.set_item("recipients", &fields.recipients)?;
        }
        if !fields.attributes.is_empty() {
            dict.set_item("attributes", &fields.attributes)?;
        }
        if !fields.attachments.is_empty() {
            let attachments: Vec<_> = fields
                .attachments
                .iter()
                .map(|file| (&file.name, &file.content_type, PyBytes::new(py, &file.body)))
                .collect();
            dict.set_item("attachments", attachments)?;
        }
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("<ceiba.Message of {} bytes>", self.0.body().len())
    }
}

/// How a send ended well.
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Receipt(pub(crate) core_message::Receipt);

#[pymethods]
impl Receipt {
    /// The other side's id of the message, where its wire gives one.
    #[getter]
    fn message_id(&self) -> Option<&str> {
        self.0.message_id.as_deref()
    }

    /// What a consumer of the same queue takes the message back by, with `ack`, before it was ever received: MNS gives one
    /// for a delayed message.
    #[getter]
    fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The provider that sent it.
    #[getter]
    fn provider(&self) -> &'static str {
        self.0.provider
    }

    /// Attempts made, at least 1.
    #[getter]
    fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// True: the outbox has it and will send it. False: the other side has it.
    #[getter]
    fn stored(&self) -> bool {
        self.0.disposition == Disposition::Stored
    }

    /// What the caller should know though the send succeeded.
    #[getter]
    fn warning(&self) -> Option<&str> {
        self.0.warning.as_deref()
    }

    /// How each member, recipient or attempt ended, where there were several.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        failure::parts(py, self.0.parts.as_deref().unwrap_or_default())
    }

    fn __repr__(&self) -> String {
        let verb = if self.stored() { "stored" } else { "sent" };
        format!("<ceiba.Receipt {verb} by {} in {} attempt(s)>", self.0.provider, self.0.attempts)
    }
}
