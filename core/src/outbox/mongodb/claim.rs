//! Claiming rows. Each is taken by an update of its document that finds it free: of several who see it, one has it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, doc};
use tokio::time::Instant;

use super::database::{AT_ONCE, Database, several};
use super::fault::{Fault, silent};
use super::form::{among, id, live, maybe_text, number, state_number, unsigned};
use super::hold::Hold;
use super::line::Turn;
use super::table::all;
use crate::client::BoxFuture;
use crate::error::{Error, Result};
use crate::outbox::row::{Claim, Claimed, Claims, Millis, NEVER, RowId, State};

/// How often it looks again where others took what it saw.
const TRIES: usize = 4;
/// The longest pause between, in milliseconds.
const PAUSE: u64 = 20;
/// How many claims further on it may look then, and how many rows.
const BESIDE: usize = 3;
const MOST: usize = 2000;

/// A row that could be claimed.
struct Candidate {
    id: i64,
    size: u64,
    // When it was due, of one that was pending.
    pending: Option<Millis>,
    line: Option<String>,
}

/// The rows of one state, those that are due first.
struct Seen {
    due: Vec<Candidate>,
    next: Option<Millis>,
}

/// A row that was claimed and not read.
struct Unread {
    row: i64,
    error: Error,
}

impl Database {
    /// Claims rows, and gives those back whose bodies were not read by then.
    pub(super) async fn claim(self: &Arc<Self>, claim: &Claim, by: Instant) -> Result<Claims> {
        let mut claims = Claims::default();
        for lost in 0..TRIES {
            claims = self.claim_once(claim, lost, by).await?;
            if !claims.rows.is_empty() || !claims.more {
                break;
            }
            // Whoever took them is not to be met again at once.
            let noise = unsigned(self.token()) % PAUSE;
            tokio::time::sleep(Duration::from_millis(1 + noise)).await;
        }
        Ok(claims)
    }

    async fn claim_once(self: &Arc<Self>, claim: &Claim, lost: usize, by: Instant) -> Result<Claims> {
        let mut hold = Hold::new(self, claim);
        let token = hold.token;
        // Others want the same rows: each looks somewhere else, and not much further.
        let (beside, step) = (lost.min(BESIDE), claim.rows.max(1));
        let seen = step.saturating_mul(beside + 1).min(MOST.max(step));
        // Those whose owner went away were to be sent before the others.
        let (leased, pending, woken) = tokio::try_join!(
            self.seen(claim, State::Leased, seen),
            self.seen(claim, State::Pending, seen),
            self.end_stale_turns(&claim.producer, claim.now),
        )?;
        let full = leased.due.len().max(pending.due.len()) > seen;
        let mut next = leased.next.into_iter().chain(pending.next).min();
        let mut candidates: Vec<Candidate> = leased.due.into_iter().chain(pending.due).collect();
        let (mut turns, aside) = self.turns(claim, &mut hold, &mut candidates).await?;
        let mut more = woken || (aside && full);
        let mut passed_by = false;
        if beside > 0 && candidates.len() > step {
            let places = (candidates.len().div_ceil(step)).min(beside + 1);
            let place = unsigned(self.token()) as usize % places.max(1);
            // What is left out here is seen again.
            candidates.rotate_left(place * step);
            (more, passed_by) = (true, place > 0);
        }

        let (mut chosen, mut bytes, mut reached) = (Vec::new(), 0_u64, None);
        for candidate in &candidates {
            let fits = chosen.is_empty() || bytes.saturating_add(candidate.size) <= claim.bytes;
            if chosen.len() >= claim.rows || !fits {
                more = true;
                break;
            }
            bytes = bytes.saturating_add(candidate.size);
            chosen.push(candidate.id);
            reached = candidate.pending;
        }
        let mut won = HashMap::new();
        if !chosen.is_empty() {
            let free = doc! {"_id": among(&chosen), "due": {"$lte": claim.now}, "state": live()};
            let lease = doc! {
                "state": state_number(State::Leased), "due": claim.until, "token": token, "updated": claim.now,
            };
            hold.rows.clone_from(&chosen);
            hold.unsure = true;
            self.rows.change(free, doc! {"$set": lease}).await?;
            hold.unsure = false;
            for row in all(self.rows.find(doc! {"token": token, "_id": among(&chosen)})).await? {
                won.insert(id(&row)?, row);
            }
        }
        more |= won.len() < chosen.len();
        if !won.is_empty() {
            next = Some(next.map_or(claim.until, |next| next.min(claim.until)));
        }
        for candidate in candidates.iter().filter(|candidate| won.contains_key(&candidate.id)) {
            turns.retain(|(line, _)| Some(line) != candidate.line.as_ref());
        }
        self.end_turns(&turns, claim.now).await?;
        let mut reads: Vec<BoxFuture<'_, std::result::Result<Claimed, Unread>>> = Vec::new();
        for (place, row) in chosen.iter().filter_map(|id| won.remove(id)).enumerate() {
            // The first has the time of the whole claim.
            reads.push(Box::pin(self.claimed(row, token, by, place == 0)));
        }
        let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
        let (mut rows, mut failed) = (Vec::with_capacity(read.len()), None);
        (hold.rows, hold.lines) = (Vec::new(), Vec::new());
        for read in read {
            match read {
                Ok(row) => rows.push(row),
                Err(unread) => {
                    hold.rows.push(unread.row);
                    failed.get_or_insert(unread.error);
                }
            }
        }
        if let Some(error) = failed {
            tracing::debug!(%error, rows = hold.rows.len(), "rows of the outbox were not read, and are given back");
            // Those that were read wait for none of that.
            drop(hold);
            if rows.is_empty() {
                return Err(error);
            }
            more = true;
        }
        Ok(Claims { rows, more, next: next.filter(|_| !more), reached: reached.filter(|_| !passed_by) })
    }

    async fn seen(&self, claim: &Claim, state: State, most: usize) -> Result<Seen> {
        let of = doc! {"producer": &*claim.producer, "state": state_number(state)};
        let rows = self.rows.find(of).sort(doc! {"due": 1, "_id": 1}).limit(most as i64 + 1);
        let mut seen = Seen { due: Vec::new(), next: None };
        for row in all(rows.projection(doc! {"_id": 1, "due": 1, "size": 1, "line": 1})).await? {
            let due = number(&row, "due")?;
            if due > claim.now {
                seen.next = Some(due).filter(|due| *due < NEVER);
                break;
            }
            seen.due.push(Candidate {
                id: id(&row)?,
                size: unsigned(number(&row, "size")?),
                pending: Some(due).filter(|_| state == State::Pending),
                line: maybe_text(&row, "line")?,
            });
        }
        Ok(seen)
    }

    // Leaves those that come first in their line, and returns the turns that it has; whether others were put aside.
    async fn turns(
        &self,
        claim: &Claim,
        hold: &mut Hold,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(Vec<Turn>, bool)> {
        let lines: HashSet<String> =
            candidates.iter().filter_map(|candidate| candidate.line.clone()).collect();
        if lines.is_empty() {
            return Ok((Vec::new(), false));
        }
        let mut names: Vec<String> = lines.iter().cloned().collect();
        // Two who take the same lines find them in the same order.
        names.sort_unstable();
        let token = hold.token;
        hold.lines.clone_from(&names);
        hold.unsure = true;
        let taken = self.take_turns(&names, &claim.producer, token, [claim.now, claim.until]).await?;
        hold.unsure = false;
        let mut firsts: Vec<BoxFuture<'_, Result<Option<i64>>>> = Vec::with_capacity(taken.len());
        for line in &taken {
            firsts.push(Box::pin(self.first_of(line)));
        }
        let firsts: HashSet<i64> = several(firsts).await?.into_iter().flatten().collect();
        let before = candidates.len();
        let mut aside = Vec::new();
        candidates.retain(|candidate| {
            let goes = candidate.line.is_none() || firsts.contains(&candidate.id);
            if !goes {
                aside.push(candidate.id);
            }
            goes
        });
        self.put_aside(&aside, claim.now).await?;
        self.wake_unless_taken(lines.difference(&taken).cloned().collect(), claim.now).await?;
        let turns = taken.into_iter().map(|line| (line, token)).collect();
        Ok((turns, candidates.len() < before))
    }

    // With why it was not read, where that is the row's own.
    async fn claimed(
        &self,
        row: Document,
        token: i64,
        by: Instant,
        first: bool,
    ) -> std::result::Result<Claimed, Unread> {
        let row_id = id(&row).unwrap_or_default();
        let counts = number(&row, "attempts").and_then(|attempts| Ok((attempts, number(&row, "accepted")?)));
        let (attempts, accepted) = counts.as_ref().copied().unwrap_or_default();
        let read = async { counts.and(self.message(&row).await) };
        let read: Result<_> = tokio::time::timeout_at(by, read).await.unwrap_or_else(|_| match first {
            true => Err(Fault::Late.error(Some("the body of a row did not come in the time of a claim"))),
            false => Err(silent(false)),
        });
        let late = first && Instant::now() >= by;
        let (message, unread) = match read {
            Ok(read) => (read, None),
            Err(error) => match fault_of(&error) {
                Some(Fault::Damaged) => (Default::default(), Some(error)),
                Some(Fault::Other) => (Default::default(), Some(error.retryable_is(true))),
                Some(Fault::Late) if late => (Default::default(), Some(error)),
                // Nothing is known to be wrong with the row.
                _ => return Err(Unread { row: row_id, error }),
            },
        };
        if let Some(error) = &unread {
            tracing::error!(row = row_id, %error, "a row of the outbox cannot be read");
        }
        Ok(Claimed {
            id: RowId(unsigned(row_id)),
            token: unsigned(token),
            message,
            attempts: u32::try_from(attempts).unwrap_or_default(),
            accepted,
            unread,
        })
    }
}

fn fault_of(error: &Error) -> Option<Fault> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<Fault>()).copied()
}
