//! `ceiba broker verify` and `repair`: the data folder of a broker that does not run.

use std::io::{self, Write};
use std::path::Path;

use ceiba_core::broker;
use serde_json::{Value, json};

use crate::arguments::BrokerCommand;
use crate::failure::{Exit, Failure};

pub(crate) fn run(command: Option<&BrokerCommand>, as_json: bool) -> Result<Exit, Failure> {
    match command {
        Some(BrokerCommand::Verify { data }) => verify(data, as_json),
        Some(BrokerCommand::Repair { data }) => repair(data, as_json),
        None => Ok(Exit::Done),
    }
}

/// A folder that is not there must not be made by looking at it.
fn there(data: &Path) -> Result<(), Failure> {
    if data.is_dir() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} is no folder: name the one that the broker has as --data",
        data.display()
    )))
}

fn verify(data: &Path, as_json: bool) -> Result<Exit, Failure> {
    there(data)?;
    let files = broker::verify(data).map_err(Failure::of)?;
    let damaged = files.iter().any(|file| file.damage.is_some());
    let mut lines = Vec::new();
    let mut listed = Vec::new();
    for file in &files {
        let (name, bytes, records) = (&file.name, file.bytes, file.records);
        let how = match &file.damage {
            Some(damage) => format!("damaged at byte {}: {}", damage.offset, damage.why),
            None => "sound".to_owned(),
        };
        lines.push(format!("{name}: {bytes} bytes, {records} records, {how}"));
        let damage = file.damage.as_ref().map(|damage| json!({"offset": damage.offset, "why": damage.why}));
        listed.push(json!({"name": name, "bytes": bytes, "records": records, "damage": damage}));
    }
    if damaged {
        lines.push(format!("damaged: `ceiba broker repair {}` keeps the good records", data.display()));
    } else {
        lines.push(format!("{}: sound", data.display()));
    }
    say(&lines, &json!({"sound": !damaged, "files": listed}), as_json);
    Ok(if damaged { Exit::Failed } else { Exit::Done })
}

fn repair(data: &Path, as_json: bool) -> Result<Exit, Failure> {
    there(data)?;
    let done = broker::repair(data).map_err(Failure::of)?;
    let mut lines = Vec::new();
    let mut listed = Vec::new();
    for repaired in &done {
        let (damage, kept, lost) = (&repaired.damage, repaired.records, repaired.lost_bytes);
        let (name, offset, why, aside) = (&damage.name, damage.offset, damage.why, &repaired.quarantined);
        lines.push(format!(
            "{name}: damaged at byte {offset}: {why}; {kept} records kept, {lost} bytes lost; the file is in {aside}"
        ));
        listed.push(json!({"name": name, "offset": offset, "why": why, "records": kept, "lost_bytes": lost,
            "quarantined": aside}));
    }
    if done.is_empty() {
        lines.push(format!("{}: nothing is damaged", data.display()));
    }
    say(&lines, &json!({"repaired": listed}), as_json);
    Ok(Exit::Done)
}

fn say(lines: &[String], value: &Value, as_json: bool) {
    let mut stdout = io::stdout();
    // A reader that is gone does not change how the folder is.
    let _ = if as_json { writeln!(stdout, "{value}") } else { writeln!(stdout, "{}", lines.join("\n")) };
}
