//! Producers that the host implements: a callable of Python is called for each send, on threads that Python started.
//!
//! The runtime only puts calls into a line, and `ceiba._host` takes them out: no thread of ours waits for the
//! interpreter's lock, and below a running callable there are no frames of ours for the end of the interpreter to unwind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind};
use ceiba_core::provider::callback::{Host, HostCall as CoreCall, receipt};
use ceiba_core::runtime;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;

use crate::failure::{Failure, wrong_type};
use crate::message::Message;
use crate::raised;

#[derive(Default)]
struct Waiting {
    calls: VecDeque<CoreCall>,
    // Threads that wait for a call.
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// The end of a line that the runtime has. It holds no object of Python, so it may be dropped anywhere.
struct Entrance(Arc<Line>);

impl Host for Entrance {
    // The place that each call has until it is answered bounds the line.
    fn send(&self, call: CoreCall) {
        self.0.waiting.lock().calls.push_back(call);
        self.0.arrived.notify_one();
    }

    fn hands_over(&self) -> bool {
        true
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.arrived.notify_all();
    }
}

/// The end of a line that the threads of Python have.
#[pyclass(frozen, name = "_HostCalls", module = "ceiba._ceiba")]
pub(crate) struct HostCalls(Arc<Line>);

#[pymethods]
impl HostCalls {
    /// The next call, and whether no other thread waits for one. `None`: this thread is not needed any more, because
    /// the line is closed or another one waits too.
    fn take(&self, py: Python<'_>, patience: f64) -> Option<(HostCall, bool)> {
        let patience = Duration::try_from_secs_f64(patience).unwrap_or_default();
        let taken = py.detach(|| {
            let mut waiting = self.0.waiting.lock();
            waiting.idle += 1;
            let taken = loop {
                match waiting.calls.pop_front() {
                    Some(call) if call.is_abandoned() => {}
                    Some(call) => break Some(call),
                    None if waiting.closed => break None,
                    None => {
                        let late = self.0.arrived.wait_for(&mut waiting, patience).timed_out();
                        if late && waiting.idle > 1 && waiting.calls.is_empty() {
                            break None;
                        }
                    }
                }
            };
            waiting.idle -= 1;
            taken.map(|call| (call, waiting.idle == 0))
        });
        taken.map(|(call, alone)| (HostCall::new(call, 0), alone))
    }
}

/// One call to answer.
#[pyclass(frozen, name = "_HostCall", module = "ceiba._ceiba")]
pub(crate) struct HostCall {
    call: Mutex<Option<CoreCall>>,
    number: u32,
    generation: u32,
}

impl HostCall {
    /// `number` is that of the attempt of a decorated function, from 1; 0 for a producer of the host.
    pub(crate) fn new(call: CoreCall, number: u32) -> HostCall {
        HostCall { call: Mutex::new(Some(call)), number, generation: runtime::generation() }
    }

    // In a child of a fork nobody waits for it, and telling so would touch what belongs to the parent.
    fn take(&self) -> Option<CoreCall> {
        let call = self.call.lock().take();
        if self.generation == runtime::generation() {
            return call;
        }
        std::mem::forget(call);
        None
    }
}

impl Drop for HostCall {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[pymethods]
impl HostCall {
    /// The number of the attempt.
    #[getter]
    fn number(&self) -> u32 {
        self.number
    }

    /// The message; once it is answered `None`.
    #[getter]
    fn message(&self) -> Option<Message> {
        self.call.lock().as_ref().map(|call| Message((**call.message()).clone()))
    }

    /// Seconds that are left until the deadline, or `None`.
    #[getter]
    fn remaining(&self) -> Option<f64> {
        self.call.lock().as_ref().and_then(CoreCall::remaining).map(|left| left.as_secs_f64())
    }

    /// Whether nobody waits for the answer any more.
    #[getter]
    fn abandoned(&self) -> bool {
        self.call.lock().as_ref().is_none_or(CoreCall::is_abandoned)
    }

    /// Answers that it was sent, with the other side's id.
    #[pyo3(signature = (id=None))]
    fn sent(&self, id: Option<String>) {
        let id = if self.number > 0 { Some(self.number.to_string()) } else { id };
        if let Some(call) = self.take() {
            call.finish(Ok(receipt(id.map(Into::into))));
        }
    }

    /// Answers with an exception. `retryable` says whether another attempt may help, where the exception does not.
    #[pyo3(signature = (error, retryable=None))]
    fn failed(&self, error: &Bound<'_, PyAny>, retryable: Option<bool>) {
        if let Some(call) = self.take() {
            call.finish(Err(raised::error_of(error, retryable, self.number)));
        }
    }
}

/// Makes a callable known under a name, for configs such as
/// `{"provider": {"type": "callback", "name": "sms"}}`, so that any strategy can be put around it.
///
/// It gets the `Message` and returns the other side's id of it, or `None`. It is called on threads of its own, as many
/// at once as `provider.threads` says (16). A coroutine function is awaited in `loop`, or in a loop on a thread of the
/// library, and is cancelled at the deadline. An exception is an error of that attempt: a `ceiba.Error` as it is, a
/// `TimeoutError` as `timeout`, any other as `unavailable`; the last two leave unknown whether it was sent. A
/// callable that does not return is left behind at the deadline and keeps its thread; after a close of its producer the
/// id is free when it has returned.
///
/// A child of a fork registers anew.
#[pyfunction]
#[pyo3(signature = (name, sender, *, r#loop=None))]
pub(crate) fn register_host(
    py: Python<'_>,
    name: &str,
    sender: Py<PyAny>,
    r#loop: Option<Py<PyAny>>,
) -> Result<(), Failure> {
    if !sender.bind(py).is_callable() {
        return Err(wrong_type("the sender must be callable"));
    }
    let line = Arc::<Line>::default();
    calls::callback_register(name, Arc::new(Entrance(line.clone())))?;
    let started = py
        .import("ceiba._host")
        .and_then(|module| module.call_method1("start", (HostCalls(line), sender, r#loop, name)));
    if let Err(failed) = started {
        drop(calls::callback_unregister(name));
        return Err(failed.into());
    }
    Ok(())
}

/// Forgets a name. Producers that were opened with it go on with it until they are closed.
#[pyfunction]
pub(crate) fn unregister_host(name: &str) -> Result<(), Failure> {
    let host = calls::callback_unregister(name).map_err(|error| match error.kind() {
        Kind::UnknownId => Error::new(Kind::UnknownId, format!("no host `{name}` is registered")),
        _ => error,
    })?;
    drop(host);
    Ok(())
}
