//! Calls that the task ends by itself: past their deadline, cancelled, closed.

use tokio::time::Instant;

use super::Engine;
use crate::error::{Error, Kind, Outcome};
use crate::provider::kapokmq::jobs::Job;
use crate::provider::kapokmq::lane::Lane;

impl Engine {
    /// Ends what is past its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        if !self.deadlines.due(now) {
            return;
        }
        let up = self.lanes.iter().any(|lane| lane.connection.is_up());
        let cause = if up { None } else { self.last_error.clone() };
        self.end_where(now, &mut |job| job.call.deadline <= now, &|job| {
            let text = match job.outcome() {
                Outcome::Unknown => "the deadline passed before the ack came",
                Outcome::NotSent if up => "the deadline passed before the message could be written",
                Outcome::NotSent => "the deadline passed without a connection",
            };
            // A wrong secret is no matter of time: whoever only sees the kind must not try again for ever.
            let refused = cause.as_ref().is_some_and(|cause| cause.kind() == Kind::Authentication);
            let waited = job.outcome() == Outcome::NotSent;
            let kind = if refused && waited { Kind::Authentication } else { Kind::Timeout };
            let error = job.fails(kind, text);
            match &cause {
                Some(cause) => error.caused_by(cause.clone()),
                None => error,
            }
        });
    }

    /// Ends the jobs that `which` names, wherever they are, with the error that `make` makes.
    pub(super) fn end_where(
        &mut self,
        now: Instant,
        which: &mut dyn FnMut(&Job) -> bool,
        make: &dyn Fn(&Job) -> Error,
    ) {
        let mut ends = Vec::new();
        if self.unsent.iter().any(&mut *which) {
            for job in std::mem::take(&mut self.unsent) {
                if which(&job) {
                    ends.push(job);
                } else {
                    self.unsent.push_back(job);
                }
            }
        }
        for lane in &mut self.lanes {
            ends.append(&mut lane.take_where(which));
        }
        for job in ends {
            let error = make(&job);
            self.book.fail(job, error);
        }
        self.deadlines.looked(now, self.book.live());
        for job in self.unsent.iter().chain(self.lanes.iter().flat_map(Lane::jobs)) {
            self.deadlines.note(job.call.deadline);
        }
    }

    /// Ends everything: the caller does not wait any longer.
    pub(super) fn end_all(&mut self) {
        self.intake.close();
        let jobs = std::mem::take(&mut self.unsent).into_iter();
        let written: Vec<Job> =
            self.lanes.iter_mut().flat_map(|lane| lane.take_where(&mut |_| true)).collect();
        for job in jobs.chain(written) {
            let error = job.fails(Kind::Closed, "the producer was closed");
            self.book.fail(job, error);
        }
        self.book.tell();
    }
}
