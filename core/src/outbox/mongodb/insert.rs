//! Inserting rows, those of many calls in one command.

use std::collections::HashMap;

use mongodb::bson::doc;
use mongodb::error::{Error as DriverError, ErrorKind};

use super::body::Placed;
use super::change;
use super::database::{Database, all};
use super::fault::{Fault, error_of, write_error};
use super::form::{among, document, id, only, text, unsigned};
use crate::error::{Error, Kind, Outcome, Result};
use crate::outbox::row::{Inserted, Millis, NewRow, RowId, Start};

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
                Ok((placed, bytes)) => {
                    prepared.bytes += bytes;
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

    async fn prepare_one(&self, row: &mut NewRow) -> Result<(Placed, u64)> {
        let texts = [&row.topic, &row.order_key, &row.order_key, &row.dedup, &row.dedup, &row.error];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        if texts > ROW {
            let text = format!("the topic and the key have {texts} bytes, and {ROW} is the most in MongoDB");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let placed = self.place(&row.message, &[]).await?;
        // It is written, or in the document: once is enough.
        row.message = Default::default();
        let bytes = placed.bytes + texts as u64 + 512;
        Ok((placed, bytes))
    }

    async fn unprepare(&self, prepared: &Prepared) {
        for (_, placed) in &prepared.rows {
            self.forget(&placed.made).await;
        }
    }

    // Larger than any that is there, whichever machine's clock is ahead.
    async fn next_number(&self) -> Result<i64> {
        let last = self.rows.find_one(doc! {}).sort(doc! {"_id": -1}).projection(doc! {"_id": 1}).await;
        let last = last.map_err(|error| error_of(&error))?.map(|last| id(&last)).transpose()?.unwrap_or(0);
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
        let mut answers: Vec<Result<Vec<Inserted>>> =
            sizes.iter().map(|size| Ok(Vec::with_capacity(*size))).collect();
        let mut undone: Vec<i64> = Vec::new();
        let mut unused = Vec::new();
        for row in flat {
            let Some(answer) = answers.get_mut(row.call) else { continue };
            if let Some(error) = failures.get(&row.call) {
                if let Some(End { inserted: Inserted { id, fresh: true, .. } }) = row.end {
                    undone.push(id.0 as i64);
                }
                // What may be there keeps its parts until it is known to be nowhere.
                if error.outcome() == Outcome::NotSent {
                    unused.extend(row.placed.made);
                }
                *answer = Err(error.clone());
                continue;
            }
            match (row.end, answer) {
                (Some(end), Ok(answer)) => {
                    if !end.inserted.fresh {
                        unused.extend(row.placed.made);
                    }
                    answer.push(end.inserted);
                }
                (None, answer) => *answer = Err(Error::new(Kind::Storage, "no number was found for a row")),
                (Some(_), Err(_)) => {}
            }
        }
        // All of a call or none, as long as this process and the server stay.
        if !undone.is_empty()
            && let Err(error) = self.delete(&self.rows, doc! {"_id": among(&undone)}).await
        {
            tracing::warn!(%error, "rows of an insert that failed are left in the outbox's MongoDB");
        }
        self.forget(&unused).await;
        answers
    }

    // Those that have no end yet; none after this are those whose number another took.
    async fn insert_some(&self, rows: &mut [Row], failures: &mut HashMap<usize, Error>) -> Result<()> {
        let mut number = self.next_number().await?;
        let mut tries: Vec<(&mut Row, i64, i64)> = Vec::new();
        let mut documents = Vec::new();
        for row in rows.iter_mut().filter(|row| row.end.is_none() && !failures.contains_key(&row.call)) {
            let token = self.token();
            let mut document = document(&row.row, number, token);
            document.extend(row.placed.fields.clone());
            documents.push(document);
            tries.push((row, number, token));
            number += 1;
        }
        if documents.is_empty() {
            return Ok(());
        }
        let mut refused: HashMap<usize, i32> = HashMap::new();
        if let Err(error) = self.rows.insert_many(&documents).ordered(false).await {
            refused = refusals(&error).ok_or_else(|| write_error(&error))?;
        }
        let mut twice: Vec<(&mut Row, i64)> = Vec::new();
        for (place, (row, number, token)) in tries.into_iter().enumerate() {
            match refused.get(&place) {
                None => row.end = Some(End::fresh(number, token)),
                Some(11000 | 11001) => twice.push((row, number)),
                Some(code) => {
                    let error = Fault::Other.error(Some(&format!("write error {code}")));
                    failures.entry(row.call).or_insert(error);
                }
            }
        }
        self.known(twice).await
    }

    // Each has its dedup key in common with another, or its number.
    async fn known(&self, rows: Vec<(&mut Row, i64)>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let key = |row: &Row, number| only(&row.row.producer, row.row.dedup.as_deref(), number);
        let keys: Vec<String> = rows.iter().map(|(row, number)| key(row, *number)).collect();
        let there = self.rows.find(doc! {"only": {"$in": keys}}).projection(doc! {"_id": 1, "only": 1});
        let mut ids: HashMap<String, i64> = HashMap::new();
        for found in all(there).await? {
            ids.insert(text(&found, "only")?, id(&found)?);
        }
        let mut dead: Vec<(i64, Millis)> = Vec::new();
        for (row, number) in rows {
            let Some(there) = ids.get(&key(row, number)) else { continue };
            row.end = Some(End::known(*there));
            // A dead row would not be sent any more: it begins anew.
            if matches!(row.row.start, Start::Pending { .. } | Start::Leased { .. }) {
                dead.push((*there, row.row.now));
            }
        }
        for (id, now) in dead {
            change::begin_anew(self, doc! {"_id": id}, now).await?;
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
}

impl End {
    fn fresh(id: i64, token: i64) -> End {
        End { inserted: Inserted { id: RowId(unsigned(id)), token: unsigned(token), fresh: true } }
    }

    fn known(id: i64) -> End {
        End { inserted: Inserted { id: RowId(unsigned(id)), token: 0, fresh: false } }
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
