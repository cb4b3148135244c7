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

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

pub(super) use content::is_format;
pub(super) use endpoint::Endpoint;
pub(super) use strategy::Strategy;

use super::Front;
use super::directory::queue_attributes;
use super::subscriptions::subscription_attributes;
use crate::broker::depot::{Delivery, Shelf, Store};
use crate::broker::log::record::Sort;
use crate::broker::queue::LeaseDraft;
use crate::wire::mns::DEFAULT_PRIORITY;
use address::is_public;
use content::Content;

/// Messages of one subscription that are on their way at once.
const AT_ONCE: usize = 16;
/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);
/// For how long a message is hidden while it is tried: one that a crash interrupts is tried again after it.
const HIDDEN_MS: u64 = 30_000;

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
                () = front.run(&shelf) => {}
            }
        });
    }

    /// Until the broker stops: tries under way are waited for, and no others begun.
    async fn run(&self, shelf: &Shelf) {
        let mut under_way = FuturesUnordered::new();
        let mut waiter = shelf.waiter();
        loop {
            let room = AT_ONCE.saturating_sub(under_way.len());
            let taken = std::future::poll_fn(|cx| {
                waiter.waker.register(cx.waker());
                if room == 0 {
                    return Poll::Pending;
                }
                let taken = shelf.take(room, HIDDEN_MS, Some(&mut waiter));
                if taken.is_empty() { Poll::Pending } else { Poll::Ready(taken) }
            });
            tokio::select! {
                biased;
                () = self.hub.stopping.cancelled() => break,
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                taken = taken => under_way.extend(taken.into_iter().map(|one| self.try_one(shelf, one))),
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn try_one(&self, shelf: &Shelf, delivery: Delivery) {
        let received = delivery.received;
        let handle = (received.sequence, received.serial);
        let Err(why) = self.bring(shelf, &delivery).await else {
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
                let _ = shelf.delete(&[handle]);
            }
        }
    }

    async fn bring(&self, shelf: &Shelf, delivery: &Delivery) -> Result<(), String> {
        let attributes = subscription_attributes(shelf);
        let endpoint = attributes.endpoint.as_deref().and_then(Endpoint::parse);
        let endpoint = endpoint.ok_or_else(|| "the endpoint is none".to_owned())?;
        let content = Content::of(shelf, delivery, attributes.notify_content_format.as_deref());
        match endpoint {
            Endpoint::Queue(queue) => self.bring_to_queue(queue, &content).await,
            Endpoint::Http(url) => {
                let request = http::post(&url, &content, |address| self.may_push_to(address));
                tokio::time::timeout(TRY, request)
                    .await
                    .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            }
        }
    }

    fn may_push_to(&self, address: IpAddr) -> bool {
        let config = &self.config;
        config.private_endpoints
            || is_public(address)
            || config.endpoints.iter().any(|network| network.contains(address))
    }

    async fn bring_to_queue(&self, queue: &str, content: &Content) -> Result<(), String> {
        let shelf =
            self.hub.depot.find(Sort::Queue, queue).ok_or_else(|| "there is no such queue".to_owned())?;
        let attributes = queue_attributes(&shelf);
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
