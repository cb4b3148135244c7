//! The embedded broker, started and stopped from Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::broker::{Broker as CoreBroker, BrokerConfig, DeliveryMode, Durability, LogHealth, WhenFull};
use ceiba_core::config::{named_span, nearest};
use ceiba_core::error::{Error, Kind};
use ceiba_core::secret::Secret;
use ceiba_core::wire::kapokmq::Node;
use ceiba_core::{runtime, settings};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::failure::{Failure, invalid};
use crate::input::{self, Text, text};
use crate::wait::wait;
use crate::{json, log, state};

/// The modes of delivery.
const MODES: [&str; 2] = [DeliveryMode::WorkQueue.name(), DeliveryMode::PublishSubscribe.name()];

/// How long `with` waits at its end for connections to close.
const STOP: Duration = Duration::from_secs(5);

/// A KapokMQ broker in this process, running from its creation to `stop` or the end of a `with` block.
///
/// `listen` with port 0 takes a free port. Without a `secret` it makes one, to be read from `secret`.
/// `delivery` is "work_queue" or "publish_subscribe". `dpmq` makes it speak the DPMQ protocol too, which has no
/// login. `data` is a folder for the messages, which without one are in memory; `durability` says when a message
/// in it counts as safe: "fsync", "interval", "interval:200ms" or "memory". Without `data` only "memory" is taken.
///
/// Of all topics: `max_attempts`, pushes before a message goes to the dead letters (the topic NAME.dead);
/// `expire_after`, the age at which it does; `push_every` and `push_count`, pushes in batches; `max_messages`,
/// `max_bytes` and `when_full` ("wait" or "refuse"); `deduplicate`, how long a key is remembered; `compat`, the
/// first ack of publish_subscribe consumes for all. Times are seconds or a timedelta. `topics` maps the names of
/// single topics to dicts of the same keys, with times as texts such as "24h".
///
/// `mns` makes it speak MNS at an address of its own: a dict with `keys`, secrets by their ids, and where wanted
/// `listen`, `private_endpoints` (whether subscriptions may push to HTTP endpoints at loopback, link-local and private
/// addresses) and `endpoints` (networks of such that they may push to, as in "10.1.0.0/16").
#[pyclass(frozen, module = "ceiba")]
pub(crate) struct Broker {
    running: Mutex<Option<Arc<CoreBroker>>>,
    address: String,
    mns_address: Option<String>,
    secret: Secret,
    generation: u32,
}

#[pymethods]
impl Broker {
    #[new]
    #[allow(clippy::too_many_arguments)] // Keywords, on the side of Python.
    #[pyo3(signature = (listen=Text("127.0.0.1:0"), *, secret=None, delivery=Text("work_queue"), data=None,
                        redeliver_after=None, advertise=None, nodes=None, dpmq=false, durability=None,
                        max_attempts=None, expire_after=None, push_every=None, push_count=None,
                        max_messages=None, max_bytes=None, when_full=None, deduplicate=None, compat=false,
                        topics=None, mns=None),
           text_signature = "(listen='127.0.0.1:0', *, secret=None, delivery='work_queue', data=None, \
                             redeliver_after=None, advertise=None, nodes=(), dpmq=False, durability=None, \
                             max_attempts=None, expire_after=None, push_every=None, push_count=None, \
                             max_messages=None, max_bytes=None, when_full=None, deduplicate=None, \
                             compat=False, topics=None, mns=None)")]
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
        durability: Option<Text<'_>>,
        max_attempts: Option<u32>,
        expire_after: Option<&Bound<'_, PyAny>>,
        push_every: Option<&Bound<'_, PyAny>>,
        push_count: Option<u32>,
        max_messages: Option<usize>,
        max_bytes: Option<usize>,
        when_full: Option<Text<'_>>,
        deduplicate: Option<&Bound<'_, PyAny>>,
        compat: bool,
        topics: Option<&Bound<'_, PyAny>>,
        mns: Option<&Bound<'_, PyAny>>,
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
        if let Some(text) = durability {
            config.durability = durability_of(text.0)?;
            settings::on_disk(config.durability, config.data.as_deref())?;
        }
        let topic = &mut config.topic;
        topic.max_attempts = positive("max_attempts", max_attempts)?;
        topic.expire_after = time("expire_after", expire_after)?;
        match (time("push_every", push_every)?, positive("push_count", push_count)?) {
            (Some(every), count) => topic.push_batches(count.unwrap_or(1), every),
            (None, Some(_)) => return Err(invalid("`push_count` needs `push_every`")),
            (None, None) => {}
        }
        topic.max_messages = positive("max_messages", max_messages)?;
        topic.max_bytes = positive("max_bytes", max_bytes)?;
        if let Some(text) = when_full {
            let known = WhenFull::from_name(text.0);
            topic.when_full = known.ok_or_else(|| invalid("`when_full` must be \"wait\" or \"refuse\""))?;
        }
        topic.deduplicate = time("deduplicate", deduplicate)?;
        topic.compat = compat;
        if let Some(topics) = topics {
            for item in topics.call_method0("items")?.try_iter()? {
                let (name, keys): (String, Bound<'_, PyAny>) = item?.extract()?;
                let keys: String = py.import("json")?.call_method1("dumps", (keys,))?.extract()?;
                let one = settings::topic(&config.topic, &keys)
                    .map_err(|error| invalid(format!("at `topics.{name}`: {}", error.message())))?;
                config.topics.insert(name, one);
            }
        }
        if let Some(mns) = mns {
            let keys = json::from_python("mns", mns)?.to_string();
            config.mns = Some(settings::mns(&keys)?);
        }
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
            mns_address: broker.mns_address().map(|address| address.to_string()),
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

    /// Host and port of MNS, where it is spoken.
    #[getter]
    fn mns_address(&self) -> Option<&str> {
        self.mns_address.as_deref()
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

    /// Counts of what the broker did and holds, and how its log does.
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
            ("dead", status.dead),
            ("expired", status.expired),
            ("given_up", status.given_up),
            ("segments", status.segments as u64),
            ("log_bytes", status.log_bytes),
            ("live_bytes", status.live_bytes),
        ];
        let dict = PyDict::new(py);
        for (name, count) in counts {
            dict.set_item(name, count)?;
        }
        dict.set_item("durability", status.durability.name())?;
        let (state, why) = match &status.log {
            LogHealth::Serving => ("serving", None),
            LogHealth::Short(why) => ("short", Some(why)),
            LogHealth::Failed(why) => ("failed", Some(why)),
        };
        dict.set_item("log", state)?;
        dict.set_item("log_error", why)?;
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

fn positive<T: Default + PartialEq>(name: &str, number: Option<T>) -> Result<Option<T>, Failure> {
    if number.as_ref().is_some_and(|number| *number == T::default()) {
        return Err(invalid(format!("`{name}` must be more than 0: None is for no bound")));
    }
    Ok(number)
}

fn time(name: &str, value: Option<&Bound<'_, PyAny>>) -> Result<Option<Duration>, Failure> {
    let Some(value) = value else { return Ok(None) };
    positive(name, Some(input::delay(Some(value))?))
}

fn durability_of(text: &str) -> Result<Durability, Failure> {
    let wrong = |text: String| invalid(format!("`durability`: {text}"));
    let (name, every) = named_span(text).map_err(wrong)?;
    let known = Durability::from_name(name, every).filter(|_| every.is_none_or(|every| !every.is_zero()));
    known.ok_or_else(|| {
        wrong("known are: fsync, interval, interval:SPAN (as in interval:200ms), memory".to_owned())
    })
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
