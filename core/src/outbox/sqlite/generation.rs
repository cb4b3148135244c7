//! Forks: SQLite keeps what it knows of open files and their locks in globals of the process, which a child inherits
//! and must not use: it would believe that it holds locks that are its parent's.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Kind, Result};
use crate::runtime::PerGeneration;

static OPEN: PerGeneration<AtomicUsize> = PerGeneration::new();

/// A connection that is open, or may be.
pub(super) struct Opened(&'static AtomicUsize);

impl Opened {
    /// To be made before a connection is opened, and dropped after it is closed.
    ///
    /// # Errors
    /// `forked` in a child whose parent had one at the fork.
    pub(super) fn count() -> Result<Opened> {
        if OPEN.of_ancestors().any(|open| open.load(Ordering::SeqCst) > 0) {
            let text = "the parent process had an outbox in a file open when it forked, and SQLite cannot be used in \
                        its children: open outboxes after the fork, or start a new program";
            return Err(Error::new(Kind::Forked, text));
        }
        let open = OPEN.get_or_try_init(|| Ok(AtomicUsize::new(0)))?;
        open.fetch_add(1, Ordering::SeqCst);
        Ok(Opened(open))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
