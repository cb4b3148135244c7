//! Inserting rows, those of many calls in one command.

use std::collections::{HashMap, HashSet};

use mongodb::bson::doc;
use mongodb::error::{Error as DriverError, ErrorKind};

use super::body::Placed;
use super::change;
use super::database::Database;
use super::fault::{refused, write_error};
use super::form::{among, document, id, line, only, signed, state, text, unsigned};
use super::group::GROUP;
use super::table::{all, one, step};
use crate::error::{Error, Kind, Outcome, Result};
use crate::outbox::row::{Inserted, NewRow, RowId, Start, State};

/// Bytes that a row may have without what stands apart.
const ROW: usize = 12 << 20;
/// Bits of a number below the microseconds: what tells rows apart that two processes number at once.
const BITS: u32 = 11;
/// How often rows are numbered anew whose number another took.
const TRIES: usize = 8;

/// The rows of one call, with their messages written.
pub(super) struct Prepared {
    rows: Vec<(NewRow, Placed)>,
    bytes: u64,
}

impl Prepared {
    /// The lines that the rows are to stand in.
    pub(super) fn keys(&self) -> Vec<String> {
        let rows = self.rows.iter().map(|(row, _)| row);
        let lines: HashSet<String> =
            rows.filter_map(|row| Some(line(&row.producer, row.order_key.as_ref()?))).collect();
        lines.into_iter().collect()
    }

    /// Of the documents.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Database {
    /// Writes what stands apart.
    pub(super) async fn prepare(&self, rows: Vec<NewRow>) -> Result<Prepared> {
        let mut prepared = Prepared { rows: Vec::with_capacity(rows.len()), bytes: 0 };
        for mut row in rows {
            match self.prepare_one(&mut row).await {
                Ok(placed) => {
                    prepared.bytes += placed.bytes;
                    prepared.rows.push((row, placed));
                }
                Err(error) => {
                    self.unprepare(&prepared).await;
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    async fn prepare_one(&self, row: &mut NewRow) -> Result<Placed> {
        let texts = [&row.topic, &row.order_key, &row.order_key, &row.dedup, &row.dedup, &row.error];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        if texts > ROW {
            let text = format!("the topic and the key have {texts} bytes, and {ROW} is the most in MongoDB");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let mut placed = self.place(&row.message, &[]).await?;
        // It is written, or in the document: once is enough.
        row.message = Default::default();
        placed.bytes += texts as u64 + 512;
        Ok(placed)
    }

    async fn unprepare(&self, prepared: &Prepared) {
        for (_, placed) in &prepared.rows {
            self.forget(&placed.made).await;
        }
    }

    // Larger than any that is there, whichever machine's clock is ahead.
    async fn next_number(&self) -> Result<i64> {
        let last =
            one(self.rows.find_one(doc! {}).sort(doc! {"_id": -1}).projection(doc! {"_id": 1})).await?;
        let last = last.map(|last| id(&last)).transpose()?.unwrap_or(0);
        let noise = self.token() & ((1 << BITS) - 1);
        Ok((last + 1).max(self.micros().checked_shl(BITS).unwrap_or(0).saturating_add(noise)))
    }

    /// Inserts the rows of some calls; an answer for each.
    pub(super) async fn insert(&self, calls: Vec<Prepared>) -> Vec<Result<Vec<Inserted>>> {
        let mut flat: Vec<Row> = Vec::new();
        let mut sizes = Vec::with_capacity(calls.len());
        for (call, prepared) in calls.into_iter().enumerate() {
            sizes.push(prepared.rows.len());
            let rows = prepared.rows.into_iter();
            flat.extend(rows.map(|(row, placed)| Row { call, row, placed, end: None }));
        }
        let mut failures: HashMap<usize, Error> = HashMap::new();
        for _ in 0..TRIES {
            if flat.iter().all(|row| row.end.is_some()) {
                break;
            }
            if let Err(error) = self.insert_some(&mut flat, &mut failures).await {
                for row in flat.iter().filter(|row| row.end.is_none()) {
                    failures.entry(row.call).or_insert_with(|| error.clone());
                }
                break;
            }
        }
        for row in flat.iter().filter(|row| row.end.is_none()) {
            failures.entry(row.call).or_insert_with(|| {
                Error::new(Kind::Storage, "no number was found for a row").retryable_is(true)
            });
        }
        self.undo(&flat, &mut failures).await;
        let mut answers: Vec<Result<Vec<Inserted>>> =
            sizes.iter().map(|size| Ok(Vec::with_capacity(*size))).collect();
        let mut unused = Vec::new();
        for row in flat {
            let Some(answer) = answers.get_mut(row.call) else { continue };
            if let Some(error) = failures.get(&row.call) {
                // What may be there keeps its parts until it is known to be nowhere.
                if error.outcome() == Outcome::NotSent {
                    unused.extend(row.placed.made);
                }
                *answer = Err(error.clone());
            } else if let (Some(end), Ok(answer)) = (row.end, answer) {
                if !end.inserted.fresh {
                    unused.extend(row.placed.made);
                }
                answer.push(end.inserted);
            }
        }
        self.forget(&unused).await;
        answers
    }

    // All of a call or none, as long as this process and the server stay.
    async fn undo(&self, rows: &[Row], failures: &mut HashMap<usize, Error>) {
        let mut undone: HashMap<RowId, (usize, i64)> = HashMap::new();
        loop {
            let failed = |row: &&Row| failures.contains_key(&row.call);
            for row in rows.iter().filter(failed) {
                if let Some(End { inserted: Inserted { id, fresh: true, .. }, token }) = row.end {
                    undone.insert(id, (row.call, token));
                }
            }
            // Whose key was known by what goes now has nothing in the store.
            let mut without: Vec<(usize, Error)> = Vec::new();
            for row in rows.iter().filter(|row| !failed(row)) {
                let first = row.end.as_ref().and_then(|end| undone.get(&end.inserted.id));
                if let Some(error) = first.and_then(|(call, _)| failures.get(call)) {
                    without.push((row.call, error.clone()));
                }
            }
            if without.is_empty() {
                break;
            }
            failures.extend(without);
        }
        if undone.is_empty() {
            return;
        }
        let ids: Vec<i64> = undone.keys().map(|id| signed(id.0)).collect();
        let tokens: Vec<i64> = undone.values().map(|(_, token)| *token).collect();
        // One that was claimed meanwhile is being sent.
        let which = doc! {"_id": among(&ids), "token": {"$in": tokens}};
        let left = match self.rows.delete(which).await {
            Ok(gone) if gone >= ids.len() as u64 => return,
            Ok(gone) => (ids.len() as u64).saturating_sub(gone).to_string(),
            Err(error) => error.text(),
        };
        tracing::warn!(%left, "rows of an insert that failed may be left in the outbox's MongoDB");
        let calls: HashSet<usize> = undone.values().map(|(call, _)| *call).collect();
        let known = |row: &&Row| row.end.as_ref().is_some_and(|end| undone.contains_key(&end.inserted.id));
        let calls = calls.into_iter().chain(rows.iter().filter(known).map(|row| row.call));
        for call in calls.collect::<HashSet<usize>>() {
            if let Some(error) = failures.get_mut(&call) {
                *error = error.clone().outcome_is(Outcome::Unknown);
            }
        }
    }

    // Those that have no end yet; none after this are those whose number another took.
    async fn insert_some(&self, rows: &mut [Row], failures: &mut HashMap<usize, Error>) -> Result<()> {
        let mut number = self.next_number().await?;
        let open: Vec<&mut Row> =
            rows.iter_mut().filter(|row| row.end.is_none() && !failures.contains_key(&row.call)).collect();
        let mut open = open.into_iter().peekable();
        while open.peek().is_some() {
            let (mut tries, mut documents, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
            // The driver cuts a command that is too long in two, and of these only one may be done.
            let fits =
                |row: &Row, bytes: u64| bytes == 0 || bytes.saturating_add(row.placed.bytes) <= GROUP.1;
            while let Some(row) = open.next_if(|row| fits(row, bytes)) {
                let token = self.token();
                let mut document = document(&row.row, number, token);
                document.extend(row.placed.fields.clone());
                bytes = bytes.saturating_add(row.placed.bytes);
                documents.push(document);
                tries.push((row, number, token));
                number += 1;
            }
            let inserted = async { Ok(self.rows.of.insert_many(&documents).ordered(false).await) };
            let mut codes: HashMap<usize, i32> = HashMap::new();
            if let Err(error) = step(true, inserted).await? {
                codes = refusals(&error).ok_or_else(|| write_error(&error))?;
            }
            let mut twice: Vec<&mut Row> = Vec::new();
            for (place, (row, number, token)) in tries.into_iter().enumerate() {
                match codes.get(&place) {
                    None => row.end = Some(End::fresh(number, token)),
                    // Without a key it has nothing in common with another but the number.
                    Some(11000 | 11001) if row.row.dedup.is_none() => {}
                    Some(11000 | 11001) => twice.push(row),
                    Some(code) => drop(failures.entry(row.call).or_insert_with(|| refused(*code))),
                }
            }
            self.known(twice).await?;
        }
        Ok(())
    }

    // Each has its dedup key in common with another, or its number.
    async fn known(&self, rows: Vec<&mut Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let key = |row: &Row| only(&row.row.producer, row.row.dedup.as_deref(), 0);
        // A dead row would not be sent any more: it begins anew, before anybody is told that it is there.
        let sends = |row: &Row| matches!(row.row.start, Start::Pending { .. } | Start::Leased { .. });
        let wanted: Vec<String> = rows.iter().filter(|row| sends(row)).map(|row| key(row)).collect();
        let mut revived = 0;
        if !wanted.is_empty() {
            let now = rows.iter().map(|row| row.row.now).max().unwrap_or_default();
            revived = change::begin_anew(self, doc! {"only": {"$in": wanted}}, now).await?;
        }
        let keys: Vec<String> = rows.iter().map(|row| key(row)).collect();
        let there = self.rows.find(doc! {"only": {"$in": keys}});
        let there = all(there.projection(doc! {"_id": 1, "only": 1, "state": 1})).await;
        let there = there.map_err(|error| match revived {
            0 => error,
            _ => error.outcome_is(Outcome::Unknown),
        })?;
        let mut found: HashMap<String, (i64, State)> = HashMap::new();
        for row in there {
            found.insert(text(&row, "only")?, (id(&row)?, state(&row)?));
        }
        for row in rows {
            match found.get(&key(row)) {
                // It was given up just now, and begins anew with the next try.
                Some((_, State::Dead)) if sends(row) => {}
                Some((there, _)) => row.end = Some(End::known(*there)),
                // It went just now, or only the number was another's.
                None => {}
            }
        }
        Ok(())
    }
}

struct Row {
    call: usize,
    row: NewRow,
    placed: Placed,
    end: Option<End>,
}

struct End {
    inserted: Inserted,
    // Of the document, as long as nobody changed it.
    token: i64,
}

impl End {
    fn fresh(id: i64, token: i64) -> End {
        End { inserted: Inserted { id: RowId(unsigned(id)), token: unsigned(token), fresh: true }, token }
    }

    fn known(id: i64) -> End {
        End { inserted: Inserted { id: RowId(unsigned(id)), token: 0, fresh: false }, token: 0 }
    }
}

/// Which documents were refused, with the code of each, where the others are there and with the majority.
fn refusals(error: &DriverError) -> Option<HashMap<usize, i32>> {
    let ErrorKind::InsertMany(failed) = &*error.kind else { return None };
    if failed.write_concern_error.is_some() {
        return None;
    }
    let refused = failed.write_errors.as_ref()?;
    Some(refused.iter().map(|one| (one.index, one.code)).collect())
}
