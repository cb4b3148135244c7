//! A disk in memory: what `durability: memory` writes to.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::disk::{Disk, DiskFile};

/// Files in memory. Nothing of them outlives it.
#[derive(Debug, Default)]
pub(in crate::broker) struct MemoryDisk {
    files: Mutex<HashMap<String, Arc<MemoryFile>>>,
}

#[derive(Debug, Default)]
pub(super) struct MemoryFile {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryDisk {
    /// The content of a file.
    #[cfg(test)]
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        self.files.lock().get(name).map(|file| file.bytes.read().clone()).unwrap_or_default()
    }

    /// Puts a file there, as if it had always been.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().insert(name.to_owned(), Arc::new(MemoryFile { bytes: RwLock::new(bytes) }));
    }
}

impl Disk for MemoryDisk {
    fn describe(&self, name: &str) -> String {
        format!("{name} in memory")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().filter(|name| !name.contains('/')).cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::<MemoryFile>::default();
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.files.lock().get(name) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn make_folder(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn release(&self) {}
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.read();
        let there = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let length = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), there.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut there = self.bytes.write();
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if there.len() == offset {
            there.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        if there.len() < end {
            there.resize(end, 0);
        }
        if let Some(place) = there.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    // Room is taken as it is written: a segment that is never reached costs nothing.
    fn preallocate(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }
}
