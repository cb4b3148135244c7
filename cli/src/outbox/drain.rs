//! `ceiba outbox drain`: a producer of a config, opened to send what waits.

use std::time::Duration;

use ceiba_core::calls::{self, outbox};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::arguments::DrainArgs;
use super::target::{Chosen, failure};
use super::{LONG, bar, say, write};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::stop::Stop;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// What the producer counted since it was opened here.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    failed: u64,
    given_up: u64,
}

pub(super) async fn drain(args: &DrainArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let Some(file) = args.config.config.as_deref().filter(|_| args.store.is_none()) else {
        return Err(Failure::usage(
            "a drain opens a producer: give --config FILE and --id ID (`retry --all` makes the rows of a store due \
             for the program that has it)",
        ));
    };
    let chosen = Chosen::read(file, args.config.id.as_deref())?;
    let mut opened = Vec::new();
    let mut end = Ok(());
    for client in chosen.clients {
        let open = tokio::select! {
            open = calls::producer_open(None, client, None) => open,
            () = stop.asked() => {
                close(&opened).await;
                return Ok(Exit::Interrupted);
            }
        };
        match open {
            Ok(id) => opened.push(id.to_string()),
            Err(error) => {
                end = Err(Failure::at_open(error));
                break;
            }
        }
    }
    let mut told = None;
    if end.is_ok() {
        log::opened();
        told = Some(work(&chosen.id, args.timeout.unwrap_or(LONG), stop, as_json).await);
    }
    let closed = close(&opened).await;
    end?;
    let Some(exit) = told else { return Ok(Exit::Failed) };
    let exit = exit?;
    match closed {
        Some(late) => Err(late.at("closing")),
        None => Ok(exit),
    }
}

async fn work(id: &str, within: Duration, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let waiting = pending(id).await?;
    let bar = bar(Some(waiting), false, as_json);
    let interrupted = {
        let draining = outbox::drain(id, Some(within));
        tokio::pin!(draining);
        loop {
            tokio::select! {
                drained = &mut draining => {
                    drained.map_err(failure)?;
                    break false;
                }
                () = stop.asked() => break true,
                () = tokio::time::sleep(TICK) => show(&bar, counts(id)),
            }
        }
    };
    bar.finish_and_clear();
    let Counts { sent, failed, given_up } = counts(id);
    let left = pending(id).await?;
    if as_json {
        let result = json!({"sent": sent, "failed": failed, "given_up": given_up, "pending": left,
            "interrupted": interrupted});
        write(&format!("{result}\n"))?;
    } else {
        let stopped = if interrupted { "; it was stopped" } else { "" };
        say(&format!("sent {sent}, failed {failed}, given up {given_up}, still pending {left}{stopped}"));
    }
    Ok(match (interrupted, failed + given_up) {
        (true, _) => Exit::Interrupted,
        (false, 0) => Exit::Done,
        (false, _) => Exit::Failed,
    })
}

fn show(bar: &ProgressBar, counts: Counts) {
    bar.set_position(counts.sent + counts.failed);
    bar.set_message(format!("{} sent, {} failed", counts.sent, counts.failed));
}

fn counts(id: &str) -> Counts {
    let status = calls::producer_status(id).unwrap_or_default();
    let own = status.get("strategies").and_then(|strategies| strategies.get(0));
    let of = |key: &str| own.and_then(|own| own.get(key)).and_then(Value::as_u64).unwrap_or_default();
    Counts { sent: of("sent"), failed: of("failed"), given_up: of("given_up") }
}

async fn pending(id: &str) -> Result<u64, Failure> {
    let stats = outbox::stats(id, Value::Null, None).await.map_err(failure)?;
    let own = stats.get("producers").and_then(|producers| producers.get(0));
    Ok(own.and_then(|own| own.get("pending")).and_then(Value::as_u64).unwrap_or_default())
}

/// Later ones may hold earlier ones.
async fn close(opened: &[String]) -> Option<Failure> {
    let mut late = None;
    for id in opened.iter().rev() {
        if let Err(error) = calls::producer_close(id, None).await {
            late = Some(Failure::of(error));
        }
    }
    late
}
