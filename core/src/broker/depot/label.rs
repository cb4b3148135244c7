//! What is known of a queue, a topic or a subscription beside its messages: JSON in the log.

use serde::{Deserialize, Serialize};

use crate::broker::log::record::Sort;
use crate::broker::topic::wall;
use crate::wire::mns::{QueueAttributes, SubscriptionAttributes, TopicAttributes};

/// The attributes of each sort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::broker) enum About {
    Queue(QueueAttributes),
    Topic(TopicAttributes),
    Subscription(SubscriptionAttributes),
    Account { logging_bucket: Option<String> },
}

impl About {
    /// Of which sort it is.
    pub(in crate::broker) fn sort(&self) -> Sort {
        match self {
            About::Queue(_) => Sort::Queue,
            About::Topic(_) => Sort::Topic,
            About::Subscription(_) => Sort::Subscription,
            About::Account { .. } => Sort::Account,
        }
    }

    fn none(sort: Sort) -> About {
        match sort {
            Sort::Queue => About::Queue(QueueAttributes::default()),
            Sort::Topic => About::Topic(TopicAttributes::default()),
            Sort::Subscription => About::Subscription(SubscriptionAttributes::default()),
            Sort::Account => About::Account { logging_bucket: None },
        }
    }
}

/// The attributes, and when they were set, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Label {
    pub(in crate::broker) about: About,
    pub(in crate::broker) created: u64,
    pub(in crate::broker) modified: u64,
}

impl Label {
    /// Of something that is made now.
    pub(in crate::broker) fn new(about: About) -> Label {
        let now = wall().max(0).unsigned_abs();
        Label { about, created: now, modified: now }
    }

    /// With other attributes from now on.
    pub(super) fn with(&self, about: About) -> Label {
        Label { about, created: self.created, modified: wall().max(0).unsigned_abs() }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the log says; of what another version wrote the sort alone is kept.
    pub(super) fn read(sort: Sort, json: &str) -> Label {
        let read = serde_json::from_str::<Label>(json).ok().filter(|label| label.about.sort() == sort);
        read.unwrap_or_else(|| {
            tracing::error!(?sort, "attributes cannot be read: those of the beginning hold");
            Label::new(About::none(sort))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_were_written() {
        let attributes = QueueAttributes { visibility_timeout: Some(7), ..QueueAttributes::default() };
        let label = Label::new(About::Queue(attributes));
        assert_eq!(Label::read(Sort::Queue, &label.to_json()), label);
        let other = Label::read(Sort::Topic, &label.to_json());
        assert_eq!(other.about, About::Topic(TopicAttributes::default()));
        assert_eq!(Label::read(Sort::Account, "{").about, About::Account { logging_bucket: None });
    }
}
