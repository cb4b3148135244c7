//! The order of rows with one key. They stand in a line, of which the first live row alone may be sent, and one at a time.
//!
//! A document says whose turn it is: whoever makes it, or finds it ended, has the turn. Rows that are due and find themselves
//! behind another are put aside, with no due time, by who has the turn or after they looked that somebody has; and who ends
//! a turn makes the first of the line due again before the document goes. A turn whose owner went away ends with its lease, and whoever finds
//! it then does the rest.

use std::collections::HashSet;

use mongodb::bson::{Document, doc};

use super::database::{Database, several};
use super::fault::refused_of_several;
use super::form::{id, live, number, state, state_number, text};
use super::table::{all, one};
use crate::client::BoxFuture;
use crate::error::Result;
use crate::outbox::row::{Millis, NEVER, State};

/// Lines of one command.
const SOME: usize = 500;
/// Turns that are ended for those who went away, at a time.
const STALE: i64 = 100;

/// A turn: the line, and the token of who has it.
pub(super) type Turn = (String, i64);

impl Database {
    /// Takes the turn of lines, and returns those that it has now.
    pub(super) async fn take_turns(
        &self,
        lines: &[String],
        producer: &str,
        token: i64,
        [now, until]: [Millis; 2],
    ) -> Result<HashSet<String>> {
        let mut documents = Vec::with_capacity(lines.len());
        for line in lines {
            documents.push(doc! {"_id": line, "producer": producer, "token": token, "until": until});
        }
        let mut refused: Vec<String> = Vec::new();
        for (place, code) in self.lines.insert(documents).await?.refused {
            if code != 11000 {
                return Err(refused_of_several(code));
            }
            refused.extend(lines.get(place).cloned());
        }
        let mut taken: HashSet<String> = lines.iter().cloned().collect();
        taken.retain(|line| !refused.contains(line));
        if !refused.is_empty() {
            // One document at a time: whoever is first has it.
            let ended = doc! {"_id": {"$in": refused.clone()}, "until": {"$lte": now}};
            self.lines.change(ended, doc! {"$set": {"token": token, "until": until}}).await?;
            let own = self.lines.find(doc! {"_id": {"$in": refused}, "token": token});
            for found in all(own).await? {
                taken.insert(text(&found, "_id")?);
            }
        }
        Ok(taken)
    }

    /// The first live row of a line.
    pub(super) async fn first_of(&self, line: &str) -> Result<Option<i64>> {
        self.head_of(line).await?.as_ref().map(id).transpose()
    }

    async fn head_of(&self, line: &str) -> Result<Option<Document>> {
        let wanted = self.rows.find_one(doc! {"line": line, "state": live()}).sort(doc! {"_id": 1});
        one(wanted.projection(doc! {"_id": 1, "state": 1, "due": 1})).await
    }

    /// Puts rows aside that are behind another of their line.
    pub(super) async fn put_aside(&self, rows: &[i64], now: Millis) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let which = doc! {"_id": {"$in": rows.to_vec()}, "state": live(), "due": {"$lte": now}};
        let aside = doc! {"state": state_number(State::Pending), "due": NEVER, "token": self.token()};
        self.rows.change(which, doc! {"$set": aside}).await?;
        Ok(())
    }

    /// Makes the first rows of lines due where they were put aside. It harms nobody whose turn it is.
    pub(super) async fn wake(&self, lines: &HashSet<String>, now: Millis) -> Result<()> {
        let mut woken: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(lines.len());
        for line in lines {
            woken.push(Box::pin(self.wake_one(line, now)));
        }
        several(woken).await.map(drop)
    }

    async fn wake_one(&self, line: &str, now: Millis) -> Result<()> {
        let Some(first) = self.head_of(line).await? else { return Ok(()) };
        if state(&first)? == State::Pending && number(&first, "due")? == NEVER {
            let still = doc! {"_id": id(&first)?, "state": state_number(State::Pending), "due": NEVER};
            self.rows.change(still, doc! {"$set": {"due": now}}).await?;
        }
        Ok(())
    }

    /// For rows that were put aside without the turn: who had it may have ended it just before.
    pub(super) async fn wake_unless_taken(&self, mut lines: HashSet<String>, now: Millis) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = lines.iter().cloned().collect();
        let taken = self.lines.find(doc! {"_id": {"$in": names}, "until": {"$gt": now}});
        for found in all(taken.projection(doc! {"_id": 1})).await? {
            lines.remove(&text(&found, "_id")?);
        }
        self.wake(&lines, now).await
    }

    /// Ends turns, those that are still of these tokens.
    pub(super) async fn end_turns(&self, turns: &[Turn], now: Millis) -> Result<()> {
        for some in turns.chunks(SOME) {
            let (mut held, mut ended, mut lines) = (Vec::new(), Vec::new(), HashSet::new());
            for (line, token) in some {
                held.push(doc! {"_id": line, "token": token});
                ended.push(doc! {"_id": line, "token": token, "until": 0_i64});
                lines.insert(line.clone());
            }
            // Free for others from here on, and still there: if this is as far as it comes, another goes on.
            self.lines.change(doc! {"$or": held}, doc! {"$set": {"until": 0_i64}}).await?;
            self.wake(&lines, now).await?;
            self.lines.delete(doc! {"$or": ended}).await?;
        }
        Ok(())
    }

    /// Ends turns whose owner went away; whether there were any.
    pub(super) async fn end_stale_turns(&self, producer: &str, now: Millis) -> Result<bool> {
        let stale = self.lines.find(doc! {"producer": producer, "until": {"$lte": now}}).limit(STALE);
        let mut turns = Vec::new();
        for found in all(stale).await? {
            turns.push((text(&found, "_id")?, number(&found, "token")?));
        }
        self.end_turns(&turns, now).await?;
        Ok(!turns.is_empty())
    }
}
