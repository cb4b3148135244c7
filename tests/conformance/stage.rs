//! One case's other side with the producers and consumers opened against it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::completion::{Completion, CompletionQueue};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::intake::{Intake, pump};
use ceiba_core::message::{Delivery, Message};
use ceiba_core::open;
use ceiba_core::provider::callback::Hosts;
use ceiba_core::provider::memory::Topics;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Line, Needs, Peer, joined};
use crate::table::Trait;

/// See the module.
pub(crate) struct Stage {
    peer: Box<dyn Peer>,
    traits: &'static [Trait],
    topics: Topics,
    hosts: Hosts,
    opened: AtomicU64,
}

/// A delivery and when it came.
pub(crate) type Arrival = (Instant, Delivery);

/// A context that ends after this many seconds.
pub(crate) fn seconds(seconds: f64) -> Context {
    Context::within(Duration::from_secs_f64(seconds))
}

/// A message with this body.
pub(crate) fn message(body: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(Message::new(body))
}

/// The body as text.
pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.message.body()).into_owned()
}

impl Stage {
    /// Starts the other side.
    pub(crate) async fn start(harness: &dyn Harness, needs: Needs) -> Stage {
        Stage {
            peer: harness.start(needs).await,
            traits: harness.traits(),
            topics: Topics::default(),
            hosts: Hosts::default(),
            opened: AtomicU64::new(0),
        }
    }

    /// Without special needs.
    pub(crate) async fn plain(harness: &dyn Harness) -> Stage {
        Stage::start(harness, Needs::default()).await
    }

    /// With a connection that can be lost; none where there is no connection.
    pub(crate) async fn failing(harness: &dyn Harness) -> Option<Stage> {
        Stage::without(harness, Trait::NoConnection).await
    }

    /// With another side that can be silent; none where there is no such side.
    pub(crate) async fn silent(harness: &dyn Harness) -> Option<Stage> {
        Stage::without(harness, Trait::NeverSilent).await
    }

    async fn without(harness: &dyn Harness, without: Trait) -> Option<Stage> {
        if harness.traits().contains(&without) {
            return None;
        }
        Some(Stage::start(harness, Needs { outage: true, ..Needs::default() }).await)
    }

    pub(crate) fn peer(&self) -> &dyn Peer {
        &*self.peer
    }

    pub(crate) fn has(&self, of: Trait) -> bool {
        self.traits.contains(&of)
    }

    /// As many messages as a case would send, or as it may.
    pub(crate) fn most(&self, count: usize) -> usize {
        self.traits.iter().filter_map(|of| of.most_messages()).fold(count, usize::min)
    }

    /// What stands between client and other side.
    pub(crate) fn line(&self) -> &dyn Line {
        self.peer.line().expect("the case asked for another side that can fail")
    }

    /// Waits until the producer has noticed that its connection is gone; where its state does not say so, until a send
    /// has found that out.
    pub(crate) async fn lost(&self, producer: &Arc<dyn Producer>) {
        if !self.has(Trait::ConnectsForEach) {
            let gone = || leaves(producer.status()).iter().all(|status| status["state"] != "connected");
            return until("the loss", gone).await;
        }
        let started = Instant::now();
        while producer.send(&seconds(0.1), message("probe")).await.unwrap_err().outcome() != Outcome::NotSent
        {
            assert!(started.elapsed() < Duration::from_secs(30), "the loss did not happen");
        }
    }

    /// What an error is about: of members that all failed alike, that of each.
    pub(crate) fn cause(&self, error: Error) -> Error {
        if !self.has(Trait::Members) || error.kind() != Kind::AllFailed {
            return error;
        }
        let causes = causes(&error);
        let unknown = |error: &Error| error.outcome() == Outcome::Unknown;
        // The one that may have sent it tells most.
        let told = causes.iter().find(|cause| unknown(cause)).unwrap_or(&causes[0]);
        for cause in &causes {
            assert_eq!((cause.kind(), cause.retryable()), (told.kind(), told.retryable()), "{error}");
        }
        assert_eq!((unknown(&error), error.retryable()), (unknown(told), told.retryable()), "{error}");
        (*told).clone()
    }

    /// Ends a case about consumers, of which a provider that only sends has none: opening one is refused.
    pub(crate) async fn refuses_consumers(self) -> Option<Stage> {
        if !self.has(Trait::SendsOnly) {
            return Some(self);
        }
        let config = ClientConfig::from_json(self.peer.config(json!({}), json!({}))).unwrap();
        let error =
            open::consumer(&self.id(), &config, &self.topics).await.err().expect("a consumer was opened");
        assert_eq!((error.kind(), error.retryable()), (Kind::InvalidConfig, false), "{error}");
        self.end().await;
        None
    }

    fn id(&self) -> String {
        format!("conformance-{}", self.opened.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn producer(&self) -> Arc<dyn Producer> {
        self.try_producer(json!({})).await.unwrap()
    }

    /// With these keys beside `provider`, and those under `provider` in its section.
    pub(crate) async fn try_producer(&self, keys: Value) -> Result<Arc<dyn Producer>> {
        let (section, keys) = split(keys);
        let config = ClientConfig::from_json(self.peer.config(section, keys)).unwrap();
        let none = |id: &str| panic!("no config of the suite names a member by its id: {id}");
        let hosts = self.peer.hosts().unwrap_or(&self.hosts);
        let around = open::Surroundings { topics: &self.topics, hosts, members: &none };
        open::producer_among(&self.id(), &config, &around).await
    }

    /// Opens a producer, and a consumer where the provider has one.
    pub(crate) async fn opens(&self, keys: &Value) -> Vec<Result<()>> {
        let mut results = vec![self.try_producer(keys.clone()).await.map(drop)];
        if !self.has(Trait::SendsOnly) {
            results.push(self.try_consumer(keys.clone()).await.map(drop));
        }
        results
    }

    pub(crate) async fn consumer(&self) -> Arc<dyn Consumer> {
        self.try_consumer(json!({})).await.unwrap()
    }

    pub(crate) async fn try_consumer(&self, keys: Value) -> Result<Arc<dyn Consumer>> {
        if let Some(inbox) = self.peer.inbox() {
            return Ok(inbox);
        }
        let (section, keys) = split(keys);
        let config = joined(json!({"provider": joined(self.peer.consumer(), section)}), keys);
        open::consumer(&self.id(), &ClientConfig::from_json(config).unwrap(), &self.topics).await
    }

    /// Stops the other side.
    pub(crate) async fn end(self) {
        self.peer.stop().await;
    }
}

// The errors of members, in those of attempts.
fn causes(error: &Error) -> Vec<&Error> {
    if error.kind() != Kind::AllFailed {
        return vec![error];
    }
    error.parts().iter().filter_map(|part| part.error.as_ref()).flat_map(causes).collect()
}

// The keys of the provider's section, and the others.
fn split(mut keys: Value) -> (Value, Value) {
    let section = keys.as_object_mut().and_then(|keys| keys.remove("provider"));
    (section.unwrap_or(json!({})), keys)
}

/// The statuses of the producers at the ends of a stack of strategies; of any other producer its own.
pub(crate) fn leaves(status: Value) -> Vec<Value> {
    let strategies = status["strategies"].as_array();
    match strategies.into_iter().flatten().find_map(|strategy| strategy["members"].as_array()) {
        Some(members) => members.iter().cloned().flat_map(leaves).collect(),
        None => vec![status],
    }
}

/// The sum of a number that they show.
pub(crate) fn shown(producer: &Arc<dyn Producer>, name: &str) -> u64 {
    leaves(producer.status()).iter().filter_map(|status| status[name].as_u64()).sum()
}

/// Receives and acknowledges until `count` deliveries came; fails when they do not within `within`.
pub(crate) async fn receive(consumer: &Arc<dyn Consumer>, count: usize, within: f64) -> Vec<Arrival> {
    let ctx = seconds(within);
    let mut arrived = Vec::new();
    while arrived.len() < count {
        let deliveries = consumer.receive(&ctx, count - arrived.len()).await.unwrap();
        assert!(deliveries.len() <= count - arrived.len(), "more came than was asked for");
        assert!(
            !deliveries.is_empty(),
            "{} of {count} deliveries came within {within} s: {}",
            arrived.len(),
            consumer.status()
        );
        let now = Instant::now();
        acknowledge(consumer, &deliveries).await;
        arrived.extend(deliveries.into_iter().map(|delivery| (now, delivery)));
    }
    arrived
}

/// Acknowledges, where the provider has acks.
pub(crate) async fn acknowledge(consumer: &Arc<dyn Consumer>, deliveries: &[Delivery]) {
    if consumer.capability().ack && !deliveries.is_empty() {
        let codes: Vec<Arc<str>> = deliveries.iter().map(|delivery| delivery.code.clone()).collect();
        let results = consumer.ack(&seconds(5.0), codes).await;
        assert_eq!(results.len(), deliveries.len());
        for result in results {
            result.unwrap();
        }
    }
}

/// Whatever still comes until nothing does for `quiet` seconds; acknowledged.
pub(crate) async fn rest(consumer: &Arc<dyn Consumer>, quiet: f64) -> Vec<Delivery> {
    let mut arrived = Vec::new();
    loop {
        let deliveries = consumer.receive(&seconds(quiet), 1000).await.unwrap();
        if deliveries.is_empty() {
            return arrived;
        }
        acknowledge(consumer, &deliveries).await;
        arrived.extend(deliveries);
    }
}

/// Fails if anything comes within `within` seconds.
pub(crate) async fn nothing_comes(consumer: &Arc<dyn Consumer>, within: f64) {
    let deliveries = consumer.receive(&seconds(within), 10).await.unwrap();
    let bodies: Vec<String> = deliveries.iter().map(text).collect();
    assert!(deliveries.is_empty(), "came though it should not: {bodies:?}");
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the producer holds this many calls that have not ended.
pub(crate) async fn pending(producer: &Arc<dyn Producer>, count: u64) {
    until("the calls", || shown(producer, "pending") == count).await;
}

/// Submits to a producer, as the calls by id do.
pub(crate) struct Submitter {
    pub(crate) intake: Arc<Intake>,
    pub(crate) queue: Arc<CompletionQueue>,
    pump: Option<tokio::task::JoinHandle<()>>,
}

impl Submitter {
    pub(crate) fn new(producer: &Arc<dyn Producer>, capacity: usize) -> Submitter {
        let queue = Arc::new(CompletionQueue::new(capacity).unwrap());
        let (intake, pump) = match producer.intake() {
            Some(intake) => (intake.clone(), None),
            None => {
                let intake = Intake::new(producer.provider(), Default::default());
                let task = tokio::spawn(pump(intake.clone(), producer.clone(), CancellationToken::new()));
                (intake, Some(task))
            }
        };
        intake.set_queue(queue.clone());
        Submitter { intake, queue, pump }
    }

    /// Closes the producer behind it, and the pump before.
    pub(crate) async fn close(&mut self, producer: &Arc<dyn Producer>, ctx: &Context) -> Result<()> {
        self.intake.close();
        if let Some(pump) = self.pump.take() {
            let _ = ctx.run(pump).await;
        }
        producer.close(ctx).await
    }

    /// Waits until this many completions came, by token; fails when one comes twice or after `within` seconds.
    pub(crate) async fn completions(&self, count: usize, within: f64) -> BTreeMap<u64, Completion> {
        let until = Instant::now() + Duration::from_secs_f64(within);
        let mut by_token = BTreeMap::new();
        loop {
            let mut taken = Vec::new();
            self.queue.poll(usize::MAX, &mut taken);
            for completion in taken {
                let token = completion.token;
                assert!(by_token.insert(token, completion).is_none(), "token {token} completed twice");
            }
            if by_token.len() >= count {
                return by_token;
            }
            assert!(
                Instant::now() < until,
                "{} of {count} submits completed within {within} s",
                by_token.len()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
