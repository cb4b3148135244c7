//! Claiming rows and ending their leases. Where the file is damaged, each row is taken by itself: one that cannot be read
//! is given up, and the others are sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, ffi, params};
use serde_json::json;

use super::change::{DEAD, LEASED, PENDING, after, place, settle_one, signed, unsigned};
use super::fault::Fault;
use crate::error::Kind;
use crate::outbox::row::{Claim, Claimed, Claims, End, How, Millis, NEVER, RowId, StoredMessage};

/// How often a lock of another process is waited for between two rows; each wait is [`super::worker::PATIENCE`].
const BUSY: usize = 500;

/// Rows that are passed over, at most.
const PASSED: usize = 10_000;

pub(super) const DUE: &str = "SELECT id, size, due, token, attempts, accepted, head, body, number, delay FROM outbox \
     WHERE producer = ?1 AND state = ?2 AND due <= ?3 ORDER BY due, id LIMIT ?4";
pub(super) const LEASE: &str =
    "UPDATE outbox SET state = 1, due = ?2, token = token + 1, updated = ?3 WHERE id = ?1";
// The index alone has it: rows that cannot be read have numbers all the same.
pub(super) const DUE_IDS: &str = "SELECT id, NULL, due FROM outbox INDEXED BY outbox_due \
     WHERE producer = ?1 AND state = ?2 AND due <= ?3 ORDER BY due, id LIMIT ?4";
// The lock may have been free since the row was looked for.
pub(super) const TAKE: &str = "UPDATE outbox SET state = 1, due = ?2, token = token + 1, updated = ?3 \
     WHERE id = ?1 AND state = ?4 AND due <= ?3 RETURNING token, attempts, accepted, head, body, number, delay";
pub(super) const SEEN: &str = "SELECT 1 FROM outbox INDEXED BY outbox_due \
     WHERE producer = ?1 AND state = ?2 AND due = ?3 AND id = ?4";
pub(super) const NEXT: &str = "SELECT min(due) FROM (\
     SELECT min(due) AS due FROM outbox WHERE producer = ?1 AND state = 0 AND due > ?2 \
     UNION ALL SELECT min(due) FROM outbox WHERE producer = ?1 AND state = 1 AND due > ?2)";

/// Rows of damaged pages that cannot even be given up: those that follow them are claimed.
#[derive(Default)]
pub(super) struct Passed(BTreeSet<i64>);

impl Passed {
    /// Notes a row, so that it is not tried again.
    fn over(&mut self, id: i64) -> bool {
        let room = self.0.len() < PASSED;
        if room {
            self.0.insert(id);
        }
        room
    }
}

/// Does something in a transaction of its own, with another behind it: a savepoint does not undo a change that met a
/// damaged page. For jobs that are alone in theirs.
pub(super) fn apart<T>(connection: &Connection, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut changed = change();
    if changed.is_ok()
        && let Err(error) = connection.execute_batch("COMMIT")
    {
        changed = Err(error);
    }
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    let mut tries = 0;
    loop {
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => return changed,
            Err(error) if Fault::of(&error) == Fault::Busy && tries < BUSY => tries += 1,
            // What was done is done and told. This one has no lock: if that is still another's, the next change says so.
            Err(_) => {
                connection.execute_batch("BEGIN")?;
                return changed;
            }
        }
    }
}

pub(super) fn is_damage<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if Fault::of(error) == Fault::Damaged)
}

/// `careful` goes row by row, and is for a job alone in its transaction; without it, the first row that cannot be read is
/// the error.
pub(super) fn claim(
    connection: &Connection,
    passed: &mut Passed,
    claim: &Claim,
    careful: bool,
) -> Result<Claims> {
    let mut claims = match careful {
        true => one_by_one(connection, passed, claim)?,
        false => together(connection, passed, claim)?,
    };
    if !claims.more {
        // What was due is claimed, or passed over.
        claims.next = connection
            .prepare_cached(NEXT)?
            .query_row(params![&*claim.producer, claim.now], |row| row.get::<_, Option<Millis>>(0))?
            .filter(|due| *due < NEVER);
    }
    Ok(claims)
}

// Under one lock: what is read is what is changed.
fn together(connection: &Connection, passed: &Passed, claim: &Claim) -> Result<Claims> {
    let mut claims = Claims::default();
    let mut bytes = 0_u64;
    let mut select = connection.prepare_cached(DUE)?;
    let mut lease = connection.prepare_cached(LEASE)?;
    // Those whose owner went away were to be sent before the others.
    for state in [LEASED, PENDING] {
        let wanted = claim.rows.saturating_sub(claims.rows.len()) + 1 + passed.0.len();
        let before = claims.rows.len();
        let mut apart = Vec::new();
        let mut found = select.query(params![&*claim.producer, state, claim.now, wanted as i64])?;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            if passed.0.contains(&id) {
                continue;
            }
            let size = unsigned(row.get(1)?);
            let too_long = !claims.rows.is_empty() && bytes.saturating_add(size) > claim.bytes;
            if claims.rows.len() >= claim.rows || too_long {
                claims.more = true;
                break;
            }
            let (message, inline) = message(row, 6)?;
            if !inline {
                apart.push(claims.rows.len());
            }
            bytes = bytes.saturating_add(size);
            claims.rows.push(Claimed {
                id: RowId(unsigned(id)),
                token: unsigned(row.get::<_, i64>(3)?.wrapping_add(1)),
                message,
                attempts: row.get(4)?,
                accepted: row.get(5)?,
                unread: None,
            });
            claims.reached = Some(row.get(2)?).filter(|_| state == PENDING);
        }
        drop(found);
        for place in apart {
            if let Some(row) = claims.rows.get_mut(place) {
                row.message.body = body_of(connection, signed(row.id.0))?;
            }
        }
        for row in claims.rows.iter().skip(before) {
            lease.execute(params![signed(row.id.0), claim.until, claim.now])?;
        }
        if claims.more {
            break;
        }
    }
    Ok(claims)
}

fn one_by_one(connection: &Connection, passed: &mut Passed, claim: &Claim) -> Result<Claims> {
    let mut claims = Claims::default();
    let mut bytes = 0_u64;
    for state in [LEASED, PENDING] {
        let wanted = claim.rows.saturating_sub(claims.rows.len()) + 1 + passed.0.len();
        let found: Vec<(i64, Option<i64>, Millis)> = connection
            .prepare_cached(DUE_IDS)?
            .query_map(params![&*claim.producer, state, claim.now, wanted as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_>>()?;
        for (id, size, due) in found {
            if passed.0.contains(&id) {
                continue;
            }
            let full = claims.rows.len() >= claim.rows;
            let size = match size {
                Some(size) => unsigned(size),
                None if full => 0,
                // What it is when it cannot be read does not matter.
                None => size_of(connection, id).unwrap_or_default(),
            };
            if full || (!claims.rows.is_empty() && bytes.saturating_add(size) > claim.bytes) {
                claims.more = true;
                break;
            }
            let seen = Seen { id, state, due };
            match apart(connection, || take(connection, &seen, claim)) {
                Ok(Some(row)) => {
                    bytes = bytes.saturating_add(size);
                    claims.rows.push(row);
                    claims.reached = Some(due).filter(|_| state == PENDING);
                }
                // Another took it while the lock was free, and as many may be due behind what was seen.
                Ok(None) => claims.more = true,
                Err(error) => {
                    // As many as were asked for may be due behind it.
                    claims.more = true;
                    match give_up(connection, passed, &seen, claim, error) {
                        Ok(()) => {}
                        Err(error) if claims.rows.is_empty() => return Err(error),
                        // Those that are taken have somebody.
                        Err(_) => return Ok(claims),
                    }
                }
            }
        }
        if claims.more {
            break;
        }
    }
    Ok(claims)
}

fn size_of(connection: &Connection, id: i64) -> Result<u64> {
    let mut select = connection.prepare_cached("SELECT size FROM outbox WHERE id = ?1")?;
    select.query_row(params![id], |row| row.get(0)).map(unsigned)
}

/// A row as it was when it was looked for.
struct Seen {
    id: i64,
    state: i64,
    due: Millis,
}

// A row that is not as it was seen is another's by now; unless the index still has it so.
fn gone(connection: &Connection, seen: &Seen, claim: &Claim) -> Result<()> {
    let mut select = connection.prepare_cached(SEEN)?;
    if !select.exists(params![&*claim.producer, seen.state, seen.due, seen.id])? {
        return Ok(());
    }
    let text = format!("row {} is not what the index of due rows says", seen.id);
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(text)))
}

fn give_up(
    connection: &Connection,
    passed: &mut Passed,
    seen: &Seen,
    claim: &Claim,
    why: rusqlite::Error,
) -> Result<()> {
    if Fault::of(&why) != Fault::Damaged {
        return Err(why);
    }
    let (id, now) = (seen.id, claim.now);
    tracing::warn!(row = id, error = %why, "a row of an outbox cannot be read and is given up");
    let text = format!("the row cannot be read: {why}");
    let noted = json!({"kind": Kind::Storage.name(), "outcome": "not_sent", "message": text}).to_string();
    let dead = apart(connection, || {
        let due = if claim.tell { 0 } else { NEVER };
        let place = connection
            .prepare_cached(
                "UPDATE outbox SET state = ?2, due = ?3, token = token + 1, error = ?4, updated = ?5 \
                 WHERE id = ?1 AND state = ?6 AND due <= ?5 RETURNING body IS NULL, order_key, producer",
            )?
            .query_row(params![id, DEAD, due, noted, now, seen.state], place)
            .optional()?;
        if place.is_none() {
            gone(connection, seen, claim)?;
        }
        after(connection, id, now, place, false)
    });
    if is_damage(&dead) && passed.over(id) { Ok(()) } else { dead.map(drop) }
}

/// Ends leases; `careful` as in [`claim`].
pub(super) fn settle(
    connection: &Connection,
    passed: &mut Passed,
    ends: &[End],
    careful: bool,
) -> Result<Vec<bool>> {
    if !careful {
        return ends.iter().map(|end| settle_one(connection, end)).collect();
    }
    let mut own = Vec::with_capacity(ends.len());
    for end in ends {
        let mut done = apart(connection, || settle_one(connection, end));
        if is_damage(&done) && matches!(end.how, How::Sent { .. }) {
            // Deleting a row may move those of the pages beside it: it stays, as done.
            let kept = End { how: How::Sent { keep: true }, ..end.clone() };
            done = apart(connection, || settle_one(connection, &kept));
            // Not even that: it is not to be sent again.
            if is_damage(&done) && passed.over(signed(end.id.0)) {
                done = Ok(true);
            }
        }
        // One that failed is tried again when its lease ends.
        own.push(if is_damage(&done) { true } else { done? });
    }
    Ok(own)
}

// None: it is not as it was seen.
fn take(connection: &Connection, seen: &Seen, claim: &Claim) -> Result<Option<Claimed>> {
    let id = seen.id;
    let mut update = connection.prepare_cached(TAKE)?;
    let taken = update.query_row(params![id, claim.until, claim.now, seen.state], |row| {
        let (message, found) = message(row, 3)?;
        let claimed = Claimed {
            id: RowId(unsigned(id)),
            token: unsigned(row.get(0)?),
            message,
            attempts: row.get(1)?,
            accepted: row.get(2)?,
            unread: None,
        };
        Ok((claimed, found))
    });
    let Some((mut claimed, inline)) = taken.optional()? else {
        return gone(connection, seen, claim).map(|()| None);
    };
    if !inline {
        claimed.message.body = body_of(connection, id)?;
    }
    Ok(Some(claimed))
}

// Its columns begin at `at`; and whether the body is among them.
fn message(row: &Row<'_>, at: usize) -> Result<(StoredMessage, bool)> {
    let inline: Option<Vec<u8>> = row.get(at + 1)?;
    let found = inline.is_some();
    let message = StoredMessage {
        head: row.get(at)?,
        body: Bytes::from(inline.unwrap_or_default()),
        number: unsigned(row.get(at + 2)?),
        delay: row.get(at + 3)?,
    };
    Ok((message, found))
}

pub(super) fn body_of(connection: &Connection, id: i64) -> Result<Bytes> {
    let body: Vec<u8> = connection
        .prepare_cached("SELECT body FROM outbox_body WHERE id = ?1")?
        .query_row(params![id], |row| row.get(0))?;
    Ok(Bytes::from(body))
}
