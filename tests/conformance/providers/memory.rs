//! The in-memory provider: there is no connection that could fail, and no secret.

use std::time::Duration;

use ceiba_core::client::BoxFuture;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer};
use crate::table::{self, Trait};

pub(crate) struct Memory;

impl Harness for Memory {
    fn provider(&self) -> &'static str {
        "memory"
    }

    fn traits(&self) -> &'static [Trait] {
        table::MEMORY
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move { Box::new(MemoryPeer(needs.redeliver_after)) as Box<dyn Peer> })
    }
}

// The topics are the stage's own, so that one name serves every case.
struct MemoryPeer(Duration);

impl Peer for MemoryPeer {
    fn producer(&self) -> Value {
        json!({"type": "memory", "topic": "conformance"})
    }

    fn consumer(&self) -> Value {
        let redeliver_after = format!("{}ms", self.0.as_millis());
        json!({"type": "memory", "topic": "conformance", "redeliver_after": redeliver_after})
    }

    fn line(&self) -> Option<&dyn Line> {
        None
    }

    fn secret(&self) -> Option<&str> {
        None
    }

    fn everyone(&self) -> bool {
        false
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("recipients")
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
