//! What the log's threads and its callers share. Locks are taken in the order writer, pending, recent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use super::clean::Living;
use super::company::Company;
use super::disk::Disk;
use super::identity::Identity;
use super::pending::Pending;
use super::read::Recent;
use super::segment::Segments;
use super::stock::Stock;
use super::writer::Writer;
use super::{Durability, LogOptions};
use crate::error::{Error, Kind};

/// What a start leads to.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) segments: Segments,
    pub(super) pending: Pending,
    pub(super) writer: Writer,
    pub(super) stock: Stock,
    pub(super) next_topic: u32,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) identity: Identity,
    pub(super) pending: Mutex<Pending>,
    /// Wakes the writer thread; goes with `pending`.
    pub(super) writer_work: Condvar,
    /// Held by whoever commits.
    pub(super) writer: Mutex<Writer>,
    pub(super) recent: Recent,
    pub(super) segments: Segments,
    /// All before this position is as safe as the durability asks.
    pub(super) committed: AtomicU64,
    /// Signalled whenever `committed` grew or the log failed.
    pub(super) advanced: Notify,
    /// Average duration of a sync in microseconds.
    pub(super) sync_average: AtomicU32,
    pub(super) company: Company,
    pub(super) stock: Mutex<Stock>,
    /// Wakes the stock thread; goes with `stock`.
    pub(super) stock_work: Condvar,
    /// The stock holds a reserve.
    pub(super) has_reserve: AtomicBool,
    /// Signalled whenever a segment was prepared, or could not be.
    pub(super) stocked: Notify,
    /// Bytes of messages that were admitted and may not be appended yet.
    pub(super) admitted: AtomicU64,
    /// The most bytes that wait for admission.
    pub(super) demand: AtomicU64,
    /// No segment is used again while this is held for reading.
    pub(super) readers: RwLock<()>,
    pub(super) next_topic: AtomicU32,
    pub(super) living: OnceLock<Weak<dyn Living>>,
    /// Long work of the stock thread is to end.
    pub(super) stopping: AtomicBool,
    failed: OnceLock<Error>,
    /// Something was taken and found no room.
    pub(super) holding: AtomicBool,
    /// Why no segment could be made last, until one was.
    pub(super) short: Mutex<Option<Error>>,
}

impl Shared {
    pub(super) fn new(options: LogOptions, disk: Arc<dyn Disk>, identity: Identity, begun: Begun) -> Shared {
        let Begun { segments, pending, writer, stock, next_topic } = begun;
        let committed = writer.written;
        Shared {
            recent: Recent::new(options.recent_bytes),
            options,
            disk,
            identity,
            pending: Mutex::new(pending),
            writer_work: Condvar::new(),
            writer: Mutex::new(writer),
            segments,
            committed: AtomicU64::new(committed),
            advanced: Notify::new(),
            sync_average: AtomicU32::new(0),
            company: Company::default(),
            stock: Mutex::new(stock),
            stock_work: Condvar::new(),
            has_reserve: AtomicBool::new(false),
            stocked: Notify::new(),
            admitted: AtomicU64::new(0),
            demand: AtomicU64::new(0),
            readers: RwLock::new(()),
            next_topic: AtomicU32::new(next_topic),
            living: OnceLock::new(),
            stopping: AtomicBool::new(false),
            failed: OnceLock::new(),
            holding: AtomicBool::new(false),
            short: Mutex::new(None),
        }
    }

    /// Why the log takes nothing any more.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.get().cloned()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Takes nothing any more: what may not be on disk is never said to be, and nothing is tried again.
    pub(super) fn fail(&self, error: Error) {
        if error.kind() != Kind::Closed {
            tracing::error!(%error, "the log failed: no message is accepted until the broker starts again");
        }
        let _ = self.failed.set(error);
        self.pending.lock().give_up();
        self.advanced.notify_waiters();
        self.stocked.notify_waiters();
        self.writer_work.notify_all();
        self.stock_work.notify_all();
    }

    /// The same, called with `pending` locked, whose owner gives it up.
    pub(super) fn too_large(&self) {
        let _ = self.failed.set(Error::new(Kind::Internal, "a record over every limit was appended"));
        self.advanced.notify_waiters();
        self.stocked.notify_waiters();
    }

    pub(super) fn in_memory(&self) -> bool {
        self.options.durability == Durability::Memory
    }

    pub(super) fn is_committed(&self, position: u64) -> bool {
        self.committed.load(Ordering::Acquire) >= position
    }
}
