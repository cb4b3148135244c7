//! What the log needs of a disk, and the real one: a folder that one process holds.

use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::folder::Folder;
use crate::error::{Error, Kind, Result};

/// An open file.
pub(in crate::broker) trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads at most as many bytes as the buffer holds; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at least one byte, or fails.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Returns once all that was written is on disk.
    fn sync(&self) -> io::Result<()>;
    /// Takes room for so many bytes; those not written yet read as zeros.
    fn preallocate(&self, size: u64) -> io::Result<()>;
}

/// A folder of files.
pub(in crate::broker) trait Disk: Send + Sync + Debug {
    /// How a file is named to people.
    fn describe(&self, name: &str) -> String;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file that is not there yet, for this user alone.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read and write it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; one that has it goes.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes a folder inside, if it is not there; names inside it begin with its name and a slash.
    fn make_folder(&self, name: &str) -> io::Result<()>;
    /// Returns once all names are on disk.
    fn sync_names(&self) -> io::Result<()>;
    /// Lets other processes have the folder.
    fn release(&self);
}

/// A folder of the file system, with mode 0700 and held by this process.
#[derive(Debug)]
pub(in crate::broker) struct RealDisk {
    path: PathBuf,
    /// Open for its syncs, which must not fail for want of a handle.
    folder: File,
    /// Folders inside that were made or found.
    inner: Mutex<Vec<PathBuf>>,
    lock: Mutex<Option<Folder>>,
}

impl RealDisk {
    /// Makes the folder if need be and locks it.
    ///
    /// # Errors
    /// `in_use` when another process holds it, `storage` when it cannot be made or locked.
    pub(in crate::broker) fn open(path: &Path) -> Result<RealDisk> {
        let lock = Folder::open(path)?;
        let folder = File::open(path).map_err(|error| {
            let text = format!("cannot open the data folder {}", path.display());
            Error::new(Kind::Storage, text).caused_by(error)
        })?;
        Ok(RealDisk { path: path.to_owned(), folder, inner: Mutex::default(), lock: Mutex::new(Some(lock)) })
    }
}

impl Disk for RealDisk {
    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn make_folder(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let mut inner = self.inner.lock();
        if !inner.contains(&path) {
            inner.push(path);
        }
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let inner = self.inner.lock().clone();
        for path in inner {
            File::open(path)?.sync_all()?;
        }
        self.folder.sync_all()
    }

    fn release(&self) {
        self.lock.lock().take();
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&self, size: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            match fallocate(self, FallocateFlags::empty(), 0, size) {
                Err(Errno::INTR) => {}
                // The file system cannot: the file grows as it is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                result => return Ok(result?),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn preallocate(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Fills the buffer as far as the file reaches; returns the bytes read.
pub(super) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all these bytes.
pub(super) fn write_full(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error says that something is used up, which others may give back.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    // EMFILE and ENFILE have no kind of their own; the numbers are those of every Unix.
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory | FileTooLarge)
        || matches!(error.raw_os_error(), Some(23 | 24))
}
