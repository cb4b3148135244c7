//! Answers, for people and as JSON.

use std::io::{self, ErrorKind, Write};

use ceiba_core::log_line::printable;
use serde_json::{Value, json};

use super::command::Shown;
use crate::failure::{Exit, Failure};

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

fn text(object: &Value, key: &str) -> String {
    match object.get(key) {
        Some(Value::String(text)) => printable(text).into_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// One answer that is no list.
pub(super) fn answer(shown: &Shown, answer: &Value, as_json: bool) -> Result<(), Failure> {
    match shown {
        Shown::Messages => {
            let messages = answer.get("messages").and_then(Value::as_array);
            for message in messages.into_iter().flatten() {
                let line = if as_json { message.to_string() } else { body(message) };
                if !write(&format!("{line}\n"))? {
                    break;
                }
            }
        }
        _ if as_json => _ = write(&format!("{answer}\n"))?,
        Shown::Made(what) if answer.get("created") == Some(&json!(false)) => {
            say(&format!("{what} is there already, with these attributes"));
        }
        Shown::Made(what) => say(&format!("{what} is made")),
        Shown::Done(what) => say(&format!("{what}: done")),
        Shown::Whole | Shown::Pages { .. } => {
            let pairs = answer.as_object().into_iter().flatten();
            let lines = pairs.map(|(key, _)| format!("{key}: {}\n", text(answer, key)));
            _ = write(&lines.collect::<String>())?;
        }
    }
    Ok(())
}

/// The body alone, on one line; that of other bytes as it is on the wire.
fn body(message: &Value) -> String {
    [text(message, "body"), text(message, "body_base64")].concat()
}

/// A list, page by page.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [(&'static str, &'static str)],
    begun: bool,
}

impl Table {
    pub(super) fn of(what: &str) -> Table {
        let columns: &[(&str, &str)] = match what {
            "queues" => &[
                ("ACTIVE", "active_messages"),
                ("INACTIVE", "inactive_messages"),
                ("DELAYED", "delay_messages"),
                ("NAME", "name"),
            ],
            "topics" => &[("MESSAGES", "message_count"), ("NAME", "name")],
            _ => &[
                ("FORMAT", "notify_content_format"),
                ("TAG", "filter_tag"),
                ("NAME", "name"),
                ("ENDPOINT", "endpoint"),
            ],
        };
        Table { columns, begun: false }
    }

    /// Writes a page; whether somebody still reads.
    pub(super) fn page(&mut self, each: &[Value], as_json: bool) -> Result<bool, Failure> {
        if as_json {
            return write(&each.iter().map(|one| format!("{one}\n")).collect::<String>());
        }
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            lines.push(self.columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>());
        }
        lines.extend(each.iter().map(|one| self.columns.iter().map(|(_, key)| text(one, key)).collect()));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = lines.iter().filter_map(|line| line.get(at));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for line in &lines {
            let mut row = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let gap = width.saturating_sub(cell.chars().count());
                row.push_str(&format!("{cell}{}  ", " ".repeat(gap)));
            }
            out.push_str(row.trim_end());
            out.push('\n');
        }
        write(&out)
    }
}
