//! Stores that are open for calls by address. Opening one costs threads and a checkpoint, so it stays open for a moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::Address;
use super::desk::Desk;
use super::files::asked;
use super::open_store;
use super::store::Store;
use crate::client::Context;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::runtime::{self, PerGeneration};

/// How long one stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(3);
/// Stores that stay open at once.
const MOST: usize = 16;
/// How long a close may take that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(30);

struct Kept {
    address: Address,
    // Which file it was when it was opened.
    file: Option<(u64, u64)>,
    store: Arc<dyn Store>,
    users: usize,
    used: Instant,
}

static KEPT: PerGeneration<Mutex<Vec<Kept>>> = PerGeneration::new();

/// A desk that a call uses.
pub(crate) struct Lent {
    pub(crate) desk: Desk,
    store: Arc<dyn Store>,
}

fn kept() -> Result<&'static Mutex<Vec<Kept>>> {
    KEPT.get_or_try_init(|| Ok(Mutex::default()))
}

// A file that was deleted, or replaced by another, is not what its address names.
async fn file(ctx: &Context, address: &Address) -> Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    match address {
        Address::Sqlite(path) => ctx.run(asked(path, of)).await?,
        #[cfg(feature = "mongodb")]
        Address::Mongo(_) => Ok(None),
    }
}

/// Over all rows of the store at this address, which is made where it is missing if told.
pub(crate) async fn lend(ctx: &Context, address: &Address, create: bool) -> Result<Lent> {
    ctx.check()?;
    let there = file(ctx, address).await?;
    let take = |all: &mut Vec<Kept>, store: Option<&Arc<dyn Store>>| {
        let same = |kept: &&mut Kept| {
            kept.address == *address
                && store.map_or(kept.file == there, |store| Arc::ptr_eq(store, &kept.store))
        };
        let kept = all.iter_mut().find(same)?;
        kept.users += 1;
        Some(kept.store.clone())
    };
    if let Some(store) = take(&mut kept()?.lock(), None) {
        return Ok(Lent::of(store));
    }
    let store = ctx.run(open_store(address, create)).await??;
    // It may just have been made.
    let file = match file(ctx, address).await {
        Ok(file) => file,
        Err(error) => {
            close_behind(store);
            return Err(error);
        }
    };
    let mut all = kept()?.lock();
    if take(&mut all, Some(&store)).is_some() {
        // Another call was as fast; one of the two openings is enough.
        drop(all);
        close_behind(store.clone());
        return Ok(Lent::of(store));
    }
    if all.len() >= MOST {
        let idle =
            all.iter().enumerate().filter(|(_, kept)| kept.users == 0).min_by_key(|(_, kept)| kept.used);
        match idle.map(|(place, _)| place) {
            Some(place) => close_behind(all.swap_remove(place).store),
            None => {
                close_behind(store);
                return Err(Error::new(Kind::QueueFull, "too many outboxes are used by address at once"));
            }
        }
    }
    let kept = Kept { address: address.clone(), file, store: store.clone(), users: 1, used: Instant::now() };
    all.push(kept);
    drop(all);
    watch(store.clone());
    Ok(Lent::of(store))
}

impl Lent {
    fn of(store: Arc<dyn Store>) -> Lent {
        Lent { desk: Desk::new(store.clone(), Clock::from_system(), None), store }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Ok(kept) = kept() else { return };
        let mut all = kept.lock();
        if let Some(kept) = all.iter_mut().find(|kept| Arc::ptr_eq(&kept.store, &self.store)) {
            kept.users = kept.users.saturating_sub(1);
            kept.used = Instant::now();
        }
    }
}

// Closes it once it was idle for long enough.
fn watch(store: Arc<dyn Store>) {
    let Ok(handle) = runtime::handle() else { return };
    handle.spawn(async move {
        loop {
            tokio::time::sleep(IDLE).await;
            let Ok(kept) = kept() else { return };
            let mut all = kept.lock();
            let Some(place) = all.iter().position(|kept| Arc::ptr_eq(&kept.store, &store)) else { return };
            if all.get(place).is_some_and(|kept| kept.users == 0 && kept.used.elapsed() >= IDLE) {
                all.swap_remove(place);
                break;
            }
        }
        let _ = store.close(&Context::within(PATIENCE)).await;
    });
}

fn close_behind(store: Arc<dyn Store>) {
    if let Ok(handle) = runtime::handle() {
        handle.spawn(async move { store.close(&Context::within(PATIENCE)).await });
    }
}

/// Closes those that nobody uses.
///
/// # Errors
/// The first that a close had.
pub(crate) async fn close_idle(ctx: &Context) -> Result<()> {
    let Some(kept) = KEPT.get() else { return Ok(()) };
    let idle: Vec<Kept> = {
        let mut all = kept.lock();
        let (idle, used) = std::mem::take(&mut *all).into_iter().partition(|kept| kept.users == 0);
        *all = used;
        idle
    };
    let mut done = Ok(());
    for kept in idle {
        let closed = kept.store.close(ctx).await;
        done = done.and(closed);
    }
    done
}
