//! What a claim took and nobody has yet. However the claim ends, what it does not hand over is given back: the row would
//! belong to nobody until the lease ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::database::Database;
use super::form::unsigned;
use super::line::Turn;
use super::table::SERVED;
use crate::error::Result;
use crate::outbox::row::{Claim, End, How, Millis, RowId};

/// The first and the longest wait before it is tried again to give something back.
const WAIT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// See the module.
pub(super) struct Hold {
    database: Arc<Database>,
    pub(super) token: i64,
    /// Rows that may have been leased.
    pub(super) rows: Vec<i64>,
    /// Lines whose turn may have been taken.
    pub(super) lines: Vec<String>,
    /// A command is under way that takes them.
    pub(super) unsure: bool,
    now: Millis,
    // When the leases end by themselves.
    until: Instant,
    // It is being given back already.
    leaving: bool,
}

impl Hold {
    pub(super) fn new(database: &Arc<Database>, claim: &Claim) -> Hold {
        let lease = u64::try_from(claim.until.saturating_sub(claim.now)).unwrap_or_default();
        let now = Instant::now();
        Hold {
            database: database.clone(),
            token: database.token(),
            rows: Vec::new(),
            lines: Vec::new(),
            unsure: false,
            now: claim.now,
            until: now.checked_add(Duration::from_millis(lease)).unwrap_or(now),
            leaving: false,
        }
    }

    // Once.
    async fn give_back(&self) -> Result<()> {
        let end = |row: &i64| End {
            id: RowId(unsigned(*row)),
            token: unsigned(self.token),
            now: self.now,
            how: How::Released,
        };
        for settled in self.database.settle(vec![self.rows.iter().map(end).collect()]).await {
            settled?;
        }
        let turns: Vec<Turn> = self.lines.iter().map(|line| (line.clone(), self.token)).collect();
        self.database.end_turns(&turns, self.now).await
    }

    // Again and again, as long as it is of use: what the server was still asked for when the claim ended may be done
    // after a look that found nothing.
    async fn give_back_soon(self) {
        let [mut wait, longest] = WAIT;
        let mut sure = Instant::now();
        if self.unsure {
            sure += SERVED;
        }
        loop {
            let began = Instant::now();
            let given_back = self.give_back().await;
            if given_back.is_ok() && began >= sure.min(self.until) {
                break;
            }
            if Instant::now() + wait >= self.until {
                if let Err(error) = given_back {
                    tracing::warn!(%error, "rows of the outbox that nobody has wait until their leases end");
                }
                break;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A runtime that ends drops what it is given.
        if self.leaving || (self.rows.is_empty() && self.lines.is_empty()) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let left = Hold {
            database: self.database.clone(),
            rows: std::mem::take(&mut self.rows),
            lines: std::mem::take(&mut self.lines),
            leaving: true,
            ..*self
        };
        self.database.given_back.spawn_on(left.give_back_soon(), &runtime);
    }
}
