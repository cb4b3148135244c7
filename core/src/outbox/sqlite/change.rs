//! What the writing thread does, each within a transaction.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::look::{INFO, info};
use super::schema::INLINE;
use crate::clock::Clock;
use crate::outbox::row::{
    Claim, Claimed, Claims, Dropped, End, How, Inserted, Millis, NEVER, NewRow, Purge, Revived, RowId, Start,
    State, StoredMessage, Untold, Which,
};
use crate::random::Random;

/// A number of ours as SQLite has it, and back.
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

pub(super) fn unsigned(number: i64) -> u64 {
    number as u64
}

const PENDING: i64 = State::Pending as i64;
const LEASED: i64 = State::Leased as i64;
const DONE: i64 = State::Done as i64;
const DEAD: i64 = State::Dead as i64;

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

    fn next(&mut self, connection: &Connection) -> Result<i64> {
        let largest: Option<i64> =
            connection.prepare_cached("SELECT max(id) FROM outbox")?.query_row([], |row| row.get(0))?;
        let now = i64::try_from(self.clock.unix_time().as_micros()).unwrap_or_default();
        self.last = largest.unwrap_or_default().max(self.last).saturating_add(1).max(now);
        Ok(self.last)
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
    rows.iter().map(|row| insert_one(connection, numbers, row)).collect()
}

fn insert_one(connection: &Connection, numbers: &mut Numbers, row: &NewRow) -> Result<Inserted> {
    let token = numbers.token();
    let (state, due) = match row.start {
        Start::Pending { due } => (PENDING, due),
        Start::Leased { until } => (LEASED, until),
        Start::Ended { state: State::Done } => (DONE, row.now),
        Start::Ended { .. } => (DEAD, NEVER),
    };
    // One with a key waits for those before it.
    let ordered = row.order_key.is_some() && state == PENDING;
    let due = if ordered && blocked(connection, row)? { NEVER } else { due };
    let message = &row.message;
    let inline = (message.body.len() <= INLINE).then_some(&message.body[..]);
    let mut insert = connection.prepare_cached(
        "INSERT INTO outbox (id, producer, state, due, token, attempts, accepted, created, updated, delay, number, \
         size, topic, order_key, dedup, error, head, body) \
         VALUES (?17, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
         ON CONFLICT (producer, dedup) WHERE dedup IS NOT NULL DO NOTHING",
    )?;
    let id = numbers.next(connection)?;
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

fn blocked(connection: &Connection, row: &NewRow) -> Result<bool> {
    super::look::holds_key(connection, &row.producer, row.order_key.as_deref().unwrap_or_default())
}

// A dead row would not be sent any more: it begins anew.
fn known(connection: &Connection, row: &NewRow) -> Result<Inserted> {
    let id: i64 = connection
        .prepare_cached("SELECT id FROM outbox WHERE producer = ?1 AND dedup = ?2")?
        .query_row(params![&*row.producer, row.dedup], |row| row.get(0))?;
    if !matches!(row.start, Start::Ended { .. }) {
        revive_one(connection, id, row.now, true)?;
    }
    Ok(Inserted { id: RowId(unsigned(id)), token: 0, fresh: false })
}

pub(super) fn claim(connection: &Connection, claim: &Claim) -> Result<Claims> {
    let mut claims = Claims::default();
    let mut bytes = 0_u64;
    // Those whose owner went away were to be sent before the others.
    for state in [LEASED, PENDING] {
        let found: Vec<(i64, i64)> = connection
            .prepare_cached(
                "SELECT id, size FROM outbox WHERE producer = ?1 AND state = ?2 AND due <= ?3 \
                 ORDER BY due, id LIMIT ?4",
            )?
            .query_map(
                params![
                    &*claim.producer,
                    state,
                    claim.now,
                    (claim.rows - claim.rows.min(claims.rows.len()) + 1) as i64
                ],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .collect::<Result<_>>()?;
        for (id, size) in found {
            let size = unsigned(size);
            let full = !claims.rows.is_empty() && bytes.saturating_add(size) > claim.bytes;
            if claims.rows.len() >= claim.rows || full {
                claims.more = true;
                break;
            }
            bytes = bytes.saturating_add(size);
            claims.rows.push(take(connection, id, claim)?);
        }
        if claims.more {
            return Ok(claims);
        }
    }
    claims.next = connection
        .prepare_cached(
            "SELECT min(due) FROM (SELECT min(due) AS due FROM outbox WHERE producer = ?1 AND state = 0 \
             UNION ALL SELECT min(due) FROM outbox WHERE producer = ?1 AND state = 1)",
        )?
        .query_row(params![&*claim.producer], |row| row.get::<_, Option<Millis>>(0))?
        .filter(|due| *due < NEVER);
    Ok(claims)
}

fn take(connection: &Connection, id: i64, claim: &Claim) -> Result<Claimed> {
    let mut update = connection.prepare_cached(
        "UPDATE outbox SET state = 1, due = ?2, token = token + 1, updated = ?3 WHERE id = ?1 \
         RETURNING token, attempts, accepted, head, body, number, delay",
    )?;
    let (mut claimed, inline) = update.query_row(params![id, claim.until, claim.now], |row| {
        let inline: Option<Vec<u8>> = row.get(4)?;
        let found = inline.is_some();
        let message = StoredMessage {
            head: row.get(3)?,
            body: Bytes::from(inline.unwrap_or_default()),
            number: unsigned(row.get(5)?),
            delay: row.get(6)?,
        };
        let claimed = Claimed {
            id: RowId(unsigned(id)),
            token: unsigned(row.get(0)?),
            message,
            attempts: row.get(1)?,
            accepted: row.get(2)?,
        };
        Ok((claimed, found))
    })?;
    if !inline {
        claimed.message.body = body_of(connection, id)?;
    }
    Ok(claimed)
}

pub(super) fn body_of(connection: &Connection, id: i64) -> Result<Bytes> {
    let body: Vec<u8> = connection
        .prepare_cached("SELECT body FROM outbox_body WHERE id = ?1")?
        .query_row(params![id], |row| row.get(0))?;
    Ok(Bytes::from(body))
}

pub(super) fn settle(connection: &Connection, ends: &[End]) -> Result<Vec<bool>> {
    ends.iter().map(|end| settle_one(connection, end)).collect()
}

// What must be known of a row before it goes or changes: whether its body stands apart, and its key.
struct Place {
    apart: bool,
    key: Option<(String, String)>,
}

fn place(row: &Row<'_>) -> Result<Place> {
    let key: Option<String> = row.get(1)?;
    let producer: String = row.get(2)?;
    Ok(Place { apart: row.get(0)?, key: key.map(|key| (producer, key)) })
}

fn settle_one(connection: &Connection, end: &End) -> Result<bool> {
    let (id, token) = (signed(end.id.0), signed(end.token));
    if let How::Sent { keep: false } = end.how {
        let gone = connection
            .prepare_cached(
                "DELETE FROM outbox WHERE id = ?1 AND token = ?2 AND state = 1 \
                 RETURNING body IS NULL, order_key, producer",
            )?
            .query_row(params![id, token], place)
            .optional()?;
        return after(connection, id, end.now, gone, true);
    }
    let (state, due, counted, error, rest) = match &end.how {
        How::Sent { .. } => (DONE, end.now, 0, None, &None),
        How::Again { due, counted, error, rest } => (PENDING, *due, i64::from(*counted), Some(error), rest),
        How::Dead { counted, error, rest, tell } => {
            (DEAD, if *tell { 0 } else { NEVER }, i64::from(*counted), Some(error), rest)
        }
        How::Released => (PENDING, end.now, 0, None, &None),
    };
    let changed = connection
        .prepare_cached(
            "UPDATE outbox SET state = ?3, due = ?4, attempts = attempts + ?5, error = coalesce(?6, error), \
             updated = ?7 WHERE id = ?1 AND token = ?2 AND state = 1 \
             RETURNING body IS NULL, order_key, producer",
        )?
        .query_row(params![id, token, state, due, counted, error, end.now], place)
        .optional()?;
    if let (Some(place), Some(rest)) = (&changed, rest) {
        write_message(connection, id, place.apart, rest)?;
    }
    after(connection, id, end.now, changed, false)
}

// Only the recipients differ after a partial failure: the body is written anew where it changed its place alone.
fn write_message(connection: &Connection, id: i64, apart: bool, rest: &StoredMessage) -> Result<()> {
    connection.prepare_cached("UPDATE outbox SET head = ?2, size = ?3 WHERE id = ?1")?.execute(params![
        id,
        rest.head,
        signed(rest.size())
    ])?;
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

fn after(connection: &Connection, id: i64, now: Millis, place: Option<Place>, gone: bool) -> Result<bool> {
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

pub(super) fn revive(connection: &Connection, which: &Which, now: Millis) -> Result<Revived> {
    let mut revived = Revived::default();
    let ids: Vec<i64> = match which {
        Which::Ids { producer, ids } => {
            let mut own = Vec::with_capacity(ids.len());
            for id in ids {
                if is_of(connection, producer.as_deref(), *id)? {
                    own.push(signed(id.0));
                }
            }
            own
        }
        Which::Page { producer, dead, after, limit } => {
            // Those that are due already need no change, nor do those that wait for another row.
            let ids: Vec<i64> = connection
                .prepare_cached(
                    "SELECT id FROM outbox NOT INDEXED WHERE id > ?1 AND (?2 IS NULL OR producer = ?2) \
                     AND ((state = 0 AND due > ?3 AND due < ?4) OR (state = 3 AND ?5)) ORDER BY id LIMIT ?6",
                )?
                .query_map(params![signed(after.0), producer, now, NEVER, dead, *limit as i64], |row| {
                    row.get(0)
                })?
                .collect::<Result<_>>()?;
            revived.last = ids.last().filter(|_| ids.len() >= *limit).map(|id| RowId(unsigned(*id)));
            ids
        }
    };
    for id in ids {
        revived.count += u64::from(revive_one(connection, id, now, false)?);
    }
    Ok(revived)
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

pub(super) fn purge(connection: &Connection, purge: &Purge) -> Result<u64> {
    // A done row is due when it ended, so that the index has them in that order.
    let by = match purge.state {
        State::Done => "due",
        _ => "updated",
    };
    let ids: Vec<i64> = connection
        .prepare_cached(&format!(
            "SELECT id FROM outbox WHERE producer = ?1 AND state = ?2 AND {by} < ?3 LIMIT ?4"
        ))?
        .query_map(params![purge.producer, purge.state as i64, purge.before, purge.limit as i64], |row| {
            row.get(0)
        })?
        .collect::<Result<_>>()?;
    for id in &ids {
        let gone = connection
            .prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING body IS NULL, order_key, producer")?
            .query_row(params![id], place)
            .optional()?;
        after(connection, *id, purge.before, gone, true)?;
    }
    Ok(ids.len() as u64)
}
