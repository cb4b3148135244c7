//! DPMQ over the embedded broker, with the pool of connections that is the default and with one.

use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::client::BoxFuture;
use ceiba_core::secret::Secret;
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Needs, Peer};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dpmq {
    Pool,
    OneConnection,
}

const NO_ACK: &str = "the wire has no ack: a delivery counts as consumed when it is written";
const NO_DELAY: &str = "the wire has no delays";

impl Harness for Dpmq {
    fn provider(&self) -> &'static str {
        "dpmq"
    }

    fn excluded(&self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 11] = [
            ("one_producer_keeps_its_order", "a pool of connections gives no order"),
            ("what_is_not_acknowledged_comes_again", NO_ACK),
            ("a_lost_consumers_messages_go_to_the_next", NO_ACK),
            ("nack_gives_back_after_its_delay", NO_ACK),
            ("many_acks_outstanding_in_any_order", NO_ACK),
            ("an_unknown_code_harms_nothing", NO_ACK),
            ("a_delay_is_never_early", NO_DELAY),
            ("a_finer_delay_is_rounded_up", NO_DELAY),
            ("a_delayed_message_holds_up_no_other", NO_DELAY),
            ("a_body_that_is_not_utf_8", "the wire carries text"),
            ("a_wrong_secret_is_refused", "there is no secret"),
        ];
        match self {
            Dpmq::Pool => &ALL,
            Dpmq::OneConnection => ALL.split_first().map_or(&[], |(_, others)| others),
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let config = BrokerConfig {
                dpmq: true,
                redeliver_after: needs.redeliver_after,
                ..BrokerConfig::new(Secret::new("of no use here"))
            };
            let broker = Broker::start(config).await.unwrap();
            let proxy = match needs.outage {
                true => Some(Proxy::start(broker.address(), None).await),
                false => None,
            };
            Box::new(BrokerPeer { broker, proxy, which: *self }) as Box<dyn Peer>
        })
    }
}

struct BrokerPeer {
    broker: Broker,
    proxy: Option<Proxy>,
    which: Dpmq,
}

impl Peer for BrokerPeer {
    fn producer(&self) -> Value {
        let mut section = self.consumer();
        if self.which == Dpmq::OneConnection {
            section["connections"] = json!(1);
        }
        section
    }

    fn consumer(&self) -> Value {
        let address = self.proxy.as_ref().map_or(self.broker.address(), Proxy::address);
        json!({"type": "dpmq", "url": format!("http://{address}"), "topic": "a topic 木 %20?#"})
    }

    fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    fn secret(&self) -> Option<(&'static str, &str)> {
        None
    }

    fn everyone(&self) -> bool {
        true
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("recipients")
    }

    /// One on the connection that there is; further connections have no answer yet.
    fn written_ahead(&self) -> usize {
        1
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The proxy first: a connection that it holds in silence would be waited for.
            drop(self.proxy);
            self.broker.stop(Duration::from_secs(5)).await;
        })
    }
}
