//! The embedded broker, started and stopped from Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::broker::{Broker as CoreBroker, BrokerConfig, DeliveryMode};
use ceiba_core::config::nearest;
use ceiba_core::error::{Error, Kind};
use ceiba_core::runtime;
use ceiba_core::secret::Secret;
use ceiba_core::wire::kapokmq::Node;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::failure::{Failure, invalid};
use crate::input::{self, Text, text};
use crate::wait::wait;
use crate::{log, state};

/// The modes of delivery.
const MODES: [&str; 2] = [DeliveryMode::WorkQueue.name(), DeliveryMode::PublishSubscribe.name()];

/// How long `with` waits at its end for connections to close.
const STOP: Duration = Duration::from_secs(5);

/// A KapokMQ broker in this process, running from its creation to `stop` or the end of a `with` block.
///
/// `listen` with port 0 takes a free port. Without a `secret` it makes one, to be read from `secret`.
/// `delivery` is "work_queue" or "publish_subscribe". `dpmq` makes it speak the DPMQ protocol too, which has no
/// login. Messages are in memory.
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Broker {
    running: Mutex<Option<Arc<CoreBroker>>>,
    address: String,
    secret: Secret,
    generation: u32,
}

#[pymethods]
impl Broker {
    #[new]
    #[allow(clippy::too_many_arguments)] // Keywords, on the side of Python.
    #[pyo3(signature = (listen=Text("127.0.0.1:0"), *, secret=None, delivery=Text("work_queue"), data=None,
                        redeliver_after=None, advertise=None, nodes=None, dpmq=false),
           text_signature = "(listen='127.0.0.1:0', *, secret=None, delivery='work_queue', data=None, \
                             redeliver_after=None, advertise=None, nodes=(), dpmq=False)")]
    fn new(
        py: Python<'_>,
        listen: Text<'_>,
        secret: Option<Text<'_>>,
        delivery: Text<'_>,
        data: Option<PathBuf>,
        redeliver_after: Option<&Bound<'_, PyAny>>,
        advertise: Option<Text<'_>>,
        nodes: Option<&Bound<'_, PyAny>>,
        dpmq: bool,
    ) -> Result<Broker, Failure> {
        let secret = match secret {
            Some(text) if text.0.is_empty() => return Err(invalid("the secret is empty")),
            Some(text) => text.0.to_owned(),
            None => py.import("os")?.call_method1("urandom", (16,))?.call_method0("hex")?.extract()?,
        };
        let Some(mode) = DeliveryMode::from_name(delivery.0) else {
            let hint = nearest(delivery.0, &MODES).map(|near| format!(" (did you mean `{near}`?)"));
            return Err(invalid(format!(
                "unknown delivery `{}`; known are: {}{}",
                delivery.0.chars().take(40).collect::<String>(),
                MODES.join(", "),
                hint.unwrap_or_default()
            )));
        };
        let mut config = BrokerConfig {
            listen: listen.0.to_owned(),
            delivery: mode,
            dpmq,
            data,
            advertise: advertise.map(|text| text.0.to_owned()),
            ..BrokerConfig::new(Secret::new(secret.clone()))
        };
        if let Some(nodes) = nodes {
            for node in nodes.try_iter()? {
                config.nodes.push(node_at(text("nodes", &node?)?)?);
            }
        }
        if let Some(value) = redeliver_after {
            config.redeliver_after = input::delay(Some(value))?;
        }
        state::queue()?;
        log::resume(py)?;
        let broker = wait(py, CoreBroker::start(config))?;
        Ok(Broker {
            address: broker.address().to_string(),
            running: Mutex::new(Some(Arc::new(broker))),
            secret: Secret::new(secret),
            generation: runtime::generation(),
        })
    }

    /// Host and port, as in "127.0.0.1:8011".
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// The key that clients must know.
    #[getter]
    fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// The config URL of a producer or consumer of a topic. It holds the secret.
    fn url(&self, topic: Text<'_>) -> String {
        format!("kapokmq://:{}@{}/{}", encoded(self.secret.expose()), self.address, encoded(topic.0))
    }

    /// Counts of what the broker did and holds.
    fn status<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>, Failure> {
        let broker = self.running.lock().clone();
        let Some(broker) = broker.filter(|_| self.generation == runtime::generation()) else {
            return Err(Error::new(Kind::Closed, "the broker does not run in this process").into());
        };
        let status = broker.status();
        let counts = [
            ("accepted", status.accepted),
            ("pushed", status.pushed),
            ("redelivered", status.redelivered),
            ("acknowledged", status.acknowledged),
            ("bad_frames", status.bad_frames),
            ("failed_logins", status.failed_logins),
            ("waiting", status.waiting as u64),
            ("delayed", status.delayed as u64),
            ("unacked", status.unacked as u64),
            ("stored_bytes", status.stored_bytes as u64),
            ("topics", status.topics as u64),
            ("producers", status.producers as u64),
            ("consumers", status.consumers as u64),
        ];
        let dict = PyDict::new(py);
        for (name, count) in counts {
            dict.set_item(name, count)?;
        }
        Ok(dict)
    }

    /// Stops: answers what was read and closes every connection; what is not done within `timeout` seconds is
    /// cut off. Returns whether all had closed in time. A further call does nothing.
    #[pyo3(signature = (timeout=None), text_signature = "($self, timeout=5)")]
    fn stop(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> Result<bool, Failure> {
        let timeout = input::timeout(timeout)?.unwrap_or(STOP);
        if self.generation != runtime::generation() {
            return Err(Error::new(Kind::Forked, "the broker runs in the parent process").into());
        }
        let Some(broker) = self.running.lock().take() else { return Ok(true) };
        wait(py, async move { Ok(broker.stop(timeout).await) })
    }

    fn __enter__(this: Py<Broker>) -> Py<Broker> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> Result<(), Failure> {
        if self.generation == runtime::generation() {
            self.stop(py, None)?;
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        let verb = if self.running.lock().is_some() { "at" } else { "stopped, was at" };
        format!("<ceiba.Broker {verb} {}>", self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.generation != runtime::generation() {
            // The child of a fork: what the broker holds belongs to threads of the parent.
            std::mem::forget(self.running.get_mut().take());
        }
    }
}

fn node_at(address: &str) -> Result<Node, Failure> {
    let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let node = parts.and_then(|(host, port)| Some(Node::at(host, port.parse().ok()?)));
    node.ok_or_else(|| invalid("a node of `nodes` is written as HOST:PORT"))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
