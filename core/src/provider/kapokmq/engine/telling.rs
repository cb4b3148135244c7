//! What the task tells of its state: to `status`, and to who waits for the opening.

use std::sync::atomic::Ordering;

use super::{Engine, FURTHER_NODES};
use crate::provider::socket::{LaneState, Phase, RegistryState, permanent};

impl Engine {
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Up)
    }

    /// Whether the opening failed: no further connection is made then.
    pub(super) fn hopeless(&self) -> bool {
        self.eager && matches!(*self.phase.borrow(), Phase::Failed(_))
    }

    /// Shows the state, and tells who opens how far it is.
    pub(super) fn publish(&mut self) {
        for lane in &self.lanes {
            lane.gauge();
        }
        self.board.acked.store(self.book.acks(), Ordering::Relaxed);
        let changed = std::mem::take(&mut self.changed);
        if changed {
            let up = self.lanes.iter().filter(|lane| lane.connection.is_up());
            let mut extended = up.map(|lane| lane.connection.extended()).peekable();
            // Without a connection what was last known holds.
            if extended.peek().is_some() {
                self.board.extended.store(extended.all(|extended| extended), Ordering::Relaxed);
            }
            self.show();
        }
        // Shown first: who waited for the opening may look at once.
        if !self.is_open() {
            self.tell_opening(changed);
        }
    }

    fn show(&self) {
        let mut shown = self.board.shown.lock();
        shown.lanes = self
            .lanes
            .iter()
            .map(|lane| LaneState {
                label: lane.connection.target.label.clone(),
                state: if lane.retiring { "leaving" } else { lane.connection.state_name() },
                unacked: lane.gauge.clone(),
                last_error: lane.last_error.clone(),
            })
            .collect();
        shown.registry = self.registry.as_ref().map(|registry| RegistryState {
            label: registry.label().clone(),
            stale: self.registry_error.clone(),
        });
        shown.last_error = self.last_error.clone();
    }

    fn tell_opening(&self, changed: bool) {
        let settled = self.lanes.iter().all(|lane| lane.connection.settled());
        if let Some(first) = self.first_up {
            if settled || first.elapsed() >= FURTHER_NODES {
                self.phase.send_replace(Phase::Up);
            }
            return;
        }
        if !changed {
            return;
        }
        let hopeless = match &self.registry_error {
            Some(error) if self.lanes.is_empty() => Some(error),
            _ if settled => self.lanes.iter().filter_map(|lane| lane.last_error.as_ref()).next(),
            _ => None,
        };
        let phase = match hopeless.filter(|error| permanent(error)) {
            Some(error) => Phase::Failed(error.clone()),
            None => Phase::Starting(self.last_error.clone()),
        };
        self.phase.send_replace(phase);
    }
}
