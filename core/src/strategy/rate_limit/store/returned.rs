//! Grants whose calls went away. Their names wait here, and one task at a time tells Redis, many in one request.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Names in one request: what Redis does at once holds up everybody else.
pub(super) const BATCH: usize = 512;

/// Names that wait. Of further ones the place is free a period later.
const MOST: usize = 65_536;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Returned(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    waiting: Vec<String>,
    // When the first of them came.
    since: Option<Instant>,
    telling: bool,
}

/// Whoever has it tells Redis. Where it goes before all was told, the next name makes another one.
#[derive(Debug)]
pub(super) struct Telling {
    names: Arc<Mutex<Names>>,
    // Then there may be another one already.
    ended: bool,
}

impl Returned {
    /// Takes a name. Where nobody tells Redis, the caller has to see to it.
    pub(super) fn put(&self, name: String) -> Option<Telling> {
        let mut names = self.0.lock();
        if names.waiting.len() < MOST {
            names.since.get_or_insert_with(Instant::now);
            names.waiting.push(name);
        }
        let first = !std::mem::replace(&mut names.telling, true);
        first.then(|| Telling { names: self.0.clone(), ended: false })
    }
}

impl Telling {
    /// At most [`BATCH`] names, and since when they wait. None when there are no more, and ever after.
    pub(super) fn next(&mut self) -> Option<(Vec<String>, Instant)> {
        if self.ended {
            return None;
        }
        let mut names = self.names.lock();
        let left = names.waiting.len().saturating_sub(BATCH);
        let batch = names.waiting.split_off(left);
        match names.since {
            Some(since) if !batch.is_empty() => {
                names.since = names.since.filter(|_| left > 0);
                Some((batch, since))
            }
            _ => {
                names.telling = false;
                self.ended = true;
                None
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.ended {
            self.names.lock().telling = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_out_in_bounded_batches_and_one_tells() {
        let returned = Returned::default();
        let mut telling = returned.put("first".into()).unwrap();
        assert!((1..3000).all(|number| returned.put(number.to_string()).is_none()));
        let mut all = std::collections::HashSet::new();
        while let Some((batch, _)) = telling.next() {
            assert!(batch.len() <= BATCH);
            all.extend(batch);
        }
        assert_eq!(all.len(), 3000);
        let again = returned.put("again".into());
        assert!(again.is_some(), "nobody tells any more");
        drop(telling);
        assert!(returned.put("and again".into()).is_none(), "two tell");
    }

    #[test]
    fn one_that_panics_has_a_successor() {
        let returned = Returned::default();
        let telling = returned.put("first".into()).unwrap();
        let panicked = std::thread::spawn(move || {
            let mut telling = telling;
            assert!(telling.next().is_none(), "there is one");
        });
        assert!(panicked.join().is_err());
        let mut telling = returned.put("second".into()).unwrap();
        assert_eq!(telling.next().unwrap().0, ["second"]);
    }

    #[test]
    fn what_waits_has_a_bound() {
        let returned = Returned::default();
        let _telling = returned.put(String::new());
        (0..MOST + 10).for_each(|_| assert!(returned.put(String::new()).is_none()));
        assert_eq!(returned.0.lock().waiting.len(), MOST);
    }
}
