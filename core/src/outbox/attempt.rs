//! One attempt at a row: the send, and what becomes of the row.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::OnUnknown;
use super::row::{Claimed, End, How, Millis, StoredMessage};
use super::shared::{Direct, Shared, Slot, Until, count};
use super::stored::{self, Lost};
use super::verdict::{self, Verdict};
use crate::client::{Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// What ends the lease of a row, and when it ends by itself. A claim may find the row again while it is under way here:
/// then the lease is the new one.
#[derive(Clone)]
pub(super) struct Lease(Arc<Mutex<(u64, Until)>>);

impl Lease {
    /// The row was claimed anew.
    pub(super) fn renewed(&self, token: u64, until: Until) {
        *self.0.lock() = (token, until);
    }

    fn now(&self) -> (u64, Until) {
        *self.0.lock()
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    /// The row is dead now.
    pub(super) dead: bool,
    /// A row is due by it: the next of its key, or this one because it was not tried.
    pub(super) leaves: bool,
}

/// A row that is about to be sent, with its place.
pub(super) struct Attempt {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Arc<dyn Producer>,
    pub(super) kill: CancellationToken,
    row: Claimed,
    message: Option<Arc<Message>>,
    lease: Lease,
    _slot: Slot,
}

impl Attempt {
    pub(super) fn new(
        shared: &Arc<Shared>,
        inner: &Arc<dyn Producer>,
        kill: &CancellationToken,
        direct: Direct,
    ) -> Attempt {
        Attempt {
            shared: shared.clone(),
            inner: inner.clone(),
            kill: kill.clone(),
            lease: Lease(Arc::new(Mutex::new((direct.row.token, direct.until)))),
            row: direct.row,
            message: direct.message,
            _slot: direct.slot,
        }
    }

    /// Its lease.
    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// When the message was accepted.
    pub(super) fn accepted(&self) -> Millis {
        self.row.accepted
    }

    /// Sends it and ends its lease.
    pub(super) async fn run(self) -> Ended {
        // Another may send the row once the lease ends: there must be time for a whole attempt.
        let least = self.shared.deadline + self.spare() / 4;
        if self.row.unread.is_none() && self.lease.now().1.left(&self.shared) < least {
            count(&self.shared.counts.late);
            tracing::warn!(id = %self.shared.id, row = %self.row.id, "a row was given back: too little was left of its lease");
            return self.ended(How::Released).await;
        }
        let how = match (&self.message, &self.row.unread) {
            (None, Some(error)) => self.unread(error),
            (Some(message), _) => self.send(message.clone(), Vec::new()).await,
            (None, None) => match stored::load(&self.row.message) {
                Ok((message, lost)) => self.send(Arc::new(message), lost).await,
                Err(error) => self.dead(verdict::noted(&error), None),
            },
        };
        self.ended(how).await
    }

    async fn ended(&self, how: How) -> Ended {
        let ended = match how {
            How::Released => Ended { dead: false, leaves: true },
            How::Again { .. } => Ended::default(),
            How::Sent { .. } => Ended { dead: false, leaves: self.shared.terms.config.ordered },
            How::Dead { .. } => Ended { dead: true, leaves: self.shared.terms.config.ordered },
        };
        if self.end(how).await { ended } else { Ended::default() }
    }

    // What the lease has beside the time of the send.
    fn spare(&self) -> Duration {
        self.shared.lease.saturating_sub(self.shared.deadline)
    }

    async fn send(&self, message: Arc<Message>, lost: Vec<Lost>) -> How {
        let now = self.delayed(&message);
        let ctx = Context::within(self.shared.deadline).cancelled_by(self.kill.clone());
        // A producer that forgets its deadline must not outlive the lease, and its end is still to be noted.
        let lease = self.lease.now().1.left(&self.shared).saturating_sub(self.spare() / 8);
        let most = (self.shared.deadline + self.spare() / 4).min(lease);
        let send = AssertUnwindSafe(async { self.inner.send(&ctx, now).await }).catch_unwind();
        let sent = match tokio::time::timeout(most, send).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) => Err(Error::new(Kind::Internal, "the send panicked").outcome_is(Outcome::Unknown)),
            Err(_) => Err(Error::new(Kind::Timeout, "the send did not end at its deadline")
                .outcome_is(Outcome::Unknown)),
        };
        self.judged(&message, lost, sent)
    }

    // As it is to be sent now: what is left of its delay.
    fn delayed(&self, message: &Arc<Message>) -> Arc<Message> {
        if message.delay().is_zero() {
            return message.clone();
        }
        let passed = self.shared.now().saturating_sub(self.row.accepted).max(0);
        let passed = Duration::from_millis(u64::try_from(passed).unwrap_or_default());
        let mut now = Message::clone(message);
        now.set_delay(message.delay().saturating_sub(passed));
        Arc::new(now)
    }

    fn judged(&self, message: &Message, mut lost: Vec<Lost>, sent: Result<Receipt>) -> How {
        let error = match sent {
            Ok(_) if lost.is_empty() => {
                count(&self.shared.counts.sent);
                return How::Sent { keep: !self.shared.terms.keep_done.is_zero() };
            }
            // Everybody else has it: those whom it could not reach are not forgotten.
            Ok(_) => {
                count(&self.shared.counts.sent);
                let mut left = Message::clone(message);
                left.fields_mut().recipients = lost.iter().map(|lost| lost.recipient.clone()).collect();
                left.set_rest();
                return self.dead_uncounted(verdict::lost(&lost), stored::store(&left, &[]).ok());
            }
            Err(error) if self.was_killed(&error) => return How::Released,
            Err(error) => error,
        };
        count(&self.shared.counts.failed);
        let noted = verdict::noted(&error);
        // There is no caller who could have cancelled it.
        let rest = match verdict::of(message, &error, self.shared.terms.config.on_unknown, false) {
            Verdict::Never(why) => return self.dead(verdict::ended(&error, why), None),
            Verdict::Again => None,
            Verdict::Rest(rest, more) => {
                lost.extend(more);
                stored::store(&rest, &lost).ok()
            }
        };
        let counted = verdict::counts(&error);
        let failures = self.row.attempts.saturating_add(u32::from(counted));
        if counted && failures >= self.shared.terms.config.max_attempts {
            return self.dead(noted, rest);
        }
        let least = error.retry_after().unwrap_or_default();
        // What was held back here is not tried in a circle.
        let least = if counted { least } else { least.max(Duration::from_millis(100)) };
        let due: Millis = self.shared.next_try(failures, least);
        How::Again { due, counted, error: noted, rest }
    }

    // What cannot be read is tried as often as what cannot be sent.
    fn unread(&self, error: &Error) -> How {
        count(&self.shared.counts.failed);
        let failures = self.row.attempts.saturating_add(1);
        if !error.retryable() || failures >= self.shared.terms.config.max_attempts {
            return self.dead(verdict::noted(error), None);
        }
        let due = self.shared.next_try(failures, Duration::ZERO);
        How::Again { due, counted: true, error: verdict::noted(error), rest: None }
    }

    // Ended by a close, and so nobody's failure; but what may have been sent is not to be sent again under `stop`.
    fn was_killed(&self, error: &Error) -> bool {
        let stops = self.shared.terms.config.on_unknown == OnUnknown::Stop;
        let killed = error.kind() == Kind::Cancelled && self.kill.is_cancelled();
        killed && !(stops && error.outcome() == Outcome::Unknown)
    }

    fn dead(&self, error: String, rest: Option<StoredMessage>) -> How {
        How::Dead { counted: true, error, rest, tell: self.shared.terms.config.notify.is_some() }
    }

    fn dead_uncounted(&self, error: String, rest: Option<StoredMessage>) -> How {
        How::Dead { counted: false, error, rest, tell: self.shared.terms.config.notify.is_some() }
    }

    // Tells the store, until the lease has ended: what was sent must not be sent again because the store is busy.
    async fn end(&self, mut how: How) -> bool {
        let mut wait = Duration::from_millis(20);
        let mut maybe_done = false;
        loop {
            let (token, Until { at: until, .. }) = self.lease.now();
            let end = End { id: self.row.id, token, now: self.shared.now(), how: how.clone() };
            let settled = self.shared.store.settle(&Context::until(until), vec![end]).await;
            match self.shared.noted(settled) {
                // What is gone after an end of which nobody knows was ended by that.
                Ok(settled) if settled.first() == Some(&true) || maybe_done => {
                    if matches!(how, How::Dead { .. }) {
                        count(&self.shared.counts.given_up);
                        tracing::warn!(id = %self.shared.id, row = %self.row.id, "a message was given up");
                    }
                    self.tell_due(&how);
                    if token == self.lease.now().0 {
                        return true;
                    }
                    // It was due again, and claimed before this was over: that lease is nobody's.
                    (how, maybe_done) = (How::Released, false);
                }
                // It was claimed anew meanwhile.
                Ok(_) if token != self.lease.now().0 => continue,
                Ok(_) => {
                    count(&self.shared.counts.lost);
                    return false;
                }
                Err(error) if Instant::now() + wait < until => {
                    maybe_done |= error.outcome() == Outcome::Unknown;
                    tokio::time::sleep(wait).await;
                }
                Err(error) => {
                    count(&self.shared.counts.lost);
                    tracing::warn!(id = %self.shared.id, row = %self.row.id, %error, "the end of a send was not noted: it may be sent again");
                    return false;
                }
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    // The runner of this process need not ask the store for what it has put off itself.
    fn tell_due(&self, how: &How) {
        match how {
            How::Again { due, .. } => self.shared.is_due(*due),
            How::Released => self.shared.is_due(self.shared.now()),
            How::Sent { .. } | How::Dead { .. } => {}
        }
        // The end of one lets the next of its key go.
        if self.shared.terms.config.ordered {
            self.shared.is_due(self.shared.now());
        }
    }
}
