//! What those left behind who died in the middle: parts of bodies that no row names, and lines whose first row was put aside.

use std::collections::HashSet;

use mongodb::bson::{Bson, doc};
use parking_lot::Mutex;

use super::database::Database;
use super::form::{state_number, text};
use super::table::all;
use crate::error::Result;
use crate::outbox::row::{Millis, NEVER, State};

/// What is younger may still be on its way into a row.
pub(super) const GRACE: Millis = 3_600_000;
/// How often all is looked at.
const EVERY: Millis = 3_600_000;
/// Parts, and lines, of one step.
const PAGE: (usize, usize) = (1000, 100);

#[derive(Default)]
struct Place {
    next: Millis,
    part: Option<String>,
    line: Option<String>,
}

/// How far it is.
#[derive(Default)]
pub(super) struct Tidying(Mutex<Place>);

impl Database {
    /// One step, where it is time. It is asked for often, and nobody waits for it: what fails is done by the next.
    pub(super) async fn tidy(&self, tidying: &Tidying) {
        let now = self.now();
        let (part, line) = {
            let mut place = tidying.0.lock();
            if place.part.is_none() && place.line.is_none() {
                if now < place.next {
                    return;
                }
                place.next = now.saturating_add(EVERY);
                (String::new(), String::new())
            } else {
                (place.part.take().unwrap_or_default(), place.line.take().unwrap_or_default())
            }
        };
        let swept = self.sweep(part, now.saturating_sub(GRACE)).await;
        let woken = self.wake_some(line, now).await;
        let mut place = tidying.0.lock();
        for error in [swept.as_ref().err(), woken.as_ref().err()].into_iter().flatten() {
            tracing::debug!(%error, "the outbox's MongoDB is not tidy");
            place.next = 0;
        }
        (place.part, place.line) = (swept.unwrap_or_default(), woken.unwrap_or_default());
    }

    /// Deletes parts of bodies that no row names, of those written before then; the last of a page, none at the end.
    pub(super) async fn sweep(&self, after: String, before: Millis) -> Result<Option<String>> {
        let old = self.bodies.find(doc! {"_id": {"$gt": after}, "made": {"$lt": before}});
        let old = old.sort(doc! {"_id": 1}).limit(PAGE.0 as i64).projection(doc! {"_id": 1});
        let parts = all(old).await?.iter().map(|part| text(part, "_id")).collect::<Result<Vec<String>>>()?;
        let last = parts.last().filter(|_| parts.len() >= PAGE.0).cloned();
        let name = |part: &str| part.split('/').next().unwrap_or_default().to_owned();
        let names: HashSet<String> = parts.iter().map(|part| name(part)).collect();
        let names: Vec<String> = names.into_iter().collect();
        let rows = self.rows.find(doc! {"blobs": {"$in": names}}).projection(doc! {"blobs": 1});
        let mut named: HashSet<String> = HashSet::new();
        for row in all(rows).await? {
            let blobs = row.get_array("blobs").into_iter().flatten();
            named.extend(blobs.filter_map(Bson::as_str).map(str::to_owned));
        }
        let left: Vec<String> = parts.into_iter().filter(|part| !named.contains(&name(part))).collect();
        if !left.is_empty() {
            tracing::info!(parts = left.len(), "parts of bodies that no row names are deleted");
            self.delete_parts(&left).await?;
        }
        Ok(last)
    }

    // Lines of which rows were put aside; the last of a page, none at the end.
    async fn wake_some(&self, mut after: String, now: Millis) -> Result<Option<String>> {
        for _ in 0..PAGE.1 {
            let aside = doc! {"line": {"$gt": &after}, "state": state_number(State::Pending), "due": NEVER};
            let next = self.rows.find(aside).sort(doc! {"line": 1}).limit(1).projection(doc! {"line": 1});
            let Some(next) = all(next).await?.first().map(|row| text(row, "line")).transpose()? else {
                return Ok(None);
            };
            after.clone_from(&next);
            self.wake(&HashSet::from([next]), now).await?;
        }
        Ok(Some(after))
    }
}
