//! What is read of a file without a change.

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::change::{signed, unsigned};
use super::claim::body_of;
use crate::outbox::row::{Millis, NEVER, Query, RowId, RowInfo, SHORT, State, Stats, StoredMessage};

/// The columns of [`info`].
pub(super) const INFO: &str = "id, producer, state, attempts, due, error, topic, order_key, dedup, own, accepted, \
     created, updated, substr(coalesce(body, short), 1, min(own, 512))";

const _: () = assert!(SHORT == 512);

pub(super) fn info(row: &Row<'_>) -> Result<RowInfo> {
    let state = state(row.get(2)?)?;
    let due = Some(row.get(4)?).filter(|due| *due < NEVER && matches!(state, State::Pending | State::Leased));
    Ok(RowInfo {
        id: RowId(unsigned(row.get(0)?)),
        producer: text(row, 1)?.unwrap_or_default(),
        state,
        attempts: row.get(3)?,
        due,
        error: text(row, 5)?,
        topic: text(row, 6)?,
        order_key: text(row, 7)?,
        dedup: text(row, 8)?,
        size: unsigned(row.get(9)?),
        accepted: row.get(10)?,
        created: row.get(11)?,
        updated: row.get(12)?,
        short: Bytes::from(row.get::<_, Option<Vec<u8>>>(13)?.unwrap_or_default()),
    })
}

// A damaged text is shown as well as can be.
fn text(row: &Row<'_>, column: usize) -> Result<Option<String>> {
    let bytes = row.get_ref(column)?.as_bytes_or_null()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn state(number: i64) -> Result<State> {
    State::numbered(number).ok_or(rusqlite::Error::InvalidColumnType(2, "state".into(), Type::Integer))
}

pub(super) fn holds_key(connection: &Connection, producer: &str, key: &str) -> Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM outbox WHERE producer = ?1 AND order_key = ?2 AND state <= 1 LIMIT 1")?
        .exists(params![producer, key])
}

pub(super) const OF_ALL: &str = "SELECT id FROM outbox NOT INDEXED WHERE id > ?1 ORDER BY id LIMIT ?2";
pub(super) const OF_STATE: &str = "SELECT id FROM outbox INDEXED BY outbox_state \
     WHERE producer = ?1 AND state = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
pub(super) const LATER: &str = "SELECT id FROM outbox INDEXED BY outbox_due \
     WHERE producer = ?1 AND state = 0 AND due > ?2 AND due < ?3 AND id > ?4 ORDER BY id LIMIT ?5";

pub(super) fn list(connection: &Connection, query: &Query) -> Result<Vec<RowInfo>> {
    // A row that went between the two reads would make the page look like the last.
    let transaction = connection.unchecked_transaction()?;
    let after = query.after.map_or(0, |id| signed(id.0));
    let ids = match (&query.producer, query.state) {
        (None, None) => transaction
            .prepare_cached(OF_ALL)?
            .query_map(params![after, query.limit as i64], |row| row.get(0))?
            .collect::<Result<_>>()?,
        (producer, state) => {
            let states = state.map_or(State::ALL.to_vec(), |state| vec![state]);
            let mut ids = Vec::new();
            for producer in of(&transaction, producer.as_deref())? {
                for state in &states {
                    ids.extend(in_state(&transaction, &producer, *state, after, query.limit)?);
                }
            }
            first(ids, query.limit)
        }
    };
    let mut select = transaction.prepare_cached(&format!("SELECT {INFO} FROM outbox WHERE id = ?1"))?;
    ids.into_iter().map(|id| select.query_row(params![id], info)).collect()
}

fn in_state(
    connection: &Connection,
    producer: &str,
    state: State,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>> {
    connection
        .prepare_cached(OF_STATE)?
        .query_map(params![producer, state as i64, after, limit as i64], |row| row.get(0))?
        .collect()
}

fn first(mut ids: Vec<i64>, limit: usize) -> Vec<i64> {
    ids.sort_unstable();
    ids.truncate(limit);
    ids
}

/// Rows that can be made due sooner: neither those that are due, nor those that wait for another row.
pub(super) fn later(
    connection: &Connection,
    producer: Option<&str>,
    dead: bool,
    now: Millis,
    after: RowId,
    limit: usize,
) -> Result<Vec<RowId>> {
    let mut ids: Vec<i64> = Vec::new();
    let transaction = connection.unchecked_transaction()?;
    for producer in of(&transaction, producer)? {
        let mut select = transaction.prepare_cached(LATER)?;
        let found = select
            .query_map(params![producer, now, NEVER, signed(after.0), limit as i64], |row| row.get(0))?;
        for id in found {
            ids.push(id?);
        }
        if dead {
            ids.extend(in_state(&transaction, &producer, State::Dead, signed(after.0), limit)?);
        }
    }
    Ok(first(ids, limit).into_iter().map(|id| RowId(unsigned(id))).collect())
}

fn of(connection: &Connection, producer: Option<&str>) -> Result<Vec<String>> {
    match producer {
        Some(producer) => Ok(vec![producer.to_owned()]),
        None => producers(connection),
    }
}

pub(super) fn show(connection: &Connection, id: RowId) -> Result<Option<(RowInfo, StoredMessage)>> {
    let id = signed(id.0);
    // Both from one state of the file.
    let mut select = connection
        .prepare_cached(&format!("SELECT {INFO}, head, body, number, delay FROM outbox WHERE id = ?1"))?;
    let found = select
        .query_row(params![id], |row| {
            let inline: Option<Vec<u8>> = row.get(15)?;
            let message = StoredMessage {
                head: row.get(14)?,
                body: match inline {
                    Some(body) => Bytes::from(body),
                    None => body_of(connection, id)?,
                },
                number: unsigned(row.get(16)?),
                delay: row.get(17)?,
            };
            Ok((info(row)?, message))
        })
        .optional()?;
    Ok(found)
}

pub(super) fn producers(connection: &Connection) -> Result<Vec<String>> {
    // One step down the index for each, however many rows there are.
    let mut next = connection.prepare_cached("SELECT min(producer) FROM outbox WHERE producer > ?1")?;
    let mut all: Vec<String> = Vec::new();
    loop {
        let last = all.last().map_or("", String::as_str);
        let found: Option<String> = next.query_row(params![last], |row| row.get(0))?;
        match found {
            Some(producer) => all.push(producer),
            None => return Ok(all),
        }
    }
}

pub(super) const OLDEST: &str = "SELECT accepted FROM outbox INDEXED BY outbox_state \
     WHERE producer = ?1 AND state = ?2 ORDER BY id LIMIT 1";

pub(super) fn stats(connection: &Connection, producer: Option<&str>) -> Result<Vec<Stats>> {
    of(connection, producer)?.into_iter().map(|producer| stats_of(connection, producer)).collect()
}

fn stats_of(connection: &Connection, producer: String) -> Result<Stats> {
    let mut stats = Stats { producer, ..Stats::default() };
    let mut select = connection
        .prepare_cached("SELECT state, count(*), min(due) FROM outbox WHERE producer = ?1 GROUP BY state")?;
    let mut rows = select.query(params![stats.producer])?;
    while let Some(row) = rows.next()? {
        let state = state(row.get(0)?)?;
        if let Some(count) = stats.rows.get_mut(state as usize) {
            *count = unsigned(row.get(1)?);
        }
        if state == State::Pending {
            stats.next = Some(row.get(2)?).filter(|due| *due < NEVER);
        }
    }
    drop(rows);
    for state in [State::Pending, State::Leased] {
        let oldest: Option<Millis> = connection
            .prepare_cached(OLDEST)?
            .query_row(params![stats.producer, state as i64], |row| row.get(0))
            .optional()?;
        stats.oldest = stats.oldest.into_iter().chain(oldest).min();
    }
    Ok(stats)
}
