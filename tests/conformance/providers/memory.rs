//! The in-memory provider: there is no connection that could fail, and no secret.

use std::time::Duration;

use ceiba_core::client::BoxFuture;
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Needs, Peer};

pub(crate) struct Memory;

const NO_CONNECTION: &str = "there is no connection that could fail";
const NO_SECRET: &str = "there is no secret";

impl Harness for Memory {
    fn provider(&self) -> &'static str {
        "memory"
    }

    fn excluded(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("a_body_over_the_limit_is_too_large", "bodies have no limit of size"),
            ("close_during_an_outage", NO_CONNECTION),
            ("close_while_connecting", NO_CONNECTION),
            ("a_silent_other_side_ends_in_timeout_and_unknown", NO_CONNECTION),
            ("an_absent_other_side_ends_in_not_sent", NO_CONNECTION),
            ("when_disconnected_fail_fails_at_once", NO_CONNECTION),
            ("a_send_waits_for_the_reconnect", NO_CONNECTION),
            ("cancelled_after_it_was_written_is_unknown", NO_CONNECTION),
            ("a_full_producer_gives_back_pressure", NO_CONNECTION),
            ("flush_honours_its_deadline", NO_CONNECTION),
            ("a_wrong_secret_is_refused", NO_SECRET),
            ("nobody_at_the_address_fails_open", NO_CONNECTION),
            ("lazy_open_returns_at_once", NO_CONNECTION),
        ]
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

    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    fn secret(&self) -> Option<(&'static str, &str)> {
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
