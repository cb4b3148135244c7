//! `ceiba outbox ls`, `show` and `stats`.

use ceiba_core::calls::outbox;
use ceiba_core::log_line::printable;
use serde_json::{Map, Value, json};

use super::arguments::{ListArgs, RowsArgs, StoreArgs};
use super::table::Table;
use super::target::{Target, failure};
use super::{PAGE, say, write};
use crate::failure::{Exit, Failure};

pub(super) async fn list(args: &ListArgs, as_json: bool) -> Result<Exit, Failure> {
    let target = Target::of(&args.store)?;
    let mut options = target.options();
    if let Some(state) = args.state {
        options.insert("state".to_owned(), json!(state.name()));
    }
    if let Some(after) = &args.after {
        options.insert("after".to_owned(), json!(after));
    }
    let mut table = Table::new(
        &["ROW", "STATE", "TRIES", "NEXT", "PRODUCER", "TOPIC", "BYTES", "LAST ERROR"],
        &["ROW", "TRIES", "BYTES"],
    );
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    loop {
        options.insert("limit".to_owned(), json!(left.min(PAGE)));
        let page = outbox::list(target.address.expose(), Value::Object(options.clone()), None)
            .await
            .map_err(failure)?;
        let rows = page.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let text = if as_json {
            rows.iter().map(|row| format!("{row}\n")).collect()
        } else {
            table.page(&rows.iter().map(cells).collect::<Vec<_>>())
        };
        if !write(&text)? {
            return Ok(Exit::Done);
        }
        left = left.saturating_sub(rows.len() as u64);
        let Some(next) = page.get("next").filter(|next| !next.is_null()) else { return Ok(Exit::Done) };
        if left == 0 {
            if !as_json {
                say(&format!("there may be more: --after {}", next.as_str().unwrap_or_default()));
            }
            return Ok(Exit::Done);
        }
        options.insert("after".to_owned(), next.clone());
    }
}

fn text(object: &Value, key: &str) -> String {
    match object.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn cells(row: &Value) -> Vec<String> {
    let next = [text(row, "next_attempt"), text(row, "leased_until")].concat();
    vec![
        text(row, "id"),
        text(row, "state"),
        text(row, "attempts"),
        next,
        text(row, "producer"),
        text(row, "topic"),
        text(row, "size"),
        error(row),
    ]
}

fn error(row: &Value) -> String {
    let Some(error) = row.get("error") else { return String::new() };
    match text(error, "kind") {
        kind if kind.is_empty() => text(error, "message"),
        kind => format!("{kind}: {}", text(error, "message")),
    }
}

pub(super) async fn show(args: &RowsArgs, as_json: bool) -> Result<Exit, Failure> {
    let (target, rows) = Target::of_rows(args, None)?;
    if rows.is_empty() {
        return Err(Failure::usage("no row: give the numbers of rows, which `ceiba outbox ls` lists"));
    }
    let mut exit = Exit::Done;
    for (place, row) in rows.iter().enumerate() {
        let shown =
            match outbox::show(target.address.expose(), json!({"id": row}), None).await.map_err(failure) {
                Ok(shown) => shown,
                Err(missing) if missing.is("not_found") => {
                    missing.print(as_json);
                    exit = Exit::Failed;
                    continue;
                }
                Err(other) => return Err(other),
            };
        let text = if as_json { format!("{shown}\n") } else { page(&shown, place > 0) };
        if !write(&text)? {
            break;
        }
    }
    Ok(exit)
}

/// A line for each key, and the message below.
fn page(row: &Value, later: bool) -> String {
    let mut lines = String::new();
    let mut put = |key: &str, value: &Value| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        lines.push_str(&format!("{:<13} {}\n", format!("{key}:"), printable(&value)));
    };
    let none = Map::new();
    let object = row.as_object().unwrap_or(&none);
    let message = object.get("message").and_then(Value::as_object).unwrap_or(&none);
    // The order in which people ask.
    let order = ["id", "producer", "state", "attempts", "next_attempt", "leased_until", "error", "topic"];
    let rest = object.keys().map(String::as_str).filter(|key| !order.contains(key) && *key != "message");
    for key in order.into_iter().chain(rest) {
        match object.get(key) {
            None | Some(Value::Null) => {}
            Some(_) if key == "error" => put(key, &json!(error(row))),
            Some(value) => put(key, value),
        }
    }
    for (key, value) in message.iter().filter(|(key, _)| *key != "body" && *key != "topic") {
        put(key, value);
    }
    if let Some(Value::String(body)) = message.get("body") {
        // Its own lines stay lines; nothing else in it moves the terminal.
        let body: Vec<_> = body.split('\n').map(printable).collect();
        lines.push_str(&format!("\n{}\n", body.join("\n")));
    }
    if later { format!("\n{lines}") } else { lines }
}

pub(super) async fn stats(args: &StoreArgs, as_json: bool) -> Result<Exit, Failure> {
    let target = Target::of(args)?;
    let stats = outbox::stats(target.address.expose(), Value::Object(target.options()), None)
        .await
        .map_err(failure)?;
    if as_json {
        write(&format!("{stats}\n"))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(
        &["PRODUCER", "PENDING", "LEASED", "DONE", "DEAD", "OLDEST", "NEXT"],
        &["PENDING", "LEASED", "DONE", "DEAD"],
    );
    let producers = stats.get("producers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let keys = ["producer", "pending", "leased", "done", "dead", "oldest", "next_attempt"];
    let rows: Vec<Vec<String>> =
        producers.iter().map(|row| keys.iter().map(|key| text(row, key)).collect()).collect();
    write(&table.page(&rows))?;
    Ok(Exit::Done)
}
