//! `ceiba receive`: bodies to stdout, one per line, each acknowledged once it is written.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ceiba_core::calls;
use ceiba_core::error::{Error, Kind};
use ceiba_core::message::Delivery;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::arguments::ReceiveArgs;
use crate::failure::{Exit, Failure};
use crate::log;
use crate::secret;
use crate::stop::Stop;

/// Deliveries of one receive, written and acknowledged together.
const BATCH: u64 = 256;

/// One wait; without --timeout the next follows.
const SLICE: Duration = Duration::from_secs(30);

/// How long an end waits for a reader of stdout that has stopped reading.
const LAST_WRITE: Duration = Duration::from_secs(2);

const CLOSE: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: &ReceiveArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let config = secret::client_config(&args.client)?;
    let given = config.id.is_none().then_some("receive");
    let id = tokio::select! {
        opened = calls::consumer_open(given, config) => opened.map_err(Failure::at_open)?,
        () = stop.asked() => return Ok(Exit::Done),
    };
    log::opened();
    let end = deliver(&id, args, stop, as_json).await;
    let closed = calls::consumer_close(&id, Some(CLOSE)).await;
    let exit = end?;
    closed.map_err(|error| Failure::of(error).at("closing, the last acknowledgements may be lost"))?;
    Ok(exit)
}

async fn deliver(id: &str, args: &ReceiveArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let mut received = 0;
    let mut last = Instant::now();
    loop {
        let wanted = args.count.map_or(BATCH, |count| BATCH.min(count.saturating_sub(received)));
        if wanted == 0 {
            return Ok(Exit::Done);
        }
        let wait = args.timeout.map_or(SLICE, |timeout| timeout.saturating_sub(last.elapsed()).min(SLICE));
        let batch = tokio::select! {
            biased;
            () = stop.asked() => return Ok(Exit::Done),
            batch = calls::consumer_receive(id, wanted as usize, Some(wait)) => batch.map_err(Failure::of)?,
        };
        if batch.is_empty() {
            match args.timeout {
                Some(timeout) if last.elapsed() >= timeout => {
                    return timed_out(args.count, received, timeout);
                }
                _ => continue,
            }
        }
        received += batch.len() as u64;
        let codes: Vec<Arc<str>> = batch.iter().map(|delivery| delivery.code.clone()).collect();
        match write(text_of(&batch, as_json), stop).await {
            Ok(()) => acknowledge(id, codes, as_json).await?,
            // Nobody reads any more: what was not written goes back to the broker.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            Err(error) => return Err(Failure::new(Exit::Failed, "output", format!("stdout: {error}"))),
        }
        last = Instant::now();
    }
}

fn timed_out(count: Option<u64>, received: u64, timeout: Duration) -> Result<Exit, Failure> {
    match count {
        None => Ok(Exit::Done),
        Some(count) => {
            let text = format!("{received} of {count} messages came, and then none for {timeout:?}");
            Err(Failure::of(Error::new(Kind::Timeout, text)))
        }
    }
}

async fn acknowledge(id: &str, codes: Vec<Arc<str>>, as_json: bool) -> Result<(), Failure> {
    let results = calls::consumer_ack(id, codes).await.map_err(Failure::of)?;
    let failed = results.iter().filter(|result| result.is_err()).count();
    let Some(error) = results.into_iter().find_map(Result::err) else { return Ok(()) };
    if error.kind() == Kind::Unsupported {
        // Such a wire counts a message as consumed when it is received.
        return Ok(());
    }
    if error.retryable() {
        let place = format!("{failed} acknowledgements, so that these messages will come again");
        Failure::of(error).at(&place).print(as_json);
        return Ok(());
    }
    Err(Failure::of(error).at(&format!("{failed} acknowledgements")))
}

/// Writes and flushes, on a thread where it may block: the reader of stdout may be slow.
async fn write(text: Vec<u8>, stop: &Stop) -> io::Result<()> {
    let writing = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()
    });
    let given_up = async {
        stop.asked().await;
        tokio::time::sleep(LAST_WRITE).await;
    };
    tokio::select! {
        biased;
        written = writing => written.unwrap_or_else(|error| Err(io::Error::other(error))),
        () = given_up => Err(ErrorKind::BrokenPipe.into()),
    }
}

fn text_of(batch: &[Delivery], as_json: bool) -> Vec<u8> {
    let bytes: usize = batch.iter().map(|delivery| delivery.message.body().len() + 1).sum();
    let mut text = Vec::with_capacity(bytes);
    for delivery in batch {
        if as_json {
            text.extend_from_slice(object(delivery).to_string().as_bytes());
        } else {
            text.extend_from_slice(delivery.message.body());
        }
        text.push(b'\n');
    }
    text
}

/// A delivery as JSON; what the wire does not tell is left out, a body that is not UTF-8 is in base64.
fn object(delivery: &Delivery) -> Value {
    let mut object = Map::new();
    let body = delivery.message.body();
    match std::str::from_utf8(body) {
        Ok(text) => object.insert("body".into(), json!(text)),
        Err(_) => object.insert("body_base64".into(), json!(STANDARD.encode(body))),
    };
    object.insert("code".into(), json!(&*delivery.code));
    object.insert("topic".into(), json!(&*delivery.topic));
    if let Some(since) = delivery.created.and_then(|created| created.duration_since(UNIX_EPOCH).ok()) {
        object.insert("created_ms".into(), json!(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
    }
    if let Some(attempt) = delivery.attempt {
        object.insert("attempt".into(), json!(attempt));
    }
    if let Some(fields) = delivery.message.fields() {
        for (name, value) in
            [("content_type", &fields.content_type), ("key", &fields.key), ("tag", &fields.tag)]
        {
            if let Some(value) = value {
                object.insert(name.into(), json!(value));
            }
        }
        if !fields.attributes.is_empty() {
            object.insert("attributes".into(), json!(fields.attributes));
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ceiba_core::message::Message;

    fn delivery(body: &'static [u8]) -> Delivery {
        Delivery {
            message: Message::new(body),
            topic: "t".into(),
            code: "c".into(),
            created: Some(UNIX_EPOCH + Duration::from_millis(1500)),
            attempt: Some(2),
        }
    }

    #[test]
    fn bodies_are_written_as_they_are() {
        assert_eq!(text_of(&[delivery(b"a\xff"), delivery(b"")], false), b"a\xff\n\n");
    }

    #[test]
    fn json_says_what_the_wire_told() {
        assert_eq!(
            object(&delivery(b"two\nlines")),
            json!({"body": "two\nlines", "code": "c", "topic": "t", "created_ms": 1500, "attempt": 2})
        );
        assert_eq!(object(&delivery(b"\xff\xfe"))["body_base64"], json!("//4="));
    }
}
