//! A disk that fails as it is told, and that can lose its power: what was not synced is then lost, there, or
//! partly there, in any mixture of sectors. For tests.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};
use super::memory::MemoryDisk;
use super::segment::number_of;

const SECTOR: usize = 512;
pub(super) const HOLD: u64 = 1;
pub(super) const HELD: u64 = 2;

/// What the disk does wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Every sync fails with EIO.
    pub(super) sync: AtomicBool,
    /// Syncs return well and do nothing.
    pub(super) lying: AtomicBool,
    /// Every write fails with EIO.
    pub(super) write: AtomicBool,
    /// Reads fail with EIO.
    pub(super) read: AtomicBool,
    /// Files cannot be opened or made: EMFILE.
    pub(super) handles: AtomicBool,
    /// Bytes that there is room for; 0 for no bound.
    pub(super) room: AtomicU64,
    /// Room that is taken ahead is not there.
    pub(super) bare: AtomicBool,
    /// Writes and reads end early.
    pub(super) short: AtomicBool,
    /// So many files of segments cannot be renamed or removed: EIO.
    pub(super) stuck: AtomicU64,
    /// `HOLD`: the next sync waits while this is `HELD`, which it then becomes.
    pub(super) hold: AtomicU64,
    /// Syncs that returned.
    pub(super) syncs: AtomicU64,
}

fn is_set(fault: &AtomicBool) -> bool {
    fault.load(Ordering::SeqCst)
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ perhaps.
    dirty: Vec<usize>,
    reserved: u64,
}

#[derive(Debug, Clone)]
enum Naming {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut HashMap<String, u64>, naming: &Naming) {
    match naming {
        Naming::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        Naming::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
    }
}

#[derive(Debug, Default)]
struct World {
    files: HashMap<u64, Content>,
    names: HashMap<String, u64>,
    durable_names: HashMap<String, u64>,
    namings: Vec<Naming>,
    last: u64,
}

impl World {
    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.files.get(id))
            .map(|file| file.reserved.max(file.now.len() as u64))
            .sum()
    }

    fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        self.namings.push(naming);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct FaultyDisk {
    world: Arc<Mutex<World>>,
    pub(super) faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    id: u64,
    disk: FaultyDisk,
}

impl FaultyDisk {
    /// What is on disk when the power fails now.
    pub(super) fn lose_power(&self, seed: u64) -> FaultyDisk {
        let world = self.world.lock();
        let mut random = StdRng::seed_from_u64(seed);
        let mut names = world.durable_names.clone();
        // Changes of names reach the disk in order.
        let reached = random.random_range(0..=world.namings.len());
        world.namings.iter().take(reached).for_each(|naming| apply(&mut names, naming));
        let likely = random.random_range(0.0..=1.0);
        let mut ids: Vec<_> = names.values().copied().collect();
        ids.sort_unstable();
        let mut files = HashMap::new();
        for id in ids {
            let content = &world.files[&id];
            let mut bytes = content.durable.clone();
            let mut dirty = content.dirty.clone();
            dirty.sort_unstable();
            dirty.dedup();
            for sector in dirty {
                if !random.random_bool(likely) {
                    continue;
                }
                let range = sector * SECTOR..content.now.len().min((sector + 1) * SECTOR);
                if bytes.len() < range.end {
                    bytes.resize(range.end, 0);
                }
                if let Some(now) = content.now.get(range.clone()) {
                    bytes[range].copy_from_slice(now);
                }
            }
            let reserved = content.reserved;
            files.insert(id, Content { now: bytes.clone(), durable: bytes, dirty: Vec::new(), reserved });
        }
        let world =
            World { files, durable_names: names.clone(), names, namings: Vec::new(), last: world.last };
        FaultyDisk { world: Arc::new(Mutex::new(world)), faults: Arc::default() }
    }

    /// Leaves no room for anything more.
    pub(super) fn fill_up(&self) {
        let used = self.world.lock().used();
        self.faults.room.store(used, Ordering::SeqCst);
    }

    /// The files as they are now.
    pub(super) fn image(&self) -> MemoryDisk {
        let world = self.world.lock();
        let image = MemoryDisk::default();
        for (name, id) in &world.names {
            image.put(name, world.files[id].now.clone());
        }
        image
    }

    fn open_file(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { id, disk: self.clone() })
    }

    fn has_handles(&self) -> io::Result<()> {
        if is_set(&self.faults.handles) { Err(io::Error::from_raw_os_error(24)) } else { Ok(()) }
    }

    fn is_loose(&self, name: &str) -> io::Result<()> {
        let less = |stuck: u64| stuck.checked_sub(1);
        let stuck = number_of(name).is_some()
            && self.faults.stuck.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if stuck { Err(eio()) } else { Ok(()) }
    }

    fn has_room(&self, world: &World, more: u64) -> io::Result<()> {
        let room = self.faults.room.load(Ordering::SeqCst);
        let full = room > 0 && more > 0 && world.used() + more > room;
        if full { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Disk for FaultyDisk {
    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world.lock().names.keys().filter(|name| !name.contains('/')).cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.has_handles()?;
        let mut world = self.world.lock();
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.last += 1;
        let id = world.last;
        world.files.insert(id, Content::default());
        world.name(Naming::Create(name.to_owned(), id));
        Ok(self.open_file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.has_handles()?;
        let id = self.world.lock().names.get(name).copied();
        id.map(|id| self.open_file(id)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.is_loose(from)?;
        let mut world = self.world.lock();
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.is_loose(name)?;
        let mut world = self.world.lock();
        if !world.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn make_folder(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        world.durable_names = world.names.clone();
        world.namings.clear();
        Ok(())
    }

    fn release(&self) {}
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let world = self.disk.world.lock();
        let content = &world.files[&self.id];
        Ok(content.reserved.max(content.now.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if is_set(&self.disk.faults.read) {
            return Err(eio());
        }
        let world = self.disk.world.lock();
        let bytes = &world.files[&self.id].now;
        let there = bytes.get(offset as usize..).unwrap_or_default();
        let mut length = there.len().min(buffer.len());
        if is_set(&self.disk.faults.short) && length > 1 {
            length = 1 + length / 3;
        }
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if is_set(&self.disk.faults.write) {
            return Err(eio());
        }
        let cut = is_set(&self.disk.faults.short) && bytes.len() > 1;
        let bytes = if cut { &bytes[..1 + bytes.len() / 2] } else { bytes };
        let mut world = self.disk.world.lock();
        let end = offset as usize + bytes.len();
        let content = &world.files[&self.id];
        let more = (end as u64).saturating_sub(content.reserved.max(content.now.len() as u64));
        self.disk.has_room(&world, more)?;
        let content = world.files.get_mut(&self.id).unwrap();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset as usize..end].copy_from_slice(bytes);
        content.dirty.extend(offset as usize / SECTOR..=(end - 1) / SECTOR);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        if is_set(&self.disk.faults.sync) {
            return Err(eio());
        }
        let hold = &self.disk.faults.hold;
        if hold.compare_exchange(HOLD, HELD, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            while hold.load(Ordering::SeqCst) == HELD {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        self.disk.faults.syncs.fetch_add(1, Ordering::SeqCst);
        if is_set(&self.disk.faults.lying) {
            return Ok(());
        }
        let mut world = self.disk.world.lock();
        let content = world.files.get_mut(&self.id).unwrap();
        let dirty = std::mem::take(&mut content.dirty);
        let length = content.now.len();
        content.durable.resize(length, 0);
        for sector in dirty {
            let range = sector * SECTOR..length.min((sector + 1) * SECTOR);
            content.durable[range.clone()].copy_from_slice(&content.now[range]);
        }
        Ok(())
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        if is_set(&self.disk.faults.bare) {
            return Ok(());
        }
        let mut world = self.disk.world.lock();
        let content = &world.files[&self.id];
        let more = size.saturating_sub(content.reserved.max(content.now.len() as u64));
        self.disk.has_room(&world, more)?;
        world.files.get_mut(&self.id).unwrap().reserved = size;
        Ok(())
    }
}
