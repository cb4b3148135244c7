//! One collection. The server is given a time for each command, and so is its answer: what nobody waits for any more is not
//! done later.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::action::{Find, FindOne};
use mongodb::bson::{Document, doc};
use mongodb::{Collection, Cursor};

use super::fault::{error_of, refusals_of, refused_of_several, silent, write_error};
use super::form::{number, unsigned};
use crate::error::Result;

/// How long the majority may take to confirm a write.
pub(super) const CONFIRMED: Duration = Duration::from_secs(10);
/// How long the server may take for a command, the wait for the majority included.
pub(super) const SERVED: Duration = Duration::from_secs(10);
/// How long one answer is waited for while other calls wait too: longer than the server is looked for, a connection made
/// and the command done. The driver itself waits for as long as the connection stands.
pub(super) const ANSWERED: Duration = Duration::from_secs(20);

tokio::task_local! {
    /// The answers that the work of a group had.
    pub(super) static ANSWERS: Arc<AtomicU64>;
}

/// One command, whose answer may never come.
pub(super) async fn step<T>(writes: bool, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Ok(answer) = tokio::time::timeout(ANSWERED, work).await else { return Err(silent(writes)) };
    let _ = ANSWERS.try_with(|answers| answers.fetch_add(1, Ordering::Relaxed));
    answer
}

/// All that a search finds, however long it takes.
pub(super) async fn collected(
    found: impl IntoFuture<Output = mongodb::error::Result<Cursor<Document>>>,
) -> Result<Vec<Document>> {
    let cursor = found.into_future().await.map_err(|error| error_of(&error))?;
    cursor.try_collect().await.map_err(|error| error_of(&error))
}

/// All that a search finds.
pub(super) async fn all(
    found: impl IntoFuture<Output = mongodb::error::Result<Cursor<Document>>>,
) -> Result<Vec<Document>> {
    step(false, collected(found)).await
}

/// The first that a search finds.
pub(super) async fn one(found: FindOne<'_, Document>) -> Result<Option<Document>> {
    step(false, async { found.await.map_err(|error| error_of(&error)) }).await
}

/// What became of a command of several statements.
pub(super) struct Written {
    /// Documents that they met.
    pub(super) count: u64,
    /// The statements that were refused, with the code of each.
    pub(super) refused: BTreeMap<usize, i32>,
}

/// See the module.
pub(super) struct Table {
    pub(super) of: Collection<Document>,
    raw: mongodb::Database,
}

impl Table {
    pub(super) fn new(of: Collection<Document>, raw: &mongodb::Database) -> Table {
        Table { of, raw: raw.clone() }
    }

    pub(super) fn find(&self, which: Document) -> Find<'_, Document> {
        self.of.find(which).max_time(SERVED)
    }

    pub(super) fn find_one(&self, which: Document) -> FindOne<'_, Document> {
        self.of.find_one(which).max_time(SERVED)
    }

    /// Does one command of statements, each whatever becomes of the others.
    ///
    /// # Errors
    /// Those of the whole command. Where it may have been done they say so.
    pub(super) async fn write(&self, command: [&str; 2], each: Vec<Document>) -> Result<Written> {
        step(true, self.write_within(SERVED, command, each)).await
    }

    /// As [`Table::write`], with another time for the server; its answer is waited for as long as it takes.
    pub(super) async fn write_within(
        &self,
        time: Duration,
        [command, statements]: [&str; 2],
        each: Vec<Document>,
    ) -> Result<Written> {
        let command = doc! {
            command: self.of.name(), statements: each, "ordered": false, "maxTimeMS": time.as_millis() as i64,
            "writeConcern": {"w": "majority", "j": true, "wtimeout": CONFIRMED.as_millis() as i64},
        };
        let answer = self.raw.run_command(command).await.map_err(|error| write_error(&error))?;
        let refused = refusals_of(&answer)?;
        // A refusal alone may come without a count.
        let count = answer.get("n").map_or(Ok(0), |_| number(&answer, "n")).map(unsigned)?;
        Ok(Written { count, refused })
    }

    /// Inserts documents; what became of each.
    ///
    /// # Errors
    /// As [`Table::write`].
    pub(super) async fn insert(&self, documents: Vec<Document>) -> Result<Written> {
        self.write(["insert", "documents"], documents).await
    }

    /// Changes documents, and returns how many there were to change.
    ///
    /// # Errors
    /// As [`Table::write`]; some may be changed.
    pub(super) async fn change(&self, which: Document, change: Document) -> Result<u64> {
        let one = vec![doc! {"q": which, "u": change, "multi": true}];
        self.write(UPDATE, one).await?.counted()
    }

    /// Deletes documents, and returns how many.
    ///
    /// # Errors
    /// As [`Table::change`].
    pub(super) async fn delete(&self, which: Document) -> Result<u64> {
        self.write(DELETE, vec![doc! {"q": which, "limit": 0}]).await?.counted()
    }
}

/// The names of a command and of its statements.
pub(super) const UPDATE: [&str; 2] = ["update", "updates"];
pub(super) const DELETE: [&str; 2] = ["delete", "deletes"];

impl Written {
    /// How many documents were met, where nothing was refused.
    ///
    /// # Errors
    /// The first refusal. What else was to be done may be done.
    pub(super) fn counted(self) -> Result<u64> {
        match self.refused.values().next() {
            Some(code) => Err(refused_of_several(*code)),
            None => Ok(self.count),
        }
    }
}
