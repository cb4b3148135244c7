//! Strategies, which are producers: around one KapokMQ producer, and over two members each.

use ceiba_core::client::BoxFuture;
use serde_json::{Value, json};

use super::kapokmq::KapokMq;
use super::memory::Memory;
use crate::harness::{Harness, Line, Needs, Peer, joined};
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    /// `timeout > retry > circuit_breaker > failover` over two members, both of one topic.
    OfMemory,
    OfKapokMq,
    /// `timeout > retry > circuit_breaker > rate_limit` around one producer.
    OnKapokMq,
}

impl Stack {
    fn below(self) -> Box<dyn Harness> {
        match self {
            Stack::OfMemory => Box::new(Memory),
            Stack::OfKapokMq | Stack::OnKapokMq => Box::new(KapokMq::WorkQueue),
        }
    }
}

impl Harness for Stack {
    fn provider(&self) -> &'static str {
        match self {
            Stack::OfMemory | Stack::OfKapokMq => "failover",
            Stack::OnKapokMq => self.sender(),
        }
    }

    fn sender(&self) -> &'static str {
        self.below().provider()
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            Stack::OfMemory => table::STACK_OF_MEMORY,
            Stack::OfKapokMq => table::STACK_OF_KAPOKMQ,
            Stack::OnKapokMq => table::LAYERS_ON_KAPOKMQ,
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            Box::new(StackPeer { below: self.below().start(needs).await, which: *self }) as Box<dyn Peer>
        })
    }
}

struct StackPeer {
    below: Box<dyn Peer>,
    which: Stack,
}

impl Peer for StackPeer {
    fn producer(&self) -> Value {
        self.below.producer()
    }

    fn config(&self, section: Value, keys: Value) -> Value {
        let mut strategies = vec![
            json!({"type": "timeout", "after": "100s"}),
            json!({"type": "retry", "max_attempts": 3, "backoff": {"type": "fixed", "wait": "20ms"}}),
            json!({"type": "circuit_breaker", "consecutive": 50, "open_for": "100ms"}),
        ];
        if self.which == Stack::OnKapokMq {
            strategies.push(
                json!({"type": "rate_limit", "limiter": "sliding_window", "rate": 100_000, "per": "1s"}),
            );
            return joined(self.below.config(section, keys), json!({"strategies": strategies}));
        }
        // Members that connect and wait as a client does; by default they would fail at once.
        let defaults = json!({"connect": "eager", "when_disconnected": "wait"});
        let member = joined(defaults, self.below.config(section, keys));
        strategies.push(json!({"type": "failover", "members": [member.clone(), member]}));
        json!({"strategies": strategies})
    }

    fn consumer(&self) -> Value {
        self.below.consumer()
    }

    fn line(&self) -> Option<&dyn Line> {
        self.below.line()
    }

    fn secret(&self) -> Option<&str> {
        self.below.secret()
    }

    fn with_secret(&self, secret: &str) -> Value {
        self.below.with_secret(secret)
    }

    fn everyone(&self) -> bool {
        self.below.everyone()
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        self.below.unsupported_field()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.below.stop()
    }
}
