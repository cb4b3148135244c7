//! Grants whose calls went away. Their names wait here, and one task at a time tells Redis, many in one request.

use parking_lot::Mutex;
use tokio::time::Instant;

/// Names in one request: what Redis does at once holds up everybody else.
pub(super) const BATCH: usize = 512;

/// Names that wait. Of further ones the place is free a period later.
const MOST: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Returned(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    waiting: Vec<String>,
    // When the first of them came.
    since: Option<Instant>,
    telling: bool,
}

impl Returned {
    /// Takes a name. True when nobody tells Redis: the caller has to see to it, until [`Returned::next`] is empty.
    pub(super) fn put(&self, name: String) -> bool {
        let mut names = self.0.lock();
        if names.waiting.len() >= MOST {
            return false;
        }
        names.since.get_or_insert_with(Instant::now);
        names.waiting.push(name);
        !std::mem::replace(&mut names.telling, true)
    }

    /// At most [`BATCH`] names, and since when they wait. None when there are no more: then nobody tells any more.
    pub(super) fn next(&self) -> Option<(Vec<String>, Instant)> {
        let mut names = self.0.lock();
        let left = names.waiting.len().saturating_sub(BATCH);
        let batch = names.waiting.split_off(left);
        match names.since {
            Some(since) if !batch.is_empty() => {
                names.since = names.since.filter(|_| left > 0);
                Some((batch, since))
            }
            _ => {
                names.telling = false;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_out_in_bounded_batches_and_one_tells() {
        let returned = Returned::default();
        let first: Vec<bool> = (0..3000).map(|number| returned.put(number.to_string())).collect();
        assert!(first[0] && !first[1..].contains(&true));
        let mut all = std::collections::HashSet::new();
        while let Some((batch, _)) = returned.next() {
            assert!(batch.len() <= BATCH);
            all.extend(batch);
        }
        assert_eq!(all.len(), 3000);
        assert!(returned.put("again".into()), "nobody tells any more");
    }

    #[test]
    fn what_waits_has_a_bound() {
        let returned = Returned::default();
        (0..MOST + 10).for_each(|_| _ = returned.put(String::new()));
        assert_eq!(returned.0.lock().waiting.len(), MOST);
    }
}
