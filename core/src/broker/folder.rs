//! The data folder: made for this user alone and locked for one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// The lock on a data folder; dropping it lets the folder go.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
}

impl Folder {
    /// Makes the folder with mode 0700 if need be and locks it.
    ///
    /// # Errors
    /// `in_use` when another broker holds it, `storage` when it cannot be made or locked.
    pub(super) fn open(path: &Path) -> Result<Folder> {
        let failed = |what: &str, error: std::io::Error| {
            Error::new(Kind::Storage, format!("cannot {what} the data folder {}", path.display()))
                .caused_by(error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make", error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| failed("open", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let text = format!("the data folder {} is used by another broker", path.display());
                Err(Error::new(Kind::InUse, text))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }
}
