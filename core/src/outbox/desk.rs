//! What can be done with the rows of a store, for one client or for all: options and answers are JSON.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::row::{
    Dropped, Millis, NewRow, Purge, Query, RowId, RowInfo, Start, State, Stats, StoredMessage, Which,
};
use super::shared::{millis, now};
use super::store::Store;
use super::stored;
use crate::client::Context;
use crate::clock::Clock;
use crate::config::{Span, from_value};
use crate::error::{Error, Kind, Result};
use crate::registry::check_id;

/// Rows of a page, unless told, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Rows that one call names.
const NAMED: usize = 10_000;
/// Bytes of bodies in one page of an export.
const EXPORTED: usize = 32 << 20;
/// Rows that one transaction changes.
const CHANGED: usize = 5000;

/// See the module.
pub struct Desk {
    store: Arc<dyn Store>,
    clock: Clock,
    // Of this client alone.
    producer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListOptions {
    #[serde(default)]
    producer: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdsOptions {
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllOptions {
    #[serde(default)]
    producer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeOptions {
    #[serde(default)]
    producer: Option<String>,
    /// `done`, which is the default, or `dead`.
    #[serde(default)]
    state: Option<String>,
    older: Span,
}

/// A row in an export; one a line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    origin: String,
    producer: String,
    state: String,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dedup: Option<String>,
    accepted_ms: Millis,
    delay_ms: Millis,
    number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    body_base64: String,
}

impl Desk {
    /// Over the rows of this client, or of all.
    pub fn new(store: Arc<dyn Store>, clock: Clock, producer: Option<String>) -> Desk {
        Desk { store, clock, producer }
    }

    fn producer(&self, asked: Option<String>) -> Result<Option<String>> {
        match (&self.producer, asked) {
            (Some(own), Some(asked)) if *own != asked => {
                let text = "the rows of another producer: name the outbox by its address";
                Err(Error::new(Kind::InvalidArgument, text))
            }
            (Some(own), _) => Ok(Some(own.clone())),
            (None, asked) => Ok(asked),
        }
    }

    fn query(&self, options: Value) -> Result<Query> {
        let options: ListOptions = read(options)?;
        let limit = options.limit.unwrap_or(PAGE.0);
        if !(1..=PAGE.1).contains(&limit) {
            return Err(wrong(format!("`limit` is 1 to {}, not {limit}", PAGE.1)));
        }
        Ok(Query {
            producer: self.producer(options.producer)?,
            state: options.state.as_deref().map(state).transpose()?,
            after: options.after.as_deref().map(row_id).transpose()?,
            limit,
        })
    }

    /// A page of rows. Options: `producer`, `state`, `after` (the last id of the page before), `limit` (1 to 1000, 100
    /// unless set). Answer: `{"rows": [...], "next": ID or null}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn list(&self, ctx: &Context, options: Value) -> Result<Value> {
        let query = self.query(options)?;
        let limit = query.limit;
        let rows = self.store.list(ctx, query).await?;
        let next = rows.last().filter(|_| rows.len() >= limit).map(|row| row.id.to_string());
        Ok(json!({"rows": rows.iter().map(shown).collect::<Vec<_>>(), "next": next}))
    }

    /// One row with its message.
    ///
    /// # Errors
    /// `not_found`, and those of the store.
    pub async fn show(&self, ctx: &Context, id: &str) -> Result<Value> {
        let found = self.store.show(ctx, row_id(id)?).await?;
        let own = |row: &RowInfo| self.producer.as_ref().is_none_or(|own| *own == row.producer);
        let Some((row, message)) = found.filter(|(row, _)| own(row)) else { return Err(unknown(id)) };
        let mut shown = shown(&row);
        if let Some(object) = shown.as_object_mut() {
            object.remove("short");
            object.insert("delay_ms".into(), json!(message.delay));
            object.insert("message".into(), message_shown(&message));
        }
        Ok(shown)
    }

    /// Makes rows due at once; dead ones begin anew. Options: `ids`. Answer: `{"retried": N}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn retry(&self, ctx: &Context, options: Value) -> Result<Value> {
        let options: IdsOptions = read(options)?;
        let which = Which::Ids { producer: self.producer.clone(), ids: ids(&options.ids)? };
        let revived = self.store.revive(ctx, which, now(&self.clock)).await?;
        Ok(json!({"retried": revived.count}))
    }

    /// Makes all dead and pending rows due at once. Options: `producer`. Answer: `{"retried": N}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn retry_all(&self, ctx: &Context, options: Value) -> Result<Value> {
        let options: AllOptions = read(options)?;
        let count = self.hasten_all(ctx, self.producer(options.producer)?, true).await?;
        Ok(json!({"retried": count}))
    }

    /// Makes all pending rows due at once, and the dead ones too if told.
    pub(super) async fn hasten_all(
        &self,
        ctx: &Context,
        producer: Option<String>,
        dead: bool,
    ) -> Result<u64> {
        let (now, mut after, mut count) = (now(&self.clock), RowId(0), 0);
        loop {
            let which = Which::Page { producer: producer.clone(), dead, after, limit: CHANGED };
            let revived = self.store.revive(ctx, which, now).await?;
            count += revived.count;
            match revived.last {
                Some(last) => after = last,
                None => return Ok(count),
            }
        }
    }

    /// Deletes rows that nobody is sending. Options: `ids`. Answer: `{"dropped": N, "leased": [ID], "unknown": [ID]}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn drop_rows(&self, ctx: &Context, options: Value) -> Result<Value> {
        let options: IdsOptions = read(options)?;
        let ids = ids(&options.ids)?;
        let ends = self.store.drop_rows(ctx, self.producer.clone(), ids.clone(), now(&self.clock)).await?;
        let of = |wanted: Dropped| -> Vec<String> {
            ids.iter().zip(&ends).filter(|(_, end)| **end == wanted).map(|(id, _)| id.to_string()).collect()
        };
        let (leased, unknown) = (of(Dropped::Leased), of(Dropped::Unknown));
        Ok(json!({"dropped": of(Dropped::Gone).len(), "leased": leased, "unknown": unknown}))
    }

    /// A page of rows with all that is in them. Options as those of a list. Answer: `{"lines": [TEXT], "next": ID or
    /// null}`, each line a JSON object for an import.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn export(&self, ctx: &Context, options: Value) -> Result<Value> {
        let query = self.query(options)?;
        let limit = query.limit;
        let rows = self.store.list(ctx, query).await?;
        let (mut lines, mut bytes, mut last) = (Vec::new(), 0, None);
        let whole = rows.len() < limit;
        let count = rows.len();
        for row in rows {
            if bytes >= EXPORTED {
                break;
            }
            last = Some(row.id);
            // It may be sent and gone meanwhile.
            let Some((row, message)) = self.store.show(ctx, row.id).await? else {
                lines.push(None);
                continue;
            };
            bytes += message.body.len();
            lines.push(Some(self.line(row, message)?));
        }
        let all = whole && lines.len() == count;
        let next = last.filter(|_| !all).map(|last| last.to_string());
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        Ok(json!({"lines": lines, "next": next}))
    }

    fn line(&self, row: RowInfo, message: StoredMessage) -> Result<String> {
        let state = if row.state == State::Leased { State::Pending } else { row.state };
        let line = Line {
            origin: format!("{}/{}", self.store.identity(), row.id),
            producer: row.producer,
            state: state.name().into(),
            attempts: row.attempts,
            error: row.error,
            topic: row.topic,
            order_key: row.order_key,
            dedup: row.dedup,
            accepted_ms: row.accepted,
            delay_ms: message.delay,
            number: message.number,
            head: message.head,
            body_base64: STANDARD.encode(&message.body),
        };
        serde_json::to_string(&line)
            .map_err(|error| Error::new(Kind::Internal, "a row cannot be written").caused_by(error))
    }

    /// Inserts rows of an export; those that are there already, from an earlier import too or because they came from
    /// here, stay as they are, dead ones too. A row that is there no more, since it was sent and is not kept, cannot be
    /// known: an import run again after some of its rows were sent has them sent again. `keep_done` makes them known for
    /// as long. Options: `lines`. Answer: `{"imported": N, "known": N}`.
    ///
    /// # Errors
    /// `invalid_argument`, naming the line, and those of the store; then none of the lines is imported.
    pub async fn import(&self, ctx: &Context, options: Value) -> Result<Value> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Options {
            lines: Vec<String>,
        }
        let options: Options = read(options)?;
        if options.lines.len() > NAMED {
            return Err(wrong(format!("{NAMED} lines at most in one call")));
        }
        let (mut rows, mut known) = (Vec::new(), 0);
        for (number, line) in options.lines.iter().enumerate() {
            let row = self.imported(line).map_err(|error| error.at(&format!("line {}", number + 1)))?;
            let mut there = false;
            // It may have been elsewhere and come back.
            for origin in
                [Some(&*row.1), row.0.dedup.as_deref().and_then(|dedup| dedup.strip_prefix("origin:"))]
            {
                let own = origin.and_then(|origin| origin.strip_prefix(self.store.identity()));
                if let Some(Ok(id)) = own.and_then(|id| id.strip_prefix('/')).map(row_id) {
                    there |= self.there(ctx, id, &row.0.producer).await?;
                }
            }
            if there { known += 1 } else { rows.push(row.0) }
        }
        let inserted = if rows.is_empty() { Vec::new() } else { self.store.insert(ctx, rows).await? };
        let fresh = inserted.iter().filter(|inserted| inserted.fresh).count();
        Ok(json!({"imported": fresh, "known": known + inserted.len() - fresh}))
    }

    async fn there(&self, ctx: &Context, id: RowId, producer: &str) -> Result<bool> {
        let after = id.0.checked_sub(1).map(RowId);
        let query = Query { producer: Some(producer.to_owned()), state: None, after, limit: 1 };
        Ok(self.store.list(ctx, query).await?.first().is_some_and(|row| row.id == id))
    }

    fn imported(&self, line: &str) -> Result<(NewRow, String)> {
        let line: Line = serde_json::from_str(line)
            .map_err(|error| wrong("it is no row of an export".into()).caused_by(error))?;
        check_id(&line.producer, "producer")?;
        self.producer(Some(line.producer.clone()))?;
        let body = STANDARD
            .decode(&line.body_base64)
            .map_err(|error| wrong("`body_base64` is damaged".into()).caused_by(error))?;
        let now = now(&self.clock);
        let message = StoredMessage {
            head: line.head,
            body: Bytes::from(body),
            number: line.number,
            delay: line.delay_ms,
        };
        stored::load(&message).map_err(|error| wrong(error.message().to_owned()))?;
        let start = match state(&line.state)? {
            State::Pending | State::Leased => Start::Restored { due: now },
            ended => Start::Ended { state: ended },
        };
        let row = NewRow {
            producer: line.producer.into(),
            message,
            topic: line.topic,
            order_key: line.order_key,
            dedup: Some(line.dedup.unwrap_or_else(|| format!("origin:{}", line.origin))),
            accepted: line.accepted_ms,
            now,
            attempts: line.attempts,
            error: line.error,
            start,
        };
        Ok((row, line.origin))
    }

    /// Counts. Options: `producer`. Answer: `{"producers": [{"producer", "pending", "leased", "done", "dead", and where
    /// there is one "next" and "oldest"}]}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn stats(&self, ctx: &Context, options: Value) -> Result<Value> {
        let options: AllOptions = read(options)?;
        let producer = self.producer(options.producer)?;
        let stats = self.store.stats(ctx, producer.as_deref()).await?;
        Ok(
            json!({"store": self.store.kind(), "producers": stats.iter().map(stats_shown).collect::<Vec<_>>()}),
        )
    }

    /// Deletes ended rows. Options: `older` (a span such as `7d`), `state` (`done` unless it says `dead`), `producer`.
    /// Answer: `{"purged": N}`.
    ///
    /// # Errors
    /// `invalid_argument`, and those of the store.
    pub async fn purge(&self, ctx: &Context, options: Value) -> Result<Value> {
        let options: PurgeOptions = read(options)?;
        let state = options.state.as_deref().map_or(Ok(State::Done), state)?;
        if !matches!(state, State::Done | State::Dead) {
            return Err(wrong("`state` of a purge is `done` or `dead`: others are still to be sent".into()));
        }
        let producers = match self.producer(options.producer)? {
            Some(producer) => vec![producer],
            None => self.store.stats(ctx, None).await?.into_iter().map(|stats| stats.producer).collect(),
        };
        let before = now(&self.clock).saturating_sub(millis(options.older.0));
        let mut purged = 0;
        for producer in producers {
            loop {
                let purge = Purge { producer: producer.clone(), state, before, told: false, limit: CHANGED };
                let count = self.store.purge(ctx, purge).await?;
                purged += count;
                if count < CHANGED as u64 {
                    break;
                }
            }
        }
        Ok(json!({"purged": purged}))
    }
}

/// Reads options: an object, or null for none.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(options: Value) -> Result<T> {
    let options = match options {
        Value::Null => json!({}),
        Value::Object(_) => options,
        _ => return Err(wrong("the options are an object".into())),
    };
    from_value(options).map_err(|error| wrong(error.message().to_owned()))
}

fn wrong(text: String) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("the outbox has no row {}", id.chars().take(20).collect::<String>()))
}

fn row_id(text: &str) -> Result<RowId> {
    // Larger numbers are none that a store gives.
    let number = text.parse().ok().filter(|number| *number <= i64::MAX as u64);
    number.map(RowId).ok_or_else(|| wrong("the id of a row is a number as text".into()))
}

fn ids(texts: &[String]) -> Result<Vec<RowId>> {
    if texts.len() > NAMED {
        return Err(wrong(format!("{NAMED} ids at most in one call")));
    }
    texts.iter().map(|text| row_id(text)).collect()
}

fn state(name: &str) -> Result<State> {
    State::named(name).ok_or_else(|| wrong("`state` is one of pending, leased, done and dead".into()))
}

fn time(at: Millis) -> Value {
    match DateTime::from_timestamp_millis(at) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true).into(),
        None => Value::Null,
    }
}

fn shown(row: &RowInfo) -> Value {
    let mut shown = json!({
        "id": row.id.to_string(),
        "producer": row.producer,
        "state": row.state.name(),
        "attempts": row.attempts,
        "size": row.size,
        "accepted": time(row.accepted),
        "created": time(row.created),
        "updated": time(row.updated),
        "short": String::from_utf8_lossy(&row.short),
    });
    if let Some(object) = shown.as_object_mut() {
        if let Some(due) = row.due {
            let key = if row.state == State::Leased { "leased_until" } else { "next_attempt" };
            object.insert(key.into(), time(due));
        }
        for (key, value) in [("topic", &row.topic), ("order_key", &row.order_key), ("dedup", &row.dedup)] {
            if let Some(value) = value {
                object.insert(key.into(), json!(value));
            }
        }
        if let Some(error) = &row.error {
            let error = serde_json::from_str(error).unwrap_or_else(|_| json!({"message": error}));
            object.insert("error".into(), error);
        }
    }
    shown
}

fn message_shown(message: &StoredMessage) -> Value {
    let mut shown = match message.head.as_deref().map(serde_json::from_str::<Value>) {
        Some(Ok(head @ Value::Object(_))) => head,
        _ => json!({}),
    };
    // Damaged rows can be shown too.
    let body =
        stored::load(message).map_or_else(|_| message.body.clone(), |(message, _)| message.body().clone());
    if let Some(object) = shown.as_object_mut() {
        match std::str::from_utf8(&body) {
            Ok(text) => object.insert("body".into(), json!(text)),
            Err(_) => object.insert("body_base64".into(), json!(STANDARD.encode(&body))),
        };
    }
    shown
}

fn stats_shown(stats: &Stats) -> Value {
    let mut shown = json!({"producer": stats.producer});
    if let Some(object) = shown.as_object_mut() {
        for state in State::ALL {
            object.insert(state.name().into(), json!(stats.of(state)));
        }
        for (key, at) in [("next_attempt", stats.next), ("oldest", stats.oldest)] {
            if let Some(at) = at {
                object.insert(key.into(), time(at));
            }
        }
    }
    shown
}
