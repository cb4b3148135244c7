//! The administration of queues, topics and subscriptions.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::PROVIDER;
use super::content::time;
use super::credentials::Credentials;
use super::section::{Account, BodyEncoding};
use super::service::Service;
use crate::client::Context;
use crate::config::WhenDisconnected;
use crate::error::{Error, Kind, Outcome, Result};
use crate::provider::Setup;
use crate::wire::mns::{
    Listed, Listing, MAX_BATCH, MAX_LISTED, Malformed, Named, Operation, QueueAttributes, QueueMeta,
    Received, SubscriptionAttributes, SubscriptionMeta, TopicAttributes, TopicMeta, decode_list,
    decode_received_batch, is_name,
};

/// Whether there is something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// There is.
    New,
    /// There was one with the same attributes.
    Same,
}

/// One part of a list, and where the next one goes on.
pub type Page<M> = (Vec<Listed<M>>, Option<String>);

/// A message that was looked at and stays in its queue.
#[derive(Debug, Clone)]
pub struct Peeked {
    /// Its id.
    pub message_id: String,
    /// Its body as it is on the wire.
    pub body: String,
    /// When it was sent.
    pub enqueued: Option<SystemTime>,
    /// How often it was received.
    pub dequeue_count: u32,
    /// Its priority.
    pub priority: u32,
}

/// Makes, changes, lists and deletes queues, topics and subscriptions. Every call is one request; what a caller gives
/// up is ended with it.
pub struct Admin {
    service: Service,
    encoding: BodyEncoding,
}

impl Admin {
    /// Opens one for the service and the keys of a section, which may be that of a producer or consumer and need name no
    /// queue and no topic. Nothing is asked before the first call.
    ///
    /// # Errors
    /// `invalid_config`.
    pub async fn open(setup: &Setup, section: Map<String, Value>) -> Result<Admin> {
        Admin::of(setup, Account::read(section, None)?).await
    }

    /// The same in the name of keys that come from elsewhere.
    ///
    /// # Errors
    /// `invalid_config`.
    pub async fn open_as(
        setup: &Setup,
        section: Map<String, Value>,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Admin> {
        Admin::of(setup, Account::read(section, Some(credentials))?).await
    }

    async fn of(setup: &Setup, account: Account) -> Result<Admin> {
        let setup = Setup {
            connect: crate::config::Connect::Lazy,
            when_disconnected: WhenDisconnected::Fail,
            ..setup.clone()
        };
        let stop = CancellationToken::new();
        Ok(Admin {
            service: Service::open(&setup, &account, None, account.connections, stop).await?,
            encoding: account.encoding,
        })
    }

    /// How bodies are on the wire, as the section says.
    pub fn encoding(&self) -> BodyEncoding {
        self.encoding
    }

    async fn created(&self, ctx: &Context, operation: Operation<'_>) -> Result<Created> {
        let answer = self.service.call(ctx, &operation).await?;
        Ok(if answer.status == 204 { Created::Same } else { Created::New })
    }

    async fn done(&self, ctx: &Context, operation: Operation<'_>) -> Result<()> {
        self.service.call(ctx, &operation).await.map(drop)
    }

    async fn one<M: Named>(&self, ctx: &Context, operation: Operation<'_>) -> Result<M> {
        let answer = self.service.call(ctx, &operation).await?;
        M::decode(&answer.body).map_err(strange)
    }

    async fn page<M: Named>(
        &self,
        ctx: &Context,
        with_meta: bool,
        operation: Operation<'_>,
    ) -> Result<Page<M>> {
        let answer = self.service.call(ctx, &operation).await?;
        decode_list(&answer.body, with_meta).map_err(strange)
    }

    /// Makes a queue.
    ///
    /// # Errors
    /// `invalid_argument` also where there is one with other attributes.
    pub async fn create_queue(
        &self,
        ctx: &Context,
        queue: &str,
        attributes: QueueAttributes,
    ) -> Result<Created> {
        self.created(ctx, Operation::CreateQueue { queue: name(queue)?.into(), attributes }).await
    }

    /// Changes the attributes of a queue; those left out stay.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_queue(&self, ctx: &Context, queue: &str, attributes: QueueAttributes) -> Result<()> {
        self.done(ctx, Operation::SetQueue { queue: name(queue)?.into(), attributes }).await
    }

    /// What is told of a queue.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn queue(&self, ctx: &Context, queue: &str) -> Result<QueueMeta> {
        self.one(ctx, Operation::GetQueue { queue: name(queue)?.into() }).await
    }

    /// Deletes a queue with its messages.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_queue(&self, ctx: &Context, queue: &str) -> Result<()> {
        self.done(ctx, Operation::DeleteQueue { queue: name(queue)?.into() }).await
    }

    /// A part of the list of queues.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn queues(&self, ctx: &Context, listing: Listing<'_>) -> Result<Page<QueueMeta>> {
        let with_meta = listing.with_meta;
        self.page(ctx, with_meta, Operation::ListQueues(checked(listing)?)).await
    }

    /// Looks at up to sixteen messages, which stay as they are; none of an empty queue.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn peek(&self, ctx: &Context, queue: &str, number: usize) -> Result<Vec<Peeked>> {
        let number = number.clamp(1, MAX_BATCH) as u32;
        let asked = Operation::PeekBatch { queue: name(queue)?.into(), number };
        let Some(answer) = self.service.receive(ctx, &asked).await? else { return Ok(Vec::new()) };
        let seen = decode_received_batch(&answer.body).map_err(strange)?;
        Ok(seen.into_iter().map(peeked).collect())
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// `invalid_argument` also where there is one with other attributes.
    pub async fn create_topic(
        &self,
        ctx: &Context,
        topic: &str,
        attributes: TopicAttributes,
    ) -> Result<Created> {
        self.created(ctx, Operation::CreateTopic { topic: name(topic)?.into(), attributes }).await
    }

    /// Changes the attributes of a topic; those left out stay.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_topic(&self, ctx: &Context, topic: &str, attributes: TopicAttributes) -> Result<()> {
        self.done(ctx, Operation::SetTopic { topic: name(topic)?.into(), attributes }).await
    }

    /// What is told of a topic.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn topic(&self, ctx: &Context, topic: &str) -> Result<TopicMeta> {
        self.one(ctx, Operation::GetTopic { topic: name(topic)?.into() }).await
    }

    /// Deletes a topic with its subscriptions.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn delete_topic(&self, ctx: &Context, topic: &str) -> Result<()> {
        self.done(ctx, Operation::DeleteTopic { topic: name(topic)?.into() }).await
    }

    /// A part of the list of topics.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn topics(&self, ctx: &Context, listing: Listing<'_>) -> Result<Page<TopicMeta>> {
        let with_meta = listing.with_meta;
        self.page(ctx, with_meta, Operation::ListTopics(checked(listing)?)).await
    }

    /// Makes a subscription of a topic; its attributes name an endpoint.
    ///
    /// # Errors
    /// `invalid_argument` also where there is one with other attributes.
    pub async fn subscribe(
        &self,
        ctx: &Context,
        topic: &str,
        subscription: &str,
        attributes: SubscriptionAttributes,
    ) -> Result<Created> {
        let (topic, subscription) = (name(topic)?.into(), name(subscription)?.into());
        self.created(ctx, Operation::Subscribe { topic, subscription, attributes }).await
    }

    /// Changes how often a subscription is tried again; nothing else of it can be changed.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn set_subscription(
        &self,
        ctx: &Context,
        topic: &str,
        subscription: &str,
        attributes: SubscriptionAttributes,
    ) -> Result<()> {
        let (topic, subscription) = (name(topic)?.into(), name(subscription)?.into());
        self.done(ctx, Operation::SetSubscription { topic, subscription, attributes }).await
    }

    /// What is told of a subscription.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn subscription(
        &self,
        ctx: &Context,
        topic: &str,
        subscription: &str,
    ) -> Result<SubscriptionMeta> {
        let (topic, subscription) = (name(topic)?.into(), name(subscription)?.into());
        self.one(ctx, Operation::GetSubscription { topic, subscription }).await
    }

    /// Deletes a subscription.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn unsubscribe(&self, ctx: &Context, topic: &str, subscription: &str) -> Result<()> {
        let (topic, subscription) = (name(topic)?.into(), name(subscription)?.into());
        self.done(ctx, Operation::Unsubscribe { topic, subscription }).await
    }

    /// A part of the list of a topic's subscriptions.
    ///
    /// # Errors
    /// Those of the service.
    pub async fn subscriptions(
        &self,
        ctx: &Context,
        topic: &str,
        listing: Listing<'_>,
    ) -> Result<Page<SubscriptionMeta>> {
        let (with_meta, topic) = (listing.with_meta, name(topic)?.into());
        self.page(ctx, with_meta, Operation::ListSubscriptions { topic, listing: checked(listing)? }).await
    }
}

fn peeked(received: Received<'_>) -> Peeked {
    Peeked {
        message_id: received.message_id.into_owned(),
        body: received.body.into_owned(),
        enqueued: time(received.enqueue_time),
        dequeue_count: received.dequeue_count,
        priority: received.priority,
    }
}

fn strange(malformed: Malformed) -> Error {
    Error::from(malformed).outcome_is(Outcome::Unknown).by(PROVIDER)
}

fn wrong(text: &str) -> Error {
    Error::new(Kind::InvalidArgument, text).by(PROVIDER)
}

fn name(text: &str) -> Result<&str> {
    match is_name(text) {
        true => Ok(text),
        false => Err(wrong("a name has from 1 to 256 letters, digits, `-` and `_`, and no other sign")),
    }
}

// Each stands in a header.
fn checked(listing: Listing<'_>) -> Result<Listing<'_>> {
    let odd = |text: &str| text.is_empty() || text.bytes().any(|byte| !(b'!'..=b'~').contains(&byte));
    if listing.prefix.as_deref().is_some_and(odd) || listing.marker.as_deref().is_some_and(odd) {
        return Err(wrong("a listing's prefix or marker is empty or has a character that no header has"));
    }
    if listing.number.is_some_and(|number| !(1..=MAX_LISTED).contains(&number)) {
        return Err(wrong("a listing is of 1 to 1000 names"));
    }
    Ok(listing)
}
