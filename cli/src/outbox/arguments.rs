//! What `ceiba outbox` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::{EXIT_CODES, longer};

const STORES: &str = "A STORE is an address: sqlite:FILE or mongodb://HOST/DATABASE. In its place --config FILE \
with --id ID names a producer whose outbox it is, and then all but the numbers of rows is about its rows alone. Other \
users can read the arguments of a running program: prefer --config to an address with a password; the `url` there may \
be {\"env\": \"NAME\"} or {\"file\": \"PATH\"}.";

#[derive(Debug, Args)]
#[command(after_help = format!("{STORES}\n\n{EXIT_CODES}"))]
pub(crate) struct OutboxArgs {
    #[command(subcommand)]
    pub(crate) command: OutboxCommand,
}

/// The rows of an outbox: what was accepted and not sent yet, what was given up, what is kept of what was sent.
#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List rows, oldest first
    #[command(alias = "list", after_help = STORES)]
    Ls(ListArgs),
    /// Show rows with their messages
    #[command(after_help = STORES)]
    Show {
        #[command(flatten)]
        rows: RowsArgs,
    },
    /// Make rows due at once; dead ones begin anew
    ///
    /// Who sends them is a running program whose producer has this outbox, or `ceiba outbox drain`.
    #[command(after_help = STORES)]
    Retry(ManyArgs),
    /// Delete rows for good
    ///
    /// Rows that are being sent stay.
    #[command(after_help = STORES)]
    Drop(DropArgs),
    /// Write rows with all that is in them, one JSON object per line, for `import`
    #[command(after_help = STORES)]
    Export(ExportArgs),
    /// Put the rows of an export into an outbox, which is made if need be
    ///
    /// Rows that are there already, from an earlier import too, stay as they are; one that was sent meanwhile and is not
    /// kept is not known any more. The lines are imported in blocks of 1000; the first block with a wrong line ends it.
    #[command(after_help = STORES)]
    Import(ImportArgs),
    /// Count rows
    #[command(after_help = STORES)]
    Stats {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Delete rows that have ended
    ///
    /// Dead ones go also where nobody was told of them yet, for which `keep_dead` waits.
    #[command(after_help = STORES)]
    Purge(PurgeArgs),
    /// Try every pending row once, now, and wait for it
    ///
    /// It opens the producer of --config, and those that it names as members or to notify. Whom it notifies is told at
    /// once of what is given up. Rows of one key are tried to the end of their line; what stands behind one that failed,
    /// or that another process is sending, waits on. Ctrl-C lets what is under way end and leaves the rest: the exit code
    /// is 130.
    Drain(DrainArgs),
}

/// Whose rows, for the commands on rows by their numbers.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// File with the producer whose outbox it is
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The producer's id; may be left out where one alone has an outbox
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// Whose rows, for the commands on all of them.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Address of the store
    #[arg(value_name = "STORE", conflicts_with = "config")]
    pub(crate) store: Option<String>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// The rows of this producer alone
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    pub(crate) producer: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RowsArgs {
    /// The store, unless --config is given, and the numbers of rows
    #[arg(value_name = "STORE] [ROW")]
    pub(crate) words: Vec<String>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ManyArgs {
    #[command(flatten)]
    pub(crate) rows: RowsArgs,

    /// All pending and dead rows
    #[arg(long)]
    pub(crate) all: bool,

    /// With --all, the rows of this producer alone
    #[arg(long, value_name = "ID", requires = "all", conflicts_with = "config")]
    pub(crate) producer: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    pub(crate) many: ManyArgs,

    /// With --all, the rows in this state alone
    #[arg(long, value_enum, requires = "all")]
    pub(crate) state: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// It waits for its next attempt
    Pending,
    /// It is being sent
    Leased,
    /// It was sent
    Done,
    /// It was given up
    Dead,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Leased => "leased",
            State::Done => "done",
            State::Dead => "dead",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Rows in this state alone
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,

    /// Rows after this one alone
    #[arg(long, value_name = "ROW")]
    pub(crate) after: Option<String>,

    /// Rows at most; 0 is for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Rows in this state alone
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,

    /// File to write, which must not be there yet; `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Address of the store
    #[arg(value_name = "STORE", conflicts_with = "config")]
    pub(crate) store: Option<String>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// File to read; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Rows that ended longer ago than this: a number with a unit such as 7d or 12h
    #[arg(long, value_name = "SPAN")]
    pub(crate) older: String,

    /// Which: done rows were sent, dead ones were given up
    #[arg(long, value_enum, default_value = "done")]
    pub(crate) state: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ended {
    /// They were sent
    Done,
    /// They were given up
    Dead,
}

impl Ended {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Dead => "dead",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Taken to say that a drain needs --config
    #[arg(value_name = "STORE", hide = true)]
    pub(crate) store: Option<String>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// How long it may take: seconds, or a number with a unit such as 10m [default: as long as it takes]
    #[arg(long, value_name = "S", value_parser = longer, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,
}
