//! The data folder: made for this user alone and locked for one process, whose id stands in the lock's file.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
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
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| failed("open", error))?;
        match lock.try_lock() {
            Ok(()) => {
                // For the text of whoever finds it locked. A disk that is full is no reason not to start.
                let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
                if let Err(error) = told {
                    tracing::debug!(%error, "the lock of the data folder does not name this process");
                }
                Ok(Folder { _lock: lock })
            }
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut lock);
                let text = format!("the data folder {} is used by {holder}", path.display());
                Err(Error::new(Kind::InUse, text))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }
}

/// Who holds a lock, as far as its file says.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    // No id of a process is longer.
    let read = lock.take(20).read_to_string(&mut text).is_ok();
    match text.trim_end().parse::<u32>() {
        Ok(id) if read && id == std::process::id() => "another broker of this process".to_owned(),
        Ok(id) if read => format!("the broker of process {id}: stop that one, or name another folder"),
        _ => "another broker".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_it_locked_is_told_by_whom() {
        let path = std::env::temp_dir().join(format!("ceiba-folder-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        // Longer than an id: the rest of an earlier text must not stay.
        std::fs::write(path.join("lock"), "4294967295 and more\n").unwrap();
        let held = Folder::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
        let error = Folder::open(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::InUse);
        assert!(error.message().ends_with("is used by another broker of this process"), "{error}");
        // As if another process had it.
        std::fs::write(path.join("lock"), "4294967295\n").unwrap();
        let error = Folder::open(&path).unwrap_err();
        assert!(error.message().contains("used by the broker of process 4294967295"), "{error}");
        std::fs::write(path.join("lock"), "").unwrap();
        assert!(Folder::open(&path).unwrap_err().message().ends_with("is used by another broker"));
        drop(held);
        drop(Folder::open(&path).unwrap());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
