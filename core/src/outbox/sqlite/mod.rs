//! The store in a file.
//!
//! One thread writes, another reads what is committed; all clients of a process that name the same file share both.

mod change;
mod fault;
mod look;
mod schema;
mod worker;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::row::{
    Claim, Claims, Dropped, End, Inserted, Millis, NewRow, Purge, Query, Revived, RowId, RowInfo, Stats,
    StoredMessage, Untold, Which,
};
use super::store::Store;
use crate::client::{BoxFuture, Context};
use crate::error::{Error, Kind, Result};
use crate::random::Random;
use crate::runtime::PerGeneration;

pub use fault::Fault;
use worker::{Does, Worker};

/// See the module.
pub struct SqliteStore {
    identity: String,
    writer: Worker,
    // Locked by the writing thread alone.
    numbers: Arc<Mutex<change::Numbers>>,
    reader: Worker,
}

// By the file's true path. A child of a fork has none of its parent's threads and opens its own.
static OPEN: PerGeneration<Mutex<HashMap<PathBuf, Weak<SqliteStore>>>> = PerGeneration::new();

impl SqliteStore {
    /// Opens the file, made if need be (its mode is 0600, that of folders that are made 0700); the same store for all
    /// of a process that name the same file.
    ///
    /// # Errors
    /// `storage`, with a [`Fault`] as its source.
    pub async fn open(path: &Path) -> Result<Arc<SqliteStore>> {
        let path = true_path(path)?;
        let stores = OPEN.get_or_try_init(|| Ok(Mutex::default()))?;
        if let Some(store) = stores.lock().get(&path).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let store = Arc::new(SqliteStore::open_alone(&path).await?);
        let mut stores = stores.lock();
        // Somebody else may have been faster; two are no harm, but one is better.
        if let Some(first) = stores.get(&path).and_then(Weak::upgrade) {
            return Ok(first);
        }
        stores.retain(|_, store| store.strong_count() > 0);
        stores.insert(path, Arc::downgrade(&store));
        Ok(store)
    }

    /// Opens the file with threads of its own, as another process would.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_alone(path: &Path) -> Result<SqliteStore> {
        let fresh = format!("{:032x}", Random::from_system().nonce());
        let (tell, told) = tokio::sync::oneshot::channel();
        let (own, theirs) = (path.to_owned(), path.to_owned());
        let writer = Worker::start("ceiba-outbox", Does::Write, move || {
            let (connection, identity) = schema::open(&own, &fresh)?;
            let _ = tell.send(identity);
            Ok(connection)
        })
        .await?;
        let identity = told.await.map_err(|_| Error::new(Kind::Internal, "a store without an identity"))?;
        let reader =
            Worker::start("ceiba-outbox-r", Does::Read, move || schema::open_reader(&theirs)).await?;
        let numbers = Arc::new(Mutex::new(change::Numbers::from_system()));
        Ok(SqliteStore { identity, writer, numbers, reader })
    }

    /// Waits until what was asked of it is done and the file is closed.
    ///
    /// # Errors
    /// `timeout` or `cancelled`, of the context.
    pub async fn close(&self, ctx: &Context) -> Result<()> {
        self.reader.close(ctx).await?;
        self.writer.close(ctx).await
    }
}

// The folder may be reached by several names; the file may not be there yet.
fn true_path(path: &Path) -> Result<PathBuf> {
    let denied = |error: std::io::Error| {
        Error::new(Kind::Storage, format!("the outbox's file cannot be reached: {error}"))
            .caused_by(Fault::Denied)
    };
    if let Ok(there) = path.canonicalize() {
        return Ok(there);
    }
    let path = std::path::absolute(path).map_err(denied)?;
    let name: OsString = path.file_name().unwrap_or_default().to_owned();
    let folder = path.parent().unwrap_or(Path::new("/"));
    Ok(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(name))
}

impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn insert<'a>(&'a self, ctx: &'a Context, rows: Vec<NewRow>) -> BoxFuture<'a, Result<Vec<Inserted>>> {
        let bytes = rows.iter().map(|row| row.message.size()).sum();
        let numbers = self.numbers.clone();
        Box::pin(
            self.writer
                .run(ctx, bytes, move |connection| change::insert(connection, &mut numbers.lock(), &rows)),
        )
    }

    fn claim<'a>(&'a self, ctx: &'a Context, claim: Claim) -> BoxFuture<'a, Result<Claims>> {
        Box::pin(self.writer.run(ctx, 0, move |connection| change::claim(connection, &claim)))
    }

    fn settle<'a>(&'a self, ctx: &'a Context, ends: Vec<End>) -> BoxFuture<'a, Result<Vec<bool>>> {
        Box::pin(self.writer.run(ctx, 0, move |connection| change::settle(connection, &ends)))
    }

    fn holds_key<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool>> {
        let (producer, key) = (producer.to_owned(), key.to_owned());
        Box::pin(self.reader.run(ctx, 0, move |connection| look::holds_key(connection, &producer, &key)))
    }

    fn hasten<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        latest: Millis,
    ) -> BoxFuture<'a, Result<u64>> {
        let producer = producer.to_owned();
        Box::pin(self.writer.run(ctx, 0, move |connection| change::hasten(connection, &producer, latest)))
    }

    fn untold<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        now: Millis,
        until: Millis,
        rows: usize,
        shown: usize,
    ) -> BoxFuture<'a, Result<Untold>> {
        let producer = producer.to_owned();
        Box::pin(
            self.writer.run(ctx, 0, move |connection| {
                change::untold(connection, &producer, now, until, rows, shown)
            }),
        )
    }

    fn told<'a>(
        &'a self,
        ctx: &'a Context,
        rows: Vec<(RowId, u64)>,
        again: Option<Millis>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.writer.run(ctx, 0, move |connection| change::told(connection, &rows, again)))
    }

    fn list<'a>(&'a self, ctx: &'a Context, query: Query) -> BoxFuture<'a, Result<Vec<RowInfo>>> {
        Box::pin(self.reader.run(ctx, 0, move |connection| look::list(connection, &query)))
    }

    fn show<'a>(
        &'a self,
        ctx: &'a Context,
        id: RowId,
    ) -> BoxFuture<'a, Result<Option<(RowInfo, StoredMessage)>>> {
        Box::pin(self.reader.run(ctx, 0, move |connection| look::show(connection, id)))
    }

    fn revive<'a>(&'a self, ctx: &'a Context, which: Which, now: Millis) -> BoxFuture<'a, Result<Revived>> {
        Box::pin(self.writer.run(ctx, 0, move |connection| change::revive(connection, &which, now)))
    }

    fn drop_rows<'a>(
        &'a self,
        ctx: &'a Context,
        producer: Option<String>,
        ids: Vec<RowId>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Vec<Dropped>>> {
        Box::pin(
            self.writer
                .run(ctx, 0, move |connection| change::drop_rows(connection, producer.as_deref(), &ids, now)),
        )
    }

    fn purge<'a>(&'a self, ctx: &'a Context, purge: Purge) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.writer.run(ctx, 0, move |connection| change::purge(connection, &purge)))
    }

    fn stats<'a>(&'a self, ctx: &'a Context, producer: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Stats>>> {
        let producer = producer.map(str::to_owned);
        Box::pin(self.reader.run(ctx, 0, move |connection| look::stats(connection, producer.as_deref())))
    }
}
