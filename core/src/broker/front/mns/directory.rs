//! Queues and topics themselves, and the account.

use std::sync::Arc;

use axum::http::StatusCode;

use super::answer::{Answer, empty, found, refuse, refused, too_many};
use super::{ACCOUNT, Caller, Front};
use crate::broker::depot::{About, Made, Shelf};
use crate::broker::log::Ticket;
use crate::broker::log::record::Sort;
use crate::wire::mns::{
    Code, Listed, Listing, MAX_BODY, MAX_DELAY, MAX_LISTED, MAX_WAIT, Named, Operation, QueueAttributes,
    QueueMeta, TopicAttributes, TopicMeta, VISIBILITY, encode_account, encode_list, encode_order,
};

/// How long a topic keeps a message for its subscribers, in seconds: longer than any of them is tried.
pub(super) const TOPIC_RETENTION: u32 = 2 * 86_400;
const SMALLEST_BODY: u32 = 1024;

/// The attributes of a queue, all of them.
pub(super) fn queue_attributes(shelf: &Shelf) -> QueueAttributes {
    full_queue(&shelf.label().about)
}

fn full_queue(about: &About) -> QueueAttributes {
    match about {
        About::Queue(attributes) => over(attributes, &defaults()),
        _ => defaults(),
    }
}

fn defaults() -> QueueAttributes {
    QueueAttributes {
        delay_seconds: Some(0),
        maximum_message_size: Some(MAX_BODY as u32),
        message_retention_period: Some(345_600),
        visibility_timeout: Some(30),
        polling_wait_seconds: Some(0),
        logging_enabled: Some(false),
    }
}

/// What is given, over what holds without.
fn over(given: &QueueAttributes, base: &QueueAttributes) -> QueueAttributes {
    QueueAttributes {
        delay_seconds: given.delay_seconds.or(base.delay_seconds),
        maximum_message_size: given.maximum_message_size.or(base.maximum_message_size),
        message_retention_period: given.message_retention_period.or(base.message_retention_period),
        visibility_timeout: given.visibility_timeout.or(base.visibility_timeout),
        polling_wait_seconds: given.polling_wait_seconds.or(base.polling_wait_seconds),
        logging_enabled: given.logging_enabled.or(base.logging_enabled),
    }
}

fn is_body_size(size: Option<u32>) -> bool {
    size.is_none_or(|size| (SMALLEST_BODY..=MAX_BODY as u32).contains(&size))
}

fn checked(attributes: &QueueAttributes) -> Result<(), Answer> {
    let wrong = |text| Err(refuse(Code::InvalidArgument, text));
    let is_in =
        |value: Option<u32>, least: u32, most: u32| value.is_none_or(|value| (least..=most).contains(&value));
    if !is_in(attributes.delay_seconds, 0, MAX_DELAY) {
        return wrong("DelaySeconds is from 0 to 604800");
    }
    if !is_body_size(attributes.maximum_message_size) {
        return wrong("MaximumMessageSize is from 1024 to 65536");
    }
    if !is_in(attributes.message_retention_period, 60, 1_296_000) {
        return wrong("MessageRetentionPeriod is from 60 to 1296000");
    }
    if !is_in(attributes.visibility_timeout, *VISIBILITY.start(), *VISIBILITY.end()) {
        return wrong("VisibilityTimeout is from 1 to 43200");
    }
    if !is_in(attributes.polling_wait_seconds, 0, MAX_WAIT) {
        return wrong("PollingWaitSeconds is from 0 to 30");
    }
    Ok(())
}

pub(super) fn topic_attributes(shelf: &Shelf) -> TopicAttributes {
    whole_topic(&shelf.label().about)
}

fn whole_topic(about: &About) -> TopicAttributes {
    let given = match about {
        About::Topic(given) => given.clone(),
        _ => TopicAttributes::default(),
    };
    TopicAttributes {
        maximum_message_size: given.maximum_message_size.or(Some(MAX_BODY as u32)),
        logging_enabled: given.logging_enabled.or(Some(false)),
    }
}

fn full_topic(given: TopicAttributes, base: &TopicAttributes) -> Result<TopicAttributes, Answer> {
    if !is_body_size(given.maximum_message_size) {
        return Err(refuse(Code::InvalidArgument, "MaximumMessageSize is from 1024 to 65536"));
    }
    Ok(TopicAttributes {
        maximum_message_size: given.maximum_message_size.or(base.maximum_message_size),
        logging_enabled: given.logging_enabled.or(base.logging_enabled),
    })
}

impl Front {
    pub(super) async fn of_directory(&self, operation: Operation<'_>, caller: &Caller) -> Answer {
        let done = match operation {
            Operation::CreateQueue { queue, attributes } => {
                self.create_queue(&queue, &attributes, caller).await
            }
            Operation::SetQueue { queue, attributes } => self.set_queue(&queue, &attributes).await,
            Operation::GetQueue { queue } => {
                self.shelf(Sort::Queue, &queue).map(|shelf| found(queue_meta(&shelf).encode()))
            }
            Operation::DeleteQueue { queue } => {
                self.remove(Sort::Queue, &queue, Some(Code::QueueNotExist)).await
            }
            Operation::ListQueues(listing) => self.list(
                Sort::Queue,
                "",
                &listing,
                |name| format!("{}/queues/{name}", caller.base),
                queue_meta,
            ),
            Operation::CreateTopic { topic, attributes } => {
                self.create_topic(&topic, attributes, caller).await
            }
            Operation::SetTopic { topic, attributes } => self.set_topic(&topic, attributes).await,
            Operation::GetTopic { topic } => {
                self.shelf(Sort::Topic, &topic).map(|shelf| found(self.topic_meta(&shelf).encode()))
            }
            Operation::DeleteTopic { topic } => self.remove(Sort::Topic, &topic, None).await,
            Operation::ListTopics(listing) => {
                let url = |name: &str| format!("{}/topics/{name}", caller.base);
                self.list(Sort::Topic, "", &listing, url, |shelf| self.topic_meta(shelf))
            }
            Operation::GetAccount => Ok(found(self.account())),
            Operation::SetAccount { logging_bucket } => self.set_account(logging_bucket.as_deref()).await,
            Operation::OpenService => Ok(found(encode_order(&caller.id))),
            _ => Err(refused(Code::InvalidRequestUrl)),
        };
        done.unwrap_or_else(|refused| refused)
    }

    /// The shelf of this name, or the refusal that there is none.
    pub(super) fn shelf(&self, sort: Sort, name: &str) -> Result<Arc<Shelf>, Answer> {
        self.hub.depot.find(sort, name).ok_or_else(|| refused(missing(sort)))
    }

    /// Makes a shelf; answers with where it is once it is safe. A new one is handed to `then` at once: who asks may
    /// be gone before the answer, and the shelf is there all the same.
    pub(super) async fn make(
        &self,
        name: &str,
        about: About,
        location: String,
        other: Code,
        then: impl FnOnce(Arc<Shelf>),
    ) -> Result<Answer, Answer> {
        let (made, ticket) = self.hub.depot.make(name, about).map_err(|_| too_many())?;
        let status = match made {
            Made::Other => return Err(refused(other)),
            Made::NoTopic => return Err(refused(Code::TopicNotExist)),
            Made::Same => StatusCode::NO_CONTENT,
            Made::New(shelf) => {
                then(shelf);
                StatusCode::CREATED
            }
        };
        self.written(ticket).await?;
        Ok(Answer::Done { status, location: Some(location), body: String::new() })
    }

    async fn written(&self, ticket: Ticket) -> Result<(), Answer> {
        self.hub.log().committed(ticket).await.map_err(|error| {
            tracing::error!(%error, "a change may not be stored");
            refuse(Code::InternalError, "the log has failed")
        })
    }

    /// Gives a shelf other attributes, made of those that it has.
    pub(super) async fn relabel(
        &self,
        shelf: &Shelf,
        about: impl FnOnce(&About) -> Result<About, Answer>,
    ) -> Result<Answer, Answer> {
        let ticket = shelf.relabel(about)?;
        self.written(ticket).await?;
        Ok(empty())
    }

    /// Removes a shelf. Where there is none the answer is the code, or without one that all is well.
    pub(super) async fn remove(
        &self,
        sort: Sort,
        name: &str,
        missing: Option<Code>,
    ) -> Result<Answer, Answer> {
        match (self.hub.depot.remove(sort, name), missing) {
            (Some(ticket), _) => self.written(ticket).await?,
            (None, Some(code)) => return Err(refused(code)),
            (None, None) => {}
        }
        Ok(empty())
    }

    /// A page of a list. `within` is what names begin with that is not shown.
    pub(super) fn list<M: Named>(
        &self,
        sort: Sort,
        within: &str,
        listing: &Listing<'_>,
        url: impl Fn(&str) -> String,
        meta: impl Fn(&Shelf) -> M,
    ) -> Result<Answer, Answer> {
        let most = listing.number.unwrap_or(MAX_LISTED);
        if !(1..=MAX_LISTED).contains(&most) {
            return Err(refuse(Code::InvalidArgument, "x-mns-ret-number is from 1 to 1000"));
        }
        let prefix = format!("{within}{}", listing.prefix.as_deref().unwrap_or_default());
        let after = listing.marker.as_deref().map(|marker| format!("{within}{marker}"));
        let (page, more) = self.hub.depot.page(sort, &prefix, after.as_deref(), most as usize);
        let own = |shelf: &Arc<Shelf>| shelf.name.get(within.len()..).unwrap_or_default().to_owned();
        let listed: Vec<Listed<M>> = page
            .iter()
            .map(|shelf| Listed { url: url(&own(shelf)), meta: listing.with_meta.then(|| meta(shelf)) })
            .collect();
        let next = page.last().filter(|_| more).map(own);
        Ok(found(encode_list(&listed, next.as_deref())))
    }

    async fn create_queue(
        &self,
        queue: &str,
        attributes: &QueueAttributes,
        caller: &Caller,
    ) -> Result<Answer, Answer> {
        checked(attributes)?;
        let location = format!("{}/queues/{queue}", caller.base);
        let about = About::Queue(over(attributes, &defaults()));
        self.make(queue, about, location, Code::QueueAlreadyExist, |_| ()).await
    }

    async fn set_queue(&self, queue: &str, attributes: &QueueAttributes) -> Result<Answer, Answer> {
        checked(attributes)?;
        let shelf = self.shelf(Sort::Queue, queue)?;
        self.relabel(&shelf, |now| Ok(About::Queue(over(attributes, &full_queue(now))))).await
    }

    async fn create_topic(
        &self,
        topic: &str,
        attributes: TopicAttributes,
        caller: &Caller,
    ) -> Result<Answer, Answer> {
        let base =
            TopicAttributes { maximum_message_size: Some(MAX_BODY as u32), logging_enabled: Some(false) };
        let about = About::Topic(full_topic(attributes, &base)?);
        let location = format!("{}/topics/{topic}", caller.base);
        self.make(topic, about, location, Code::TopicAlreadyExist, |_| ()).await
    }

    async fn set_topic(&self, topic: &str, attributes: TopicAttributes) -> Result<Answer, Answer> {
        let shelf = self.shelf(Sort::Topic, topic)?;
        self.relabel(&shelf, |now| Ok(About::Topic(full_topic(attributes, &whole_topic(now))?))).await
    }

    fn topic_meta(&self, shelf: &Shelf) -> TopicMeta {
        let label = shelf.label();
        // Of the subscription that is furthest behind.
        let behind = self.hub.depot.subscriptions(&shelf.name).into_iter().map(|one| {
            let counts = one.counts();
            counts.ready + counts.leased + counts.delayed
        });
        TopicMeta {
            name: shelf.name.to_string(),
            attributes: topic_attributes(shelf),
            message_retention_period: u64::from(TOPIC_RETENTION),
            message_count: behind.max().unwrap_or(0) as u64,
            create_time: label.created,
            last_modify_time: label.modified,
        }
    }

    fn account(&self) -> String {
        let label = self.hub.depot.find(Sort::Account, ACCOUNT).map(|shelf| shelf.label());
        let bucket = label.as_deref().and_then(|label| match &label.about {
            About::Account { logging_bucket } => logging_bucket.as_deref(),
            _ => None,
        });
        encode_account(bucket)
    }

    async fn set_account(&self, bucket: Option<&str>) -> Result<Answer, Answer> {
        if bucket.is_some_and(|bucket| bucket.len() > 1024) {
            return Err(refuse(Code::InvalidArgument, "LoggingBucket is too long"));
        }
        let about = About::Account { logging_bucket: bucket.map(str::to_owned) };
        let (made, ticket) = self.hub.depot.make(ACCOUNT, about.clone()).map_err(|_| too_many())?;
        // It is never removed.
        if let (Made::Other, Some(shelf)) = (made, self.hub.depot.find(Sort::Account, ACCOUNT)) {
            return self.relabel(&shelf, |_| Ok(about)).await;
        }
        self.written(ticket).await?;
        Ok(empty())
    }
}

fn missing(sort: Sort) -> Code {
    match sort {
        Sort::Queue => Code::QueueNotExist,
        Sort::Topic => Code::TopicNotExist,
        Sort::Subscription | Sort::Account => Code::SubscriptionNotExist,
    }
}

fn queue_meta(shelf: &Shelf) -> QueueMeta {
    let (label, counts) = (shelf.label(), shelf.counts());
    QueueMeta {
        name: shelf.name.to_string(),
        attributes: queue_attributes(shelf),
        active_messages: counts.ready as u64,
        inactive_messages: counts.leased as u64,
        delay_messages: counts.delayed as u64,
        create_time: label.created,
        last_modify_time: label.modified,
    }
}
