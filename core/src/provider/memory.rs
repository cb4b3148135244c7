//! Topics inside the process: for tests, for examples and for measuring what a call costs.
//!
//! Messages live as long as the process. A topic is shared by every producer and consumer that names it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Setup;
use crate::client::{BoxFuture, Capability, Consumer, Context, Producer};
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Result};
use crate::intake::{Call, Ended, Intake, Taken};
use crate::message::{Delivery, Message, Receipt};

const NAME: &str = "memory";

/// The section of a config with `"type": "memory"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The topic, shared within the process.
    pub topic: String,
    /// Messages a topic holds; a send to a full one is refused as `queue_full`.
    #[serde(default = "default_capacity")]
    pub capacity: usize,
    /// Producer: accept each message and forget it, to measure the cost of a call.
    #[serde(default)]
    pub discard: bool,
    /// Consumer: how long a delivery may stay unacknowledged before it comes again.
    #[serde(default = "default_redeliver_after")]
    pub redeliver_after: Span,
}

fn default_capacity() -> usize {
    1_000_000
}

fn default_redeliver_after() -> Span {
    Span(Duration::from_secs(300))
}

/// Checks a section without opening anything.
pub fn check(section: Map<String, Value>) -> Result<()> {
    parse(section).map(drop)
}

fn parse(section: Map<String, Value>) -> Result<Config> {
    let config: Config = from_value(Value::Object(section))?;
    if config.topic.is_empty() {
        return Err(Error::new(Kind::InvalidConfig, "`topic` is empty").by(NAME));
    }
    if config.capacity == 0 {
        return Err(Error::new(Kind::InvalidConfig, "`capacity` must be at least 1").by(NAME));
    }
    Ok(config)
}

/// The topics of a process.
#[derive(Debug, Default)]
pub struct Topics(Mutex<HashMap<String, Arc<Topic>>>);

impl Topics {
    fn get(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.0.lock();
        if let Some(topic) = topics.get(name) {
            return topic.clone();
        }
        // Topics that nobody uses and that hold nothing go when a new one comes.
        topics.retain(|_, topic| Arc::strong_count(topic) > 1 || !topic.state.lock().is_empty());
        let topic = Arc::new(Topic { name: name.into(), ..Topic::default() });
        topics.insert(name.to_owned(), topic.clone());
        topic
    }
}

#[derive(Debug, Clone)]
struct Stored {
    sequence: u64,
    message: Message,
    created: SystemTime,
    attempt: u32,
}

#[derive(Debug)]
struct InFlight {
    stored: Stored,
    due: Instant,
    consumer: u64,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Stored>,
    delayed: BTreeMap<(Instant, u64), Stored>,
    in_flight: HashMap<u64, InFlight>,
    next_sequence: u64,
}

impl State {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.in_flight.len()
    }

    // Puts back what came from the queue earlier, before younger messages.
    fn put_back(&mut self, stored: Stored) {
        let place = self.ready.partition_point(|other| other.sequence < stored.sequence);
        self.ready.insert(place, stored);
    }

    // Moves what is due to the queue and returns when the next is.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let stored = entry.remove();
            self.ready.push_back(stored);
        }
        let lapsed: Vec<u64> =
            self.in_flight.iter().filter(|(_, flight)| flight.due <= now).map(|(code, _)| *code).collect();
        for code in lapsed {
            if let Some(flight) = self.in_flight.remove(&code) {
                self.put_back(flight.stored);
            }
        }
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let lapses = self.in_flight.values().map(|flight| flight.due).min();
        delayed.into_iter().chain(lapses).min()
    }
}

#[derive(Debug, Default)]
struct Topic {
    name: Arc<str>,
    state: Mutex<State>,
    changed: Notify,
}

impl Topic {
    fn push(&self, call: &Call, capacity: usize) -> Result<Receipt> {
        let mut receipt = Receipt::sent(NAME);
        {
            let mut state = self.state.lock();
            if state.len() >= capacity {
                let text = format!("the topic `{}` holds {capacity} messages: it is full", self.name);
                return Err(Error::new(Kind::QueueFull, text).by(NAME).tried(1));
            }
            state.next_sequence += 1;
            let sequence = state.next_sequence;
            let stored =
                Stored { sequence, message: call.message.clone(), created: SystemTime::now(), attempt: 0 };
            receipt.message_id = Some(code_of(sequence));
            let delay = call.message.delay();
            match call.accepted.checked_add(delay) {
                Some(due) if !delay.is_zero() => {
                    state.delayed.insert((due, sequence), stored);
                }
                Some(_) => state.ready.push_back(stored),
                None => {
                    return Err(Error::new(Kind::InvalidArgument, "the delay is too long").by(NAME));
                }
            }
        }
        self.changed.notify_waiters();
        Ok(receipt)
    }
}

fn code_of(sequence: u64) -> Arc<str> {
    format!("{sequence:016x}").into()
}

/// Opens a producer.
pub fn open_producer(
    setup: &Setup,
    section: Map<String, Value>,
    topics: &Topics,
) -> Result<Arc<dyn Producer>> {
    let config = parse(section)?;
    let topic = topics.get(&config.topic);
    let intake = Intake::new(NAME, setup.limits);
    let sent = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn(run(intake.clone(), topic.clone(), config, sent.clone()));
    Ok(Arc::new(MemoryProducer { intake, topic, sent, task: Mutex::new(Some(task)) }))
}

async fn run(intake: Arc<Intake>, topic: Arc<Topic>, config: Config, sent: Arc<AtomicU64>) {
    let _guard = intake.task_guard();
    let mut taken = Taken::default();
    while !taken.closed {
        intake.take(&mut taken).await;
        // A call is ended in the same step that takes it, so there is never one to cancel.
        taken.cancels.clear();
        let mut ended = Ended::default();
        for call in taken.calls.drain(..) {
            if call.abandoned() {
                ended.push(call, Err(Error::new(Kind::Cancelled, "nobody waits for the call").by(NAME)));
                continue;
            }
            let result = call
                .message
                .allow_only(NAME, &["content_type", "key", "tag", "attributes"], Some(&topic.name))
                .and_then(|()| {
                    if config.discard { Ok(Receipt::sent(NAME)) } else { topic.push(&call, config.capacity) }
                });
            if result.is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            ended.push(call, result);
        }
    }
}

#[derive(Debug)]
struct MemoryProducer {
    intake: Arc<Intake>,
    topic: Arc<Topic>,
    sent: Arc<AtomicU64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Producer for MemoryProducer {
    fn provider(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> Capability {
        Capability {
            delay_unit: Some(Duration::from_millis(1)),
            binary_body: true,
            ordered: true,
            message_id: true,
            ack: true,
            nack: true,
            attempt: true,
            redelivery: true,
            max_body: None,
        }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move { self.intake.send(ctx, Arc::unwrap_or_clone(message)).await })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.intake.drained(ctx).await })
    }

    fn status(&self) -> Value {
        json!({
            "state": "open",
            "topic": &*self.topic.name,
            "sent": self.sent.load(Ordering::Relaxed),
            "held": self.topic.state.lock().len(),
        })
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.intake.close();
            let task = self.task.lock().take();
            if let Some(mut task) = task
                && let Err(error) = ctx.run(&mut task).await
            {
                task.abort();
                let _ = task.await;
                return Err(error.by(NAME));
            }
            Ok(())
        })
    }

    fn intake(&self) -> Option<&Arc<Intake>> {
        Some(&self.intake)
    }
}

/// Opens a consumer.
pub fn open_consumer(
    _setup: &Setup,
    section: Map<String, Value>,
    topics: &Topics,
) -> Result<Arc<dyn Consumer>> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let config = parse(section)?;
    Ok(Arc::new(MemoryConsumer {
        topic: topics.get(&config.topic),
        config,
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        closed: AtomicBool::new(false),
    }))
}

#[derive(Debug)]
struct MemoryConsumer {
    topic: Arc<Topic>,
    config: Config,
    number: u64,
    closed: AtomicBool,
}

impl MemoryConsumer {
    fn take(&self, max: usize) -> Result<(Vec<Delivery>, Option<Instant>)> {
        let now = Instant::now();
        let mut state = self.topic.state.lock();
        // Under the lock: a close gives back what was taken before it, and nothing may be taken after.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Closed, "the consumer is closed").by(NAME));
        }
        let next = state.advance(now);
        let mut deliveries = Vec::new();
        while deliveries.len() < max
            && let Some(mut stored) = state.ready.pop_front()
        {
            stored.attempt = stored.attempt.saturating_add(1);
            deliveries.push(Delivery {
                message: stored.message.clone(),
                topic: self.topic.name.clone(),
                code: code_of(stored.sequence),
                created: Some(stored.created),
                attempt: Some(stored.attempt),
            });
            let wait = self.config.redeliver_after.0;
            let due = now.checked_add(wait).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400));
            let sequence = stored.sequence;
            state.in_flight.insert(sequence, InFlight { stored, due, consumer: self.number });
        }
        Ok((deliveries, next))
    }

    fn settle(&self, code: &str, then: impl FnOnce(&mut State, Stored)) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Closed, "the consumer is closed").by(NAME));
        }
        let sequence = u64::from_str_radix(code, 16).ok().filter(|_| code.len() == 16);
        let mut state = self.topic.state.lock();
        let flight = sequence.and_then(|sequence| match state.in_flight.get(&sequence) {
            Some(flight) if flight.consumer == self.number => state.in_flight.remove(&sequence),
            _ => None,
        });
        match flight {
            Some(flight) => {
                then(&mut state, flight.stored);
                Ok(())
            }
            None => Err(Error::new(
                Kind::NotFound,
                "no delivery with this code is waiting for an ack of this consumer",
            )
            .by(NAME)),
        }
    }
}

impl Consumer for MemoryConsumer {
    fn provider(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> Capability {
        Capability {
            delay_unit: Some(Duration::from_millis(1)),
            binary_body: true,
            ordered: true,
            message_id: true,
            ack: true,
            nack: true,
            attempt: true,
            redelivery: true,
            max_body: None,
        }
    }

    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(async move {
            loop {
                let changed = self.topic.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let (deliveries, next) = self.take(max)?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
                let due = async {
                    match next {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = changed => {}
                    () = due => {}
                    error = ctx.ended() => return match error.kind() {
                        Kind::Timeout => Ok(Vec::new()),
                        _ => Err(error.by(NAME)),
                    },
                }
            }
        })
    }

    fn ack<'a>(&'a self, _ctx: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move { codes.iter().map(|code| self.settle(code, |_, _| ())).collect() })
    }

    fn nack<'a>(
        &'a self,
        _ctx: &'a Context,
        codes: Vec<Arc<str>>,
        delay: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move {
            let results = codes
                .iter()
                .map(|code| {
                    self.settle(code, |state, stored| match Instant::now().checked_add(delay) {
                        Some(due) if !delay.is_zero() => {
                            state.delayed.insert((due, stored.sequence), stored);
                        }
                        _ => state.put_back(stored),
                    })
                })
                .collect();
            self.topic.changed.notify_waiters();
            results
        })
    }

    fn status(&self) -> Value {
        let state = self.topic.state.lock();
        json!({
            "state": "open",
            "topic": &*self.topic.name,
            "held": state.len(),
            "unacked": state.in_flight.values().filter(|flight| flight.consumer == self.number).count(),
        })
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            let mut state = self.topic.state.lock();
            let mine: Vec<u64> = state
                .in_flight
                .iter()
                .filter(|(_, flight)| flight.consumer == self.number)
                .map(|(code, _)| *code)
                .collect();
            for code in mine {
                if let Some(flight) = state.in_flight.remove(&code) {
                    state.put_back(flight.stored);
                }
            }
            drop(state);
            self.topic.changed.notify_waiters();
            Ok(())
        })
    }
}
