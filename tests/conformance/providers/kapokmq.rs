//! KapokMQ over the embedded broker, in either delivery mode.

use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode};
use ceiba_core::client::BoxFuture;
use ceiba_core::secret::Secret;
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Needs, Peer};

pub(crate) struct KapokMq(pub(crate) DeliveryMode);

const SECRET: &str = "canary-3f9c <&\"> \u{1f333}";

impl Harness for KapokMq {
    fn provider(&self) -> &'static str {
        "kapokmq"
    }

    fn excluded(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("nack_gives_back_after_its_delay", "the wire has no nack"),
            ("a_body_that_is_not_utf_8", "the wire carries text"),
        ]
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let config = BrokerConfig {
                secret: Secret::new(SECRET),
                delivery: self.0,
                redeliver_after: needs.redeliver_after,
                ..BrokerConfig::default()
            };
            let broker = Broker::start(config).await.unwrap();
            let proxy = match needs.outage {
                true => Some(Proxy::start(broker.address(), None).await),
                false => None,
            };
            Box::new(BrokerPeer { broker, proxy, mode: self.0 }) as Box<dyn Peer>
        })
    }
}

struct BrokerPeer {
    broker: Broker,
    proxy: Option<Proxy>,
    mode: DeliveryMode,
}

impl BrokerPeer {
    fn section(&self) -> Value {
        let address = self.proxy.as_ref().map_or(self.broker.address(), Proxy::address);
        json!({
            "type": "kapokmq",
            "url": format!("ws://{address}"),
            "topic": "a topic | 木 %20?#",
            "secret_key": SECRET,
        })
    }
}

impl Peer for BrokerPeer {
    fn producer(&self) -> Value {
        self.section()
    }

    fn consumer(&self) -> Value {
        self.section()
    }

    fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    fn secret(&self) -> Option<(&'static str, &str)> {
        Some(("secret_key", SECRET))
    }

    fn everyone(&self) -> bool {
        self.mode == DeliveryMode::PublishSubscribe
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("recipients")
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The proxy first: a connection that it holds in silence would be waited for.
            drop(self.proxy);
            self.broker.stop(Duration::from_secs(5)).await;
        })
    }
}
