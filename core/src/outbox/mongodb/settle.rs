//! Ending leases, those of many calls in one command.

use std::collections::{BTreeMap, HashMap, HashSet};

use mongodb::bson::{Document, doc};

use super::body::{Piece, Placed, pieces};
use super::database::Database;
use super::fault::refused_of_several;
use super::form::{among, id, maybe_text, number, signed, state_number};
use super::group::GROUP;
use super::line::Turn;
use super::table::{UPDATE, all};
use crate::error::{Error, Kind, Outcome, Result};
use crate::outbox::row::{End, How, Millis, NEVER, State, StoredMessage};

/// What a row has that is being sent.
struct Leased {
    token: i64,
    line: Option<String>,
    pieces: Vec<Piece>,
}

/// What becomes of a row that stays; the same for all that one statement changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    state: i64,
    due: Millis,
    counted: bool,
    error: Option<String>,
}

/// A statement of the command that ends leases: the rows that it is about, and what it writes of a message.
struct Statement {
    rows: Vec<i64>,
    document: Document,
    placed: Option<Placed>,
}

/// The ends of all calls, and how far they are.
struct Ends {
    // By row; an end that comes twice is the first one's.
    open: HashMap<i64, usize>,
    ends: Vec<End>,
    told: Vec<Option<Result<bool>>>,
}

impl Ends {
    fn tell(&mut self, row: i64, own: Result<bool>) {
        if let Some(told) = self.open.get(&row).and_then(|place| self.told.get_mut(*place)) {
            *told = Some(own);
        }
    }

    fn of(&self, row: i64) -> Option<&End> {
        self.open.get(&row).and_then(|place| self.ends.get(*place))
    }

    // Whether the row was ours, and its lease is ended.
    fn is_settled(&self, row: i64) -> bool {
        let told = self.open.get(&row).and_then(|place| self.told.get(*place));
        matches!(told, Some(Some(Ok(true))))
    }
}

impl Database {
    /// Ends the leases of some calls; an answer for each.
    pub(super) async fn settle(&self, calls: Vec<Vec<End>>) -> Vec<Result<Vec<bool>>> {
        let sizes: Vec<usize> = calls.iter().map(Vec::len).collect();
        let ends: Vec<End> = calls.into_iter().flatten().collect();
        let told = ends.iter().map(|_| None).collect();
        let mut all = Ends { open: HashMap::new(), told, ends };
        for (place, end) in all.ends.iter().enumerate() {
            let first = *all.open.entry(signed(end.id.0)).or_insert(place);
            if first != place
                && let Some(told) = all.told.get_mut(place)
            {
                *told = Some(Ok(false));
            }
        }
        let mut failed = Error::new(Kind::Internal, "the end of a lease was not told");
        match self.leased(&all.ends).await {
            Ok(leased) => self.settle_leased(&mut all, &leased).await,
            Err(error) => failed = error,
        }
        let mut told = all.told.into_iter().map(|told| told.unwrap_or_else(|| Err(failed.clone())));
        sizes.into_iter().map(|size| told.by_ref().take(size).collect()).collect()
    }

    async fn settle_leased(&self, ends: &mut Ends, leased: &HashMap<i64, Leased>) {
        let now = ends.ends.iter().map(|end| end.now).max().unwrap_or_default();
        let rows: Vec<i64> = ends.open.keys().copied().collect();
        let (mut sent, mut rest) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(end) = ends.of(row) else { continue };
            // Whatever it is now, the lease is another's.
            if leased.get(&row).is_none_or(|leased| leased.token != signed(end.token)) {
                ends.tell(row, Ok(false));
            } else if matches!(end.how, How::Sent { keep: false }) {
                sent.push(row);
            } else {
                rest.push(row);
            }
        }
        self.settle_sent(ends, sent, leased).await;
        self.settle_rest(ends, rest, leased, now).await;
        let line = |(row, leased): (&i64, &Leased)| {
            let line = leased.line.clone().filter(|_| ends.is_settled(*row))?;
            Some((line, leased.token))
        };
        let mut turns: Vec<Turn> = leased.iter().filter_map(line).collect();
        turns.sort_unstable();
        turns.dedup();
        if let Err(error) = self.end_turns(&turns, now).await {
            // The rows are settled: the turns end with their leases.
            tracing::warn!(%error, "the next messages of a key wait until a lease ends");
        }
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

    async fn settle_sent(&self, ends: &mut Ends, sent: Vec<i64>, leased: &HashMap<i64, Leased>) {
        if sent.is_empty() {
            return;
        }
        let left = self.remove(&sent, Database::still(&sent, leased)).await;
        let mut pieces = Vec::new();
        for row in sent {
            let own = left.as_ref().map(|left| !left.contains(&row)).map_err(Error::clone);
            if let (Ok(true), Some(leased)) = (&own, leased.get(&row)) {
                pieces.extend(leased.pieces.clone());
            }
            ends.tell(row, own);
        }
        self.forget(&pieces).await;
    }

    /// Deletes those of the rows that are still as wanted, and returns those that are left.
    pub(super) async fn remove(&self, rows: &[i64], which: Document) -> Result<HashSet<i64>> {
        let mut left = HashSet::new();
        if self.rows.delete(which).await? < rows.len() as u64 {
            let there = all(self.rows.find(doc! {"_id": among(rows)}).projection(doc! {"_id": 1})).await;
            // The others are gone by now.
            for row in there.map_err(|error| error.outcome_is(Outcome::Unknown))? {
                left.insert(id(&row)?);
            }
        }
        Ok(left)
    }

    // In one command, however much the ends differ.
    async fn settle_rest(&self, ends: &mut Ends, rows: Vec<i64>, leased: &HashMap<i64, Leased>, now: Millis) {
        let mut alike: BTreeMap<Next, Vec<i64>> = BTreeMap::new();
        let mut changed: Vec<(Next, i64, StoredMessage)> = Vec::new();
        for row in rows {
            let Some(end) = ends.of(row) else { continue };
            let next = |state, due| Next { state: state_number(state), due, counted: false, error: None };
            let failed = |next, counted, error: &str| Next { counted, error: Some(error.to_owned()), ..next };
            let (next, rest) = match &end.how {
                How::Sent { .. } => (next(State::Done, now), &None),
                How::Released => (next(State::Pending, now), &None),
                How::Again { due, counted, error, rest } => {
                    (failed(next(State::Pending, *due), *counted, error), rest)
                }
                How::Dead { counted, error, rest, tell } => {
                    let due = if *tell { 0 } else { NEVER };
                    (failed(next(State::Dead, due), *counted, error), rest)
                }
            };
            match rest {
                Some(rest) => changed.push((next, row, rest.clone())),
                None => alike.entry(next).or_default().push(row),
            }
        }
        let (token, mut statements, mut bytes) = (self.token(), Vec::new(), 0_u64);
        let alike = alike.into_iter().map(|(next, rows)| (next, rows, None));
        let changed = changed.into_iter().map(|(next, row, rest)| (next, vec![row], Some(rest)));
        for (next, rows, rest) in alike.chain(changed) {
            let placed = match rest {
                None => None,
                Some(rest) => {
                    let there = rows.first().and_then(|row| leased.get(row));
                    match self.place(&rest, there.map_or(&[], |leased| &leased.pieces)).await {
                        Ok(placed) => Some(placed),
                        Err(error) => {
                            rows.iter().for_each(|row| ends.tell(*row, Err(error.clone())));
                            continue;
                        }
                    }
                }
            };
            let own = next.error.as_ref().map_or(0, String::len) + rows.len() * 50 + 500;
            let own = own as u64 + placed.as_ref().map_or(0, |placed| placed.bytes);
            if bytes > 0 && bytes + own > GROUP.1 {
                self.settle_some(ends, std::mem::take(&mut statements), leased, token).await;
                bytes = 0;
            }
            bytes += own;
            statements.push(Statement::new(next, [now, token], rows, leased, placed));
        }
        self.settle_some(ends, statements, leased, token).await;
    }

    async fn settle_some(
        &self,
        ends: &mut Ends,
        mut statements: Vec<Statement>,
        leased: &HashMap<i64, Leased>,
        token: i64,
    ) {
        if statements.is_empty() {
            return;
        }
        let each = statements.iter_mut().map(|one| std::mem::take(&mut one.document)).collect();
        let written = self.rows.write(UPDATE, each).await;
        let refused = |place: usize| match &written {
            Ok(written) => written.refused.get(&place).map(|code| refused_of_several(*code)),
            Err(error) => Some(error.clone()),
        };
        let rows: Vec<i64> = statements.iter().flat_map(|one| one.rows.clone()).collect();
        let own = match &written {
            Err(_) => Ok(HashSet::new()),
            Ok(written) if written.count >= rows.len() as u64 => Ok(rows.into_iter().collect()),
            Ok(_) => self.with_token(&rows, token).await.map_err(|error| error.outcome_is(Outcome::Unknown)),
        };
        let mut gone: Vec<Piece> = Vec::new();
        for (place, one) in statements.into_iter().enumerate() {
            let refused = refused(place);
            for row in &one.rows {
                let own = match (&own, &refused) {
                    (Ok(own), _) if own.contains(row) => Ok(true),
                    (_, Some(error)) | (Err(error), None) => Err(error.clone()),
                    (Ok(_), None) => Ok(false),
                };
                if let Some(placed) = &one.placed {
                    let there = leased.get(row).map(|leased| leased.pieces.clone()).unwrap_or_default();
                    match &own {
                        Ok(true) => {
                            gone.extend(there.into_iter().filter(|piece| !placed.named.contains(piece)))
                        }
                        Ok(false) => gone.extend(placed.made.clone()),
                        // The row may name them.
                        Err(_) => {}
                    }
                }
                ends.tell(*row, own);
            }
        }
        self.forget(&gone).await;
    }

    async fn with_token(&self, rows: &[i64], token: i64) -> Result<HashSet<i64>> {
        let own = self.rows.find(doc! {"_id": among(rows), "token": token}).projection(doc! {"_id": 1});
        all(own).await?.iter().map(id).collect()
    }
}

impl Statement {
    fn new(
        next: Next,
        [now, token]: [i64; 2],
        rows: Vec<i64>,
        leased: &HashMap<i64, Leased>,
        placed: Option<Placed>,
    ) -> Statement {
        let mut set = doc! {"state": next.state, "due": next.due, "updated": now, "token": token};
        if let Some(error) = next.error {
            set.insert("error", error);
        }
        let mut change = Document::new();
        if let Some(placed) = &placed {
            set.extend(placed.fields.clone());
            change.insert("$unset", placed.absent.clone());
        }
        change.insert("$set", set);
        if next.counted {
            change.insert("$inc", doc! {"attempts": 1_i64});
        }
        let document = doc! {"q": Database::still(&rows, leased), "u": change, "multi": true};
        Statement { rows, document, placed }
    }
}
