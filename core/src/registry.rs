//! Clients by id. Opening reserves the id at once, closing keeps it until the client has ended, and a
//! look-up takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};

enum Slot<T> {
    Opening,
    Open(Arc<T>),
    Closing,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        match self {
            Slot::Opening => Slot::Opening,
            Slot::Open(client) => Slot::Open(client.clone()),
            Slot::Closing => Slot::Closing,
        }
    }
}

type Slots<T> = HashMap<Arc<str>, Slot<T>>;

/// The longest id, in bytes.
pub const MAX_ID: usize = 256;

/// Whether a client can have this id; `noun` says what it is.
///
/// # Errors
/// `invalid_argument`.
pub fn check_id(id: &str, noun: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        let text = format!("the id of a {noun} is 1 to {MAX_ID} bytes of text without control characters");
        return Err(Error::new(Kind::InvalidArgument, text));
    }
    Ok(())
}

/// See the module. Producers and consumers have one each.
pub struct Registry<T> {
    noun: &'static str,
    slots: ArcSwap<Slots<T>>,
    // Held for the copy-and-swap of the map alone.
    write: Mutex<()>,
    version: AtomicU64,
    // Who uses which id as a member. Taken after `write` where both are.
    holders: Arc<Holders>,
}

type Holders = Mutex<HashMap<Arc<str>, Vec<Arc<str>>>>;

impl<T> Registry<T> {
    /// An empty registry of clients called `noun` in messages.
    pub fn new(noun: &'static str) -> Registry<T> {
        Registry {
            noun,
            slots: ArcSwap::from_pointee(HashMap::new()),
            write: Mutex::new(()),
            version: AtomicU64::new(1),
            holders: Arc::default(),
        }
    }

    /// Goes up with every change: what a look-up returned holds until then.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Reserves an id; it is free again when the reservation is dropped unused.
    pub fn reserve(&self, id: &str) -> Result<Reservation<'_, T>> {
        check_id(id, self.noun)?;
        let id: Arc<str> = id.into();
        self.change(|slots| match slots.get(&id) {
            Some(Slot::Closing) => Err(Error::new(
                Kind::AlreadyOpen,
                format!(
                    "the {} `{id}` is being closed: its id is free when the last of its calls has ended",
                    self.noun
                ),
            )),
            Some(_) => Err(Error::new(Kind::AlreadyOpen, format!("a {} `{id}` is open already", self.noun))),
            None => {
                slots.insert(id.clone(), Slot::Opening);
                Ok(())
            }
        })?;
        Ok(Reservation { registry: self, id, used: false })
    }

    /// The client with this id.
    pub fn get(&self, id: &str) -> Result<Arc<T>> {
        match self.slots.load().get(id) {
            Some(Slot::Open(client)) => Ok(client.clone()),
            Some(Slot::Opening) | None => {
                Err(Error::new(Kind::UnknownId, format!("no {} `{}` is open", self.noun, shown(id))))
            }
            Some(Slot::Closing) => {
                Err(Error::new(Kind::Closed, format!("the {} `{id}` is being closed", self.noun)))
            }
        }
    }

    /// The client with this id, which cannot be closed until the returned hold is dropped.
    ///
    /// # Errors
    /// `unknown_id` and `closed`.
    pub fn hold(&self, id: &str, holder: &Arc<str>) -> Result<(Arc<T>, Hold)> {
        // No close can begin between the look-up and the note.
        let _write = self.write.lock();
        let client = self.get(id)?;
        let id: Arc<str> = id.into();
        self.holders.lock().entry(id.clone()).or_default().push(holder.clone());
        Ok((client, Hold { holders: self.holders.clone(), id, holder: holder.clone() }))
    }

    /// Whether the id is taken, open or not.
    pub fn holds(&self, id: &str) -> bool {
        self.slots.load().contains_key(id)
    }

    /// The ids that are open.
    pub fn ids(&self) -> Vec<Arc<str>> {
        let slots = self.slots.load();
        slots.iter().filter(|(_, slot)| matches!(slot, Slot::Open(_))).map(|(id, _)| id.clone()).collect()
    }

    /// Takes a client out for closing: later calls get `closed`, and the id stays taken until the
    /// returned guard is dropped.
    pub fn begin_close(&self, id: &str) -> Result<(Arc<T>, Closing<'_, T>)> {
        let client = self.change(|slots| match slots.get_mut(id) {
            Some(Slot::Open(_)) if let Some(holder) = self.holder_of(id) => Err(Error::new(
                Kind::InUse,
                format!("the {} `{id}` is a member of `{holder}`: close that first", self.noun),
            )),
            Some(slot @ Slot::Open(_)) => match std::mem::replace(slot, Slot::Closing) {
                Slot::Open(client) => Ok(client),
                _ => Err(Error::new(Kind::Internal, "a slot changed under its lock")),
            },
            Some(Slot::Closing) => {
                Err(Error::new(Kind::Closed, format!("the {} `{id}` is being closed already", self.noun)))
            }
            Some(Slot::Opening) | None => {
                Err(Error::new(Kind::UnknownId, format!("no {} `{}` is open", self.noun, shown(id))))
            }
        })?;
        Ok((client, Closing { registry: self, id: id.into() }))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Slots<T>) -> Result<R>) -> Result<R> {
        let _write = self.write.lock();
        let mut slots = Slots::clone(&self.slots.load());
        let result = change(&mut slots)?;
        self.slots.store(Arc::new(slots));
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(result)
    }

    fn holder_of(&self, id: &str) -> Option<Arc<str>> {
        self.holders.lock().get(id).and_then(|holders| holders.first().cloned())
    }

    fn remove(&self, id: &str) {
        let _ = self.change(|slots| {
            slots.remove(id);
            Ok(())
        });
    }
}

// An id of any length can be asked for: a message quotes no more than the longest id.
fn shown(id: &str) -> String {
    id.chars().take(MAX_ID).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A reserved id.
pub struct Reservation<'a, T> {
    registry: &'a Registry<T>,
    id: Arc<str>,
    used: bool,
}

impl<T> Reservation<'_, T> {
    /// The id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Makes the client known.
    pub fn fill(mut self, client: Arc<T>) {
        self.used = true;
        let id = self.id.clone();
        let _ = self.registry.change(|slots| {
            slots.insert(id, Slot::Open(client));
            Ok(())
        });
    }
}

impl<T> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        if !self.used {
            self.registry.remove(&self.id);
        }
    }
}

/// A client that is being closed; dropping this frees the id.
pub struct Closing<'a, T> {
    registry: &'a Registry<T>,
    id: Arc<str>,
}

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.registry.remove(&self.id);
    }
}

/// A client that another one uses; see [`Registry::hold`].
#[derive(Debug)]
pub struct Hold {
    holders: Arc<Holders>,
    id: Arc<str>,
    holder: Arc<str>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holders = self.holders.lock();
        if let Some(of_id) = holders.get_mut(&self.id) {
            if let Some(place) = of_id.iter().position(|holder| *holder == self.holder) {
                of_id.swap_remove(place);
            }
            if of_id.is_empty() {
                holders.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_reserved_open_closing_and_free_again() {
        let registry: Registry<u32> = Registry::new("producer");
        let reservation = registry.reserve("a").unwrap();
        assert_eq!(registry.reserve("a").err().unwrap().kind(), Kind::AlreadyOpen);
        assert_eq!(registry.get("a").unwrap_err().kind(), Kind::UnknownId);
        drop(reservation);
        registry.reserve("a").unwrap().fill(Arc::new(7));
        assert_eq!(*registry.get("a").unwrap(), 7);
        let (client, closing) = registry.begin_close("a").unwrap();
        assert_eq!(*client, 7);
        assert_eq!(registry.get("a").unwrap_err().kind(), Kind::Closed);
        assert_eq!(registry.begin_close("a").err().unwrap().kind(), Kind::Closed);
        drop(closing);
        assert_eq!(registry.get("a").unwrap_err().kind(), Kind::UnknownId);
        registry.reserve("a").unwrap();
    }

    #[test]
    fn what_another_holds_is_not_closed() {
        let registry: Registry<u32> = Registry::new("producer");
        registry.reserve("a").unwrap().fill(Arc::new(7));
        let holder: Arc<str> = "pair".into();
        let (client, hold) = registry.hold("a", &holder).unwrap();
        let (_, second) = registry.hold("a", &holder).unwrap();
        assert_eq!(*client, 7);
        drop(second);
        let error = registry.begin_close("a").err().unwrap();
        assert_eq!(error.kind(), Kind::InUse);
        assert!(error.message().contains("`pair`"), "{error}");
        drop(hold);
        registry.begin_close("a").unwrap();
        assert_eq!(registry.hold("a", &holder).err().unwrap().kind(), Kind::UnknownId);
    }

    #[test]
    fn many_threads_open_an_id_once() {
        let registry: Registry<usize> = Registry::new("producer");
        for round in 0..100 {
            let id = format!("id-{round}");
            let opened: usize = std::thread::scope(|scope| {
                let opens: Vec<_> = (0..4)
                    .map(|n| {
                        let (registry, id) = (&registry, &id);
                        scope.spawn(move || registry.reserve(id).map(|slot| slot.fill(Arc::new(n))).is_ok())
                    })
                    .collect();
                opens.into_iter().map(|open| usize::from(open.join().unwrap())).sum()
            });
            assert_eq!(opened, 1);
        }
    }
}
