//! What goes row by row lets go of the lock between two of them: what another process does then stays as it is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::change::{self, Numbers};
use super::claim::{self, Passed};
use super::schema;
use crate::outbox::row::{Claim, NewRow, Purge, RowId, Start, State, StoredMessage};

const ROWS: usize = 100;

struct Case {
    folder: PathBuf,
    own: Connection,
    other: Mutex<Connection>,
    numbers: Numbers,
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn row(start: Start) -> NewRow {
    NewRow {
        producer: "orders".into(),
        message: StoredMessage { head: None, body: "x".into(), number: 1, delay: 0 },
        topic: None,
        order_key: None,
        dedup: None,
        accepted: 0,
        now: 1000,
        attempts: 0,
        error: None,
        start,
    }
}

fn claim_of() -> Claim {
    Claim { producer: "orders".into(), now: 1000, until: 2000, rows: 9 * ROWS, bytes: u64::MAX, tell: true }
}

fn claimed(connection: &Connection, careful: bool) -> HashSet<RowId> {
    let claims = claim::claim(connection, &mut Passed::default(), &claim_of(), careful).unwrap();
    claims.rows.iter().map(|row| row.id).collect()
}

impl Case {
    fn new() -> Case {
        let folder = std::env::temp_dir().join(format!("ceiba-careful-{:032x}", rand::random::<u128>()));
        std::fs::create_dir(&folder).unwrap();
        let open = || schema::open(&folder.join("outbox.db"), "x", true).unwrap().0;
        let (own, other) = (open(), open());
        // It looks again at once.
        other.busy_timeout(Duration::ZERO).unwrap();
        Case { folder, own, other: Mutex::new(other), numbers: Numbers::from_system() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("outbox.db")
    }

    fn filled(&mut self, start: Start) -> Vec<RowId> {
        self.own.execute("DELETE FROM outbox", []).unwrap();
        self.own.execute_batch("BEGIN").unwrap();
        let rows = vec![row(start); ROWS];
        let ids = change::insert(&self.own, &mut self.numbers, &rows).unwrap();
        self.own.execute_batch("COMMIT").unwrap();
        ids.iter().map(|row| row.id).collect()
    }

    /// Does something, and something else from elsewhere as soon as the lock is free.
    fn beside<T, U: Send>(
        &self,
        job: impl FnOnce(&Connection) -> T,
        other: impl FnOnce(&Connection) -> U + Send,
    ) -> (T, Option<U>) {
        let (elsewhere, over) = (&self.other, &AtomicBool::new(false));
        self.own.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(move || when_free(&elsewhere.lock(), over, other));
            let made = job(&self.own);
            self.own.execute_batch("COMMIT").unwrap();
            over.store(true, Ordering::SeqCst);
            (made, other.join().unwrap())
        })
    }
}

fn when_free<T>(connection: &Connection, over: &AtomicBool, job: impl FnOnce(&Connection) -> T) -> Option<T> {
    while connection.execute_batch("BEGIN IMMEDIATE").is_err() {
        if over.load(Ordering::SeqCst) {
            return None;
        }
    }
    let made = job(connection);
    connection.execute_batch("COMMIT").unwrap();
    Some(made)
}

/// Tries until the other came between two rows.
fn until_between(mut round: impl FnMut() -> bool) {
    let since = Instant::now();
    while !round() {
        assert!(since.elapsed() < Duration::from_secs(60), "the other never came between");
    }
}

#[test]
fn what_another_claims_meanwhile_is_his() {
    let mut case = Case::new();
    until_between(|| {
        case.filled(Start::Pending { due: 1000 });
        let (own, other) = case.beside(|c| claimed(c, true), |c| claimed(c, false));
        let other = other.unwrap_or_default();
        assert!(own.is_disjoint(&other), "{} rows have two owners", own.intersection(&other).count());
        assert_eq!(own.len() + other.len(), ROWS);
        !own.is_empty() && !other.is_empty()
    });
}

#[test]
fn what_was_taken_before_the_lock_was_anothers_is_not_lost() {
    let mut case = Case::new();
    until_between(|| {
        case.filled(Start::Pending { due: 1000 });
        // For longer than anybody waits for the lock.
        let (own, other) = case.beside(|c| claimed(c, true), |_| std::thread::sleep(Duration::from_secs(8)));
        let leased = "SELECT count(*) FROM outbox WHERE state = 1";
        let leased: i64 = case.own.query_row(leased, [], |row| row.get(0)).unwrap();
        assert_eq!(own.len() as i64, leased, "some are leased to nobody");
        other.is_some() && !own.is_empty() && own.len() < ROWS
    });
}

#[test]
fn what_another_brings_back_meanwhile_is_not_purged() {
    let mut case = Case::new();
    for told in [true, false] {
        until_between(|| {
            let ids = case.filled(Start::Ended { state: State::Dead });
            let purge =
                Purge { producer: "orders".into(), state: State::Dead, before: 2000, told, limit: ROWS };
            let (purged, revived) = case.beside(
                |c| change::purge(c, &purge, true).unwrap(),
                |c| change::revive(c, None, &ids, 1500).unwrap(),
            );
            let revived = revived.unwrap_or_default();
            assert_eq!(purged + revived, ROWS as u64);
            let pending = |c: &Connection| -> i64 {
                c.query_row("SELECT count(*) FROM outbox WHERE state = 0", [], |row| row.get(0)).unwrap()
            };
            assert_eq!(pending(&case.own), revived as i64, "one that was brought back is gone");
            purged > 0 && revived > 0
        });
    }
}

/// A row that is not what the index says is found first again and again: it must not stop the others.
#[test]
fn a_row_that_is_not_where_the_index_has_it_is_passed_over() {
    let mut case = Case::new();
    let ids = case.filled(Start::Pending { due: 1000 });
    let path = case.path();
    let (root, sql): (i64, String) = {
        let query = "SELECT rootpage, sql FROM sqlite_schema WHERE name = 'outbox_due'";
        case.own.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    // The row alone is changed, as if its page were of another time than that of the index.
    let raw = |change: &dyn Fn(&Connection)| change(&Connection::open(&path).unwrap());
    raw(&|c| {
        c.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'outbox_due'")
            .unwrap()
    });
    raw(&|c| {
        assert_eq!(c.execute("UPDATE outbox SET state = 2 WHERE id = ?1", [ids[0].0 as i64]).unwrap(), 1)
    });
    raw(&|c| {
        c.execute_batch("PRAGMA writable_schema = ON").unwrap();
        let insert = "INSERT INTO sqlite_schema VALUES ('index', 'outbox_due', 'outbox', ?1, ?2)";
        c.execute(insert, rusqlite::params![root, sql]).unwrap();
    });
    let (own, _) = schema::open(&path, "x", false).unwrap();
    let mut passed = Passed::default();
    own.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = claim::claim(&own, &mut passed, &claim_of(), false);
    assert!(claim::is_damage(&refused), "{refused:?}");
    own.execute_batch("ROLLBACK; BEGIN IMMEDIATE").unwrap();
    let claims = claim::claim(&own, &mut passed, &claim_of(), true).unwrap();
    assert_eq!(claims.rows.len(), ROWS - 1);
    let claims = claim::claim(&own, &mut passed, &claim_of(), true).unwrap();
    assert_eq!((claims.rows.len(), claims.more), (0, false));
    own.execute_batch("COMMIT").unwrap();
}
