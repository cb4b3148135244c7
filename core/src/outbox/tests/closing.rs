//! A close waits for what is given back.

use super::*;
use crate::outbox::row::{
    Claim, Claims, Dropped, End, Inserted, Purge, Query, Revived, RowId, RowInfo, Stats, Untold, Which,
};

/// A store that takes its time to end leases.
struct Slow(Arc<dyn Store>);

impl Store for Slow {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn identity(&self) -> &str {
        self.0.identity()
    }

    fn insert<'a>(&'a self, ctx: &'a Context, rows: Vec<NewRow>) -> BoxFuture<'a, Result<Vec<Inserted>>> {
        self.0.insert(ctx, rows)
    }

    fn claim<'a>(&'a self, ctx: &'a Context, claim: Claim) -> BoxFuture<'a, Result<Claims>> {
        self.0.claim(ctx, claim)
    }

    fn settle<'a>(&'a self, ctx: &'a Context, ends: Vec<End>) -> BoxFuture<'a, Result<Vec<bool>>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.0.settle(ctx, ends).await
        })
    }

    fn holds_key<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<bool>> {
        self.0.holds_key(ctx, producer, key)
    }

    fn hasten<'a>(
        &'a self,
        ctx: &'a Context,
        producer: &'a str,
        latest: Millis,
    ) -> BoxFuture<'a, Result<u64>> {
        self.0.hasten(ctx, producer, latest)
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
        self.0.untold(ctx, producer, now, until, rows, shown)
    }

    fn told<'a>(
        &'a self,
        ctx: &'a Context,
        rows: Vec<(RowId, u64)>,
        again: Option<Millis>,
    ) -> BoxFuture<'a, Result<()>> {
        self.0.told(ctx, rows, again)
    }

    fn list<'a>(&'a self, ctx: &'a Context, query: Query) -> BoxFuture<'a, Result<Vec<RowInfo>>> {
        self.0.list(ctx, query)
    }

    fn show<'a>(
        &'a self,
        ctx: &'a Context,
        id: RowId,
    ) -> BoxFuture<'a, Result<Option<(RowInfo, StoredMessage)>>> {
        self.0.show(ctx, id)
    }

    fn revive<'a>(&'a self, ctx: &'a Context, which: Which, now: Millis) -> BoxFuture<'a, Result<Revived>> {
        self.0.revive(ctx, which, now)
    }

    fn drop_rows<'a>(
        &'a self,
        ctx: &'a Context,
        producer: Option<String>,
        ids: Vec<RowId>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Vec<Dropped>>> {
        self.0.drop_rows(ctx, producer, ids, now)
    }

    fn purge<'a>(&'a self, ctx: &'a Context, purge: Purge) -> BoxFuture<'a, Result<u64>> {
        self.0.purge(ctx, purge)
    }

    fn stats<'a>(&'a self, ctx: &'a Context, producer: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Stats>>> {
        self.0.stats(ctx, producer)
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        self.0.close(ctx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_nobody_sends_any_more_is_given_back_before_the_store_is_closed() {
    for (time, late) in [(Duration::from_secs(20), false), (Duration::ZERO, true)] {
        let (folder, inner) = (Folder::new(), StandIn::new([], Step::Sent));
        let store = SqliteStore::open(&folder.file(), true).await.unwrap();
        let slow: Arc<dyn Store> = Arc::new(Slow(store));
        let outbox = opened(json!({"when": "always"}), &inner, None, &slow, &Time::new());
        until("the first look", || !outbox.shared.behind.load(Ordering::SeqCst)).await;
        // It comes when the runner has ended, and the store is still open.
        outbox.runner.close(&soon()).await.unwrap();
        outbox.send(&soon(), Arc::new(Message::new("late"))).await.unwrap();
        let closed = outbox.close(&Context::within(time)).await;
        assert_eq!(closed.is_err(), late, "{closed:?}");
        drop((outbox, slow));
        let store = another(&folder.file()).await;
        let rows = store.stats(&soon(), Some("orders")).await.unwrap().remove(0).rows;
        assert_eq!((rows, inner.count()), ([1, 0, 0, 0], 0), "{late}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_whose_caller_went_away_ends_before_the_store_is_closed() {
    let (folder, inner) = (Folder::new(), StandIn::new([], Step::Sent));
    let store = SqliteStore::open(&folder.file(), true).await.unwrap();
    let slow: Arc<dyn Store> = Arc::new(Slow(store));
    let outbox = opened(json!({"when": "always"}), &inner, None, &slow, &Time::new());
    until("the first look", || !outbox.shared.behind.load(Ordering::SeqCst)).await;
    outbox.runner.close(&soon()).await.unwrap();
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ctx = soon();
    let mut send = outbox.send(&ctx, Arc::new(Message::new("left")));
    assert!(futures_util::poll!(&mut send).is_pending());
    drop(send);
    let closing = {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.close(&soon()).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.execute_batch("ROLLBACK").unwrap();
    closing.await.unwrap().unwrap();
    drop((outbox, slow));
    let rows = another(&folder.file()).await.stats(&soon(), Some("orders")).await.unwrap().remove(0).rows;
    assert_eq!((rows, inner.count()), ([1, 0, 0, 0], 0));
}
