//! Whether tasks that wait for a commit have others beside them. A task that lets others go first wakes a thread of
//! the runtime for them, which costs more than it brings where there are none.

use std::sync::atomic::{AtomicU32, Ordering};

/// Waits without another beside them after which a task counts as alone.
const REMEMBERED: u32 = 64;
/// One wait of so many looks for others in any case: with one thread they cannot show while it is busy.
const LOOKS: u32 = 16;

/// The tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Company {
    here: AtomicU32,
    waits: AtomicU32,
    /// Counts down while nobody meets another.
    remembered: AtomicU32,
}

/// One task that waits.
#[derive(Debug)]
pub(super) struct Here<'a> {
    company: &'a Company,
    expects: bool,
}

impl Company {
    /// A task begins to wait.
    pub(super) fn enter(&self) -> Here<'_> {
        // Nothing depends on these but when others are looked for.
        let remembered = self.remembered.load(Ordering::Relaxed);
        let met = self.here.fetch_add(1, Ordering::Relaxed) > 0;
        let remembered = if met { REMEMBERED } else { remembered.saturating_sub(1) };
        self.remembered.store(remembered, Ordering::Relaxed);
        let waits = self.waits.fetch_add(1, Ordering::Relaxed);
        Here { company: self, expects: remembered > 0 || waits.is_multiple_of(LOOKS) }
    }
}

impl Here<'_> {
    /// Whether others are likely to be about to wait too.
    pub(super) fn is_in_company(&self) -> bool {
        self.expects
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.company.here.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_looks_around_now_and_then() {
        let company = Company::default();
        let looks = (0..1600).filter(|_| company.enter().is_in_company()).count();
        assert_eq!(looks, 100);
    }

    #[test]
    fn who_met_another_expects_some_for_a_while() {
        let company = Company::default();
        let first = company.enter();
        assert!(company.enter().is_in_company());
        drop(first);
        let expected = (0..1000).take_while(|_| company.enter().is_in_company()).count();
        assert!((60..80).contains(&expected), "{expected}");
        assert_eq!(company.here.load(Ordering::Relaxed), 0);
    }
}
