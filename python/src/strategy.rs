//! Functions of Python with strategies around them.
//!
//! A decorated function is a producer `callback` whose send is driven by whoever called the function: each time the
//! strategies want an attempt, the caller gets it, calls the function himself and answers. So a call needs no other
//! thread, and the function runs where it was called.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use ceiba_core::calls::{self, ProducerClient};
use ceiba_core::client::Context;
use ceiba_core::completion::Wake as Descriptor;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Result as CoreResult};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::provider::callback::{Host, HostCall as CoreCall};
use ceiba_core::{open, runtime};
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use crate::failure::{self, Failure};
use crate::host::HostCall;
use crate::raised::attempt_behind;
use crate::wait::wait;
use crate::{input, json, log, state};

/// The name under which the host of all decorated functions is registered.
const NAME: &str = "ceiba.strategy";

type Asked = Arc<Mutex<Option<CoreCall>>>;

tokio::task_local! {
    // Where the send that is being polled puts the attempt it wants.
    static ASKED: Asked;
}

struct Inline;

impl Host for Inline {
    fn send(&self, mut call: CoreCall) {
        // The callers are the bound.
        call.free_place();
        match ASKED.try_with(Arc::clone) {
            Ok(asked) => *asked.lock() = Some(call),
            Err(_) => {
                let text = "this id belongs to a decorated function: call the function";
                call.finish(Err(Error::new(Kind::InvalidArgument, text).by("callback")));
            }
        }
    }

    fn hands_over(&self) -> bool {
        true
    }
}

/// The strategies of one function; opened at its first call, and again after a fork or a shutdown.
#[pyclass(frozen, name = "_Strategy", module = "ceiba._ceiba")]
pub(crate) struct Strategy {
    id: String,
    config: ClientConfig,
    deadline: Option<Duration>,
    // With its generation: in a child of a fork it is the parent's. Only taken with the interpreter's lock held,
    // so no fork finds it taken.
    opened: Mutex<Option<(u32, Weak<ProducerClient>)>>,
}

#[pymethods]
impl Strategy {
    #[new]
    #[pyo3(signature = (id, strategies, deadline=None))]
    fn new(
        id: String,
        strategies: &Bound<'_, PyAny>,
        deadline: Option<&Bound<'_, PyAny>>,
    ) -> Result<Strategy, Failure> {
        let mut config = Map::new();
        config.insert("provider".into(), json!({"type": "callback", "name": NAME}));
        config.insert("strategies".into(), json::from_python("strategies", strategies)?);
        let config = ClientConfig::from_json(Value::Object(config))?;
        if config.strategies.iter().any(|section| section.contains_key("members")) {
            return Err(Error::new(Kind::InvalidConfig, "`members`: a function is the only one").into());
        }
        open::check(&config)?;
        let deadline = deadline.map(|deadline| input::timeout(Some(deadline))).transpose()?.flatten();
        Ok(Strategy { id, config, deadline, opened: Mutex::new(None) })
    }

    /// Begins a call.
    fn start(&self, py: Python<'_>) -> Result<Run, Failure> {
        let client = self.client(py)?;
        let asked = Asked::default();
        let deadline = self.deadline;
        let send = async move {
            let ctx = deadline.map_or_else(Context::unbounded, Context::within);
            client.send(&ctx, Arc::new(Message::default())).await
        };
        let future: Sending = Box::pin(ASKED.scope(asked.clone(), send));
        let running = Running { future: Some(future), attempts: 0, end: None };
        Ok(Run { generation: runtime::generation(), asked, running: Mutex::new(running) })
    }
}

impl Strategy {
    fn client(&self, py: Python<'_>) -> Result<Arc<ProducerClient>, Failure> {
        match calls::producer(&self.id) {
            Ok(client) => {
                if self.is_ours(&client) {
                    return Ok(client);
                }
                let text =
                    format!("a producer `{}` is open, and a decorated function has the same id", self.id);
                Err(Error::new(Kind::AlreadyOpen, text).into())
            }
            Err(error) if matches!(error.kind(), Kind::UnknownId | Kind::Forked) => self.open(py),
            Err(error) => Err(error.into()),
        }
    }

    fn is_ours(&self, client: &Arc<ProducerClient>) -> bool {
        self.opened.lock().as_ref().is_some_and(|(generation, opened)| {
            *generation == runtime::generation() && opened.as_ptr() == Arc::as_ptr(client)
        })
    }

    // The opening itself waits for nothing and keeps the interpreter's lock, so that two threads that call the
    // function for the first time do not both open it.
    fn open(&self, py: Python<'_>) -> Result<Arc<ProducerClient>, Failure> {
        let queue = state::queue()?.clone();
        log::resume(py)?;
        // That may have let another thread go first.
        if let Ok(client) = calls::producer(&self.id)
            && self.is_ours(&client)
        {
            return Ok(client);
        }
        match calls::callback_register(NAME, Arc::new(Inline)) {
            Err(error) if error.kind() != Kind::AlreadyOpen => return Err(error.into()),
            _ => {}
        }
        let config = self.config.clone();
        runtime::block_on(calls::producer_open(Some(&self.id), config, Some(queue)))?;
        let client = calls::producer(&self.id)?;
        *self.opened.lock() = Some((runtime::generation(), Arc::downgrade(&client)));
        Ok(client)
    }
}

impl Drop for Strategy {
    // The function is gone: nobody waits for this close.
    fn drop(&mut self) {
        let Some((generation, opened)) = self.opened.lock().take() else { return };
        let open = opened.strong_count() > 0;
        if generation == runtime::generation()
            && open
            && let Ok(runtime) = runtime::handle()
        {
            let id = std::mem::take(&mut self.id);
            runtime.spawn(async move {
                let ours = calls::producer(&id).is_ok_and(|client| opened.as_ptr() == Arc::as_ptr(&client));
                if ours && let Err(error) = calls::producer_close(&id, Some(Duration::ZERO)).await {
                    tracing::debug!(%id, %error, "closing after its function");
                }
            });
        }
    }
}

type Sending = Pin<Box<dyn Future<Output = CoreResult<Receipt>> + Send>>;

struct Running {
    future: Option<Sending>,
    attempts: u32,
    end: Option<CoreResult<Receipt>>,
}

/// One call of a decorated function.
#[pyclass(frozen, name = "_Run", module = "ceiba._ceiba")]
pub(crate) struct Run {
    generation: u32,
    asked: Asked,
    running: Mutex<Running>,
}

/// The attempt that went well, the attempt whose exception ended the call, and the error.
type Outcome<'py> = (Option<u32>, Option<u32>, Option<Bound<'py, PyAny>>);

enum Step {
    Attempt(CoreCall),
    End(CoreResult<Receipt>),
}

impl Run {
    fn poll_once(asked: &Asked, future: &mut Sending, cx: &mut TaskContext<'_>) -> Poll<Step> {
        match future.as_mut().poll(cx) {
            Poll::Ready(end) => Poll::Ready(Step::End(end)),
            Poll::Pending => match asked.lock().take() {
                Some(call) => Poll::Ready(Step::Attempt(call)),
                None => Poll::Pending,
            },
        }
    }

    // Without waiting. The guard is for timers, which a future makes where it is polled.
    fn try_step(&self, waker: &Waker) -> Result<Option<HostCall>, Failure> {
        let _entered = runtime::handle()?.enter();
        let mut running = self.running.lock();
        let Some(future) = running.future.as_mut() else { return Ok(None) };
        match Self::poll_once(&self.asked, future, &mut TaskContext::from_waker(waker)) {
            Poll::Ready(step) => Ok(running.take(step)),
            Poll::Pending => Ok(None),
        }
    }

    fn is_own(&self) -> Result<(), Failure> {
        if self.generation == runtime::generation() {
            return Ok(());
        }
        let text = "the process was forked during the call of a decorated function: this is the child";
        Err(Error::new(Kind::Forked, text).into())
    }
}

impl Running {
    fn take(&mut self, step: Step) -> Option<HostCall> {
        match step {
            Step::Attempt(call) => {
                self.attempts = self.attempts.saturating_add(1);
                Some(HostCall::new(call, self.attempts))
            }
            Step::End(end) => {
                self.future = None;
                self.end = Some(end);
                None
            }
        }
    }
}

#[pymethods]
impl Run {
    /// Waits for the next attempt to make; `None`: the call has ended.
    fn next(&self, py: Python<'_>) -> Result<Option<HostCall>, Failure> {
        self.is_own()?;
        if let Some(call) = self.try_step(Waker::noop())? {
            return Ok(Some(call));
        }
        // Out of the lock, which nobody may hold while it waits.
        let Some(mut future) = self.running.lock().future.take() else { return Ok(None) };
        let step = wait(py, std::future::poll_fn(|cx| Self::poll_once(&self.asked, &mut future, cx).map(Ok)));
        let mut running = self.running.lock();
        running.future = Some(future);
        Ok(running.take(step?))
    }

    /// The next attempt to make, or `None`: it has ended, or `wakes` is going to tell `token` when to ask again.
    fn poll(&self, wakes: Option<&Wakes>, token: u64) -> Result<Option<HostCall>, Failure> {
        self.is_own()?;
        match wakes {
            Some(wakes) => self.try_step(&Waker::from(Arc::new(Caller { wakes: wakes.0.clone(), token }))),
            None => self.try_step(Waker::noop()),
        }
    }

    /// Whether the call has ended.
    #[getter]
    fn ended(&self) -> bool {
        self.running.lock().end.is_some()
    }

    /// How it ended: the number of the attempt that went well, the number of the attempt whose exception ended it,
    /// and the error.
    fn outcome<'py>(&self, py: Python<'py>) -> Result<Outcome<'py>, Failure> {
        match self.running.lock().end.as_ref() {
            None => Err(Error::new(Kind::Internal, "the call of a decorated function has not ended").into()),
            Some(Ok(receipt)) => {
                Ok((receipt.message_id.as_deref().and_then(|id| id.parse().ok()), None, None))
            }
            Some(Err(error)) => Ok((None, attempt_behind(error), Some(failure::instance(py, error)?))),
        }
    }

    /// Gives the call up, if it has not ended.
    fn drop(&self) {
        self.give_up();
    }
}

impl Run {
    fn give_up(&self) {
        let future = self.running.lock().future.take();
        if self.generation != runtime::generation() {
            // It belongs to threads that this child of a fork does not have.
            std::mem::forget(future);
            return;
        }
        // What a strategy gives back may need a task for it.
        let _entered = runtime::handle().map(|runtime| runtime.enter());
        drop(future);
        drop(self.asked.lock().take());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.give_up();
    }
}

struct Woken {
    descriptor: Descriptor,
    tokens: Mutex<Vec<u64>>,
}

/// What wakes the calls of one event loop: a descriptor that the loop watches. Whoever wakes calls no Python.
#[pyclass(frozen, name = "_Wakes", module = "ceiba._ceiba")]
pub(crate) struct Wakes(Arc<Woken>);

#[pymethods]
impl Wakes {
    #[new]
    fn new() -> Result<Wakes, Failure> {
        Ok(Wakes(Arc::new(Woken { descriptor: Descriptor::new()?, tokens: Mutex::default() })))
    }

    fn fileno(&self) -> i32 {
        use std::os::fd::{AsFd, AsRawFd};
        self.0.descriptor.as_fd().as_raw_fd()
    }

    /// The tokens to wake.
    fn take(&self) -> Vec<u64> {
        let mut tokens = self.0.tokens.lock();
        self.0.descriptor.clear();
        std::mem::take(&mut *tokens)
    }
}

struct Caller {
    wakes: Arc<Woken>,
    token: u64,
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut tokens = self.wakes.tokens.lock();
        if tokens.is_empty() {
            self.wakes.descriptor.set();
        }
        tokens.push(self.token);
    }
}
