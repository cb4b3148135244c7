//! DPMQ over the embedded broker, with the pool of connections that is the default and with one.

use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::client::BoxFuture;
use ceiba_core::secret::Secret;
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer};
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dpmq {
    Pool,
    OneConnection,
}

impl Harness for Dpmq {
    fn provider(&self) -> &'static str {
        "dpmq"
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            Dpmq::Pool => table::DPMQ,
            Dpmq::OneConnection => table::DPMQ_ONE_CONNECTION,
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

    fn line(&self) -> Option<&dyn Line> {
        self.proxy.as_ref().map(|proxy| proxy as &dyn Line)
    }

    fn secret(&self) -> Option<&str> {
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
