//! Other changes of rows: what an operator asks for, and what the chores do.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Document, doc};

use super::body::{Piece, pieces};
use super::database::{Database, LONGEST};
use super::form::{among, id, info, maybe_text, signed, state_number, unsigned, without_message};
use super::table::{UPDATE, all};
use crate::error::Result;
use crate::outbox::row::{Dropped, Millis, NEVER, Purge, Revived, RowId, State, Untold, Which};

/// Makes dead rows pending, as if they had never been tried.
pub(super) async fn begin_anew(database: &Database, mut which: Document, now: Millis) -> Result<u64> {
    which.insert("state", state_number(State::Dead));
    let fresh = doc! {
        "state": state_number(State::Pending), "due": now, "attempts": 0_i64, "updated": now,
        "token": database.token(),
    };
    database.rows.change(which, doc! {"$set": fresh}).await
}

fn of_producer(producer: Option<&str>) -> Document {
    producer.map_or_else(Document::new, |producer| doc! {"producer": producer})
}

impl Database {
    pub(super) async fn hasten(&self, producer: &str, latest: Millis) -> Result<u64> {
        let later = doc! {
            "producer": producer, "state": state_number(State::Pending), "due": {"$gt": latest, "$lt": NEVER},
        };
        // There may be a million of them. What was done when the time is over stays.
        let change = vec![doc! {"q": later, "u": {"$set": {"due": latest}}, "multi": true}];
        self.rows.write_within(LONGEST, UPDATE, change).await?.counted()
    }

    pub(super) async fn untold(
        &self,
        producer: &str,
        [now, until]: [Millis; 2],
        rows: usize,
        shown: usize,
    ) -> Result<Untold> {
        let due = doc! {"producer": producer, "state": state_number(State::Dead), "due": {"$lte": now}};
        let found = self.rows.find(due.clone()).sort(doc! {"due": 1, "_id": 1}).limit(rows as i64);
        let ids: Vec<i64> =
            all(found.projection(doc! {"_id": 1})).await?.iter().map(id).collect::<Result<_>>()?;
        let mut untold = Untold::default();
        if ids.is_empty() {
            return Ok(untold);
        }
        let token = self.token();
        let mut which = due;
        which.insert("_id", among(&ids));
        self.rows.change(which, doc! {"$set": {"due": until, "token": token}}).await?;
        let own = self.rows.find(doc! {"_id": among(&ids), "token": token}).projection(doc! {"_id": 1});
        let own: HashSet<i64> = all(own).await?.iter().map(id).collect::<Result<_>>()?;
        let ids: Vec<i64> = ids.into_iter().filter(|id| own.contains(id)).collect();
        let first: Vec<i64> = ids.iter().copied().take(shown).collect();
        let found = self.rows.find(doc! {"_id": among(&first)}).projection(without_message());
        let mut by_id = HashMap::new();
        for row in all(found).await? {
            by_id.insert(id(&row)?, info(&row)?);
        }
        untold.shown = first.iter().filter_map(|id| by_id.remove(id)).collect();
        untold.rows = ids.into_iter().map(|id| (RowId(unsigned(id)), unsigned(token))).collect();
        Ok(untold)
    }

    pub(super) async fn told(&self, rows: &[(RowId, u64)], again: Option<Millis>) -> Result<()> {
        let mut by_token: HashMap<u64, Vec<i64>> = HashMap::new();
        for (id, token) in rows {
            by_token.entry(*token).or_default().push(signed(id.0));
        }
        for (token, ids) in by_token {
            let own = doc! {"_id": among(&ids), "token": signed(token), "state": state_number(State::Dead)};
            self.rows.change(own, doc! {"$set": {"due": again.unwrap_or(NEVER)}}).await?;
        }
        Ok(())
    }

    pub(super) async fn revive(&self, which: &Which, now: Millis) -> Result<Revived> {
        let mut revived = Revived::default();
        let (ids, producer, dead) = match which {
            Which::Ids { producer, ids } => {
                let ids: Vec<i64> = ids.iter().map(|id| signed(id.0)).collect();
                (ids, producer.as_deref(), true)
            }
            Which::Page { producer, dead, after, limit } => {
                // Those that are due already need no change, nor do those that wait for another row.
                let mut each =
                    vec![doc! {"state": state_number(State::Pending), "due": {"$gt": now, "$lt": NEVER}}];
                if *dead {
                    each.push(doc! {"state": state_number(State::Dead)});
                }
                let mut page = of_producer(producer.as_deref());
                page.insert("_id", doc! {"$gt": signed(after.0)});
                page.insert("$or", each);
                let found = self.rows.find(page).sort(doc! {"_id": 1}).limit(*limit as i64);
                let found = all(found.projection(doc! {"_id": 1})).await?;
                let ids: Vec<i64> = found.iter().map(id).collect::<Result<_>>()?;
                revived.last = ids.last().filter(|_| ids.len() >= *limit).map(|id| RowId(unsigned(*id)));
                (ids, producer.as_deref(), *dead)
            }
        };
        if ids.is_empty() {
            return Ok(revived);
        }
        let mut which = of_producer(producer);
        which.insert("_id", among(&ids));
        let mut pending = which.clone();
        pending.insert("state", state_number(State::Pending));
        // First: those that were dead are not to be counted twice. One that waits in its line is put aside again.
        let change = doc! {"$set": {"due": now, "updated": now}};
        revived.count = self.rows.change(pending, change).await?;
        if dead {
            revived.count += begin_anew(self, which, now).await?;
        }
        Ok(revived)
    }

    pub(super) async fn drop_rows(
        &self,
        producer: Option<&str>,
        ids: &[RowId],
        now: Millis,
    ) -> Result<Vec<Dropped>> {
        let numbers: Vec<i64> = ids.iter().map(|id| signed(id.0)).collect();
        let mut which = of_producer(producer);
        which.insert("_id", among(&numbers));
        let fields = doc! {"_id": 1, "line": 1, "head_at": 1, "body_at": 1};
        let there = self.rows.find(which.clone()).projection(fields);
        let mut found: HashMap<i64, (Option<String>, Vec<Piece>)> = HashMap::new();
        for row in all(there).await? {
            found.insert(id(&row)?, (maybe_text(&row, "line")?, pieces(&row)?));
        }
        if found.is_empty() {
            return Ok(vec![Dropped::Unknown; ids.len()]);
        }
        let leased = state_number(State::Leased);
        which.insert("$or", vec![doc! {"state": {"$ne": leased}}, doc! {"due": {"$lte": now}}]);
        let own: Vec<i64> = found.keys().copied().collect();
        let left = self.remove(&own, which).await?;
        let (mut gone, mut lines) = (Vec::new(), HashSet::new());
        for (_, (line, pieces)) in found.iter().filter(|(id, _)| !left.contains(id)) {
            gone.extend(pieces.clone());
            lines.extend(line.clone());
        }
        self.forget(&gone).await;
        self.wake(&lines, now).await?;
        let mut seen = HashSet::new();
        let end = |number: &i64| match found.contains_key(number) {
            true if left.contains(number) => Dropped::Leased,
            true if seen.insert(*number) => Dropped::Gone,
            _ => Dropped::Unknown,
        };
        Ok(numbers.iter().map(end).collect())
    }

    pub(super) async fn purge(&self, purge: &Purge) -> Result<u64> {
        // A done row is due when it ended, so that the index has them in that order.
        let by = match purge.state {
            State::Done => "due",
            _ => "updated",
        };
        let mut old = doc! {
            "producer": &purge.producer, "state": state_number(purge.state), by: {"$lt": purge.before},
        };
        if purge.told && purge.state == State::Dead {
            old.insert("due", NEVER);
        }
        let fields = doc! {"_id": 1, "head_at": 1, "body_at": 1};
        let mut found: HashMap<i64, Vec<Piece>> = HashMap::new();
        for row in all(self.rows.find(old.clone()).limit(purge.limit as i64).projection(fields)).await? {
            found.insert(id(&row)?, pieces(&row)?);
        }
        if found.is_empty() {
            return Ok(0);
        }
        let ids: Vec<i64> = found.keys().copied().collect();
        let mut which = old;
        which.insert("_id", among(&ids));
        let left = self.remove(&ids, which).await?;
        let gone: Vec<Piece> = found
            .iter()
            .filter(|(id, _)| !left.contains(id))
            .flat_map(|(_, pieces)| pieces.clone())
            .collect();
        self.forget(&gone).await;
        Ok((ids.len() - left.len()) as u64)
    }
}
