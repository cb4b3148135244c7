//! The calls by id that every binding makes. Those that wait are futures; [`crate::runtime::block_on`]
//! turns them into blocking calls.

mod held;
mod metrics;
mod shutdown;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::{Consumer, Context, Producer};
use crate::completion::CompletionQueue;
use crate::config::{ClientConfig, Role};
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Intake, Ticket, UnderWay, pump};
use crate::message::{Delivery, Message, Receipt};
use crate::open;
use crate::provider::callback::{Host, Hosts};
use crate::provider::memory::Topics;
use crate::registry::{Registry, check_id};
use crate::runtime::{self, PerGeneration};

pub use metrics::metrics;
pub use shutdown::{ShutdownReport, shutdown};

/// A producer under its id.
pub struct ProducerClient {
    id: Arc<str>,
    producer: Arc<dyn Producer>,
    intake: Arc<Intake>,
    deadline: Duration,
    pump: parking_lot::Mutex<Option<tokio::task::JoinHandle<()>>>,
    // The sends that wait, of a producer that has no intake of its own to count them.
    sends: Option<Arc<UnderWay>>,
    // How many strategies a message passes at most, those of members by id among them.
    layers: usize,
}

impl ProducerClient {
    /// The producer itself.
    pub fn producer(&self) -> &Arc<dyn Producer> {
        &self.producer
    }

    /// Where submits go.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    fn context(&self, timeout: Option<Duration>) -> Context {
        Context::within(timeout.unwrap_or(self.deadline))
    }

    /// Sends and waits for the receipt.
    ///
    /// # Errors
    /// Those of the producer; `closed` when it is closed meanwhile.
    pub async fn send(&self, ctx: &Context, message: Arc<Message>) -> Result<Receipt> {
        let Some(sends) = &self.sends else { return self.producer.send(ctx, message).await };
        let by = |error: Error| error.by(self.producer.provider());
        let _entered = sends.enter().map_err(by)?;
        // Once for all strategies: a caller who comes late says nothing of a member or a breaker.
        ctx.check().map_err(by)?;
        tokio::select! {
            biased;
            result = self.producer.send(ctx, message) => result,
            () = sends.stop().cancelled() => Err(Error::new(Kind::Closed, "the producer was closed")
                .outcome_is(Outcome::Unknown)
                .by(self.producer.provider())),
        }
    }

    async fn send_batch(&self, ctx: &Context, messages: Vec<Arc<Message>>) -> Vec<Result<Receipt>> {
        if self.sends.is_none() {
            return self.producer.send_batch(ctx, messages).await;
        }
        futures_util::future::join_all(messages.into_iter().map(|message| self.send(ctx, message))).await
    }

    async fn flush(&self, ctx: &Context) -> Result<()> {
        if let Some(sends) = &self.sends {
            let (waited, submitted) = tokio::join!(sends.drained(ctx), self.intake.drained(ctx));
            waited.and(submitted)?;
        }
        self.producer.flush(ctx).await
    }

    async fn close(&self, ctx: &Context) -> Result<()> {
        self.intake.close();
        let pump = self.pump.lock().take();
        let mut late = match &self.sends {
            Some(sends) => {
                let (waited, submitted) = tokio::join!(sends.close(ctx), self.intake.drained(ctx));
                if waited.is_err() || submitted.is_err() {
                    sends.stop().cancel();
                }
                waited.and(submitted)
            }
            None => Ok(()),
        };
        if let Some(mut pump) = pump {
            // Every call has ended or was told to.
            let grace = Context::within(Duration::from_millis(200));
            if let Err(error) = grace.run(&mut pump).await {
                // Dropping its calls ends each of them.
                pump.abort();
                let _ = pump.await;
                late = Err(error);
            }
        }
        self.producer.close(ctx).await.and(late)
    }
}

/// A consumer under its id.
pub struct ConsumerClient {
    consumer: Arc<dyn Consumer>,
    deadline: Duration,
}

impl ConsumerClient {
    /// The consumer itself.
    pub fn consumer(&self) -> &Arc<dyn Consumer> {
        &self.consumer
    }

    fn context(&self, timeout: Option<Duration>) -> Context {
        Context::within(timeout.unwrap_or(self.deadline))
    }
}

struct Clients {
    producers: Registry<ProducerClient>,
    consumers: Registry<ConsumerClient>,
    topics: Topics,
    hosts: Hosts,
}

static CLIENTS: PerGeneration<Clients> = PerGeneration::new();

fn clients() -> Result<&'static Clients> {
    CLIENTS.get_or_try_init(|| {
        Ok(Clients {
            producers: Registry::new("producer"),
            consumers: Registry::new("consumer"),
            topics: Topics::default(),
            hosts: Hosts::default(),
        })
    })
}

fn forked(role: Role, id: &str, error: Error) -> Error {
    let of_parent = error.kind() == Kind::UnknownId
        && CLIENTS.of_ancestors().any(|clients| match role {
            Role::Producer => clients.producers.holds(id),
            Role::Consumer => clients.consumers.holds(id),
        });
    if of_parent {
        Error::new(
            Kind::Forked,
            format!("`{id}` was opened before the fork and belongs to the parent process: open it anew"),
        )
    } else {
        error
    }
}

struct Last {
    generation: u32,
    version: u64,
    // Always some, until it is dropped.
    client: Option<Arc<ProducerClient>>,
}

impl Drop for Last {
    fn drop(&mut self) {
        // In a forked child, ending the parent's client would touch locks and tasks of the parent.
        if self.generation != runtime::generation() {
            std::mem::forget(self.client.take());
        }
    }
}

thread_local! {
    // Most threads send to one id at a time: comparing it is cheaper than a look-up.
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Calls `with` for the producer of this id.
pub fn with_producer<R>(id: &str, with: impl FnOnce(&ProducerClient) -> Result<R>) -> Result<R> {
    let clients = clients()?;
    let generation = runtime::generation();
    let version = clients.producers.version();
    // `with` runs under the borrow, which spares two atomics per call; `take` gives it back for a miss.
    let mut with = Some(with);
    let cached = LAST.try_with(|last| {
        let last = last.try_borrow().ok()?;
        let last = last.as_ref().filter(|last| last.version == version && last.generation == generation)?;
        let client = last.client.as_ref().filter(|client| *client.id == *id)?;
        with.take().map(|with| with(client))
    });
    if let Ok(Some(result)) = cached {
        return result;
    }
    let Some(with) = with else {
        return Err(Error::new(Kind::Internal, "a cached call ran without a result"));
    };
    let client = clients.producers.get(id).map_err(|error| forked(Role::Producer, id, error))?;
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some(Last { generation, version, client: Some(client.clone()) });
        }
    });
    with(&client)
}

/// The producer of this id.
pub fn producer(id: &str) -> Result<Arc<ProducerClient>> {
    clients()?.producers.get(id).map_err(|error| forked(Role::Producer, id, error))
}

/// The consumer of this id.
pub fn consumer(id: &str) -> Result<Arc<ConsumerClient>> {
    clients()?.consumers.get(id).map_err(|error| forked(Role::Consumer, id, error))
}

fn chosen_id<'a>(id: Option<&'a str>, config: &'a ClientConfig) -> Result<&'a str> {
    match (id.filter(|id| !id.is_empty()), config.id.as_deref()) {
        (Some(id), Some(named)) if id != named => Err(Error::new(
            Kind::InvalidConfig,
            format!("the call opens `{id}`, and the config's `id` is `{named}`: give one, or the same"),
        )),
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => {
            Err(Error::new(Kind::InvalidArgument, "no id: give one to the call or in the config"))
        }
    }
}

/// Makes a producer of the host known under a name, for configs with `"type": "callback"`.
pub fn callback_register(name: &str, host: Arc<dyn Host>) -> Result<()> {
    clients()?.hosts.register(name, host)
}

/// Forgets a producer of the host; clients that were opened with it go on with what it was. What is returned is to be
/// dropped where the host may be called.
pub fn callback_unregister(name: &str) -> Result<Arc<dyn Host>> {
    clients()?.hosts.unregister(name)
}

/// Opens a producer under `id`, or under the config's own id. Submits complete to `queue`.
pub async fn producer_open(
    id: Option<&str>,
    config: ClientConfig,
    queue: Option<Arc<CompletionQueue>>,
) -> Result<Arc<str>> {
    let clients = clients()?;
    let reservation = clients.producers.reserve(chosen_id(id, &config)?)?;
    let own = open::layers(&config)?;
    let deepest = AtomicUsize::new(own);
    let members = |id: &str| {
        let (member, layers) = held::hold(id, reservation.id())?;
        open::within_layers(own + layers)?;
        deepest.fetch_max(own + layers, Ordering::Relaxed);
        Ok(member)
    };
    let around = open::Surroundings { topics: &clients.topics, hosts: &clients.hosts, members: &members };
    let producer = open::producer_among(reservation.id(), &config, &around).await?;
    let (intake, task, sends) = match producer.intake() {
        Some(intake) => (intake.clone(), None, None),
        None => {
            let intake = Intake::new(producer.provider(), config.limits());
            let sends = Arc::<UnderWay>::default();
            let task = tokio::spawn(pump(intake.clone(), producer.clone(), sends.stop().clone()));
            (intake, Some(task), Some(sends))
        }
    };
    if let Some(queue) = queue {
        intake.set_queue(queue);
    }
    let id = reservation.id().clone();
    reservation.fill(Arc::new(ProducerClient {
        id: id.clone(),
        producer,
        intake,
        deadline: config.deadline.0,
        pump: parking_lot::Mutex::new(task),
        sends,
        layers: deepest.load(Ordering::Relaxed),
    }));
    Ok(id)
}

/// Opens a consumer under `id`, or under the config's own id.
pub async fn consumer_open(id: Option<&str>, config: ClientConfig) -> Result<Arc<str>> {
    let clients = clients()?;
    let reservation = clients.consumers.reserve(chosen_id(id, &config)?)?;
    let consumer = open::consumer(reservation.id(), &config, &clients.topics).await?;
    let id = reservation.id().clone();
    reservation.fill(Arc::new(ConsumerClient { consumer, deadline: config.deadline.0 }));
    Ok(id)
}

/// Reads a file and checks it as far as that goes without a connection.
///
/// # Errors
/// Those of [`open::file`], and `invalid_argument` for an id that no client can have.
pub fn read_file(text: &str) -> Result<Vec<ClientConfig>> {
    let clients = open::file(text)?;
    for client in &clients {
        check_id(client.id.as_deref().unwrap_or_default(), "client")?;
    }
    Ok(clients)
}

/// Opens every client of a file, as [`read_file`] has them; none is left open when one fails. Returns roles and
/// ids in order.
pub async fn open_file(text: &str, queue: Option<Arc<CompletionQueue>>) -> Result<Vec<(Role, Arc<str>)>> {
    let mut opened = Vec::new();
    for client in read_file(text)? {
        let role = client.role.unwrap_or_default();
        let name = client.id.clone().unwrap_or_default();
        let result = match role {
            Role::Producer => producer_open(None, client, queue.clone()).await,
            Role::Consumer => consumer_open(None, client).await,
        };
        match result {
            Ok(id) => opened.push((role, id)),
            Err(error) => {
                // Later ones may hold earlier ones.
                for (role, id) in opened.into_iter().rev() {
                    let closed = match role {
                        Role::Producer => producer_close(&id, None).await,
                        Role::Consumer => consumer_close(&id, None).await,
                    };
                    if let Err(error) = closed {
                        tracing::warn!(id = %id, %error, "closing after a failed open");
                    }
                }
                return Err(error.at(&format!("the client `{name}` of the file")));
            }
        }
    }
    Ok(opened)
}

/// Sends a message and waits for its receipt, until `timeout` or the client's deadline.
pub async fn producer_send(id: &str, message: Message, timeout: Option<Duration>) -> Result<Receipt> {
    let client = producer(id)?;
    client.send(&client.context(timeout), Arc::new(message)).await
}

/// Sends several; a result for each, in their order.
pub async fn producer_send_batch(
    id: &str,
    messages: Vec<Message>,
    timeout: Option<Duration>,
) -> Result<Vec<Result<Receipt>>> {
    let client = producer(id)?;
    let messages = messages.into_iter().map(Arc::new).collect();
    Ok(client.send_batch(&client.context(timeout), messages).await)
}

/// Submits a body without waiting. The completion with `token` comes to the queue given at open.
pub fn producer_submit(id: &str, token: u64, body: &[u8], delay: Duration) -> Result<()> {
    with_producer(id, |client| client.intake.submit(token, body, delay))
}

/// Submits several bodies; tokens count up from `first_token`. Returns how many were accepted.
pub fn producer_submit_many<'a>(
    id: &str,
    first_token: u64,
    bodies: impl ExactSizeIterator<Item = &'a [u8]>,
    delay: Duration,
) -> Result<usize> {
    with_producer(id, |client| client.intake.submit_many(first_token, bodies, delay))
}

/// Submits a full message without waiting.
pub fn producer_submit_message(
    id: &str,
    token: u64,
    message: Message,
    timeout: Option<Duration>,
) -> Result<()> {
    with_producer(id, |client| client.intake.submit_message(token, message, timeout))
}

/// Asks for a submit to end as cancelled. One that has ended is left alone.
pub fn producer_cancel(id: &str, token: u64) -> Result<()> {
    with_producer(id, |client| {
        client.intake.cancel(Ticket::Token(token));
        Ok(())
    })
}

/// Waits until every earlier send of this producer has ended.
pub async fn producer_flush(id: &str, timeout: Option<Duration>) -> Result<()> {
    let client = producer(id)?;
    let ctx = client.context(timeout);
    client.flush(&ctx).await
}

/// The live state as JSON.
pub fn producer_status(id: &str) -> Result<serde_json::Value> {
    with_producer(id, |client| {
        let mut status = client.producer.status();
        if let Some(object) = status.as_object_mut() {
            object.insert("id".into(), serde_json::json!(&*client.id));
            object.insert("provider".into(), serde_json::json!(client.producer.provider()));
            let waiting = client.sends.as_ref().map_or(0, |sends| sends.count());
            object.insert("under_way".into(), serde_json::json!(client.intake.under_way() + waiting));
            let deadline = u64::try_from(client.deadline.as_millis()).unwrap_or(u64::MAX);
            object.insert("deadline_ms".into(), serde_json::json!(deadline));
        }
        Ok(status)
    })
}

/// Changes the live state of a strategy: `command` is an object that names it, as in
/// `{"strategy": "failover", "current": 0}`. Returns the new state.
pub fn producer_control(id: &str, command: &serde_json::Value) -> Result<serde_json::Value> {
    with_producer(id, |client| client.producer.control(command))
}

/// Closes a producer: intake stops, sends under way end within `timeout` (or the client's deadline), the
/// rest end with their outcome, and the id is free when this returns. `timeout`: some had to be ended; when a call of the
/// host is stuck, the id is free once that returns.
pub async fn producer_close(id: &str, timeout: Option<Duration>) -> Result<()> {
    let clients = clients()?;
    let (client, closing) =
        clients.producers.begin_close(id).map_err(|error| forked(Role::Producer, id, error))?;
    let ctx = client.context(timeout);
    // A task of its own, so that the id is freed also when the caller goes away.
    finished(tokio::spawn(async move {
        let result = client.close(&ctx).await;
        match clients.hosts.left_behind(&client.id) {
            Some(stuck) => drop(tokio::spawn(async move {
                stuck.await;
                drop(closing);
            })),
            None => drop(closing),
        }
        result
    }))
    .await
}

/// Waits for deliveries: up to `max`, none when the time passes.
pub async fn consumer_receive(id: &str, max: usize, timeout: Option<Duration>) -> Result<Vec<Delivery>> {
    let client = consumer(id)?;
    if max == 0 {
        return Err(Error::new(Kind::InvalidArgument, "receive takes at least 1 delivery, not 0"));
    }
    client.consumer.receive(&client.context(timeout), max).await
}

/// Acknowledges deliveries; a result for each code.
pub async fn consumer_ack(id: &str, codes: Vec<Arc<str>>) -> Result<Vec<Result<()>>> {
    let client = consumer(id)?;
    Ok(client.consumer.ack(&client.context(None), codes).await)
}

/// Gives deliveries back, to come again after `delay`; a result for each code.
pub async fn consumer_nack(id: &str, codes: Vec<Arc<str>>, delay: Duration) -> Result<Vec<Result<()>>> {
    let client = consumer(id)?;
    Ok(client.consumer.nack(&client.context(None), codes, delay).await)
}

/// The live state as JSON.
pub fn consumer_status(id: &str) -> Result<serde_json::Value> {
    let client = consumer(id)?;
    let mut status = client.consumer.status();
    if let Some(object) = status.as_object_mut() {
        object.insert("id".into(), serde_json::json!(id));
        object.insert("provider".into(), serde_json::json!(client.consumer.provider()));
    }
    Ok(status)
}

/// Closes a consumer; the id is free when this returns.
pub async fn consumer_close(id: &str, timeout: Option<Duration>) -> Result<()> {
    let clients = clients()?;
    let (client, closing) =
        clients.consumers.begin_close(id).map_err(|error| forked(Role::Consumer, id, error))?;
    let ctx = client.context(timeout);
    finished(tokio::spawn(async move {
        let result = client.consumer.close(&ctx).await;
        drop(closing);
        result
    }))
    .await
}

async fn finished(task: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    task.await.unwrap_or_else(|error| {
        Err(Error::new(Kind::Internal, "closing failed").outcome_is(Outcome::Unknown).caused_by(error))
    })
}
