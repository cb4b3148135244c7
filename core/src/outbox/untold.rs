//! When somebody is told of what was given up: at the end of a run, of a drain and of the outbox, and once for each run.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::chores::Told;
use super::row::{Millis, NEVER};
use super::shared::{Shared, millis};

/// Rows that were given up are told of by then, though the run goes on; and no sooner than that after others, where there
/// are no runs.
const LATEST: Duration = Duration::from_secs(60);

/// The longest time between two digests where there is something to tell.
const LONGEST: Millis = 3_600_000;

/// See the module.
pub(super) struct Untold {
    // There is somebody to tell.
    listens: bool,
    // Rows may be dead of which nobody was told, and since when.
    may_be: bool,
    since: Instant,
    // No sooner than this.
    at: Millis,
    // The notifier failed last.
    refused: bool,
    // Drains that ended since the last digest began, and before: whoever asked for one waits until these are dropped.
    drained: Vec<oneshot::Sender<()>>,
    covered: Vec<oneshot::Sender<()>>,
    // The digest at the end is under way, or was.
    last: bool,
}

impl Untold {
    /// Earlier ones may have left something.
    pub(super) fn new(listens: bool) -> Untold {
        Untold {
            listens,
            may_be: listens,
            since: Instant::now(),
            at: 0,
            refused: false,
            drained: Vec::new(),
            covered: Vec::new(),
            last: false,
        }
    }

    /// There may be from now on.
    pub(super) fn has_more(&mut self) {
        if self.listens && !self.may_be {
            self.may_be = true;
            self.since = Instant::now();
        }
    }

    /// It need not wait: the clock that it went by was set.
    pub(super) fn at_once(&mut self) {
        self.at = 0;
    }

    /// Drains ended: whoever asked for one is told now of what there is, unless the notifier named a time, and has `told`
    /// until then.
    pub(super) fn drained(&mut self, told: Vec<oneshot::Sender<()>>, shared: &Shared) {
        let at_once = shared.tell_at_once.swap(false, Ordering::AcqRel);
        if !self.listens || self.refused && shared.now() < self.at && !at_once {
            return;
        }
        // Other processes may have given up too.
        self.has_more();
        self.drained.extend(told);
        self.at = 0;
    }

    /// Whether it is time for a digest.
    pub(super) fn is_time(&self, now: Millis, idle: bool, stopping: bool) -> bool {
        if stopping {
            // Nobody here will tell of them later. A notifier that just failed is not asked again.
            return self.may_be && idle && !self.refused && !self.last;
        }
        let soon = idle || !self.drained.is_empty() || self.since.elapsed() >= LATEST;
        self.may_be && now >= self.at && soon
    }

    /// A digest is under way: of what is given up from now on another one tells.
    pub(super) fn begins(&mut self, stopping: bool) {
        self.may_be = false;
        self.covered = std::mem::take(&mut self.drained);
        self.last |= stopping;
    }

    /// What became of it. The next is that of another run, so that those who give up row by row tell no one row by row.
    pub(super) fn told(&mut self, told: Told, shared: &Shared) {
        self.covered.clear();
        self.refused = matches!(told, Told::Again(_));
        self.may_be |= matches!(told, Told::Again(_) | Told::More);
        self.at = match told {
            Told::Nothing => return,
            Told::Again(at) => {
                self.drained.clear();
                at
            }
            Told::All | Told::More if !self.drained.is_empty() => 0,
            Told::All | Told::More => {
                let now = shared.now();
                let run = match &shared.terms.schedule {
                    Some(schedule) => schedule.after(now),
                    None => now.checked_add(millis(LATEST)),
                };
                run.unwrap_or(NEVER).min(now.saturating_add(LONGEST))
            }
        };
    }
}
