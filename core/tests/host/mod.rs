//! A program that registers producers of its own, and the calls of its clients.
// Each test file uses a part of it, and what fails here fails the test.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Result;
use ceiba_core::message::{Message, Receipt};
use ceiba_core::provider::callback::{Host, HostCall, receipt};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub type Answer = fn(HostCall);

/// Answers as it is told, or keeps its calls.
pub struct Program {
    calls: AtomicUsize,
    pub kept: Mutex<Vec<HostCall>>,
    answer: Option<Answer>,
}

impl Host for Program {
    fn send(&self, call: HostCall) {
        let mut kept = self.kept.lock();
        self.calls.fetch_add(1, Ordering::AcqRel);
        match self.answer {
            Some(answer) => answer(call),
            None => kept.push(call),
        }
    }
}

impl Program {
    pub fn register(name: &str, answer: Option<Answer>) -> Arc<Program> {
        let program = Arc::new(Program { calls: AtomicUsize::new(0), kept: Mutex::new(Vec::new()), answer });
        calls::callback_register(name, program.clone()).unwrap();
        program
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    pub fn answer_all(&self) {
        self.kept.lock().drain(..).for_each(|call| call.finish(Ok(receipt(None))));
    }
}

pub async fn open(id: &str, config: Value) -> Result<()> {
    calls::producer_open(Some(id), ClientConfig::from_json(config).unwrap(), None).await.map(drop)
}

pub async fn send(id: &str, within: Duration) -> Result<Receipt> {
    calls::producer_send(id, Message::new("x"), Some(within)).await
}

pub async fn until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < Duration::from_secs(10), "it never came to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn of_host(name: &str) -> Value {
    json!({"type": "callback", "name": name})
}
