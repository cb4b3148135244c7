//! `ceiba send` with `--to`, `--subject`, `--template` or `--arg`: the whole input is one message.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use ceiba_core::calls;
use ceiba_core::error::Error;
use ceiba_core::message::{Fields, Message, Receipt};
use ceiba_core::template::{Escape, Template, Values};
use serde_json::{Map, Value, json};

use crate::arguments::{NoticeArgs, SendArgs};
use crate::failure::{Exit, Failure};
use crate::lines::LONGEST;
use crate::log;
use crate::secret;
use crate::stop::Stop;

impl NoticeArgs {
    /// Whether the input is one message.
    pub(crate) fn given(&self) -> bool {
        self.whole
            || !self.to.is_empty()
            || self.subject.is_some()
            || self.template.is_some()
            || self.args.is_some()
            || !self.arg.is_empty()
    }

    fn values(&self) -> Result<Option<Value>, Failure> {
        let mut values = match self.args.as_deref().map(serde_json::from_str) {
            None => Map::new(),
            Some(Ok(Value::Object(values))) => values,
            Some(Ok(other)) if self.arg.is_empty() => return Ok(Some(other)),
            Some(Ok(_)) => return Err(Failure::usage("--args is no object: --arg cannot add to it")),
            Some(Err(error)) => return Err(Failure::usage(format!("--args is not JSON: {error}"))),
        };
        for arg in &self.arg {
            let Some((key, text)) = arg.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(Failure::usage("an --arg is not like name=value"));
            };
            if values.insert(key.to_owned(), json!(text)).is_some() {
                return Err(Failure::usage(format!("the argument `{key}` is given twice")));
            }
        }
        Ok((!values.is_empty() || self.args.is_some()).then_some(Value::Object(values)))
    }

    fn fields(&self, fields: &mut Fields) -> Result<(), Failure> {
        fields.recipients = self.to.iter().map(|to| to.trim().to_owned()).collect();
        if let Some(subject) = &self.subject {
            fields.attributes.insert("subject".to_owned(), subject.clone());
        }
        fields.args = self.values()?;
        fields.template = self.template.clone().filter(|template| !template.starts_with('@'));
        Ok(())
    }
}

pub(crate) async fn run(args: &SendArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let config = secret::client_config(&args.client)?;
    let message = message(args)?;
    let given = config.id.is_none().then_some("send");
    let id = tokio::select! {
        opened = calls::producer_open(given, config, None) => opened.map_err(Failure::at_open)?,
        () = stop.asked() => return Ok(Exit::Interrupted),
    };
    log::opened();
    let sent = tokio::select! {
        sent = calls::producer_send(&id, message, None) => sent,
        () = stop.asked() => {
            // What is under way is ended by the close, which tells nobody how: say that here.
            let _ = calls::producer_close(&id, None).await;
            let text = "stopped while it was being sent: it may have been sent";
            Failure::new(Exit::Failed, "cancelled", text).print(as_json);
            return Ok(Exit::Failed);
        }
    };
    let closed = calls::producer_close(&id, None).await;
    let mut exit = match sent {
        Ok(receipt) => told(&receipt, as_json),
        Err(error) => failed(error, as_json),
    };
    if let Err(error) = closed {
        Failure::of(error).at("closing").print(as_json);
        exit = Exit::Failed;
    }
    Ok(exit)
}

fn message(args: &SendArgs) -> Result<Message, Failure> {
    let notice = &args.notice;
    let template = notice.template.as_deref();
    let body = match &args.file {
        Some(file) => read(file)?,
        // A template needs no body, and a stdin that nobody closes would be waited for.
        None if template.is_some() || (std::io::stdin().is_terminal() && notice.args.is_some()) => Vec::new(),
        None => read(Path::new("-"))?,
    };
    let mut message = Message::new(body).with_delay(args.delay);
    notice.fields(message.fields_mut())?;
    if let Some(path) = template.and_then(|template| template.strip_prefix('@')) {
        let text = String::from_utf8(read(Path::new(path))?)
            .map_err(|_| Failure::usage(format!("--template @{path} is not UTF-8")))?;
        let html = path.ends_with(".html") || path.ends_with(".htm");
        let escape = if html { Escape::Html } else { Escape::None };
        let rendered = Template::escaped(path, &text, escape)
            .and_then(|template| template.render(&Values::of(&message)))
            .map_err(Failure::of_input)?;
        message.set_body(rendered);
        let fields = message.fields_mut();
        fields.args = None;
        fields.content_type = html.then(|| "text/html; charset=utf-8".to_owned());
    }
    Ok(message)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let mut body = Vec::new();
    let most = LONGEST as u64 + 1;
    let result = if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut body)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut body))
    };
    result.map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?;
    if body.len() > LONGEST {
        return Err(Failure::usage(format!(
            "{shown} is longer than {LONGEST} bytes, which no message may be"
        )));
    }
    Ok(body)
}

fn told(receipt: &Receipt, as_json: bool) -> Exit {
    if let Some(warning) = &receipt.warning {
        let _ = writeln!(std::io::stderr(), "warning: {}", warning.replace(['\r', '\n'], " "));
    }
    let mut stdout = std::io::stdout();
    // A reader that is gone does not change how the send ended.
    let _ = if as_json {
        let mut told = receipt.to_json();
        if let Some(told) = told.as_object_mut() {
            told.insert("sent".to_owned(), json!(1));
        }
        writeln!(stdout, "{told}")
    } else {
        let id = receipt.message_id.as_deref().map(|id| format!(", id {id}")).unwrap_or_default();
        writeln!(std::io::stderr(), "sent{id}")
    }
    .and_then(|()| stdout.flush());
    Exit::Done
}

/// The error, and a line for each part that failed.
fn failed(error: Error, as_json: bool) -> Exit {
    let parts = error.parts().to_vec();
    Failure::of(error).print(as_json);
    for part in parts {
        if let Some(error) = part.error {
            Failure::of(error).at(&part.name).print(as_json);
        }
    }
    Exit::Failed
}
