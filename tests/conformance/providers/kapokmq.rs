//! KapokMQ over the embedded broker: in either delivery mode, as a cluster of one node, and without the
//! extension, as with the original server.

use std::net::SocketAddr;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode};
use ceiba_core::client::BoxFuture;
use ceiba_core::secret::Secret;
use ceiba_tests::proxy::Proxy;
use ceiba_tests::registry::Registry;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer};
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KapokMq {
    WorkQueue,
    PublishSubscribe,
    /// The producer asks a registry for its broker.
    Cluster,
    /// The broker speaks the wire as the original does.
    Plain,
}

const SECRET: &str = "canary-3f9c <&\"> \u{1f333}";

impl Harness for KapokMq {
    fn provider(&self) -> &'static str {
        "kapokmq"
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            KapokMq::Cluster => table::KAPOKMQ_CLUSTER,
            KapokMq::Plain => table::KAPOKMQ_PLAIN,
            _ => table::KAPOKMQ,
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let delivery = match self {
                KapokMq::PublishSubscribe => DeliveryMode::PublishSubscribe,
                _ => DeliveryMode::WorkQueue,
            };
            let config = BrokerConfig {
                delivery,
                redeliver_after: needs.redeliver_after,
                extension: *self != KapokMq::Plain,
                ..BrokerConfig::new(Secret::new(SECRET))
            };
            let broker = Broker::start(config).await.unwrap();
            let proxy = match needs.outage {
                true => Some(Proxy::start(broker.address(), None).await),
                false => None,
            };
            let node = proxy.as_ref().map_or(broker.address(), Proxy::address);
            let registry = match self {
                KapokMq::Cluster => Some(Registry::start(SECRET, &[node]).await),
                _ => None,
            };
            Box::new(BrokerPeer { broker, proxy, node, registry, delivery }) as Box<dyn Peer>
        })
    }
}

struct BrokerPeer {
    broker: Broker,
    proxy: Option<Proxy>,
    // What clients connect to.
    node: SocketAddr,
    registry: Option<Registry>,
    delivery: DeliveryMode,
}

impl Peer for BrokerPeer {
    fn producer(&self) -> Value {
        let mut section = self.consumer();
        if let (Some(registry), Some(section)) = (&self.registry, section.as_object_mut()) {
            section.remove("url");
            section.insert("registry".to_owned(), json!(format!("http://{}", registry.address())));
        }
        section
    }

    fn consumer(&self) -> Value {
        json!({
            "type": "kapokmq",
            "url": format!("ws://{}", self.node),
            "topic": "a topic | 木 %20?#",
            "secret_key": SECRET,
        })
    }

    fn line(&self) -> Option<&dyn Line> {
        self.proxy.as_ref().map(|proxy| proxy as &dyn Line)
    }

    fn secret(&self) -> Option<&str> {
        Some(SECRET)
    }

    fn with_secret(&self, secret: &str) -> Value {
        json!({"secret_key": secret})
    }

    fn everyone(&self) -> bool {
        self.delivery == DeliveryMode::PublishSubscribe
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
