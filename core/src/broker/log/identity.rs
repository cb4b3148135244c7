//! What a log keeps for all its life: the key of its message codes, and the salt of its crcs.

use std::io;

use rand::Rng;

use super::codec::{checksum, u64_at};
use super::disk::{Disk, read_full, write_full};

/// The file's name.
pub(super) const NAME: &str = "identity";
const UNFINISHED: &str = "identity-new";
const SIZE: usize = 48;

/// Key and salt. The key does not print.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) key: [u8; 32],
    pub(super) salt: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub(super) fn new(salt: Option<u64>) -> Identity {
        let mut random = rand::rng();
        Identity { key: random.random(), salt: salt.unwrap_or_else(|| random.random()) }
    }

    /// What is on disk; `None` where there is nothing or nothing sound.
    pub(super) fn load(disk: &dyn Disk) -> io::Result<Option<Identity>> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; SIZE];
        let read = read_full(&*file, &mut bytes, 0)?;
        Ok(if read == SIZE { Identity::parse(&bytes) } else { None })
    }

    fn parse(bytes: &[u8; SIZE]) -> Option<Identity> {
        let (covered, crc) = bytes.split_at_checked(SIZE - 8)?;
        (u64_at(crc, 0)? == u64::from(checksum(0, covered))).then_some(())?;
        Some(Identity { key: *covered.first_chunk()?, salt: u64_at(covered, 32)? })
    }

    /// Puts it on disk.
    pub(super) fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        let crc = u64::from(checksum(0, &bytes));
        bytes.extend_from_slice(&crc.to_le_bytes());
        match disk.remove(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(UNFINISHED)?;
        write_full(&*file, &bytes, 0)?;
        file.sync()?;
        disk.rename(UNFINISHED, NAME)?;
        disk.sync_names()
    }
}
