//! What `ceiba mns` takes.

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::{ClientArgs, EXIT_CODES};

const KEYS: &str = "CONFIG is mns://HOST:PORT (mnss for TLS), or the config of a producer or consumer. The access key of \
one that names none, ID:SECRET, is read from --secret-file or the environment variable CEIBA_MNS_KEY. Other users can \
read the arguments of a running program: prefer these two to a key in the URL.";

#[derive(Debug, Args)]
#[command(after_help = format!("{KEYS}\n\n{EXIT_CODES}"))]
pub(crate) struct MnsArgs {
    #[command(subcommand)]
    pub(crate) of: Of,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Of {
    /// Make, show, change and delete queues, and look at their messages
    ///
    /// MNS cannot empty a queue: delete it and make it again.
    #[command(after_help = KEYS)]
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
    },
    /// Make, show, change and delete topics
    #[command(after_help = KEYS)]
    Topic {
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// Make, show, change and delete subscriptions of topics
    #[command(after_help = KEYS)]
    Subscription {
        #[command(subcommand)]
        command: SubscriptionCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Make a queue; one with the same attributes may be there already
    Create {
        #[command(flatten)]
        queue: QueueName,
        #[command(flatten)]
        attributes: QueueAttributes,
    },
    /// List queues
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        account: ClientArgs,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Show a queue: its attributes, and how many messages it has
    Show {
        #[command(flatten)]
        queue: QueueName,
    },
    /// Change attributes of a queue; those left out stay
    Set {
        #[command(flatten)]
        queue: QueueName,
        #[command(flatten)]
        attributes: QueueAttributes,
    },
    /// Delete a queue with its messages
    Rm {
        #[command(flatten)]
        queue: QueueName,
    },
    /// Look at messages, which stay as they are
    Peek {
        #[command(flatten)]
        queue: QueueName,
        /// The most messages
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make a topic; one with the same attributes may be there already
    Create {
        #[command(flatten)]
        topic: TopicName,
        #[command(flatten)]
        attributes: TopicAttributes,
    },
    /// List topics
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        account: ClientArgs,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Show a topic
    Show {
        #[command(flatten)]
        topic: TopicName,
    },
    /// Change attributes of a topic; those left out stay
    Set {
        #[command(flatten)]
        topic: TopicName,
        #[command(flatten)]
        attributes: TopicAttributes,
    },
    /// Delete a topic with its subscriptions
    Rm {
        #[command(flatten)]
        topic: TopicName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Make a subscription: what is published on the topic is pushed to an endpoint
    Create {
        #[command(flatten)]
        subscription: SubscriptionName,
        /// `http://…`, `acs:mns:REGION:ACCOUNT:queues/QUEUE` or `mail:directmail:ADDRESS`
        #[arg(long, value_name = "WHERE")]
        endpoint: String,
        /// Push messages with this tag alone
        #[arg(long, value_name = "TAG")]
        filter_tag: Option<String>,
        /// How often a push that failed is tried again [the service's default: backoff_retry]
        #[arg(long, value_enum, value_name = "HOW")]
        strategy: Option<Strategy>,
        /// How messages are written [the service's default: xml]
        #[arg(long, value_enum, value_name = "HOW")]
        format: Option<Format>,
    },
    /// List the subscriptions of a topic
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        topic: TopicName,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Show a subscription
    Show {
        #[command(flatten)]
        subscription: SubscriptionName,
    },
    /// Change how often a push that failed is tried again; nothing else of a subscription can be changed
    Set {
        #[command(flatten)]
        subscription: SubscriptionName,
        /// How often a push that failed is tried again
        #[arg(long, value_enum, value_name = "HOW")]
        strategy: Strategy,
    },
    /// Delete a subscription
    Rm {
        #[command(flatten)]
        subscription: SubscriptionName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QueueName {
    #[command(flatten)]
    pub(crate) account: ClientArgs,
    /// The queue
    #[arg(id = "queue", value_name = "QUEUE")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopicName {
    #[command(flatten)]
    pub(crate) account: ClientArgs,
    /// The topic
    #[arg(id = "topic", value_name = "TOPIC")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SubscriptionName {
    #[command(flatten)]
    pub(crate) topic: TopicName,
    /// The subscription
    #[arg(id = "subscription", value_name = "SUBSCRIPTION")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PartArgs {
    /// What their names begin with
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct QueueAttributes {
    /// Seconds before a message can be received that names no delay
    #[arg(long, value_name = "S")]
    pub(crate) delay: Option<u32>,
    /// The longest body
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<u32>,
    /// Seconds after which a message is gone
    #[arg(long, value_name = "S")]
    pub(crate) retention: Option<u32>,
    /// Seconds for which a received message is hidden from others
    #[arg(long, value_name = "S")]
    pub(crate) visibility: Option<u32>,
    /// Seconds that a receive waits which names none
    #[arg(long, value_name = "S")]
    pub(crate) wait: Option<u32>,
    /// Whether the service keeps a log
    #[arg(long, value_name = "BOOL")]
    pub(crate) logging: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct TopicAttributes {
    /// The longest body
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<u32>,
    /// Whether the service keeps a log
    #[arg(long, value_name = "BOOL")]
    pub(crate) logging: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Strategy {
    /// Three more times
    BackoffRetry,
    /// For a day, with longer and longer waits
    ExponentialDecayRetry,
}

impl Strategy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Strategy::BackoffRetry => "BACKOFF_RETRY",
            Strategy::ExponentialDecayRetry => "EXPONENTIAL_DECAY_RETRY",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Format {
    /// With all that is known of them
    Xml,
    /// The body alone
    Simplified,
    /// With all that is known of them
    Json,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Xml => "XML",
            Format::Simplified => "SIMPLIFIED",
            Format::Json => "JSON",
        }
    }
}
