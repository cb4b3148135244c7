//! MNS over the embedded broker: a queue, and a topic whose messages go on to a queue that the cases receive from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, MnsConfig};
use ceiba_core::client::{BoxFuture, Consumer, Context};
use ceiba_core::clock::Clock;
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::intake::{Limits, Whose};
use ceiba_core::provider::{Setup, mns};
use ceiba_core::random::Random;
use ceiba_core::secret::Secret;
use ceiba_core::wire::mns::{QueueAttributes, SubscriptionAttributes, TopicAttributes};
use ceiba_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::harness::{Harness, Line, Needs, Peer, joined, object};
use crate::table::{self, Trait};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mns {
    Queue,
    Topic,
}

const SECRET: &str = "canary-3f9c-of-a-key";
const NAME: &str = "a-Name_1";

fn setup() -> Setup {
    Setup {
        id: "conformance".into(),
        limits: Limits { calls: 1000, bytes: 1 << 30, deadline: Duration::from_secs(10), of: Whose::Client },
        connect: Connect::Lazy,
        connect_timeout: Duration::from_secs(5),
        when_disconnected: WhenDisconnected::Fail,
        clock: Clock::from_system(),
        random: Random::from_system(),
    }
}

fn section(address: SocketAddr, more: Value) -> Value {
    let keys = json!({
        "type": "mns",
        "url": format!("http://{address}"),
        "access_key_id": "id",
        "access_key_secret": SECRET,
    });
    joined(keys, more)
}

impl Harness for Mns {
    fn provider(&self) -> &'static str {
        "mns"
    }

    fn traits(&self) -> &'static [Trait] {
        match self {
            Mns::Queue => table::MNS_QUEUE,
            Mns::Topic => table::MNS_TOPIC,
        }
    }

    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>> {
        Box::pin(async move {
            let config = BrokerConfig {
                mns: Some(MnsConfig::new("id", Secret::new(SECRET))),
                ..BrokerConfig::new(Secret::new("of no use here"))
            };
            let broker = Broker::start(config).await.unwrap();
            let address = broker.mns_address().unwrap();
            let proxy = match needs.outage {
                true => Some(Proxy::start(address, None).await),
                false => None,
            };
            let mut keys = object(section(address, json!({"queue": NAME})));
            keys.remove("type");
            let admin = mns::Admin::open(&setup(), keys.clone()).await.unwrap();
            let ctx = Context::within(Duration::from_secs(10));
            let visibility = needs.redeliver_after.as_secs_f64().ceil().max(1.0) as u32;
            let attributes = QueueAttributes { visibility_timeout: Some(visibility), ..Default::default() };
            admin.create_queue(&ctx, NAME, attributes).await.unwrap();
            let inbox = match self {
                Mns::Queue => None,
                Mns::Topic => {
                    admin.create_topic(&ctx, NAME, TopicAttributes::default()).await.unwrap();
                    let to = SubscriptionAttributes {
                        endpoint: Some(format!("acs:mns:here:1:queues/{NAME}")),
                        notify_content_format: Some("SIMPLIFIED".to_owned()),
                        ..Default::default()
                    };
                    admin.subscribe(&ctx, NAME, "s", to).await.unwrap();
                    Some(mns::open_consumer(&setup(), keys).await.unwrap())
                }
            };
            Box::new(BrokerPeer { broker, proxy, inbox }) as Box<dyn Peer>
        })
    }
}

struct BrokerPeer {
    broker: Broker,
    proxy: Option<Proxy>,
    inbox: Option<Arc<dyn Consumer>>,
}

impl Peer for BrokerPeer {
    fn producer(&self) -> Value {
        let own = self.broker.mns_address().unwrap();
        let address = self.proxy.as_ref().map_or(own, Proxy::address);
        match self.inbox {
            Some(_) => section(address, json!({"topic": NAME})),
            None => section(address, json!({"queue": NAME})),
        }
    }

    fn consumer(&self) -> Value {
        let own = self.broker.mns_address().unwrap();
        section(self.proxy.as_ref().map_or(own, Proxy::address), json!({"queue": NAME}))
    }

    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        self.inbox.clone()
    }

    fn line(&self) -> Option<&dyn Line> {
        self.proxy.as_ref().map(|proxy| proxy as &dyn Line)
    }

    fn secret(&self) -> Option<&str> {
        Some(SECRET)
    }

    fn with_secret(&self, secret: &str) -> Value {
        json!({"access_key_secret": secret})
    }

    fn everyone(&self) -> bool {
        false
    }

    fn unsupported_field(&self) -> Option<&'static str> {
        Some("recipients")
    }

    fn longest_body(&self) -> usize {
        64 << 10
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The proxy first: a connection that it holds in silence would be waited for.
            drop(self.proxy);
            if let Some(inbox) = self.inbox {
                let _ = inbox.close(&Context::within(Duration::from_secs(5))).await;
            }
            self.broker.stop(Duration::from_secs(5)).await;
        })
    }
}
