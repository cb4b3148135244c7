//! What the command line takes.

use std::path::PathBuf;
use std::time::Duration;

use ceiba_core::broker::{Durability, Network};
use ceiba_core::config::{Span, named_span};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::mns::arguments::MnsArgs;
use crate::outbox::arguments::OutboxArgs;

pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    done (also after Ctrl-C or SIGTERM, when what was begun ended well)
  1    a message failed, its outcome is unknown, or the time passed before --count; a store failed
  2    the arguments or a config are wrong
  3    the broker or service cannot be reached or refused the secret; the broker cannot listen
  130  stopped before its end: by a second Ctrl-C, `ceiba outbox` and `ceiba mns` by the first

Errors are one line each on stderr: kind, message, what would be right. CEIBA_LOG=info logs more.";

const SECRET_SOURCES: &str = "The secret of a CONFIG that names none is read from --secret-file or the \
environment variable CEIBA_SECRET. Other users can read the arguments of a running program: \
prefer these two to a secret in the URL.";

/// Send and receive messages over many systems, with the broker in the box.
#[derive(Debug, Parser)]
#[command(name = "ceiba", version, about, after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Cli {
    /// Write results and errors as JSON, one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the embedded broker until Ctrl-C or SIGTERM
    ///
    /// The first line on stdout names the address: `listening on 127.0.0.1:8011`, with --mns the second line the one
    /// of MNS.
    #[command(after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
    Broker(Box<BrokerArgs>),
    /// Send each line of a file or of stdin as a message, or all of it as one
    ///
    /// A line ends with LF, which is not sent; a last line without one is sent too, and an empty line is an
    /// empty message. Lines that cannot be sent are named on stderr and counted; the others go on.
    ///
    /// With --to, --subject, --template, --arg, --args or --whole the input is one message: a mail, a text message, a
    /// call of a webhook.
    #[command(after_help = format!("{SECRET_SOURCES}\n\n{EXIT_CODES}"))]
    Send(SendArgs),
    /// Receive messages, write their bodies to stdout, one per line, and acknowledge them
    ///
    /// A message is acknowledged after its line is written and flushed. Whatever was received and not
    /// written goes back to the broker.
    #[command(after_help = format!("{SECRET_SOURCES}\n\n{EXIT_CODES}"))]
    Receive(ReceiveArgs),
    /// See what outboxes hold, and have it sent again, moved or deleted
    Outbox(Box<OutboxArgs>),
    /// Make, show, change and delete queues, topics and subscriptions of MNS
    Mns(Box<MnsArgs>),
    /// Work on configs
    Config(ConfigArgs),
    /// Write the completion script of a shell to stdout
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Work on the data folder of a broker that does not run.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Read all of a data folder and say how each of its files is
    ///
    /// The exit code is 1 when one is damaged.
    Verify {
        /// The folder that the broker has as --data
        #[arg(value_name = "DIR")]
        data: PathBuf,
    },
    /// Replace the damaged files of a data folder by their good records
    ///
    /// The damaged file is kept in the folder `quarantine` inside. What is lost is said.
    Repair {
        /// The folder that the broker has as --data
        #[arg(value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BrokerCommand>,

    /// The application.yaml of a KapokMQ or DPMQ server, to run in its place
    ///
    /// Which of the two it is shows in its keys. What differs here is said in warnings on stderr; a key that
    /// neither server knows is an error. Arguments go before what the file says.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8011]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,

    /// File with the secret that every client must know (its line end is cut)
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    pub(crate) secret_file: Option<PathBuf>,

    /// The secret itself; other users can read it in the list of processes: prefer --secret-file or the
    /// environment variable CEIBA_SECRET
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Option<String>,

    /// Who gets a message [default: work_queue]
    #[arg(long, value_enum)]
    pub(crate) delivery: Option<Delivery>,

    /// Speak the DPMQ protocol too, on the same address
    ///
    /// It has no login: whoever reaches the address can send and receive. A topic that it uses first delivers
    /// to every consumer, whatever --delivery says.
    #[arg(long)]
    pub(crate) dpmq: bool,

    /// Speak MNS at this address; port 0 takes a free one. The second line on stdout names it: `mns on 127.0.0.1:8012`
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) mns: Option<String>,

    /// An access key of MNS; may be given many times. Other users can read it in the list of processes: prefer
    /// --mns-key-file or the environment variable CEIBA_MNS_KEY
    #[arg(long = "mns-key", value_name = "ID:SECRET", requires = "mns", conflicts_with = "mns_key_file")]
    pub(crate) mns_keys: Vec<String>,

    /// File with access keys of MNS, one ID:SECRET on each line
    #[arg(long, value_name = "FILE", requires = "mns")]
    pub(crate) mns_key_file: Option<PathBuf>,

    /// Let MNS subscriptions push to HTTP endpoints at loopback, link-local and private addresses
    #[arg(long, requires = "mns")]
    pub(crate) mns_private_endpoints: bool,

    /// A network of such addresses that they may push to, and no other: an address, or 10.1.0.0/16; may be given many
    /// times
    #[arg(long = "mns-endpoint", value_name = "NETWORK", requires = "mns")]
    pub(crate) mns_endpoints: Vec<Network>,

    /// Folder for the messages, locked for this process; without one they are in memory and end with the broker
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// When a message in the folder counts as safe: `fsync` (once it is on disk), `interval` or `interval:SPAN`
    /// (once the system has it; synced every second, or as often as said), `memory` [default: fsync]
    #[arg(long, value_name = "HOW", value_parser = durability)]
    pub(crate) durability: Option<Durability>,

    /// How often `--durability interval` writes to disk for good, where that does not say it: what came since is
    /// lost in a power cut [default: 1]
    #[arg(long, value_name = "S", value_parser = longer, allow_hyphen_values = true)]
    pub(crate) sync_interval: Option<Duration>,

    /// Bytes of one file of the log, at least 65536; a larger message gets a file of its own
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u64).range(64 << 10..=1 << 30))]
    pub(crate) segment_bytes: u64,

    /// Bytes that stored messages may take, about 100 more than the body each: beyond it senders wait, and sends by
    /// HTTP are refused [default: 1073741824]
    #[arg(long, value_name = "BYTES")]
    pub(crate) stored_bytes: Option<usize>,

    /// How long a consumer may take to acknowledge before a message is delivered again: seconds, or a
    /// number with a unit such as 5m [default: 300]
    #[arg(long, value_name = "S", value_parser = seconds, allow_hyphen_values = true)]
    pub(crate) redeliver_after: Option<Duration>,

    /// The HOST that the list of nodes names for this broker, where it differs from the one listened on
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,

    /// Another broker that the list of nodes names; may be given many times
    #[arg(long = "node", value_name = "HOST:PORT", value_parser = node)]
    pub(crate) nodes: Vec<(String, u16)>,

    #[command(flatten)]
    pub(crate) topics: TopicArgs,
}

/// What holds for all topics.
#[derive(Debug, Args)]
#[command(next_help_heading = "Topics (nothing of this is on unless given)")]
pub(crate) struct TopicArgs {
    /// Pushes of a message that nobody acknowledges, before it goes to the dead letters, the topic NAME.dead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_attempts: Option<u32>,

    /// Age at which a message goes to the dead letters, counted from when it is due
    #[arg(long, value_name = "S", value_parser = longer, allow_hyphen_values = true)]
    pub(crate) expire_after: Option<Duration>,

    /// Push messages in batches, one in this time
    #[arg(long, value_name = "S", value_parser = longer, allow_hyphen_values = true)]
    pub(crate) push_every: Option<Duration>,

    /// Messages of a batch of --push-every [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) push_count: Option<u32>,

    /// The most messages of a topic
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_messages: Option<u64>,

    /// The most bytes of the bodies of a topic; one message always has room
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_bytes: Option<u64>,

    /// What happens past these two: a message waits, or it is refused [default: wait]
    #[arg(long, value_enum)]
    pub(crate) when_full: Option<Full>,

    /// How long a second message with the same key counts as the first (the last million keys of a topic
    /// are remembered); only clients that send keys are concerned
    #[arg(long, value_name = "S", value_parser = longer, allow_hyphen_values = true)]
    pub(crate) deduplicate: Option<Duration>,

    /// In publish_subscribe the first ack consumes a message for every consumer, as with the KapokMQ server
    #[arg(long)]
    pub(crate) compat: bool,

    /// What holds for one topic alone, over all that: a JSON object with the keys max_attempts, expire_after,
    /// push_every, push_count, max_messages, max_bytes, when_full, deduplicate and compat, such as
    /// 'orders={"max_attempts": 5, "expire_after": "24h"}'; may be given many times
    #[arg(long = "topic", value_name = "NAME=JSON")]
    pub(crate) each: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Full {
    /// It waits, and what its producer sends after it
    Wait,
    /// It is refused
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Delivery {
    /// One of the topic's consumers
    WorkQueue,
    /// Every consumer of the topic
    PublishSubscribe,
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// A URL such as kapokmq://127.0.0.1:8011/TOPIC, or a JSON config of a client: its text, not a file
    ///
    /// Schemes for sending alone: smtp, smtps, sms+aliyun, sms+tencent, dingtalk, http and https (a webhook).
    #[arg(value_name = "CONFIG")]
    pub(crate) config: String,

    /// File with the secret, for a CONFIG that names none (its line end is cut)
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,

    /// File to read; `-` is stdin [default: -; with --template none]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Deliver each message this much later: seconds, or a number with a unit such as 10m
    #[arg(long, value_name = "S", value_parser = seconds, allow_hyphen_values = true, default_value = "0")]
    pub(crate) delay: Duration,

    /// Messages that may be on their way at once
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) window: u32,

    #[command(flatten)]
    pub(crate) notice: NoticeArgs,
}

/// What makes the whole input one message.
#[derive(Debug, Args)]
#[command(next_help_heading = "One message")]
pub(crate) struct NoticeArgs {
    /// A recipient: an address, a number or a user id; may be given many times, or with commas
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    pub(crate) to: Vec<String>,

    /// The subject of a mail
    #[arg(long, value_name = "TEXT")]
    pub(crate) subject: Option<String>,

    /// The provider's template of this name; @FILE renders the template in that file here, and a .html file makes
    /// an HTML mail
    #[arg(long, value_name = "NAME|@FILE")]
    pub(crate) template: Option<String>,

    /// A text for the template; may be given many times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) arg: Vec<String>,

    /// JSON for the template, to which --arg adds
    #[arg(long, value_name = "JSON")]
    pub(crate) args: Option<String>,

    /// Send the whole input as one message in any case
    #[arg(long)]
    pub(crate) whole: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,

    /// Stop after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Stop when no message came for this long: seconds, or a number with a unit such as 500ms
    #[arg(long, value_name = "S", value_parser = seconds, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the config of one client, or a file with many, without connecting
    ///
    /// Everything that is wrong is named on stderr with its path. What is right is what opens as a file: each client
    /// has its `id`.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// File to check; `-` is stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a time: write seconds such as 2 or 0.5, or a number with a unit such as 500ms or 10m"
        )
    };
    if let Ok(number) = text.parse::<f64>() {
        if number < 0.0 {
            return Err(format!("{text} is negative: write 0 or more seconds"));
        }
        return Duration::try_from_secs_f64(number).map_err(|_| wrong());
    }
    Span::parse(text).map(|span| span.0).map_err(|_| wrong())
}

pub(crate) fn longer(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err(format!("{text} is no time: leave the argument out for none")) } else { Ok(time) }
}

fn durability(text: &str) -> Result<Durability, String> {
    let (name, every) = named_span(text)?;
    if every.is_some_and(|every| every.is_zero()) {
        return Err("the interval must be longer than 0".to_owned());
    }
    Durability::from_name(name, every).ok_or_else(|| {
        format!(
            "`{text}` is not known: write fsync, interval, interval:SPAN (as in interval:200ms) or memory"
        )
    })
}

fn node(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["-1", "", "soon", "nan", "inf", "1e300", "5 parsecs"] {
            seconds(wrong).unwrap_err();
        }
    }

    #[test]
    fn durabilities() {
        assert_eq!(durability("fsync"), Ok(Durability::Fsync));
        assert_eq!(durability("memory"), Ok(Durability::Memory));
        assert_eq!(durability("interval:200ms"), Ok(Durability::Interval(Duration::from_millis(200))));
        assert!(matches!(durability("interval"), Ok(Durability::Interval(_))));
        for wrong in ["", "always", "fsync:1s", "interval:", "interval:0s", "interval:5", "memory:1s"] {
            durability(wrong).unwrap_err();
        }
        longer("0").unwrap_err();
    }

    #[test]
    fn nodes_are_host_and_port() {
        assert_eq!(node("mq-2:8011"), Ok(("mq-2".to_owned(), 8011)));
        assert_eq!(node("[::1]:8011"), Ok(("::1".to_owned(), 8011)));
        for wrong in ["", "mq-2", ":8011", "mq-2:", "mq-2:0", "mq-2:80111"] {
            node(wrong).unwrap_err();
        }
    }
}
