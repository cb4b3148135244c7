//! The command that arguments ask for, as the core has it.

use serde_json::{Map, Value, json};

use super::arguments::{
    Of, PartArgs, QueueAttributes, QueueCommand, QueueName, SubscriptionCommand, SubscriptionName,
    TopicAttributes, TopicCommand, TopicName,
};
use crate::arguments::ClientArgs;

/// How the answer is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// What was made, or was there; what it is, with its name.
    Made(String),
    /// That it was done.
    Done(String),
    /// Line by line.
    Whole,
    /// Bodies.
    Messages,
    /// A list, page by page, under this key.
    Pages { of: &'static str },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) account: &'a ClientArgs,
    pub(super) name: &'static str,
    pub(super) arguments: Map<String, Value>,
    pub(super) shown: Shown,
}

fn given(pairs: &[(&str, Value)]) -> Map<String, Value> {
    let set = pairs.iter().filter(|(_, value)| !value.is_null());
    set.map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn asked<'a>(
    account: &'a ClientArgs,
    name: &'static str,
    shown: Shown,
    arguments: &[(&str, Value)],
) -> Asked<'a> {
    Asked { account, name, arguments: given(arguments), shown }
}

pub(super) fn of(of: &Of) -> Asked<'_> {
    match of {
        Of::Queue { command } => of_queues(command),
        Of::Topic { command } => of_topics(command),
        Of::Subscription { command } => of_subscriptions(command),
    }
}

fn queue_attributes(given_here: &QueueAttributes) -> Value {
    let QueueAttributes { delay, max_size, retention, visibility, wait, logging } = given_here;
    Value::Object(given(&[
        ("delay_seconds", json!(delay)),
        ("maximum_message_size", json!(max_size)),
        ("message_retention_period", json!(retention)),
        ("visibility_timeout", json!(visibility)),
        ("polling_wait_seconds", json!(wait)),
        ("logging_enabled", json!(logging)),
    ]))
}

fn of_queues(command: &QueueCommand) -> Asked<'_> {
    let told = |QueueName { name, .. }: &QueueName| format!("queue {name}");
    match command {
        QueueCommand::Create { queue, attributes } => asked(
            &queue.account,
            "create_queue",
            Shown::Made(told(queue)),
            &[("queue", json!(queue.name)), ("attributes", queue_attributes(attributes))],
        ),
        QueueCommand::Set { queue, attributes } => asked(
            &queue.account,
            "set_queue",
            Shown::Done(told(queue)),
            &[("queue", json!(queue.name)), ("attributes", queue_attributes(attributes))],
        ),
        QueueCommand::Ls { account, part: PartArgs { prefix } } => {
            asked(account, "list_queues", Shown::Pages { of: "queues" }, &[("prefix", json!(prefix))])
        }
        QueueCommand::Show { queue } => {
            asked(&queue.account, "get_queue", Shown::Whole, &[("queue", json!(queue.name))])
        }
        QueueCommand::Rm { queue } => {
            asked(&queue.account, "delete_queue", Shown::Done(told(queue)), &[("queue", json!(queue.name))])
        }
        QueueCommand::Peek { queue, limit } => {
            let arguments = [("queue", json!(queue.name)), ("limit", json!(limit))];
            asked(&queue.account, "peek", Shown::Messages, &arguments)
        }
    }
}

fn topic_attributes(TopicAttributes { max_size, logging }: &TopicAttributes) -> Value {
    Value::Object(given(&[("maximum_message_size", json!(max_size)), ("logging_enabled", json!(logging))]))
}

fn of_topics(command: &TopicCommand) -> Asked<'_> {
    let told = |TopicName { name, .. }: &TopicName| format!("topic {name}");
    match command {
        TopicCommand::Create { topic, attributes } => asked(
            &topic.account,
            "create_topic",
            Shown::Made(told(topic)),
            &[("topic", json!(topic.name)), ("attributes", topic_attributes(attributes))],
        ),
        TopicCommand::Set { topic, attributes } => asked(
            &topic.account,
            "set_topic",
            Shown::Done(told(topic)),
            &[("topic", json!(topic.name)), ("attributes", topic_attributes(attributes))],
        ),
        TopicCommand::Ls { account, part: PartArgs { prefix } } => {
            asked(account, "list_topics", Shown::Pages { of: "topics" }, &[("prefix", json!(prefix))])
        }
        TopicCommand::Show { topic } => {
            asked(&topic.account, "get_topic", Shown::Whole, &[("topic", json!(topic.name))])
        }
        TopicCommand::Rm { topic } => {
            asked(&topic.account, "delete_topic", Shown::Done(told(topic)), &[("topic", json!(topic.name))])
        }
    }
}

fn of_subscriptions(command: &SubscriptionCommand) -> Asked<'_> {
    let told = |of: &SubscriptionName| format!("subscription {} of topic {}", of.name, of.topic.name);
    let named = |of: &SubscriptionName, attributes: Value| {
        [("topic", json!(of.topic.name)), ("subscription", json!(of.name)), ("attributes", attributes)]
    };
    match command {
        SubscriptionCommand::Create { subscription, endpoint, filter_tag, strategy, format } => {
            let attributes = given(&[
                ("endpoint", json!(endpoint)),
                ("filter_tag", json!(filter_tag)),
                ("notify_strategy", json!(strategy.map(|strategy| strategy.name()))),
                ("notify_content_format", json!(format.map(|format| format.name()))),
            ]);
            let arguments = named(subscription, Value::Object(attributes));
            asked(&subscription.topic.account, "subscribe", Shown::Made(told(subscription)), &arguments)
        }
        SubscriptionCommand::Set { subscription, strategy } => {
            let arguments = named(subscription, json!({"notify_strategy": strategy.name()}));
            asked(
                &subscription.topic.account,
                "set_subscription",
                Shown::Done(told(subscription)),
                &arguments,
            )
        }
        SubscriptionCommand::Ls { topic, part: PartArgs { prefix } } => asked(
            &topic.account,
            "list_subscriptions",
            Shown::Pages { of: "subscriptions" },
            &[("topic", json!(topic.name)), ("prefix", json!(prefix))],
        ),
        SubscriptionCommand::Show { subscription } => {
            let arguments = named(subscription, Value::Null);
            asked(&subscription.topic.account, "get_subscription", Shown::Whole, &arguments)
        }
        SubscriptionCommand::Rm { subscription } => {
            let arguments = named(subscription, Value::Null);
            asked(&subscription.topic.account, "unsubscribe", Shown::Done(told(subscription)), &arguments)
        }
    }
}
