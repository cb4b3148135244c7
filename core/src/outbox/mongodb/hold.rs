//! What a claim took and nobody has yet. However the claim ends, what it does not hand over is given back: the row would
//! belong to nobody until the lease ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::database::Database;
use super::form::unsigned;
use super::line::Turn;
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
            now: claim.now,
            until: now.checked_add(Duration::from_millis(lease)).unwrap_or(now),
            leaving: false,
        }
    }

    /// All of it has somebody.
    pub(super) fn handed_over(mut self) {
        self.rows.clear();
        self.lines.clear();
    }

    /// Gives it back, once.
    pub(super) async fn give_back(&self) -> Result<()> {
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

    // Again and again, as long as it is of use.
    async fn give_back_soon(self) {
        let [mut wait, longest] = WAIT;
        while let Err(error) = self.give_back().await {
            if Instant::now() + wait >= self.until {
                tracing::warn!(%error, "rows of the outbox that nobody has wait until their leases end");
                break;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
        self.handed_over();
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
