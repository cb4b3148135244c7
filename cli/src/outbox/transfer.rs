//! `ceiba outbox export` and `import`: page by page, so that a store of any size passes.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ceiba_core::calls::outbox;
use serde_json::{Value, json};

use super::arguments::{ExportArgs, ImportArgs};
use super::target::{Make, Target, failure};
use super::{PAGE, bar, rows, say, write};
use crate::failure::{Exit, Failure};
use crate::lines::{self, Batch};
use crate::stop::Stop;

/// Bytes of lines that are imported at once, beyond the first line.
const BLOCK: usize = 16 << 20;

/// The longest line: a message of the largest body there is, in base64.
const LONGEST: usize = 1 << 30;

pub(super) async fn export(args: &ExportArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let target = Target::of(&args.store)?;
    let mut options = target.options();
    let stats = outbox::stats(target.address.expose(), Value::Object(options.clone()), None)
        .await
        .map_err(failure)?;
    let name = args.file.display();
    let unwritten = |error: std::io::Error| {
        Failure::new(Exit::Failed, "output", format!("--file {name} cannot be written: {error}"))
    };
    let mut file = if args.file == Path::new("-") {
        None
    } else {
        // Messages are nobody else's business, and an earlier export is not to be lost.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
        Some(file.map_err(|error| Failure::usage(format!("--file {name} cannot be made: {error}")))?)
    };
    let state = args.state.map(|state| state.name());
    if let Some(state) = state {
        options.insert("state".to_owned(), json!(state));
    }
    let bar = bar(Some(counted(&stats, state)), false, as_json);
    let (mut exported, mut interrupted) = (0, false);
    options.insert("limit".to_owned(), json!(100));
    loop {
        let page = tokio::select! {
            page = outbox::export(target.address.expose(), Value::Object(options.clone()), None) => page.map_err(failure)?,
            () = stop.asked() => {
                interrupted = true;
                break;
            }
        };
        let lines = page.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let text: String = lines.iter().filter_map(Value::as_str).flat_map(|line| [line, "\n"]).collect();
        match &mut file {
            Some(file) => file.write_all(text.as_bytes()).map_err(unwritten)?,
            None if write(&text)? => {}
            // Nobody reads any more.
            None => return Ok(Exit::Done),
        }
        exported += lines.len() as u64;
        bar.inc(lines.len() as u64);
        match page.get("next").filter(|next| !next.is_null()) {
            Some(next) => options.insert("after".to_owned(), next.clone()),
            None => break,
        };
    }
    bar.finish_and_clear();
    if let Some(file) = &file {
        file.sync_all().map_err(unwritten)?;
    }
    match (as_json, file.is_some()) {
        (true, true) => {
            write(&format!("{}\n", json!({"exported": exported, "interrupted": interrupted})))?;
        }
        // Stdout has the rows.
        (true, false) => {}
        (false, _) => say(&format!("{} exported{}", rows(exported), ended(interrupted))),
    }
    Ok(if interrupted { Exit::Interrupted } else { Exit::Done })
}

fn ended(interrupted: bool) -> &'static str {
    if interrupted { ", and then it was stopped" } else { "" }
}

/// How many rows there are.
fn counted(stats: &Value, state: Option<&str>) -> u64 {
    let producers = stats.get("producers").and_then(Value::as_array).into_iter().flatten();
    let of = |producer: &Value, state: &str| producer.get(state).and_then(Value::as_u64).unwrap_or_default();
    let states =
        ["pending", "leased", "done", "dead"].into_iter().filter(|name| state.is_none_or(|one| one == *name));
    states.flat_map(|state| producers.clone().map(move |producer| of(producer, state))).sum()
}

pub(super) async fn import(args: &ImportArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let target = Target::named(args.store.as_deref(), &args.config, None, Make::IfNeedBe)?;
    let mut input = lines::read(&args.file, LONGEST)?;
    let mut work = Import { target, block: Vec::new(), bytes: 0, first: 1, imported: 0, known: 0 };
    let bar = bar(input.size, true, as_json);
    let mut end = Ok(false);
    while let Ok(false) = end {
        let batch = tokio::select! {
            batch = input.batches.recv() => batch,
            () = stop.asked() => {
                end = Ok(true);
                break;
            }
        };
        end = match batch {
            Some(Batch::Lines(lines, bytes)) => {
                let taken = work.take(lines).await;
                bar.inc(bytes);
                bar.set_message(format!("{} imported, {} known", work.imported, work.known));
                taken.map(|()| false)
            }
            Some(Batch::Broken(error)) => {
                let text = format!("{} broke off: {error}", args.file.display());
                Err(Failure::new(Exit::Failed, "input", text))
            }
            None => {
                end = work.put().await.map(|()| false);
                break;
            }
        };
    }
    bar.finish_and_clear();
    let interrupted = matches!(end, Ok(true));
    let counts = json!({"imported": work.imported, "known": work.known, "interrupted": interrupted});
    if as_json {
        write(&format!("{counts}\n"))?;
    } else {
        let known = format!("{} there already", rows(work.known));
        say(&format!("{} imported, {known}{}", rows(work.imported), ended(interrupted)));
    }
    end.map(|interrupted| if interrupted { Exit::Interrupted } else { Exit::Done })
}

struct Import {
    target: Target,
    block: Vec<String>,
    bytes: usize,
    // The number of the block's first line in the input.
    first: u64,
    imported: u64,
    known: u64,
}

impl Import {
    async fn take(&mut self, lines: Vec<lines::Line>) -> Result<(), Failure> {
        for line in lines {
            let wrong = |why: &str| Failure::usage(format!("line {}: {why}", line.number));
            let body = line.body.ok_or_else(|| wrong("it is longer than any row"))?;
            let text =
                String::from_utf8(body).map_err(|_| wrong("it is not UTF-8: it is no row of an export"))?;
            if self.block.len() as u64 >= PAGE || (self.bytes > 0 && self.bytes + text.len() > BLOCK) {
                self.put().await?;
            }
            self.bytes += text.len();
            self.block.push(text);
        }
        Ok(())
    }

    async fn put(&mut self) -> Result<(), Failure> {
        if self.block.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.block);
        let count = lines.len() as u64;
        let answer = outbox::import(self.target.address.expose(), json!({"lines": lines}), None).await;
        let answer = answer.map_err(|error| {
            let failure = failure(error);
            match self.first {
                1 => failure,
                first => failure.at(&format!("in the lines from {first} on")),
            }
        })?;
        let of = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
        self.imported += of("imported");
        self.known += of("known");
        self.first += count;
        self.bytes = 0;
        Ok(())
    }
}
