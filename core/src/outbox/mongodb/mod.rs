//! The store in a database of MongoDB, which clients on several machines share.
//!
//! It asks for nothing but changes that are atomic for one document, so a single server will do. Whatever is told to be stored is
//! with the majority and on its disks. Leases end by the clocks of those who claim: they must agree to a part of a
//! lease.

mod body;
mod change;
mod claim;
mod database;
mod fault;
mod form;
mod group;
mod hold;
mod insert;
mod line;
mod look;
mod settle;
mod table;
mod target;
mod tidy;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::row::{
    Claim, Claims, Dropped, End, Inserted, Millis, NewRow, Purge, Query, Revived, RowId, RowInfo, Stats,
    StoredMessage, Untold, Which,
};
use super::store::Store;
use crate::client::{BoxFuture, Context};
use crate::error::Result;
use crate::runtime::PerGeneration;

use database::{Database, LONGEST, bounded};
pub use fault::Fault;
use group::{Group, Room};
use insert::Prepared;
pub use target::Target;
use tidy::Tidying;

/// How long a claim waits for bodies.
const READ: Duration = Duration::from_secs(60);
/// How long a close waits for what a claim left.
const LEAVE: Duration = Duration::from_secs(3);

/// See the module.
pub struct MongoStore {
    identity: String,
    database: Arc<Database>,
    room: Room,
    inserts: Group<Prepared, Vec<Inserted>>,
    settles: Group<Vec<End>, Vec<bool>>,
    tidying: Tidying,
}

type Open = Mutex<Vec<(Target, Weak<MongoStore>)>>;

// A child of a fork has none of its parent's connections and makes its own.
static OPEN: PerGeneration<Open> = PerGeneration::new();

impl MongoStore {
    /// Connects, and makes the collections and their indexes if need be; the same store for all of a process that
    /// give the same address.
    ///
    /// # Errors
    /// `storage`, with a [`Fault`] as its source; `invalid_config`; `timeout`.
    pub async fn open(target: &Target) -> Result<Arc<MongoStore>> {
        let stores = OPEN.get_or_try_init(|| Ok(Mutex::default()))?;
        let there = |stores: &mut Vec<(Target, Weak<MongoStore>)>| {
            stores.retain(|(_, store)| store.strong_count() > 0);
            let found = stores.iter().find(|(of, _)| of == target);
            found.and_then(|(_, store)| store.upgrade())
        };
        if let Some(store) = there(&mut stores.lock()) {
            return Ok(store);
        }
        let store = Arc::new(MongoStore::open_alone(target).await?);
        let mut stores = stores.lock();
        // Somebody else may have been faster; two are no harm, but one is better.
        if let Some(first) = there(&mut stores) {
            return Ok(first);
        }
        stores.push((target.clone(), Arc::downgrade(&store)));
        Ok(store)
    }

    /// Connects with connections of its own, as another process would.
    ///
    /// # Errors
    /// As [`MongoStore::open`].
    pub async fn open_alone(target: &Target) -> Result<MongoStore> {
        let (database, identity) = Database::open(target).await?;
        let database = Arc::new(database);
        let (inserting, settling) = (database.clone(), database.clone());
        let inserts = Group::new(Box::new(move |calls| {
            let database = inserting.clone();
            Box::pin(async move { database.insert(calls).await }) as BoxFuture<'static, _>
        }));
        let settles = Group::new(Box::new(move |calls| {
            let database = settling.clone();
            Box::pin(async move { database.settle(calls).await }) as BoxFuture<'static, _>
        }));
        let tidying = Tidying::default();
        Ok(MongoStore { identity, database, room: Room::new(), inserts, settles, tidying })
    }

    /// Deletes what was written of bodies before `before`, by the writers' clocks, and never came into a row. It is done
    /// by itself once an hour for what is an hour old.
    ///
    /// # Errors
    /// `storage`, `timeout` and `cancelled`.
    pub async fn sweep(&self, ctx: &Context, before: Millis) -> Result<()> {
        let sweeps = async {
            let mut after = Some(String::new());
            while let Some(last) = after {
                after = self.database.sweep(last, before).await?;
            }
            Ok(())
        };
        bounded(ctx, true, sweeps).await
    }
}

impl Store for MongoStore {
    fn kind(&self) -> &'static str {
        "mongodb"
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn insert<'a>(&'a self, ctx: &'a Context, rows: Vec<NewRow>) -> BoxFuture<'a, Result<Vec<Inserted>>> {
        Box::pin(async move {
            let bytes = rows.iter().map(|row| row.message.size()).sum();
            let held = self.room.take(ctx, bytes).await?;
            // No row is there yet: what was written of it is swept.
            let prepared = bounded(ctx, false, self.database.prepare(rows)).await?;
            let (keys, bytes) = (prepared.keys(), prepared.bytes());
            self.inserts.run(ctx, prepared, keys, bytes, held).await
        })
    }

    fn claim<'a>(&'a self, ctx: &'a Context, claim: Claim) -> BoxFuture<'a, Result<Claims>> {
        Box::pin(async move {
            let ctx = ctx.clone().at_most(LONGEST);
            // The rest of the time is for what comes before the sends.
            let time = (ctx.remaining().unwrap_or(LONGEST) / 2).min(READ);
            bounded(&ctx, true, self.database.claim(&claim, Instant::now() + time)).await
        })
    }

    fn settle<'a>(&'a self, ctx: &'a Context, ends: Vec<End>) -> BoxFuture<'a, Result<Vec<bool>>> {
        Box::pin(async move {
            let held = self.room.take(ctx, 0).await?;
            self.settles.run(ctx, ends, Vec::new(), 0, held).await
        })
    }

    fn holds_key<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(bounded(ctx, false, self.database.holds_key(producer, key)))
    }

    fn hasten<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        latest: Millis,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(bounded(ctx, true, self.database.hasten(producer, latest)))
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
        Box::pin(bounded(ctx, true, self.database.untold(producer, [now, until], rows, shown)))
    }

    fn told<'a>(
        &'a self,
        ctx: &'a Context,
        rows: Vec<(RowId, u64)>,
        again: Option<Millis>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { bounded(ctx, true, self.database.told(&rows, again)).await })
    }

    fn list<'a>(&'a self, ctx: &'a Context, query: Query) -> BoxFuture<'a, Result<Vec<RowInfo>>> {
        Box::pin(async move { bounded(ctx, false, self.database.list(&query)).await })
    }

    fn show<'a>(
        &'a self,
        ctx: &'a Context,
        id: RowId,
    ) -> BoxFuture<'a, Result<Option<(RowInfo, StoredMessage)>>> {
        Box::pin(bounded(ctx, false, self.database.show(id)))
    }

    fn revive<'a>(&'a self, ctx: &'a Context, which: Which, now: Millis) -> BoxFuture<'a, Result<Revived>> {
        Box::pin(async move { bounded(ctx, true, self.database.revive(&which, now)).await })
    }

    fn drop_rows<'a>(
        &'a self,
        ctx: &'a Context,
        producer: Option<String>,
        ids: Vec<RowId>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Vec<Dropped>>> {
        Box::pin(
            async move { bounded(ctx, true, self.database.drop_rows(producer.as_deref(), &ids, now)).await },
        )
    }

    fn purge<'a>(&'a self, ctx: &'a Context, purge: Purge) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let purged = bounded(ctx, true, self.database.purge(&purge)).await?;
            // The runner of each client asks for this again and again.
            let _ = ctx.run(self.database.tidy(&self.tidying)).await;
            Ok(purged)
        })
    }

    fn stats<'a>(&'a self, ctx: &'a Context, producer: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Stats>>> {
        Box::pin(bounded(ctx, false, self.database.stats(producer)))
    }

    // What a claim left goes back before the process ends. Where that is not soon, the leases end by themselves.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _ = ctx.clone().at_most(LEAVE).run(self.database.given_back.wait()).await;
            Ok(())
        })
    }
}
