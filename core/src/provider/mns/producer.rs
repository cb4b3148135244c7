//! A producer: what callers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PROVIDER;
use super::content::{Delayed, Shape};
use super::section::{BodyEncoding, Place, Settings};
use super::service::Service;
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Room, UnderWay};
use crate::message::{Message, Receipt};
use crate::provider::Setup;
use crate::wire::mns::{self, Entry, MAX_BATCH, Operation, Outgoing, Sent, decode_batch, is_body_md5};

struct MnsProducer {
    service: Service,
    shape: Shape,
    room: Room,
    under_way: Arc<UnderWay>,
    connections: usize,
    sent: AtomicU64,
    failed: AtomicU64,
    closed: std::sync::atomic::AtomicBool,
}

pub(super) async fn open(setup: &Setup, settings: Settings) -> Result<Arc<dyn Producer>> {
    let under_way: Arc<UnderWay> = Arc::default();
    // A close without time ends what is under way, each with its outcome.
    let stop = under_way.stop().clone();
    let (account, place) = (settings.account, settings.place);
    let service = Service::open(setup, &account, Some(&place), account.connections, stop).await?;
    Ok(Arc::new(MnsProducer {
        service,
        shape: Shape {
            place,
            encoding: account.encoding,
            max_body: settings.max_body,
            priority: settings.priority,
        },
        room: Room::new(&setup.limits),
        under_way,
        connections: account.connections,
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        closed: std::sync::atomic::AtomicBool::new(false),
    }))
}

impl MnsProducer {
    async fn send_one(&self, ctx: &Context, message: &Message) -> Result<Receipt> {
        let _entered = self.under_way.enter().map_err(|error| error.by(PROVIDER))?;
        let accepted = Instant::now();
        let outgoing = self.shape.outgoing(message)?;
        let _room = self.enter(ctx, message).await?;
        let operation = match &self.shape.place {
            Place::Queue(name) => Operation::Send { queue: name.as_ref().into(), message: outgoing },
            Place::Topic(name) => Operation::Publish { topic: name.as_ref().into(), message: outgoing },
        };
        let mut asked = Delayed::new(operation, accepted, std::iter::once(message.delay()));
        let answer = self.call(ctx, &mut asked).await?;
        let sent = Sent::decode(&answer).map_err(strange)?;
        let (Operation::Send { message, .. } | Operation::Publish { message, .. }) = &asked.operation else {
            return Err(Error::new(Kind::Internal, "a message became another operation").by(PROVIDER));
        };
        receipt(sent, message)
    }

    async fn call(&self, ctx: &Context, asked: &mut Delayed<'_>) -> Result<bytes::Bytes> {
        Ok(self.service.sent(ctx, asked).await.map_err(|error| error.tried(1))?.body)
    }

    async fn enter(&self, ctx: &Context, message: &Message) -> Result<crate::intake::Roomed> {
        match self.service.stopping(ctx, self.room.enter(ctx, message)).await {
            Ok(roomed) => roomed.map_err(|error| error.by(PROVIDER)),
            // Both wait for the deadline, and this one was first.
            Err(ended) if ended.kind() == Kind::Timeout => Err(self.room.full().by(PROVIDER)),
            Err(ended) => Err(ended.by(PROVIDER)),
        }
    }

    fn count(&self, result: &Result<Receipt>) {
        let counter = if result.is_ok() { &self.sent } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends some messages in one request; a result for each.
    async fn send_some(&self, ctx: &Context, mut asked: Delayed<'_>, number: usize) -> Vec<Result<Receipt>> {
        let same = |error: Error| vec![Err(error); number];
        let answer = match self.call(ctx, &mut asked).await {
            Ok(answer) => answer,
            Err(error) => return same(error),
        };
        let Operation::SendBatch { messages, .. } = &asked.operation else { return Vec::new() };
        let entries = match decode_batch(&answer) {
            Ok(entries) if entries.len() == number => entries,
            Ok(_) => {
                return same(strange(mns::Malformed("it tells of more or fewer messages than were sent")));
            }
            Err(malformed) => return same(strange(malformed)),
        };
        let mut results = Vec::with_capacity(number);
        for (entry, message) in entries.into_iter().zip(messages) {
            results.push(match entry {
                Entry::Sent(sent) => receipt(sent, message),
                Entry::Refused { code, text } => {
                    let said = self.service.shown(&format!("{text} ({code})")).await;
                    let text = format!("{} refuses it: {said}", self.service.label());
                    Err(mns::error(&code, 500, text).by(PROVIDER).tried(1))
                }
            });
        }
        results
    }

    async fn send_all(&self, ctx: &Context, messages: &[Arc<Message>]) -> Vec<Result<Receipt>> {
        let Place::Queue(queue) = &self.shape.place else {
            // A topic takes one message at a time.
            let mut sends = Vec::with_capacity(messages.len());
            for message in messages {
                sends.push(self.send_one(ctx, message));
            }
            return futures_util::stream::iter(sends).buffered(self.connections).collect().await;
        };
        let mut results: Vec<Option<Result<Receipt>>> = messages.iter().map(|_| None).collect();
        let _entered = match self.under_way.enter() {
            Ok(entered) => entered,
            Err(error) => return messages.iter().map(|_| Err(error.clone().by(PROVIDER))).collect(),
        };
        let accepted = Instant::now();
        let mut batches: Vec<Batch<'_>> = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            match self.shape.outgoing(message) {
                Ok(outgoing) => {
                    let length = outgoing.body.len();
                    let fits = |batch: &&mut Batch<'_>| {
                        batch.some.len() < MAX_BATCH && batch.length + length <= self.shape.max_body
                    };
                    match batches.last_mut().filter(fits) {
                        Some(batch) => batch.push(place, outgoing, length),
                        None => {
                            let mut batch = Batch::default();
                            batch.push(place, outgoing, length);
                            batches.push(batch);
                        }
                    }
                }
                Err(error) => {
                    if let Some(slot) = results.get_mut(place) {
                        *slot = Some(Err(error));
                    }
                }
            }
        }
        let mut waiting = batches.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.connections
                && let Some(batch) = waiting.next()
            {
                running.push(async {
                    // One request has room for one: its bodies together are no longer than one may be.
                    let each = || batch.places.iter().filter_map(|place| messages.get(*place));
                    let operation =
                        Operation::SendBatch { queue: queue.as_ref().into(), messages: batch.some };
                    let asked = Delayed::new(operation, accepted, each().map(|message| message.delay()));
                    let ends = match each().max_by_key(|message| message.body().len()) {
                        None => Vec::new(),
                        Some(longest) => match self.enter(ctx, longest).await {
                            Ok(_room) => self.send_some(ctx, asked, batch.places.len()).await,
                            Err(error) => vec![Err(error); batch.places.len()],
                        },
                    };
                    (batch.places, ends)
                });
            }
            let Some((places, ends)) = running.next().await else { break };
            for (place, end) in places.into_iter().zip(ends) {
                if let Some(slot) = results.get_mut(place) {
                    *slot = Some(end);
                }
            }
        }
        let left_out = || Err(Error::new(Kind::Internal, "a message was left out").by(PROVIDER));
        results.into_iter().map(|result| result.unwrap_or_else(left_out)).collect()
    }
}

#[derive(Default)]
struct Batch<'a> {
    places: Vec<usize>,
    some: Vec<Outgoing<'a>>,
    length: usize,
}

impl<'a> Batch<'a> {
    fn push(&mut self, place: usize, outgoing: Outgoing<'a>, length: usize) {
        self.places.push(place);
        self.some.push(outgoing);
        self.length += length;
    }
}

fn strange(malformed: mns::Malformed) -> Error {
    Error::from(malformed).outcome_is(Outcome::Unknown).by(PROVIDER).tried(1)
}

fn receipt(sent: Sent, message: &Outgoing<'_>) -> Result<Receipt> {
    if !is_body_md5(message.body.as_bytes(), &sent.body_md5) {
        let text = format!("the service has another body than was sent, as message {}", sent.message_id);
        let error = Error::new(Kind::Protocol, text).outcome_is(Outcome::Unknown);
        return Err(error.by(PROVIDER).tried(1));
    }
    let code = sent.receipt_handle.map(Into::into);
    Ok(Receipt { message_id: Some(sent.message_id.into()), code, ..Receipt::sent(PROVIDER) })
}

/// What both ends of a queue can do.
pub(super) fn capability(encoding: BodyEncoding, longest: u64) -> Capability {
    Capability {
        delay_unit: Some(Duration::from_secs(1)),
        binary_body: encoding == BodyEncoding::Base64,
        ordered: false,
        message_id: true,
        ack: true,
        nack: true,
        attempt: true,
        redelivery: true,
        max_body: Some(longest),
    }
}

impl Producer for MnsProducer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        let capability = capability(self.shape.encoding, self.shape.longest_body());
        match self.shape.place {
            Place::Queue(_) => capability,
            Place::Topic(_) => Capability { delay_unit: None, ..capability },
        }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let result = self.send_one(ctx, &message).await;
            self.count(&result);
            result
        })
    }

    fn send_batch<'a>(
        &'a self,
        ctx: &'a Context,
        messages: Vec<Arc<Message>>,
    ) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        Box::pin(async move {
            let results = self.send_all(ctx, &messages).await;
            results.iter().for_each(|result| self.count(result));
            results
        })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.under_way.drained(ctx).await.map_err(|error| error.by(PROVIDER)) })
    }

    fn status(&self) -> Value {
        let mut status = self.service.status();
        let (key, name) = match &self.shape.place {
            Place::Queue(name) => ("queue", name),
            Place::Topic(name) => ("topic", name),
        };
        let closed = self.closed.load(Ordering::Acquire);
        status.insert("state".into(), json!(if closed { "closed" } else { "open" }));
        status.insert(key.into(), json!(&**name));
        status.insert("pending".into(), json!(self.under_way.count()));
        status.insert("sent".into(), json!(self.sent.load(Ordering::Relaxed)));
        status.insert("failed".into(), json!(self.failed.load(Ordering::Relaxed)));
        Value::Object(status)
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            let ended = self.under_way.close(ctx).await;
            self.service.close();
            ended.map_err(|error| error.by(PROVIDER))
        })
    }
}
