//! Which member of a failover is used: shared by all its sends.

use super::sync::{AtomicU64, Ordering};

/// The current member, and how often it changed: a failure moves on only from the member and the change that it
/// was seen with, so that many failures at once move on once.
#[derive(Debug)]
pub(super) struct Current {
    // The change in the upper half, the member in the lower.
    packed: AtomicU64,
    members: u32,
}

/// What a send saw when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    packed: u64,
}

impl Seen {
    /// The member's place.
    pub(super) fn place(self) -> usize {
        (self.packed & 0xffff_ffff) as usize
    }

    // A change more: it may come round after four thousand million, when nobody remembers the first.
    fn moved_to(self, place: usize) -> u64 {
        let change = ((self.packed >> 32) as u32).wrapping_add(1);
        (u64::from(change) << 32) | (place as u64 & 0xffff_ffff)
    }
}

impl Current {
    /// The first of `members`, which is at least one.
    pub(super) fn new(members: usize) -> Current {
        Current { packed: AtomicU64::new(0), members: u32::try_from(members.max(1)).unwrap_or(u32::MAX) }
    }

    /// The member to use now.
    pub(super) fn see(&self) -> Seen {
        Seen { packed: self.packed.load(Ordering::Acquire) }
    }

    /// Moves from what was seen to the member after it. False when somebody else moved first.
    pub(super) fn move_on(&self, from: Seen) -> bool {
        self.move_to(from, self.after(from))
    }

    /// The place after what was seen.
    pub(super) fn after(&self, from: Seen) -> usize {
        (from.place() + 1) % self.members as usize
    }

    /// Moves from what was seen to another member. False when somebody else moved first, or it is the same one.
    pub(super) fn move_to(&self, from: Seen, place: usize) -> bool {
        from.place() != place
            && self
                .packed
                .compare_exchange(from.packed, from.moved_to(place), Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Sets the member, whatever it was; true when that is a change.
    pub(super) fn set(&self, place: usize) -> bool {
        loop {
            let seen = self.see();
            if seen.place() == place {
                return false;
            }
            if self.move_to(seen, place) {
                return true;
            }
        }
    }
}

/// Timeouts in a row at the current member.
#[derive(Debug)]
pub(super) struct Streak {
    // The change of `Current` in the upper half, the timeouts in the lower.
    packed: AtomicU64,
}

impl Streak {
    pub(super) fn new() -> Streak {
        Streak { packed: AtomicU64::new(0) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.packed.load(Ordering::Acquire) & 0xffff_ffff
    }

    /// One more, seen with this member; returns how many there are now. One that was seen before the last change
    /// of the member counts for nothing.
    pub(super) fn add(&self, seen: Seen, current: &Current) -> u64 {
        let change = seen.packed & !0xffff_ffff;
        let mut packed = self.packed.load(Ordering::Acquire);
        loop {
            if current.see() != seen {
                return 0;
            }
            let count = if packed & !0xffff_ffff == change { packed & 0xffff_ffff } else { 0 };
            let next = (count + 1).min(0xffff_ffff);
            match self.packed.compare_exchange(packed, change | next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next,
                Err(now) => packed = now,
            }
        }
    }

    /// A success, seen with this member: the row is broken.
    pub(super) fn reset(&self, seen: Seen) {
        let change = seen.packed & !0xffff_ffff;
        let mut packed = self.packed.load(Ordering::Acquire);
        while packed & !0xffff_ffff == change && packed & 0xffff_ffff != 0 {
            match self.packed.compare_exchange(packed, change, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => packed = now,
            }
        }
    }
}

#[cfg(all(test, not(ceiba_loom)))]
mod tests {
    use super::*;

    #[test]
    fn many_failures_of_one_member_move_on_once() {
        let current = Current::new(3);
        let seen: Vec<Seen> = (0..10).map(|_| current.see()).collect();
        assert_eq!(seen.into_iter().filter(|seen| current.move_on(*seen)).count(), 1);
        assert_eq!(current.see().place(), 1);
    }

    #[test]
    fn it_goes_round_and_never_wraps() {
        let current = Current::new(3);
        for step in 1..100_000_usize {
            assert!(current.move_on(current.see()));
            assert_eq!(current.see().place(), step % 3);
        }
    }

    #[test]
    fn a_failure_seen_before_a_round_does_not_move() {
        let current = Current::new(2);
        let old = current.see();
        assert!(current.move_on(old));
        assert!(current.move_on(current.see()));
        assert_eq!(current.see().place(), old.place());
        assert!(!current.move_on(old), "the member is the same, the change is not");
    }

    #[test]
    fn a_streak_is_that_of_the_current_member() {
        let (current, streak) = (Current::new(2), Streak::new());
        let seen = current.see();
        assert_eq!((streak.add(seen, &current), streak.add(seen, &current)), (1, 2));
        streak.reset(seen);
        assert_eq!(streak.add(seen, &current), 1);
        assert!(current.move_on(seen));
        assert_eq!(streak.add(seen, &current), 0, "late news of the member before");
        assert_eq!(streak.add(current.see(), &current), 1);
    }
}

#[cfg(all(test, ceiba_loom))]
mod exhaustive {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn two_failures_of_one_member_move_on_once_in_every_order() {
        loom::model(|| {
            let current = Arc::new(Current::new(3));
            let seen = current.see();
            let other = thread::spawn({
                let current = current.clone();
                move || current.move_on(seen)
            });
            let here = current.move_on(seen);
            let there = other.join().unwrap();
            assert!(here != there);
            assert_eq!(current.see().place(), 1);
        });
    }

    #[test]
    fn timeouts_and_a_success_leave_a_streak_that_is_possible() {
        loom::model(|| {
            let (current, streak) = (Arc::new(Current::new(2)), Arc::new(Streak::new()));
            let seen = current.see();
            let timeouts = thread::spawn({
                let (current, streak) = (current.clone(), streak.clone());
                move || (streak.add(seen, &current), streak.add(seen, &current))
            });
            streak.reset(seen);
            let (first, second) = timeouts.join().unwrap();
            assert!(first == 1 && (second == 1 || second == 2));
            assert!(streak.count() <= 2);
        });
    }

    #[test]
    fn two_timeouts_move_on_once_and_the_new_member_starts_at_none() {
        loom::model(|| {
            let (current, streak) = (Arc::new(Current::new(2)), Arc::new(Streak::new()));
            let seen = current.see();
            let report = move |current: &Current, streak: &Streak| {
                streak.add(seen, current) >= 2 && current.move_on(seen)
            };
            streak.add(seen, &current);
            let other = thread::spawn({
                let (current, streak) = (current.clone(), streak.clone());
                move || report(&current, &streak)
            });
            let here = report(&current, &streak);
            let there = other.join().unwrap();
            assert!(here != there, "one of them moves");
            let now = current.see();
            assert_eq!(now.place(), 1);
            assert_eq!(streak.add(now, &current), 1);
        });
    }
}
