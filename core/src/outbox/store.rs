//! What an outbox asks of a store.
//!
//! Whatever returns `Ok` is on disk. Several processes may use one store at once: a claim is theirs alone until its
//! lease ends, and who comes too late with his token changes nothing. Every wait ends with the context; an error says
//! with its outcome `unknown` that the change may have been made.

use std::sync::Arc;

use super::row::{
    Claim, Claims, Dropped, End, Inserted, Millis, NewRow, Purge, Query, Revived, RowId, RowInfo, Stats,
    StoredMessage, Untold, Which,
};
use crate::client::{BoxFuture, Context};
use crate::error::Result;

/// See the module.
pub trait Store: Send + Sync + 'static {
    /// What kind it is, for errors and the status.
    fn kind(&self) -> &'static str;

    /// The same text for as long as the store exists, and another for any other store.
    fn identity(&self) -> &str;

    /// Inserts rows, all or none. A row whose dedup key is known is not inserted; where that one is dead it begins
    /// anew, but not for one that is [`Start::Restored`](super::row::Start). A row with an order key is due once no earlier live row of the key is left.
    fn insert<'a>(&'a self, ctx: &'a Context, rows: Vec<NewRow>) -> BoxFuture<'a, Result<Vec<Inserted>>>;

    /// Claims rows: those whose lease ended first, then by due time and number.
    fn claim<'a>(&'a self, ctx: &'a Context, claim: Claim) -> BoxFuture<'a, Result<Claims>>;

    /// Ends leases. False: the lease is another's by now, and nothing changed.
    fn settle<'a>(&'a self, ctx: &'a Context, ends: Vec<End>) -> BoxFuture<'a, Result<Vec<bool>>>;

    /// Whether a live row of this producer has this order key.
    fn holds_key<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Pending rows of this producer that are due later than `latest` are due then.
    fn hasten<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        latest: Millis,
    ) -> BoxFuture<'a, Result<u64>>;

    /// Claims the telling of dead rows until `until`: at most `rows` of them, with the first `shown`.
    fn untold<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        now: Millis,
        until: Millis,
        rows: usize,
        shown: usize,
    ) -> BoxFuture<'a, Result<Untold>>;

    /// Ends the telling: `again` says when it is to be tried again, none that it is done.
    fn told<'a>(
        &'a self,
        ctx: &'a Context,
        rows: Vec<(RowId, u64)>,
        again: Option<Millis>,
    ) -> BoxFuture<'a, Result<()>>;

    /// A page of rows.
    fn list<'a>(&'a self, ctx: &'a Context, query: Query) -> BoxFuture<'a, Result<Vec<RowInfo>>>;

    /// One row with its message.
    fn show<'a>(
        &'a self,
        ctx: &'a Context,
        id: RowId,
    ) -> BoxFuture<'a, Result<Option<(RowInfo, StoredMessage)>>>;

    /// Makes rows due now: dead ones begin anew, and one of a key that waits for others goes on doing so.
    fn revive<'a>(&'a self, ctx: &'a Context, which: Which, now: Millis) -> BoxFuture<'a, Result<Revived>>;

    /// Deletes rows that nobody is sending, of this client alone where one is named.
    fn drop_rows<'a>(
        &'a self,
        ctx: &'a Context,
        producer: Option<String>,
        ids: Vec<RowId>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Vec<Dropped>>>;

    /// Deletes ended rows; returns how many.
    fn purge<'a>(&'a self, ctx: &'a Context, purge: Purge) -> BoxFuture<'a, Result<u64>>;

    /// Counts of this producer, or of each.
    fn stats<'a>(&'a self, ctx: &'a Context, producer: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Stats>>>;

    /// To be called once by each who opened it and does no more with it: the last waits until it is closed.
    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A store that several clients of a process share.
pub type Shared = Arc<dyn Store>;
