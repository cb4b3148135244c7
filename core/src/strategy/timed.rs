//! The current member of a strategy that goes back to the first by time.

use super::current::{Current, Seen};
use super::sync::Lock;

/// When the member changed, and when a message was last tried at the first one. Milliseconds since any fixed moment.
#[derive(Debug, Clone, Copy)]
struct Times {
    moved: u64,
    probed: u64,
    // Told apart from an equal time by another change or probe.
    number: u64,
}

/// The member with its times. It changes under the lock of the times alone, so that nobody measures the time of one
/// change against another; who only sends through the first member takes no lock.
#[derive(Debug)]
pub(super) struct Timed {
    current: Current,
    times: Lock<Times>,
}

/// The right to try one message at the first member in this period.
#[derive(Debug)]
pub(super) struct Turn {
    before: u64,
    number: u64,
}

impl Timed {
    /// The first of `members`.
    pub(super) fn new(members: usize) -> Timed {
        Timed { current: Current::new(members), times: Lock::new(Times { moved: 0, probed: 0, number: 0 }) }
    }

    /// The member itself.
    pub(super) fn current(&self) -> &Current {
        &self.current
    }

    /// The member to use now: the first again when `return_after` has passed since the last change. With it the
    /// member that was left for that.
    pub(super) fn see(&self, now: impl Fn() -> u64, return_after: Option<u64>) -> (Seen, Option<usize>) {
        let seen = self.current.see();
        let Some(after) = return_after.filter(|_| seen.place() != 0) else { return (seen, None) };
        self.times.with(|times| {
            let seen = self.current.see();
            let now = now();
            let over = seen.place() != 0 && now.saturating_sub(times.moved) >= after;
            let left = (over && self.change(times, seen, 0, now)).then_some(seen.place());
            (self.current.see(), left)
        })
    }

    fn change(&self, times: &mut Times, from: Seen, to: usize, now: u64) -> bool {
        let changed = self.current.move_to(from, to);
        if changed {
            *times = Times { moved: now, probed: now, number: times.number + 1 };
        }
        changed
    }

    /// Moves from what was seen to the member after it. The new place, unless somebody else moved first.
    pub(super) fn move_on(&self, from: Seen, now: u64) -> Option<usize> {
        let next = self.current.after(from);
        self.times.with(|times| self.change(times, from, next, now)).then_some(next)
    }

    /// Moves from what was seen to the first. False when somebody else moved first.
    pub(super) fn back(&self, from: Seen, now: u64) -> bool {
        self.times.with(|times| self.change(times, from, 0, now))
    }

    /// Sets the member; the one before when that is a change.
    pub(super) fn set(&self, place: usize, now: u64) -> Option<usize> {
        self.times.with(|times| {
            let seen = self.current.see();
            self.change(times, seen, place, now).then_some(seen.place())
        })
    }

    /// The turn to try the first member, once in each period while another one is current.
    pub(super) fn turn(&self, seen: Seen, now: u64, every: u64) -> Option<Turn> {
        self.times.with(|times| {
            let due =
                seen.place() != 0 && self.current.see() == seen && now.saturating_sub(times.probed) >= every;
            due.then(|| {
                let turn = Turn { before: times.probed, number: times.number + 1 };
                times.probed = now;
                times.number = turn.number;
                turn
            })
        })
    }

    /// Gives back a turn that came to nothing, unless another change or turn followed it.
    pub(super) fn give_back(&self, turn: &Turn) {
        self.times.with(|times| {
            if times.number == turn.number {
                times.probed = turn.before;
            }
        });
    }
}

#[cfg(all(test, not(ceiba_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_one_in_a_period_and_can_be_given_back() {
        let timed = Timed::new(2);
        assert_eq!(timed.move_on(timed.current().see(), 100), Some(1));
        let seen = timed.current().see();
        assert!(timed.turn(seen, 109, 10).is_none());
        let turn = timed.turn(seen, 110, 10).unwrap();
        assert!(timed.turn(seen, 111, 10).is_none());
        timed.give_back(&turn);
        let turn = timed.turn(seen, 111, 10).unwrap();
        assert!(timed.back(seen, 112));
        assert_eq!(timed.set(1, 113), Some(0));
        timed.give_back(&turn);
        let now = timed.current().see();
        assert!(timed.turn(now, 122, 10).is_none(), "a change began a period of its own");
        assert!(timed.turn(seen, 900, 10).is_none(), "seen before the change");
    }
}

#[cfg(all(test, ceiba_loom))]
mod exhaustive {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn who_comes_during_a_change_does_not_go_straight_back() {
        loom::model(|| {
            let timed = Arc::new(Timed::new(2));
            // Long after the opening: a change that has no time yet would be over at once.
            let now = 10_000;
            let seen = timed.current().see();
            let other = thread::spawn({
                let timed = timed.clone();
                move || {
                    let (seen, left) = timed.see(|| now, Some(500));
                    (left, timed.turn(seen, now, 500).is_some())
                }
            });
            assert_eq!(timed.move_on(seen, now), Some(1));
            assert_eq!(other.join().unwrap(), (None, false));
            assert_eq!(timed.current().see().place(), 1);
        });
    }

    #[test]
    fn two_have_one_turn() {
        loom::model(|| {
            let timed = Arc::new(Timed::new(2));
            assert_eq!(timed.set(1, 0), Some(0));
            let other = thread::spawn({
                let timed = timed.clone();
                move || timed.turn(timed.current().see(), 1000, 500).is_some()
            });
            let here = timed.turn(timed.current().see(), 1000, 500).is_some();
            assert!(here != other.join().unwrap());
        });
    }
}
