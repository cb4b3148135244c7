//! Producers of the host: here a host that keeps what it is given, and stops answering when it is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ceiba_core::client::{BoxFuture, Consumer};
use ceiba_core::error::{Error, Kind};
use ceiba_core::message::Message;
use ceiba_core::provider::callback::{Host, HostCall, Hosts, receipt};
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer};
use crate::inbox::Inbox;
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback {
    /// Called from threads of the producer, where it may block.
    Blocks,
    /// Takes the call along and answers from a thread of its own.
    HandsOver,
}

impl Harness for Callback {
    fn provider(&self) -> &'static str {
        "callback"
    }

    fn traits(&self) -> &'static [Trait] {
        table::CALLBACK
    }

    fn start(&self, _: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        let program = Arc::new(Program::default());
        let hosts = Hosts::default();
        let host: Arc<dyn Host> = match self {
            Callback::Blocks => Arc::new(Blocking(program.clone())),
            Callback::HandsOver => {
                let (calls, line) = std::sync::mpsc::channel::<HostCall>();
                let program = program.clone();
                // Ends when the host that sends to it is gone.
                std::thread::spawn(move || line.into_iter().for_each(|call| program.take(call)));
                Arc::new(HandingOver(Mutex::new(calls)))
            }
        };
        hosts.register("conformance", host).unwrap();
        Box::pin(
            async move { Box::new(CallbackPeer { program, hosts, taken: Arc::default() }) as Box<dyn Peer> },
        )
    }
}

#[derive(Default)]
struct Program {
    kept: Mutex<Vec<Message>>,
    silent: Mutex<bool>,
    mended: Condvar,
    swallowing: AtomicU64,
}

impl Program {
    fn take(&self, call: HostCall) {
        let silent = self.silent.lock().unwrap();
        if *silent {
            self.swallowing.fetch_add(1, Ordering::AcqRel);
            let silent = self.mended.wait_while(silent, |silent| *silent).unwrap();
            drop(silent);
            // Nobody waits for what was answered too late, and it did nothing.
            return;
        }
        drop(silent);
        let message = call.message();
        let refused = match message.fields() {
            _ if !message.delay().is_zero() => Some("delay"),
            Some(fields) if fields.key.is_some() => Some("key"),
            _ => None,
        };
        if let Some(name) = refused {
            let text = format!("the host takes no {name}");
            return call.finish(Err(Error::new(Kind::Unsupported, text).by("callback")));
        }
        self.kept.lock().unwrap().push((**message).clone());
        call.finish(Ok(receipt(None)));
    }
}

struct Blocking(Arc<Program>);

impl Host for Blocking {
    fn send(&self, call: HostCall) {
        self.0.take(call);
    }
}

struct HandingOver(Mutex<std::sync::mpsc::Sender<HostCall>>);

impl Host for HandingOver {
    fn send(&self, call: HostCall) {
        let _ = self.0.lock().unwrap().send(call);
    }

    fn hands_over(&self) -> bool {
        true
    }
}

impl Line for Program {
    fn cut(&self) -> BoxFuture<'_, ()> {
        unreachable!("a host has no connection")
    }

    fn silence(&self) {
        *self.silent.lock().unwrap() = true;
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        *self.silent.lock().unwrap() = false;
        self.mended.notify_all();
        Box::pin(async {})
    }

    fn swallowing(&self) -> u64 {
        self.swallowing.load(Ordering::Acquire)
    }
}

struct CallbackPeer {
    program: Arc<Program>,
    hosts: Hosts,
    // How many of its messages were received.
    taken: Arc<tokio::sync::Mutex<usize>>,
}

impl Peer for CallbackPeer {
    fn producer(&self) -> Value {
        json!({"type": "callback", "name": "conformance"})
    }

    fn consumer(&self) -> Value {
        Value::Null
    }

    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        let program = self.program.clone();
        let arrived = move |first: usize, max: usize| {
            program.kept.lock().unwrap().iter().skip(first).take(max).cloned().collect()
        };
        Some(Arc::new(Inbox::new(Arc::new(arrived), &self.taken)))
    }

    fn hosts(&self) -> Option<&Hosts> {
        Some(&self.hosts)
    }

    fn line(&self) -> Option<&dyn Line> {
        Some(&*self.program)
    }

    fn secret(&self) -> Option<&str> {
        None
    }

    fn everyone(&self) -> bool {
        false
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("key")
    }

    fn has_topics(&self) -> bool {
        false
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Calls that it holds come back.
            Line::mend(&*self.program).await;
        })
    }
}
