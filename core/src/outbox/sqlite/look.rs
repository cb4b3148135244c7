//! What is read of a file without a change.

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::change::{body_of, signed, unsigned};
use crate::outbox::row::{NEVER, Query, RowId, RowInfo, SHORT, State, Stats, StoredMessage};

/// The columns of [`info`].
pub(super) const INFO: &str = "id, producer, state, attempts, due, error, topic, order_key, dedup, size, accepted, \
     created, updated, substr(coalesce(body, (SELECT b.body FROM outbox_body b WHERE b.id = outbox.id)), 1, 512)";

const _: () = assert!(SHORT == 512);

pub(super) fn info(row: &Row<'_>) -> Result<RowInfo> {
    let state = state(row.get(2)?)?;
    let due = Some(row.get(4)?).filter(|due| *due < NEVER && matches!(state, State::Pending | State::Leased));
    Ok(RowInfo {
        id: RowId(unsigned(row.get(0)?)),
        producer: row.get(1)?,
        state,
        attempts: row.get(3)?,
        due,
        error: row.get(5)?,
        topic: row.get(6)?,
        order_key: row.get(7)?,
        dedup: row.get(8)?,
        size: unsigned(row.get(9)?),
        accepted: row.get(10)?,
        created: row.get(11)?,
        updated: row.get(12)?,
        short: Bytes::from(row.get::<_, Option<Vec<u8>>>(13)?.unwrap_or_default()),
    })
}

fn state(number: i64) -> Result<State> {
    State::numbered(number).ok_or(rusqlite::Error::InvalidColumnType(2, "state".into(), Type::Integer))
}

pub(super) fn holds_key(connection: &Connection, producer: &str, key: &str) -> Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM outbox WHERE producer = ?1 AND order_key = ?2 AND state <= 1 LIMIT 1")?
        .exists(params![producer, key])
}

pub(super) fn list(connection: &Connection, query: &Query) -> Result<Vec<RowInfo>> {
    // Without an index it goes by number, which is the order that is wanted.
    let mut select = connection.prepare_cached(&format!(
        "SELECT {INFO} FROM outbox NOT INDEXED WHERE id > ?1 AND (?2 IS NULL OR producer = ?2) \
         AND (?3 IS NULL OR state = ?3) ORDER BY id LIMIT ?4"
    ))?;
    let after = query.after.map_or(0, |id| signed(id.0));
    let state = query.state.map(|state| state as i64);
    let rows = select.query_map(params![after, query.producer, state, query.limit as i64], info)?;
    rows.collect()
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

pub(super) fn stats(connection: &Connection, producer: Option<&str>) -> Result<Vec<Stats>> {
    let of = match producer {
        Some(producer) => vec![producer.to_owned()],
        None => producers(connection)?,
    };
    of.into_iter().map(|producer| stats_of(connection, producer)).collect()
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
    if stats.of(State::Pending) + stats.of(State::Leased) > 0 {
        let oldest =
            "SELECT accepted FROM outbox NOT INDEXED WHERE producer = ?1 AND state <= 1 ORDER BY id LIMIT 1";
        stats.oldest = connection
            .prepare_cached(oldest)?
            .query_row(params![stats.producer], |row| row.get(0))
            .optional()?;
    }
    Ok(stats)
}
