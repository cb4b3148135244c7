//! `ceiba outbox retry`, `drop` and `purge`.

use ceiba_core::calls::outbox;
use serde_json::{Value, json};

use super::arguments::{DropArgs, ManyArgs, PurgeArgs};
use super::target::{Target, failure};
use super::{LONG, PAGE, bar, rows, write};
use crate::failure::{Exit, Failure};

/// The rows that are named, none for all.
fn named(args: &ManyArgs) -> Result<(Target, Option<&[String]>), Failure> {
    let (target, rows) = Target::of_rows(&args.rows, args.producer.as_deref())?;
    match (args.all, rows.is_empty()) {
        (true, true) => Ok((target, None)),
        (false, false) => Ok((target, Some(rows))),
        (true, false) => Err(Failure::usage("--all is for all rows: leave out the numbers, or --all")),
        (false, true) => Err(Failure::usage("no row: give the numbers of rows, or --all")),
    }
}

fn number(answer: &Value, key: &str) -> u64 {
    answer.get(key).and_then(Value::as_u64).unwrap_or_default()
}

pub(super) async fn retry(args: &ManyArgs, as_json: bool) -> Result<Exit, Failure> {
    let (target, ids) = named(args)?;
    let mut retried = 0;
    match ids {
        None => {
            let bar = bar(None, false, as_json);
            bar.set_message("making rows due");
            let options = Value::Object(target.options());
            let answer = outbox::retry_all(&target.address, options, Some(LONG)).await;
            bar.finish_and_clear();
            retried += number(&answer.map_err(failure)?, "retried");
        }
        Some(ids) => {
            for ids in ids.chunks(PAGE as usize) {
                let answer =
                    outbox::retry(&target.address, json!({"ids": ids}), None).await.map_err(failure)?;
                retried += number(&answer, "retried");
            }
        }
    }
    let result =
        if as_json { json!({"retried": retried}).to_string() } else { format!("{} due", rows(retried)) };
    write(&format!("{result}\n"))?;
    match ids {
        Some(ids) if (ids.len() as u64) > retried => {
            let text = "the other rows are not there, are done, or are being sent";
            Err(Failure::new(Exit::Failed, "not_found", text))
        }
        _ => Ok(Exit::Done),
    }
}

pub(super) async fn drop_rows(args: &DropArgs, as_json: bool) -> Result<Exit, Failure> {
    let (target, ids) = named(&args.many)?;
    let mut done = Dropped::default();
    match ids {
        Some(ids) => {
            for ids in ids.chunks(PAGE as usize) {
                done.drop_these(&target, ids).await?;
            }
        }
        None => done.drop_all(&target, args, as_json).await?,
    }
    let (dropped, leased, unknown) = (done.dropped, &done.leased, &done.unknown);
    if as_json {
        write(&format!("{}\n", json!({"dropped": dropped, "leased": leased, "unknown": unknown})))?;
    } else {
        write(&format!("{} dropped\n", rows(dropped)))?;
    }
    let mut exit = Exit::Done;
    let told = [(leased, "these rows are being sent and stay"), (unknown, "these rows are not there")];
    for (ids, why) in told.into_iter().filter(|(ids, _)| !ids.is_empty()) {
        exit = Exit::Failed;
        if !as_json {
            Failure::new(exit, "not_dropped", format!("{why}: {}", ids.join(" "))).print(false);
        }
    }
    Ok(exit)
}

#[derive(Debug, Default)]
struct Dropped {
    dropped: u64,
    leased: Vec<String>,
    unknown: Vec<String>,
}

impl Dropped {
    async fn drop_these(&mut self, target: &Target, ids: &[String]) -> Result<(), Failure> {
        let answer = outbox::drop_rows(&target.address, json!({"ids": ids}), None).await.map_err(failure)?;
        let listed = |key: &str| -> Vec<String> {
            let ids = answer.get(key).and_then(Value::as_array).into_iter().flatten();
            ids.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        self.dropped += number(&answer, "dropped");
        self.leased.extend(listed("leased"));
        self.unknown.extend(listed("unknown"));
        Ok(())
    }

    async fn drop_all(&mut self, target: &Target, args: &DropArgs, as_json: bool) -> Result<(), Failure> {
        let bar = bar(None, false, as_json);
        let mut options = target.options();
        options.insert("limit".to_owned(), json!(PAGE));
        if let Some(state) = args.state {
            options.insert("state".to_owned(), json!(state.name()));
        }
        loop {
            let page = Value::Object(options.clone());
            let page = outbox::list(&target.address, page, None).await.map_err(failure)?;
            let listed = page.get("rows").and_then(Value::as_array).into_iter().flatten();
            let ids: Vec<String> =
                listed.filter_map(|row| row.get("id")?.as_str()).map(str::to_owned).collect();
            self.drop_these(target, &ids).await?;
            // One that ended by itself meanwhile was not to be dropped any more.
            self.unknown.clear();
            bar.set_message(format!("{} dropped", rows(self.dropped)));
            match page.get("next").filter(|next| !next.is_null()) {
                Some(next) => options.insert("after".to_owned(), next.clone()),
                None => break,
            };
        }
        bar.finish_and_clear();
        Ok(())
    }
}

pub(super) async fn purge(args: &PurgeArgs, as_json: bool) -> Result<Exit, Failure> {
    let target = Target::of(&args.store)?;
    let mut options = target.options();
    options.insert("older".to_owned(), json!(args.older));
    options.insert("state".to_owned(), json!(args.state.name()));
    let bar = bar(None, false, as_json);
    bar.set_message("deleting rows");
    let answer = outbox::purge(&target.address, Value::Object(options), Some(LONG)).await;
    bar.finish_and_clear();
    let answer = answer.map_err(failure)?;
    let text = format!("{} purged", rows(number(&answer, "purged")));
    write(&format!("{}\n", if as_json { answer.to_string() } else { text }))?;
    Ok(Exit::Done)
}
