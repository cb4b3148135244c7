//! Ending leases, those of many calls in one command.

use std::collections::{BTreeMap, HashMap, HashSet};

use mongodb::bson::{Document, doc};

use super::body::{Piece, Placed, pieces};
use super::database::{Database, all, step};
use super::form::{among, id, maybe_text, number, signed, state_number};
use super::line::Turn;
use crate::error::{Error, Result};
use crate::outbox::row::{End, How, Millis, NEVER, State, StoredMessage};

/// What a row has that is being sent.
struct Leased {
    token: i64,
    line: Option<String>,
    pieces: Vec<Piece>,
}

/// What becomes of a row that stays; the same for all that one command changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    state: i64,
    due: Millis,
    counted: bool,
    error: Option<String>,
    now: Millis,
}

/// The ends of all calls, and how far they are.
struct Ends {
    // By row; an end that comes twice is the first one's.
    open: HashMap<i64, usize>,
    ends: Vec<End>,
    told: Vec<Option<bool>>,
}

impl Ends {
    fn tell(&mut self, row: i64, own: bool) {
        if let Some(told) = self.open.get(&row).and_then(|place| self.told.get_mut(*place)) {
            *told = Some(own);
        }
    }
}

impl Database {
    /// Ends the leases of some calls; an answer for each.
    pub(super) async fn settle(&self, calls: Vec<Vec<End>>) -> Vec<Result<Vec<bool>>> {
        let sizes: Vec<usize> = calls.iter().map(Vec::len).collect();
        let ends: Vec<End> = calls.into_iter().flatten().collect();
        let mut all = Ends { open: HashMap::new(), told: vec![None; ends.len()], ends };
        for (place, end) in all.ends.iter().enumerate() {
            let first = *all.open.entry(signed(end.id.0)).or_insert(place);
            if first != place
                && let Some(told) = all.told.get_mut(place)
            {
                *told = Some(false);
            }
        }
        let failed = self.settle_all(&mut all).await.err();
        let mut told = all.told.into_iter();
        let unknown = || Error::new(crate::error::Kind::Internal, "the end of a lease was not told");
        sizes
            .into_iter()
            .map(|size| {
                let of_call: Vec<Option<bool>> = told.by_ref().take(size).collect();
                of_call
                    .into_iter()
                    .map(|told| told.ok_or_else(|| failed.clone().unwrap_or_else(unknown)))
                    .collect()
            })
            .collect()
    }

    async fn settle_all(&self, ends: &mut Ends) -> Result<()> {
        let leased = step(false, self.leased(&ends.ends)).await?;
        let rows: Vec<i64> = ends.open.keys().copied().collect();
        for row in rows {
            let place = ends.open.get(&row).copied().unwrap_or(usize::MAX);
            let token = ends.ends.get(place).map(|end| signed(end.token));
            // Whatever it is now, the lease is another's.
            if leased.get(&row).is_none_or(|leased| Some(leased.token) != token) {
                ends.tell(row, false);
                ends.open.remove(&row);
            }
        }
        let now = ends.ends.iter().map(|end| end.now).max().unwrap_or_default();
        let line = |row: &i64| {
            let leased = leased.get(row)?;
            Some((leased.line.clone()?, leased.token))
        };
        let mut turns: Vec<Turn> = ends.open.keys().filter_map(line).collect();
        turns.sort_unstable();
        turns.dedup();
        self.settle_sent(ends, &leased).await?;
        self.settle_rest(ends, &leased).await?;
        if let Err(error) = step(true, self.end_turns(&turns, now)).await {
            // The rows are settled: the turns end with their leases.
            tracing::warn!(%error, "the next messages of a key wait until a lease ends");
        }
        Ok(())
    }

    // The rows of these ends that are being sent, whoever sends them.
    async fn leased(&self, ends: &[End]) -> Result<HashMap<i64, Leased>> {
        let ids: Vec<i64> = ends.iter().map(|end| signed(end.id.0)).collect();
        let which = doc! {"_id": among(&ids), "state": state_number(State::Leased)};
        let fields = doc! {"_id": 1, "token": 1, "line": 1, "head_at": 1, "body_at": 1};
        let mut leased = HashMap::new();
        for row in all(self.rows.find(which).projection(fields)).await? {
            let found = Leased {
                token: number(&row, "token")?,
                line: maybe_text(&row, "line")?,
                pieces: pieces(&row)?,
            };
            leased.insert(id(&row)?, found);
        }
        Ok(leased)
    }

    fn still(rows: &[i64], leased: &HashMap<i64, Leased>) -> Document {
        let tokens: HashSet<i64> =
            rows.iter().filter_map(|row| leased.get(row)).map(|leased| leased.token).collect();
        let tokens: Vec<i64> = tokens.into_iter().collect();
        // A row that got another lease meanwhile has a token that was never given before.
        doc! {"_id": among(rows), "token": {"$in": tokens}, "state": state_number(State::Leased)}
    }

    async fn settle_sent(&self, ends: &mut Ends, leased: &HashMap<i64, Leased>) -> Result<()> {
        let sent: Vec<i64> = ends
            .open
            .iter()
            .filter(|(_, place)| {
                matches!(ends.ends.get(**place), Some(End { how: How::Sent { keep: false }, .. }))
            })
            .map(|(row, _)| *row)
            .collect();
        if sent.is_empty() {
            return Ok(());
        }
        let left = step(true, self.remove(&sent, Database::still(&sent, leased))).await?;
        let mut pieces = Vec::new();
        for row in sent {
            let own = !left.contains(&row);
            ends.tell(row, own);
            if let Some(leased) = leased.get(&row).filter(|_| own) {
                pieces.extend(leased.pieces.clone());
            }
        }
        self.forget(&pieces).await;
        Ok(())
    }

    /// Deletes those of the rows that are still as wanted, and returns those that are left.
    pub(super) async fn remove(&self, rows: &[i64], which: Document) -> Result<HashSet<i64>> {
        let mut left = HashSet::new();
        if self.delete(&self.rows, which).await? < rows.len() as u64 {
            for row in all(self.rows.find(doc! {"_id": among(rows)}).projection(doc! {"_id": 1})).await? {
                left.insert(id(&row)?);
            }
        }
        Ok(left)
    }

    async fn settle_rest(&self, ends: &mut Ends, leased: &HashMap<i64, Leased>) -> Result<()> {
        let mut alike: BTreeMap<Next, Vec<i64>> = BTreeMap::new();
        let mut changed: Vec<(Next, i64, StoredMessage)> = Vec::new();
        for (row, place) in &ends.open {
            let Some(end) = ends.ends.get(*place) else { continue };
            let (next, rest) = match &end.how {
                How::Sent { keep: false } => continue,
                How::Sent { keep: true } => (Next::of(end, State::Done, end.now), &None),
                How::Released => (Next::of(end, State::Pending, end.now), &None),
                How::Again { due, counted, error, rest } => {
                    (Next::of(end, State::Pending, *due).failed(*counted, error), rest)
                }
                How::Dead { counted, error, rest, tell } => {
                    let due = if *tell { 0 } else { NEVER };
                    (Next::of(end, State::Dead, due).failed(*counted, error), rest)
                }
            };
            match rest {
                Some(rest) => changed.push((next, *row, rest.clone())),
                None => alike.entry(next).or_default().push(*row),
            }
        }
        for (next, rows) in alike {
            let own = step(true, self.settle_some(&next, &rows, leased, None)).await?;
            rows.iter().for_each(|row| ends.tell(*row, own.contains(row)));
        }
        for (next, row, rest) in changed {
            let there = leased.get(&row).map(|leased| leased.pieces.clone()).unwrap_or_default();
            let placed = self.place(&rest, &there).await?;
            let changed = step(true, self.settle_some(&next, &[row], leased, Some(&placed))).await?;
            let own = changed.contains(&row);
            ends.tell(row, own);
            let gone: Vec<Piece> = match own {
                true => there.into_iter().filter(|piece| !placed.named.contains(piece)).collect(),
                false => placed.made,
            };
            self.forget(&gone).await;
        }
        Ok(())
    }

    // Those of the rows that were still ours.
    async fn settle_some(
        &self,
        next: &Next,
        rows: &[i64],
        leased: &HashMap<i64, Leased>,
        message: Option<&Placed>,
    ) -> Result<HashSet<i64>> {
        let token = self.token();
        let mut set = doc! {"state": next.state, "due": next.due, "updated": next.now, "token": token};
        if let Some(error) = &next.error {
            set.insert("error", error);
        }
        let mut change = Document::new();
        if let Some(message) = message {
            set.extend(message.fields.clone());
            change.insert("$unset", message.absent.clone());
        }
        change.insert("$set", set);
        if next.counted {
            change.insert("$inc", doc! {"attempts": 1_i64});
        }
        let changed = self.change(&self.rows, Database::still(rows, leased), change).await?;
        if changed >= rows.len() as u64 {
            return Ok(rows.iter().copied().collect());
        }
        let own = self.rows.find(doc! {"_id": among(rows), "token": token}).projection(doc! {"_id": 1});
        all(own).await?.iter().map(id).collect()
    }
}

impl Next {
    fn of(end: &End, state: State, due: Millis) -> Next {
        Next { state: state_number(state), due, counted: false, error: None, now: end.now }
    }

    fn failed(self, counted: bool, error: &str) -> Next {
        Next { counted, error: Some(error.to_owned()), ..self }
    }
}
