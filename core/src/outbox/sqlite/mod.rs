//! The store in a file.
//!
//! One thread writes, another reads what is committed; all clients of a process that name the same file share both.

#[cfg(test)]
mod careful;
mod change;
mod claim;
mod fault;
mod generation;
mod look;
#[cfg(test)]
mod plans;
mod schema;
mod worker;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::files::asked;
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
use worker::{Does, OPENING, Worker};

/// See the module.
pub struct SqliteStore {
    identity: String,
    path: PathBuf,
    writer: Worker,
    // Locked by the writing thread alone.
    numbers: Arc<Mutex<change::Numbers>>,
    passed: Arc<Mutex<claim::Passed>>,
    reader: Worker,
    // Sends wait for what it reads: no list is to stand before them.
    keys: OnceCell<Worker>,
    // How many have it by its path; changed while the list of open stores is locked.
    users: AtomicUsize,
}

// By the file's true path. A child of a fork has none of its parent's threads and opens its own.
static OPEN: PerGeneration<Mutex<HashMap<PathBuf, Weak<SqliteStore>>>> = PerGeneration::new();

fn open_stores() -> Result<&'static Mutex<HashMap<PathBuf, Weak<SqliteStore>>>> {
    OPEN.get_or_try_init(|| Ok(Mutex::default()))
}

fn shared(stores: &HashMap<PathBuf, Weak<SqliteStore>>, path: &Path) -> Option<Arc<SqliteStore>> {
    let store = stores.get(path).and_then(Weak::upgrade).filter(|store| store.serves())?;
    store.users.fetch_add(1, Ordering::AcqRel);
    Some(store)
}

impl SqliteStore {
    /// Opens the file, made if need be and wanted (its mode is 0600, that of folders that are made 0700); the same
    /// store for all of a process that name the same file. The last of them that closes it waits for the file.
    ///
    /// # Errors
    /// `storage`, with a [`Fault`] as its source; `not_found`; `forked` in a child whose parent had a store open at the
    /// fork.
    pub async fn open(path: &Path, create: bool) -> Result<Arc<SqliteStore>> {
        let path = match tokio::time::timeout(OPENING, asked(path, true_path)).await {
            Ok(path) => path??,
            Err(_) => return Err(Fault::Disk.error(None).retryable_is(true).at("it did not answer in time")),
        };
        let stores = open_stores()?;
        if let Some(store) = shared(&stores.lock(), &path) {
            return Ok(store);
        }
        let store = Arc::new(SqliteStore::start(&path, create).await?);
        let mut stores = stores.lock();
        // Somebody else may have been faster; two are no harm, but one is better.
        if let Some(first) = shared(&stores, &path) {
            return Ok(first);
        }
        store.users.store(1, Ordering::Release);
        stores.retain(|_, store| store.strong_count() > 0);
        stores.insert(path, Arc::downgrade(&store));
        Ok(store)
    }

    /// Opens the file with threads of its own, as another process would; it is closed with
    /// [`SqliteStore::close_file`].
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_alone(path: &Path) -> Result<SqliteStore> {
        SqliteStore::start(path, true).await
    }

    async fn start(path: &Path, create: bool) -> Result<SqliteStore> {
        let fresh = format!("{:032x}", Random::from_system().nonce());
        let (tell, told) = tokio::sync::oneshot::channel();
        let (own, theirs) = (path.to_owned(), path.to_owned());
        let writer = Worker::start("ceiba-outbox", Does::Write, move || {
            let (connection, identity) = schema::open(&own, &fresh, create)?;
            let _ = tell.send(identity);
            Ok(connection)
        })
        .await?;
        let identity = told.await.map_err(|_| Error::new(Kind::Internal, "a store without an identity"))?;
        let reader =
            Worker::start("ceiba-outbox-r", Does::Read, move || schema::open_reader(&theirs)).await?;
        let numbers = Arc::new(Mutex::new(change::Numbers::from_system()));
        Ok(SqliteStore {
            identity,
            path: path.to_owned(),
            writer,
            numbers,
            passed: Arc::default(),
            reader,
            keys: OnceCell::new(),
            users: AtomicUsize::new(0),
        })
    }

    fn serves(&self) -> bool {
        self.writer.serves() && self.reader.serves() && self.keys.get().is_none_or(Worker::serves)
    }

    async fn keys(&self) -> Result<&Worker> {
        let path = self.path.clone();
        let start = || Worker::start("ceiba-outbox-k", Does::Read, move || schema::open_reader(&path));
        self.keys.get_or_try_init(start).await
    }

    /// Waits until what was asked of it is done and the file is closed.
    ///
    /// # Errors
    /// `timeout` or `cancelled`, of the context.
    pub async fn close_file(&self, ctx: &Context) -> Result<()> {
        let workers = [Some(&self.reader), self.keys.get(), Some(&self.writer)];
        workers.iter().flatten().for_each(|worker| worker.take_no_more());
        for worker in workers.into_iter().flatten() {
            worker.close(ctx).await?;
        }
        Ok(())
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
        let (passed, mut careful) = (self.passed.clone(), false);
        Box::pin(self.writer.run(ctx, 0, move |connection| {
            let careful = std::mem::replace(&mut careful, true);
            claim::claim(connection, &mut passed.lock(), &claim, careful)
        }))
    }

    fn settle<'a>(&'a self, ctx: &'a Context, ends: Vec<End>) -> BoxFuture<'a, Result<Vec<bool>>> {
        let (passed, mut careful) = (self.passed.clone(), false);
        Box::pin(self.writer.run(ctx, 0, move |connection| {
            let careful = std::mem::replace(&mut careful, true);
            claim::settle(connection, &mut passed.lock(), &ends, careful)
        }))
    }

    fn holds_key<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool>> {
        let (producer, key) = (producer.to_owned(), key.to_owned());
        Box::pin(async move {
            let keys = ctx.run(self.keys()).await??;
            keys.run(ctx, 0, move |connection| look::holds_key(connection, &producer, &key)).await
        })
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
        Box::pin(async move {
            let (producer, ids, last) = match which {
                Which::Ids { producer, ids } => (producer, ids, None),
                // Looking for them needs no lock.
                Which::Page { producer, dead, after, limit } => {
                    let of = producer.clone();
                    let found = self.reader.run(ctx, 0, move |connection| {
                        look::later(connection, of.as_deref(), dead, now, after, limit)
                    });
                    let ids = found.await?;
                    let last = ids.last().copied().filter(|_| ids.len() >= limit);
                    (producer, ids, last)
                }
            };
            let revive = move |connection: &_| change::revive(connection, producer.as_deref(), &ids, now);
            let count = self.writer.run(ctx, 0, revive).await?;
            Ok(Revived { count, last })
        })
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
        let mut careful = false;
        Box::pin(self.writer.run(ctx, 0, move |connection| {
            let careful = std::mem::replace(&mut careful, true);
            change::purge(connection, &purge, careful)
        }))
    }

    fn stats<'a>(&'a self, ctx: &'a Context, producer: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Stats>>> {
        let producer = producer.map(str::to_owned);
        Box::pin(self.reader.run(ctx, 0, move |connection| look::stats(connection, producer.as_deref())))
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            {
                let mut stores = open_stores()?.lock();
                let users = self.users.load(Ordering::Acquire);
                self.users.store(users.saturating_sub(1), Ordering::Release);
                if users != 1 {
                    return Ok(());
                }
                // Who opens the file from now on has another.
                stores.retain(|_, store| !std::ptr::eq(store.as_ptr(), self));
            }
            self.close_file(ctx).await
        })
    }
}
