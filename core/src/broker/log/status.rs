//! What a log says of itself.

use std::time::Duration;

use super::shared::Shared;
use crate::error::Error;

/// When a record counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Fsync,
    /// Once the operating system has it: a crash of the process loses nothing, a power cut what came since the
    /// last sync. Synced this often.
    Interval(Duration),
    /// At once: nothing outlives the process.
    Memory,
}

impl Durability {
    /// The name as configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Interval(_) => "interval",
            Durability::Memory => "memory",
        }
    }
}

/// How a log does.
#[derive(Debug, Clone)]
pub(in crate::broker) enum LogState {
    Serving,
    /// Messages are refused, acks and deliveries go on; why.
    Short(Error),
    /// Nothing is accepted any more; why.
    Failed(Error),
}

/// What a log holds.
#[derive(Debug, Clone)]
pub(in crate::broker) struct LogStatus {
    pub(in crate::broker) durability: Durability,
    pub(in crate::broker) state: LogState,
    /// Segments in use.
    pub(in crate::broker) segments: usize,
    /// Bytes of their files.
    pub(in crate::broker) bytes: u64,
    /// Bytes of messages in them that are not gone.
    pub(in crate::broker) live_bytes: u64,
    /// Average duration of a sync, lately.
    pub(in crate::broker) sync: Duration,
}

impl Shared {
    pub(super) fn status(&self) -> LogStatus {
        let (segments, bytes, live_bytes) = self.segments.sums();
        let short = self.short.lock().clone();
        let state = match (self.failure(), short) {
            (Some(error), _) => LogState::Failed(error),
            (None, Some(error)) => LogState::Short(error),
            (None, None) => LogState::Serving,
        };
        let average = self.sync_average.load(std::sync::atomic::Ordering::Relaxed);
        LogStatus {
            durability: self.options.durability,
            state,
            segments,
            bytes,
            live_bytes,
            sync: Duration::from_micros(u64::from(average)),
        }
    }
}
