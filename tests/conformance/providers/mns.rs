//! MNS over the embedded broker: a queue, with bodies as they are and in Base64, and a topic whose messages go on to a
//! queue that the cases receive from.

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
    /// Any bytes.
    Base64,
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
            Mns::Base64 => table::MNS_BASE64,
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
            let line = match needs.outage {
                true => Some(Away {
                    producers: Proxy::start(address, None).await,
                    consumers: Proxy::start(address, None).await,
                }),
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
                Mns::Queue | Mns::Base64 => None,
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
            Box::new(BrokerPeer { broker, line, inbox, which: *self }) as Box<dyn Peer>
        })
    }
}

/// A service that is gone refuses connections: one that took them and hung up would have been written to. Consumers
/// have a line of their own, so that what producers write can be counted.
struct Away {
    producers: Proxy,
    consumers: Proxy,
}

impl Line for Away {
    fn cut(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            tokio::join!(self.producers.leave(), self.consumers.leave());
        })
    }

    fn silence(&self) {
        self.producers.silence();
        self.consumers.silence();
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            tokio::join!(self.producers.come_back(), self.consumers.come_back());
        })
    }

    fn swallowing(&self) -> u64 {
        self.producers.swallowing()
    }
}

struct BrokerPeer {
    broker: Broker,
    line: Option<Away>,
    inbox: Option<Arc<dyn Consumer>>,
    which: Mns,
}

impl BrokerPeer {
    fn section(&self, through: impl Fn(&Away) -> &Proxy, more: Value) -> Value {
        let address = match &self.line {
            Some(line) => through(line).address(),
            None => self.broker.mns_address().unwrap(),
        };
        let encoding = match self.which {
            Mns::Base64 => json!({"body_encoding": "base64"}),
            Mns::Queue | Mns::Topic => Value::Null,
        };
        joined(section(address, more), encoding)
    }
}

impl Peer for BrokerPeer {
    fn producer(&self) -> Value {
        let place = match self.which {
            Mns::Queue | Mns::Base64 => "queue",
            Mns::Topic => "topic",
        };
        self.section(|line| &line.producers, json!({place: NAME}))
    }

    // A delivery is hidden as long as the queue says, and no longer.
    fn consumer(&self) -> Value {
        self.section(|line| &line.consumers, json!({"queue": NAME, "extend_for": "0s"}))
    }

    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        self.inbox.clone()
    }

    fn line(&self) -> Option<&dyn Line> {
        self.line.as_ref().map(|line| line as &dyn Line)
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

    // What is pushed to a queue as text alone is the body.
    fn used_up(&self) -> &'static [&'static str] {
        match self.which {
            Mns::Queue | Mns::Base64 => &[],
            Mns::Topic => &["key", "tag", "attributes"],
        }
    }

    fn longest_body(&self) -> usize {
        match self.which {
            Mns::Queue | Mns::Topic => 64 << 10,
            Mns::Base64 => 48 << 10,
        }
    }

    fn written_ahead(&self) -> usize {
        8
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The proxy first: a connection that it holds in silence would be waited for.
            drop(self.line);
            if let Some(inbox) = self.inbox {
                let _ = inbox.close(&Context::within(Duration::from_secs(5))).await;
            }
            self.broker.stop(Duration::from_secs(5)).await;
        })
    }
}
