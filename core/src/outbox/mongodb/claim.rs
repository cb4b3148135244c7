//! Claiming rows. Each is taken by an update of its document that finds it free: of several who see it, one has it.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Document, doc};

use super::database::{Database, all, several};
use super::fault::Fault;
use super::form::{among, id, live, maybe_text, number, state_number, unsigned};
use super::line::Turn;
use crate::client::BoxFuture;
use crate::error::{Error, Result};
use crate::outbox::row::{Claim, Claimed, Claims, Millis, NEVER, RowId, State, StoredMessage};

/// How often it looks again where others took what it saw.
const TRIES: usize = 4;
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

impl Database {
    pub(super) async fn claim(&self, claim: &Claim) -> Result<Claims> {
        let mut claims = Claims::default();
        for lost in 0..TRIES {
            claims = self.claim_once(claim, lost).await?;
            if !claims.rows.is_empty() || !claims.more {
                break;
            }
        }
        Ok(claims)
    }

    async fn claim_once(&self, claim: &Claim, lost: usize) -> Result<Claims> {
        let token = self.token();
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
        let (mut turns, aside) = self.turns(claim, token, &mut candidates).await?;
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
            self.change(&self.rows, free, doc! {"$set": lease}).await?;
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
        let mut rows: Vec<BoxFuture<'_, Result<Claimed>>> = Vec::with_capacity(won.len());
        for row in chosen.iter().filter_map(|id| won.remove(id)) {
            rows.push(Box::pin(self.claimed(row, token)));
        }
        Ok(Claims {
            rows: several(rows).await?,
            more,
            next: next.filter(|_| !more),
            reached: reached.filter(|_| !passed_by),
        })
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
        token: i64,
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
        let taken = self.take_turns(&names, &claim.producer, token, [claim.now, claim.until]).await?;
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

    async fn claimed(&self, row: Document, token: i64) -> Result<Claimed> {
        let message = match self.message(&row).await {
            Ok(message) => message,
            Err(error) if is_damaged(&error) => {
                // The others must go on: it is found unreadable by who is to send it, and given up.
                tracing::error!(row = id(&row)?, %error, "a row of the outbox is damaged");
                StoredMessage { head: Some(String::new()), ..StoredMessage::default() }
            }
            Err(error) => return Err(error),
        };
        Ok(Claimed {
            id: RowId(unsigned(id(&row)?)),
            token: unsigned(token),
            message,
            attempts: u32::try_from(number(&row, "attempts")?).unwrap_or(u32::MAX),
            accepted: number(&row, "accepted")?,
        })
    }
}

fn is_damaged(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Fault>());
    source == Some(&Fault::Damaged)
}
