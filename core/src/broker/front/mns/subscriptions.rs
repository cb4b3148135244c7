//! Subscriptions themselves.

use std::sync::Arc;

use super::answer::{Answer, found, refuse, refused};
use super::push::{Endpoint, Strategy, is_format};
use super::{ACCOUNT, Caller, Front};
use crate::broker::depot::{About, Shelf};
use crate::broker::log::record::Sort;
use crate::wire::mns::{Code, Named, Operation, SubscriptionAttributes, SubscriptionMeta};

/// The longest filter, and the longest tag.
pub(super) const MAX_TAG: usize = 16;
const MAX_ENDPOINT: usize = 2048;

/// The attributes of a subscription, all of them.
pub(super) fn subscription_attributes(shelf: &Shelf) -> SubscriptionAttributes {
    attributes(&shelf.label().about)
}

fn attributes(about: &About) -> SubscriptionAttributes {
    match about {
        About::Subscription(attributes) => attributes.clone(),
        _ => SubscriptionAttributes::default(),
    }
}

fn full(given: SubscriptionAttributes) -> Result<SubscriptionAttributes, Answer> {
    let wrong = |text| refuse(Code::InvalidArgument, text);
    let endpoint = given.endpoint.filter(|endpoint| endpoint.len() <= MAX_ENDPOINT);
    let endpoint = endpoint.ok_or_else(|| wrong("Endpoint is required, and not longer than 2048"))?;
    if Endpoint::parse(&endpoint).is_none() {
        return Err(refused(Code::EndpointInvalid));
    }
    if given.filter_tag.as_ref().is_some_and(|tag| tag.chars().count() > MAX_TAG) {
        return Err(wrong("FilterTag has up to 16 characters"));
    }
    let strategy = given.notify_strategy.unwrap_or_else(|| Strategy::Backoff.name().to_owned());
    if Strategy::find(&strategy).is_none() {
        return Err(wrong("NotifyStrategy is BACKOFF_RETRY or EXPONENTIAL_DECAY_RETRY"));
    }
    let format = given.notify_content_format.unwrap_or_else(|| "XML".to_owned());
    if !is_format(&format) {
        return Err(wrong("NotifyContentFormat is XML, SIMPLIFIED or JSON"));
    }
    Ok(SubscriptionAttributes {
        endpoint: Some(endpoint),
        filter_tag: given.filter_tag,
        notify_strategy: Some(strategy),
        notify_content_format: Some(format),
    })
}

impl Front {
    pub(super) async fn of_subscriptions(
        self: &Arc<Front>,
        operation: Operation<'_>,
        caller: &Caller,
    ) -> Answer {
        let address =
            |topic: &str, name: &str| format!("{}/topics/{topic}/subscriptions/{name}", caller.base);
        let done = match operation {
            Operation::Subscribe { topic, subscription, attributes } => {
                self.subscribe(&topic, &subscription, attributes, address(&topic, &subscription)).await
            }
            Operation::SetSubscription { topic, subscription, attributes } => {
                self.set_subscription(&topic, &subscription, attributes).await
            }
            Operation::GetSubscription { topic, subscription } => self
                .subscription(&topic, &subscription)
                .map(|shelf| found(subscription_meta(&shelf).encode())),
            Operation::Unsubscribe { topic, subscription } => match self.shelf(Sort::Topic, &topic) {
                Ok(_) => {
                    self.remove(
                        Sort::Subscription,
                        &format!("{topic}/{subscription}"),
                        Some(Code::SubscriptionNotExist),
                    )
                    .await
                }
                Err(refused) => Err(refused),
            },
            Operation::ListSubscriptions { topic, listing } => {
                self.shelf(Sort::Topic, &topic).and_then(|_| {
                    let url = |name: &str| address(&topic, name);
                    self.list(Sort::Subscription, &format!("{topic}/"), &listing, url, subscription_meta)
                })
            }
            _ => Err(refused(Code::InvalidRequestUrl)),
        };
        done.unwrap_or_else(|refused| refused)
    }

    fn subscription(&self, topic: &str, name: &str) -> Result<Arc<Shelf>, Answer> {
        self.shelf(Sort::Topic, topic)?;
        self.shelf(Sort::Subscription, &format!("{topic}/{name}"))
    }

    async fn subscribe(
        self: &Arc<Front>,
        topic: &str,
        name: &str,
        attributes: SubscriptionAttributes,
        location: String,
    ) -> Result<Answer, Answer> {
        let about = About::Subscription(full(attributes)?);
        let key = format!("{topic}/{name}");
        let push = |shelf| self.push(shelf);
        self.make(&key, about, location, Code::SubscriptionAlreadyExist, push).await
    }

    async fn set_subscription(
        &self,
        topic: &str,
        name: &str,
        given: SubscriptionAttributes,
    ) -> Result<Answer, Answer> {
        let shelf = self.subscription(topic, name)?;
        let changed = |about: &About| {
            let now = attributes(about);
            if given.endpoint.is_some() && given.endpoint != now.endpoint {
                return Err(refuse(Code::InvalidArgument, "Endpoint cannot be changed"));
            }
            let changed = full(SubscriptionAttributes {
                endpoint: now.endpoint,
                filter_tag: given.filter_tag.or(now.filter_tag),
                notify_strategy: given.notify_strategy.or(now.notify_strategy),
                notify_content_format: given.notify_content_format.or(now.notify_content_format),
            });
            changed.map(About::Subscription)
        };
        self.relabel(&shelf, changed).await
    }
}

fn subscription_meta(shelf: &Shelf) -> SubscriptionMeta {
    let label = shelf.label();
    let (topic, name) = shelf.name.split_once('/').unwrap_or_default();
    SubscriptionMeta {
        name: name.to_owned(),
        topic_owner: ACCOUNT.to_owned(),
        topic: topic.to_owned(),
        subscriber: ACCOUNT.to_owned(),
        attributes: subscription_attributes(shelf),
        create_time: label.created,
        last_modify_time: label.modified,
    }
}
