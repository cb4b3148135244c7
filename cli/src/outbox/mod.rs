//! `ceiba outbox`: the rows of an outbox, by the address of its store or by the config of its producer.

pub(crate) mod arguments;

mod change;
mod drain;
mod look;
mod table;
mod target;
mod transfer;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use arguments::{OutboxArgs, OutboxCommand};

use crate::failure::{Exit, Failure};
use crate::stop::Stop;

/// For work that takes as long as it takes.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// Rows of a page.
const PAGE: u64 = 1000;

pub(crate) async fn run(args: &OutboxArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let work = async {
        match &args.command {
            OutboxCommand::Ls(args) => look::list(args, as_json).await,
            OutboxCommand::Show { rows } => look::show(rows, as_json).await,
            OutboxCommand::Stats { store } => look::stats(store, as_json).await,
            OutboxCommand::Retry(args) => change::retry(args, as_json).await,
            OutboxCommand::Drop(args) => change::drop_rows(args, as_json).await,
            OutboxCommand::Purge(args) => change::purge(args, as_json).await,
            OutboxCommand::Export(args) => transfer::export(args, stop, as_json).await,
            OutboxCommand::Import(args) => transfer::import(args, stop, as_json).await,
            OutboxCommand::Drain(args) => drain::drain(args, stop, as_json).await,
        }
    };
    let done = done(args, stop, work).await;
    // What is left of a store that is not closed is safe, but it is more than one file.
    let _ = ceiba_core::calls::outbox::let_go(Some(Duration::from_secs(5))).await;
    done
}

async fn done(
    args: &OutboxArgs,
    stop: &Stop,
    work: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    if matches!(args.command, OutboxCommand::Export(_) | OutboxCommand::Import(_) | OutboxCommand::Drain(_)) {
        return work.await;
    }
    tokio::select! {
        done = work => done,
        () = stop.asked() => Ok(Exit::Interrupted),
    }
}

/// Writes to stdout; whether somebody still reads.
fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failed, "output", format!("stdout: {error}"))),
    }
}

/// A line for people, on stderr.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A bar of so many steps, or a counter where that is unknown; hidden unless stderr is a terminal.
fn bar(length: Option<u64>, of_bytes: bool, as_json: bool) -> ProgressBar {
    let (bar, template) = match (length, of_bytes) {
        (Some(length), true) => {
            (ProgressBar::new(length), "{bar:30} {percent:>3} % {bytes} of {total_bytes} {eta} left · {msg}")
        }
        (Some(length), false) => {
            (ProgressBar::new(length), "{bar:30} {percent:>3} % {pos} of {len} rows {eta} left · {msg}")
        }
        (None, true) => (ProgressBar::new_spinner(), "{spinner} {bytes} · {msg}"),
        (None, false) => (ProgressBar::new_spinner(), "{spinner} {elapsed} · {msg}"),
    };
    if as_json || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    } else {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// `3 rows`, `1 row`.
fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}
