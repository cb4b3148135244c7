//! What is read without a change.

use mongodb::bson::{Bson, doc};

use super::database::{Database, LONGEST};
use super::fault::{damaged, error_of};
use super::form::{info, line, live, number, signed, state_number, unsigned, without_message};
use super::table::{all, collected, one};
use crate::error::Result;
use crate::outbox::row::{NEVER, Query, RowId, RowInfo, State, Stats, StoredMessage};

impl Database {
    pub(super) async fn holds_key(&self, producer: &str, key: &str) -> Result<bool> {
        let wanted = self.rows.find_one(doc! {"line": line(producer, key), "state": live()});
        Ok(one(wanted.projection(doc! {"_id": 1})).await?.is_some())
    }

    pub(super) async fn list(&self, query: &Query) -> Result<Vec<RowInfo>> {
        let mut which = doc! {"_id": {"$gt": query.after.map_or(0, |id| signed(id.0))}};
        if let Some(producer) = &query.producer {
            which.insert("producer", producer);
        }
        if let Some(state) = query.state {
            which.insert("state", state_number(state));
        }
        let rows = self.rows.find(which).sort(doc! {"_id": 1}).limit(query.limit as i64);
        all(rows.projection(without_message())).await?.iter().map(info).collect()
    }

    pub(super) async fn show(&self, id: RowId) -> Result<Option<(RowInfo, StoredMessage)>> {
        let mut before = None;
        loop {
            let Some(row) = one(self.rows.find_one(doc! {"_id": signed(id.0)})).await? else {
                return Ok(None);
            };
            match self.message(&row).await {
                Ok(message) => return Ok(Some((info(&row)?, message))),
                // What stands apart may have gone, or changed, since the row was read.
                Err(_) if before.as_ref() != Some(&row) => before = Some(row),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn stats(&self, producer: Option<&str>) -> Result<Vec<Stats>> {
        let producers = match producer {
            Some(producer) => vec![producer.to_owned()],
            None => {
                let found = self.rows.of.distinct("producer", doc! {}).await;
                let found = found.map_err(|error| error_of(&error))?;
                let mut producers = Vec::with_capacity(found.len());
                for producer in found {
                    let Bson::String(producer) = producer else { return Err(damaged("a producer's id")) };
                    producers.push(producer);
                }
                producers.sort_unstable();
                producers
            }
        };
        let mut all = Vec::with_capacity(producers.len());
        for producer in producers {
            all.push(self.stats_of(producer).await?);
        }
        Ok(all)
    }

    async fn stats_of(&self, producer: String) -> Result<Stats> {
        let of = doc! {"producer": &producer};
        let counted =
            [doc! {"$match": of.clone()}, doc! {"$group": {"_id": "$state", "rows": {"$sum": 1_i64}}}];
        let mut stats = Stats { producer: producer.clone(), ..Stats::default() };
        // It reads all of them.
        for count in collected(self.rows.of.aggregate(counted).max_time(LONGEST)).await? {
            let state = State::numbered(number(&count, "_id")?).ok_or_else(|| damaged("a state"))?;
            if let Some(rows) = stats.rows.get_mut(state as usize) {
                *rows = unsigned(number(&count, "rows")?);
            }
        }
        let pending = doc! {"producer": &producer, "state": state_number(State::Pending)};
        let next = self.rows.find_one(pending).sort(doc! {"due": 1, "_id": 1}).projection(doc! {"due": 1});
        if let Some(next) = one(next).await? {
            stats.next = Some(number(&next, "due")?).filter(|due| *due < NEVER);
        }
        if stats.of(State::Pending) + stats.of(State::Leased) > 0 {
            let live = doc! {"producer": &producer, "state": live()};
            let first = self.rows.find_one(live).sort(doc! {"_id": 1}).projection(doc! {"accepted": 1});
            if let Some(first) = one(first).await? {
                stats.oldest = Some(number(&first, "accepted")?);
            }
        }
        Ok(stats)
    }
}
