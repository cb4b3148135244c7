//! One attempt at a row: the send, and what becomes of the row.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::row::{Claimed, End, How, Millis, StoredMessage};
use super::shared::{Direct, Shared, Slot, count};
use super::stored::{self, Lost};
use super::verdict::{self, Verdict};
use crate::client::{Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::{Message, Receipt};

/// The longest wait that the other side can ask for.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A row that is about to be sent, with its place.
pub(super) struct Attempt {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Arc<dyn Producer>,
    pub(super) kill: CancellationToken,
    row: Claimed,
    message: Option<Arc<Message>>,
    until: Instant,
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
            row: direct.row,
            message: direct.message,
            until: direct.until,
            _slot: direct.slot,
        }
    }

    /// Sends it and ends its lease; whether it is dead now.
    pub(super) async fn run(self) -> bool {
        // Another may send the row once the lease ends: there must be time for a whole attempt.
        if self.until.saturating_duration_since(Instant::now()) < self.shared.deadline {
            self.end(How::Released).await;
            return false;
        }
        let how = match &self.message {
            Some(message) => self.send(message.clone(), Vec::new()).await,
            None => match stored::load(&self.row.message) {
                Ok((message, lost)) => self.send(Arc::new(message), lost).await,
                Err(error) => self.dead(verdict::noted(&error), None),
            },
        };
        let dead = matches!(how, How::Dead { .. });
        self.end(how).await && dead
    }

    async fn send(&self, message: Arc<Message>, lost: Vec<Lost>) -> How {
        let now = self.delayed(&message);
        let ctx = Context::within(self.shared.deadline).cancelled_by(self.kill.clone());
        // A producer that forgets its deadline must not outlive the lease.
        let spare = self.shared.lease.saturating_sub(self.shared.deadline) / 2;
        let sent = tokio::time::timeout(self.shared.deadline + spare, self.inner.send(&ctx, now)).await;
        let sent = sent.unwrap_or_else(|_| {
            Err(Error::new(Kind::Timeout, "the send did not end at its deadline")
                .outcome_is(Outcome::Unknown))
        });
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
            Err(error) if error.kind() == Kind::Cancelled && self.kill.is_cancelled() => {
                return How::Released;
            }
            Err(error) => error,
        };
        count(&self.shared.counts.failed);
        let noted = verdict::noted(&error);
        let rest = match verdict::of(message, &error, self.shared.terms.config.on_unknown) {
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
        let least = error.retry_after().unwrap_or_default().min(LONGEST);
        // What was held back here is not tried in a circle.
        let least = if counted { least } else { least.max(Duration::from_millis(100)) };
        let due: Millis = self.shared.next_try(failures, least);
        How::Again { due, counted, error: noted, rest }
    }

    fn dead(&self, error: String, rest: Option<StoredMessage>) -> How {
        How::Dead { counted: true, error, rest, tell: self.shared.terms.config.notify.is_some() }
    }

    fn dead_uncounted(&self, error: String, rest: Option<StoredMessage>) -> How {
        How::Dead { counted: false, error, rest, tell: self.shared.terms.config.notify.is_some() }
    }

    // Tells the store, until the lease has ended: what was sent must not be sent again because the store is busy.
    async fn end(&self, how: How) -> bool {
        let dead = matches!(how, How::Dead { .. });
        let mut wait = Duration::from_millis(20);
        loop {
            let end =
                End { id: self.row.id, token: self.row.token, now: self.shared.now(), how: how.clone() };
            let ctx = Context::until(self.until);
            let settled = self.shared.store.settle(&ctx, vec![end]).await;
            match self.shared.noted(settled) {
                Ok(settled) if settled.first() == Some(&true) => {
                    if dead {
                        count(&self.shared.counts.given_up);
                        tracing::warn!(id = %self.shared.id, row = %self.row.id, "a message was given up");
                    }
                    return true;
                }
                Ok(_) => {
                    count(&self.shared.counts.lost);
                    return false;
                }
                Err(_) if Instant::now() + wait < self.until => tokio::time::sleep(wait).await,
                Err(error) => {
                    count(&self.shared.counts.lost);
                    tracing::warn!(id = %self.shared.id, row = %self.row.id, %error, "the end of a send was not noted: it may be sent again");
                    return false;
                }
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }
}
