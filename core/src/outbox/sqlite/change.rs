//! What the writing thread does, each within a transaction.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, Row, params};

use super::claim::{apart, is_damage};
use super::look::{INFO, info};
use super::schema::INLINE;
use crate::clock::Clock;
use crate::outbox::row::{
    Dropped, End, How, Inserted, Millis, NEVER, NewRow, Purge, RowId, SHORT, Start, State, StoredMessage,
    Untold,
};
use crate::random::Random;

/// Pages that stay free in the file, and those that one purge gives back.
const FREE: i64 = 4096;
const GIVEN: i64 = 1024;

/// A number of ours as SQLite has it, and back.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

pub(super) fn unsigned(number: i64) -> u64 {
    number as u64
}

pub(super) const PENDING: i64 = State::Pending as i64;
pub(super) const LEASED: i64 = State::Leased as i64;
const DONE: i64 = State::Done as i64;
pub(super) const DEAD: i64 = State::Dead as i64;

/// Gives numbers to rows: microseconds since 1970, so that a number does not come again when its row is gone. SQLite's own
/// way writes a page more in each transaction. Tokens begin anywhere: whoever kept one of an earlier row ends no other.
pub(super) struct Numbers {
    clock: Clock,
    random: Random,
    last: i64,
}

impl Numbers {
    pub(super) fn from_system() -> Numbers {
        Numbers { clock: Clock::from_system(), random: Random::from_system(), last: 0 }
    }

    // Others may have given numbers while they had the lock.
    fn begin(&mut self, connection: &Connection) -> Result<()> {
        let largest: Option<i64> =
            connection.prepare_cached("SELECT max(id) FROM outbox")?.query_row([], |row| row.get(0))?;
        self.last = self.last.max(largest.unwrap_or_default());
        Ok(())
    }

    fn next(&mut self) -> i64 {
        let now = i64::try_from(self.clock.unix_time().as_micros()).unwrap_or_default();
        self.last = self.last.saturating_add(1).max(now);
        self.last
    }

    fn token(&self) -> i64 {
        signed(self.random.number() >> 2)
    }
}

pub(super) fn insert(
    connection: &Connection,
    numbers: &mut Numbers,
    rows: &[NewRow],
) -> Result<Vec<Inserted>> {
    numbers.begin(connection)?;
    let mut insert = connection.prepare_cached(INSERT)?;
    rows.iter().map(|row| insert_one(connection, &mut insert, numbers, row)).collect()
}

const INSERT: &str = "INSERT INTO outbox (id, producer, state, due, token, attempts, accepted, created, updated, delay, \
     number, size, topic, order_key, dedup, error, head, body, own, short) \
     VALUES (?17, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?18, ?19) \
     ON CONFLICT (producer, dedup) WHERE dedup IS NOT NULL DO NOTHING";

fn insert_one(
    connection: &Connection,
    insert: &mut CachedStatement<'_>,
    numbers: &mut Numbers,
    row: &NewRow,
) -> Result<Inserted> {
    let token = numbers.token();
    let (state, due) = match row.start {
        Start::Pending { due } | Start::Restored { due } => (PENDING, due),
        Start::Leased { until } => (LEASED, until),
        Start::Ended { state: State::Done } => (DONE, row.now),
        Start::Ended { .. } => (DEAD, NEVER),
    };
    // One with a key waits for those before it.
    let ordered = row.order_key.is_some() && state == PENDING;
    let due = if ordered && blocked(connection, row)? { NEVER } else { due };
    let message = &row.message;
    let inline = (message.body.len() <= INLINE).then_some(&message.body[..]);
    let (own, short) = beginning(message);
    let id = numbers.next();
    let made = insert.execute(params![
        &*row.producer,
        state,
        due,
        token,
        row.attempts,
        row.accepted,
        row.now,
        message.delay,
        signed(message.number),
        signed(message.size()),
        row.topic,
        row.order_key,
        row.dedup,
        row.error,
        message.head,
        inline,
        id,
        own,
        short,
    ])?;
    if made == 0 {
        return known(connection, row);
    }
    if inline.is_none() {
        let mut body = connection.prepare_cached("INSERT INTO outbox_body (id, body) VALUES (?1, ?2)")?;
        body.execute(params![id, &message.body[..]])?;
    }
    Ok(Inserted { id: RowId(unsigned(id)), token: unsigned(token), fresh: true })
}

// How long the body itself is, and how it begins where it stands apart.
fn beginning(message: &StoredMessage) -> (i64, Option<&[u8]>) {
    let own = message.own();
    let short = (message.body.len() > INLINE).then(|| message.body.get(..own.min(SHORT)).unwrap_or_default());
    (own as i64, short)
}

fn blocked(connection: &Connection, row: &NewRow) -> Result<bool> {
    super::look::holds_key(connection, &row.producer, row.order_key.as_deref().unwrap_or_default())
}

// A dead row would not be sent any more: it begins anew, but for one that comes from elsewhere.
fn known(connection: &Connection, row: &NewRow) -> Result<Inserted> {
    let id: i64 = connection
        .prepare_cached("SELECT id FROM outbox WHERE producer = ?1 AND dedup = ?2")?
        .query_row(params![&*row.producer, row.dedup], |row| row.get(0))?;
    if matches!(row.start, Start::Pending { .. } | Start::Leased { .. }) {
        revive_one(connection, id, row.now, true)?;
    }
    Ok(Inserted { id: RowId(unsigned(id)), token: 0, fresh: false })
}

// What must be known of a row before it goes or changes: whether its body stands apart, and its key.
pub(super) struct Place {
    apart: bool,
    key: Option<(String, String)>,
}

pub(super) fn place(row: &Row<'_>) -> Result<Place> {
    let key: Option<String> = row.get(1)?;
    let producer: String = row.get(2)?;
    Ok(Place { apart: row.get(0)?, key: key.map(|key| (producer, key)) })
}

const OWN: &str =
    "SELECT body IS NULL, order_key, producer FROM outbox WHERE id = ?1 AND token = ?2 AND state = 1";

pub(super) fn settle_one(connection: &Connection, end: &End) -> Result<bool> {
    let (id, token) = (signed(end.id.0), signed(end.token));
    // For one row that is less work than a change which returns something.
    let own = connection.prepare_cached(OWN)?.query_row(params![id, token], place).optional()?;
    let Some(own) = own else { return Ok(false) };
    if let How::Sent { keep: false } = end.how {
        connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute(params![id])?;
        return after(connection, id, end.now, Some(own), true);
    }
    let (state, due, counted, error, rest) = match &end.how {
        How::Sent { .. } => (DONE, end.now, 0, None, &None),
        How::Again { due, counted, error, rest } => (PENDING, *due, i64::from(*counted), Some(error), rest),
        How::Dead { counted, error, rest, tell } => {
            (DEAD, if *tell { 0 } else { NEVER }, i64::from(*counted), Some(error), rest)
        }
        How::Released => (PENDING, end.now, 0, None, &None),
    };
    connection
        .prepare_cached(
            "UPDATE outbox SET state = ?2, due = ?3, attempts = attempts + ?4, error = coalesce(?5, error), \
             updated = ?6 WHERE id = ?1",
        )?
        .execute(params![id, state, due, counted, error, end.now])?;
    if let Some(rest) = rest {
        write_message(connection, id, own.apart, rest)?;
    }
    after(connection, id, end.now, Some(own), false)
}

// Only the recipients differ after a partial failure: the body is written anew where it changed its place alone.
fn write_message(connection: &Connection, id: i64, apart: bool, rest: &StoredMessage) -> Result<()> {
    let (own, short) = beginning(rest);
    connection
        .prepare_cached("UPDATE outbox SET head = ?2, size = ?3, own = ?4, short = ?5 WHERE id = ?1")?
        .execute(params![id, rest.head, signed(rest.size()), own, short])?;
    let same: bool = if apart {
        connection.query_row(
            "SELECT body = ?2 FROM outbox_body WHERE id = ?1",
            params![id, &rest.body[..]],
            |row| row.get(0),
        )?
    } else {
        connection.query_row(
            "SELECT body = ?2 FROM outbox WHERE id = ?1",
            params![id, &rest.body[..]],
            |row| row.get(0),
        )?
    };
    if same {
        return Ok(());
    }
    connection.execute("DELETE FROM outbox_body WHERE id = ?1", params![id])?;
    if rest.body.len() <= INLINE {
        connection.execute("UPDATE outbox SET body = ?2 WHERE id = ?1", params![id, &rest.body[..]])?;
    } else {
        connection.execute("UPDATE outbox SET body = NULL WHERE id = ?1", params![id])?;
        connection
            .execute("INSERT INTO outbox_body (id, body) VALUES (?1, ?2)", params![id, &rest.body[..]])?;
    }
    Ok(())
}

pub(super) fn after(
    connection: &Connection,
    id: i64,
    now: Millis,
    place: Option<Place>,
    gone: bool,
) -> Result<bool> {
    let Some(place) = place else { return Ok(false) };
    if gone && place.apart {
        connection.prepare_cached("DELETE FROM outbox_body WHERE id = ?1")?.execute(params![id])?;
    }
    if let Some((producer, key)) = &place.key {
        arrange(connection, producer, key, now)?;
    }
    Ok(true)
}

// Of the live rows of a key the first alone is due; while one is being sent, none of the others.
fn arrange(connection: &Connection, producer: &str, key: &str, now: Millis) -> Result<()> {
    let active: Vec<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, state FROM outbox WHERE producer = ?1 AND order_key = ?2 AND state <= 1 AND due < ?3 \
             ORDER BY id",
        )?
        .query_map(params![producer, key, NEVER], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    let waiting: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM outbox WHERE producer = ?1 AND order_key = ?2 AND state <= 1 AND due = ?3 \
             ORDER BY id LIMIT 1",
        )?
        .query_row(params![producer, key, NEVER], |row| row.get(0))
        .optional()?;
    let under_way = active.iter().any(|(_, state)| *state == LEASED);
    let first = active.iter().map(|(id, _)| *id).chain(waiting).min();
    let mut set = connection.prepare_cached("UPDATE outbox SET due = ?2 WHERE id = ?1")?;
    for (id, state) in active {
        if state == PENDING && (under_way || Some(id) != first) {
            set.execute(params![id, NEVER])?;
        }
    }
    if let Some(waiting) = waiting.filter(|waiting| !under_way && Some(*waiting) == first) {
        set.execute(params![waiting, now])?;
    }
    Ok(())
}

pub(super) fn hasten(connection: &Connection, producer: &str, latest: Millis) -> Result<u64> {
    let changed = connection
        .prepare_cached(
            "UPDATE outbox SET due = ?2 WHERE producer = ?1 AND state = 0 AND due > ?2 AND due < ?3",
        )?
        .execute(params![producer, latest, NEVER])?;
    Ok(changed as u64)
}

pub(super) fn untold(
    connection: &Connection,
    producer: &str,
    now: Millis,
    until: Millis,
    rows: usize,
    shown: usize,
) -> Result<Untold> {
    let mut untold = Untold::default();
    let ids: Vec<i64> = connection
        .prepare_cached(
            "SELECT id FROM outbox WHERE producer = ?1 AND state = 3 AND due <= ?2 ORDER BY due, id LIMIT ?3",
        )?
        .query_map(params![producer, now, rows as i64], |row| row.get(0))?
        .collect::<Result<_>>()?;
    for id in ids {
        let token: i64 = connection
            .prepare_cached("UPDATE outbox SET due = ?2, token = token + 1 WHERE id = ?1 RETURNING token")?
            .query_row(params![id, until], |row| row.get(0))?;
        untold.rows.push((RowId(unsigned(id)), unsigned(token)));
        if untold.shown.len() < shown {
            let mut select =
                connection.prepare_cached(&format!("SELECT {INFO} FROM outbox WHERE id = ?1"))?;
            untold.shown.push(select.query_row(params![id], info)?);
        }
    }
    Ok(untold)
}

pub(super) fn told(connection: &Connection, rows: &[(RowId, u64)], again: Option<Millis>) -> Result<()> {
    let mut update =
        connection.prepare_cached("UPDATE outbox SET due = ?3 WHERE id = ?1 AND token = ?2 AND state = 3")?;
    for (id, token) in rows {
        update.execute(params![signed(id.0), signed(*token), again.unwrap_or(NEVER)])?;
    }
    Ok(())
}

// Dead ones begin anew, pending ones are due at once.
fn revive_one(connection: &Connection, id: i64, now: Millis, dead_alone: bool) -> Result<bool> {
    let place = connection
        .prepare_cached(
            "UPDATE outbox SET attempts = CASE state WHEN 3 THEN 0 ELSE attempts END, \
             due = CASE WHEN order_key IS NULL THEN ?2 WHEN state = 3 THEN ?3 ELSE min(due, ?2) END, state = 0, \
             token = token + 1, updated = ?2 \
             WHERE id = ?1 AND (state = 3 OR (state = 0 AND NOT ?4)) \
             RETURNING body IS NULL, order_key, producer",
        )?
        .query_row(params![id, now, NEVER, dead_alone], place)
        .optional()?;
    // One of a key that waits for others goes on doing so.
    after(connection, id, now, place, false)
}

pub(super) fn revive(
    connection: &Connection,
    producer: Option<&str>,
    ids: &[RowId],
    now: Millis,
) -> Result<u64> {
    let mut count = 0;
    for id in ids {
        let own = is_of(connection, producer, *id)?;
        count += u64::from(own && revive_one(connection, signed(id.0), now, false)?);
    }
    Ok(count)
}

fn is_of(connection: &Connection, producer: Option<&str>, id: RowId) -> Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM outbox WHERE id = ?1 AND (?2 IS NULL OR producer = ?2)")?
        .exists(params![signed(id.0), producer])
}

pub(super) fn drop_rows(
    connection: &Connection,
    producer: Option<&str>,
    ids: &[RowId],
    now: Millis,
) -> Result<Vec<Dropped>> {
    let mut ends = Vec::with_capacity(ids.len());
    for id in ids {
        if !is_of(connection, producer, *id)? {
            ends.push(Dropped::Unknown);
            continue;
        }
        let id = signed(id.0);
        let gone = connection
            .prepare_cached(
                "DELETE FROM outbox WHERE id = ?1 AND (state <> 1 OR due <= ?2) \
                 RETURNING body IS NULL, order_key, producer",
            )?
            .query_row(params![id, now], place)
            .optional()?;
        let gone = after(connection, id, now, gone, true)?;
        ends.push(if gone { Dropped::Gone } else { Dropped::Leased });
    }
    Ok(ends)
}

// A done row is due when it ended.
pub(super) const OLD_DONE: &str = "SELECT id FROM outbox INDEXED BY outbox_due \
     WHERE producer = ?1 AND state = 2 AND due < ?2 LIMIT ?3";
pub(super) const OLD_TOLD: &str = "SELECT id FROM outbox INDEXED BY outbox_dead \
     WHERE producer = ?1 AND state = 3 AND due = 9223372036854775807 AND updated < ?2 LIMIT ?3";
pub(super) const OLD_UNTOLD: &str = "SELECT id FROM outbox INDEXED BY outbox_dead \
     WHERE producer = ?1 AND state = 3 AND due < 9223372036854775807 AND updated < ?2 LIMIT ?3";

const _: () = assert!(NEVER == 9_223_372_036_854_775_807);

// The lock may have been free since a row was looked for.
pub(super) const PURGE_DONE: &str = "DELETE FROM outbox WHERE id = ?1 AND state = 2 AND due < ?2 \
     RETURNING body IS NULL, order_key, producer";
pub(super) const PURGE_TOLD: &str = "DELETE FROM outbox \
     WHERE id = ?1 AND state = 3 AND due = 9223372036854775807 AND updated < ?2 \
     RETURNING body IS NULL, order_key, producer";
pub(super) const PURGE_DEAD: &str = "DELETE FROM outbox WHERE id = ?1 AND state = 3 AND updated < ?2 \
     RETURNING body IS NULL, order_key, producer";

// What a backlog left behind goes back to the disk bit by bit; some is kept for rows to come.
fn shrink(connection: &Connection) -> Result<()> {
    let free: i64 = connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    if free > FREE {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({})", GIVEN.min(free - FREE)))?;
    }
    Ok(())
}

/// `careful` passes over rows that cannot be deleted.
pub(super) fn purge(connection: &Connection, purge: &Purge, careful: bool) -> Result<u64> {
    let (queries, delete): (&[&str], _) = match (purge.state, purge.told) {
        (State::Done, _) => (&[OLD_DONE], PURGE_DONE),
        (_, true) => (&[OLD_TOLD], PURGE_TOLD),
        (_, false) => (&[OLD_TOLD, OLD_UNTOLD], PURGE_DEAD),
    };
    let mut ids: Vec<i64> = Vec::new();
    for query in queries {
        let most = purge.limit.saturating_sub(ids.len()) as i64;
        let mut select = connection.prepare_cached(query)?;
        for id in select.query_map(params![purge.producer, purge.before, most], |row| row.get(0))? {
            ids.push(id?);
        }
    }
    let mut count = 0;
    for id in ids {
        let delete = || {
            let gone =
                connection.prepare_cached(delete)?.query_row(params![id, purge.before], place).optional()?;
            after(connection, id, purge.before, gone, true)
        };
        let gone = if careful { apart(connection, delete) } else { delete() };
        count += u64::from(if careful && is_damage(&gone) { false } else { gone? });
    }
    if !careful {
        shrink(connection)?;
    }
    Ok(count)
}
