//! What was published goes to subscribers: each subscription has a task that takes messages from its shelf, as a
//! receiver would, and deletes them once they are there. How often one was tried is how often it was received, and the
//! wait before the next try is the time for which it is hidden: so both outlive the broker.

mod address;
mod content;
mod endpoint;
mod http;
mod strategy;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

pub(super) use content::is_format;
pub(super) use endpoint::Endpoint;
pub(super) use strategy::Strategy;

use super::Front;
use super::directory::queue_attributes;
use super::subscriptions::subscription_attributes;
use crate::broker::depot::{Delivery, Shelf, Store};
use crate::broker::hub::count;
use crate::broker::log::record::Sort;
use crate::broker::queue::LeaseDraft;
use crate::wire::mns::DEFAULT_PRIORITY;
use address::is_public;
use content::Content;

/// Messages of one subscription that are on their way at once.
const AT_ONCE: usize = 16;
/// The same of all subscriptions together.
pub(super) const ALL_AT_ONCE: usize = 1024;
/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);
/// For how long a message is hidden while it is tried: one that a crash interrupts is tried again after it.
const HIDDEN_MS: u64 = 30_000;
/// How long tries under way are waited for when the broker stops: what is not done by then is tried again after the
/// next start, when its time is over.
const STOPPING: Duration = Duration::from_secs(2);

/// The places of a try, held until nothing of it goes on: a look-up of a name cannot be taken back.
#[derive(Debug, Clone)]
struct Places(#[allow(dead_code, reason = "held")] Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

impl Front {
    /// Goes on with what a start found.
    pub(super) fn push_all(self: &Arc<Front>) {
        self.hub.depot.all_of(Sort::Subscription).into_iter().for_each(|shelf| self.push(shelf));
    }

    /// Begins to push the messages of a subscription.
    pub(super) fn push(self: &Arc<Front>, shelf: Arc<Shelf>) {
        let front = Arc::clone(self);
        let hub = Arc::clone(&self.hub);
        self.hub.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = hub.aborted.cancelled() => {}
                () = shelf.gone.cancelled() => {}
                () = Arc::clone(&front).run(&shelf) => {}
            }
        });
    }

    /// Until the broker stops: tries under way are waited for a while, and no others begun.
    async fn run(self: Arc<Front>, shelf: &Arc<Shelf>) {
        let own = Arc::new(Semaphore::new(AT_ONCE));
        // Dropped with this task, they end.
        let mut under_way = JoinSet::new();
        loop {
            let next = tokio::select! {
                biased;
                () = self.hub.stopping.cancelled() => break,
                next = self.next(shelf, &own) => next,
            };
            for (delivery, places) in next {
                let (front, shelf) = (Arc::clone(&self), Arc::clone(shelf));
                under_way.spawn(async move { front.try_one(&shelf, delivery, places).await });
            }
            while under_way.try_join_next().is_some() {}
        }
        let done = async { while under_way.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOPPING, done).await;
    }

    /// The next messages, once there are some and places for them. Nothing is taken before: the time for which a
    /// message is hidden is that of its try.
    async fn next(&self, shelf: &Shelf, own: &Arc<Semaphore>) -> Vec<(Delivery, Places)> {
        let mut waiter = shelf.waiter();
        let (own_first, first) = loop {
            let Ok(own_first) = Arc::clone(own).acquire_owned().await else { return Vec::new() };
            std::future::poll_fn(|cx| {
                waiter.waker.register(cx.waker());
                if shelf.has_ready(&mut waiter) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let Ok(first) = Arc::clone(&self.pushes).acquire_owned().await else { return Vec::new() };
            // Nobody else takes from it, but messages expire.
            if shelf.counts().ready > 0 {
                break (own_first, first);
            }
        };
        let mut places = vec![Places(Arc::new((own_first, first)))];
        let most = shelf.counts().ready.min(AT_ONCE);
        while places.len() < most
            && let Ok(one) = Arc::clone(own).try_acquire_owned()
            && let Ok(other) = Arc::clone(&self.pushes).try_acquire_owned()
        {
            places.push(Places(Arc::new((one, other))));
        }
        shelf.take(places.len(), HIDDEN_MS, None).into_iter().zip(places).collect()
    }

    async fn try_one(&self, shelf: &Shelf, delivery: Delivery, places: Places) {
        let received = delivery.received;
        let handle = (received.sequence, received.serial);
        let Err(why) = self.bring(shelf, &delivery, &places).await else {
            let _ = shelf.delete(&[handle]);
            return;
        };
        let strategy = subscription_attributes(shelf).notify_strategy;
        let strategy = strategy.as_deref().and_then(Strategy::find).unwrap_or(Strategy::Backoff);
        let (subscription, tries) = (&shelf.name, received.count);
        match strategy.wait(tries, &mut rand::rng()) {
            Some(wait) => {
                tracing::info!(%subscription, tries, %why, "a message was not pushed, and is tried again");
                shelf.change(handle, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
            }
            None => {
                tracing::warn!(%subscription, tries, %why, "a message was not pushed, and is given up");
                let (given_up, _) = shelf.delete(&[handle]);
                count(&self.hub.counters.given_up, given_up.iter().filter(|gone| **gone).count());
            }
        }
    }

    async fn bring(&self, shelf: &Shelf, delivery: &Delivery, places: &Places) -> Result<(), String> {
        let attributes = subscription_attributes(shelf);
        let endpoint = attributes.endpoint.as_deref().and_then(Endpoint::parse);
        let endpoint = endpoint.ok_or_else(|| "the endpoint is none".to_owned())?;
        let content = Content::of(shelf, delivery, attributes.notify_content_format.as_deref());
        let brought = async {
            match endpoint {
                Endpoint::Queue(queue) => {
                    self.bring_to_queue(queue, delivery.stored.body.len(), &content).await
                }
                Endpoint::Http(url) => {
                    http::post(&url, &content, |address| self.may_push_to(address), places.clone()).await
                }
            }
        };
        tokio::time::timeout(TRY, brought).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    fn may_push_to(&self, address: IpAddr) -> bool {
        let config = &self.config;
        config.private_endpoints
            || is_public(address)
            || config.endpoints.iter().any(|network| network.contains(address))
    }

    async fn bring_to_queue(&self, queue: &str, length: usize, content: &Content) -> Result<(), String> {
        let shelf =
            self.hub.depot.find(Sort::Queue, queue).ok_or_else(|| "there is no such queue".to_owned())?;
        let attributes = queue_attributes(&shelf);
        // What was published is measured, not what the format makes of it.
        if attributes.maximum_message_size.is_some_and(|most| length > most as usize) {
            return Err("the message is longer than the queue takes".to_owned());
        }
        let draft = LeaseDraft {
            body: content.body.as_bytes(),
            note: "",
            delay_ms: u64::from(attributes.delay_seconds.unwrap_or(0)) * 1000,
            priority: u8::try_from(DEFAULT_PRIORITY).unwrap_or(8),
            retention_ms: u64::from(attributes.message_retention_period.unwrap_or(0)) * 1000,
        };
        shelf.store(&[draft]).await.map(drop).map_err(|why| match why {
            Store::Gone => "there is no such queue".to_owned(),
            Store::Full => "there is no room".to_owned(),
            Store::Failed(error) => error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests;
