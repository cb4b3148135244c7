//! The store in a file: the suite, and what only a file has.

use std::os::unix::fs::PermissionsExt;

use super::suite;
use super::*;
use crate::outbox::open_store;
use crate::outbox::sqlite::Fault;
use crate::outbox::{Address, row::Query};

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let folder = Folder::new();
            let pair = (another(&folder.file()).await, another(&folder.file()).await);
            suite::$name(pair).await;
        })+
    };
}

suite!(
    a_row_lives_and_ends,
    a_lease_ends_and_its_token_with_it,
    a_row_comes_leased_to_who_inserts_it,
    claims_are_bounded_by_rows_and_bytes,
    large_bodies_and_changed_ones_come_back,
    a_short_form_is_of_the_body_alone,
    what_is_restored_changes_nothing_that_is_known,
    a_dedup_key_is_kept_once,
    rows_of_a_key_come_one_at_a_time,
    what_was_given_up_is_told_once,
    what_is_still_to_be_told_is_not_purged,
    rows_are_retried_hastened_and_dropped,
    pages_skip_nothing_while_rows_go,
    rows_are_listed_and_counted,
    two_openers_never_hold_the_same_row,
);

fn fault(error: &Error) -> Fault {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return *fault;
        }
        source = error.source();
    }
    panic!("no fault: {error:?}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn nobody_else_may_read_the_file() {
    let folder = Folder::new();
    let path = folder.0.join("made/below/outbox.db");
    let store = another(&path).await;
    store.insert(&soon(), vec![row("x")]).await.unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    for beside in ["outbox.db-wal", "outbox.db-shm"] {
        assert_eq!(mode(&path.with_file_name(beside)), 0o600, "{beside}");
    }
}

#[tokio::test]
async fn who_names_the_same_file_has_the_same_store() {
    let folder = Folder::new();
    let url = format!("sqlite:{}", folder.file().display());
    let one = open_store(&Address::parse(&url).unwrap(), true).await.unwrap();
    let two = open_store(&Address::parse(&url.replace("sqlite:", "sqlite://")).unwrap(), true).await.unwrap();
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn a_lock_of_another_is_waited_for_until_the_deadline() {
    let folder = Folder::new();
    let store = another(&folder.file()).await;
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = std::time::Instant::now();
    let error = store.insert(&Context::within(Duration::from_millis(300)), vec![row("x")]).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(
        (error.kind(), error.outcome(), error.retryable()),
        (Kind::Storage, Outcome::NotSent, true),
        "{error}"
    );
    assert_eq!(fault(&error), Fault::Busy);
    let waits = tokio::spawn({
        let store = store.clone();
        async move { store.insert(&soon(), vec![row("y")]).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    other.execute_batch("ROLLBACK").unwrap();
    waits.await.unwrap().unwrap();
    let rows = store.list(&soon(), Query { limit: 10, ..Query::default() }).await.unwrap();
    assert_eq!(rows.len(), 1, "the first was given up");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "no database, whatever it may look like; ".repeat(400)).unwrap();
    let error = SqliteStore::open_alone(&folder.file()).await.err().unwrap();
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Damaged));
    assert!(!error.retryable());
    let error = SqliteStore::open_alone(&folder.0).await.err().unwrap();
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Denied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_told_and_the_message_stays_the_callers() {
    let folder = Folder::new();
    {
        let store = SqliteStore::open_alone(&folder.file()).await.unwrap();
        for _ in 0..20 {
            store.insert(&soon(), (0..100).map(|_| row(&"x".repeat(300))).collect()).await.unwrap();
        }
        store.close_file(&soon()).await.unwrap();
    }
    let mut bytes = std::fs::read(folder.file()).unwrap();
    assert!(bytes.len() > 500_000);
    // All but the first pages, which have the tables' definitions.
    bytes[10 * 4096..].iter_mut().for_each(|byte| *byte = 0xa5);
    std::fs::write(folder.file(), bytes).unwrap();
    let store = another(&folder.file()).await;
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let outbox = opened(json!({}), &inner, None, &store, &Time::new());
    let error = outbox.send(&soon(), Arc::new(Message::new("mine"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::NotSent), "{error:?}");
    assert_eq!(fault(&error), Fault::Damaged);
    assert!(error.message().contains("by the script"), "{error}");
    let error = outbox.desk().list(&soon(), json!({"limit": 1000})).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Damaged);
    until("the status", || outbox.status()["strategies"][0]["last_error"]["kind"] == json!("storage")).await;
    outbox.close(&soon()).await.unwrap();
}

fn foreign(path: &Path, made: &str) {
    let foreign = rusqlite::Connection::open(path).unwrap();
    foreign.execute_batch(made).unwrap();
    foreign.close().unwrap();
}

#[tokio::test]
async fn a_database_of_another_program_stays_as_it_is() {
    let folder = Folder::new();
    let cases = [
        ("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')", Fault::Foreign),
        // Tables of the same names are not ours either.
        ("CREATE TABLE outbox (id INTEGER PRIMARY KEY); CREATE TABLE outbox_identity (one)", Fault::Foreign),
        ("PRAGMA application_id = 77; PRAGMA user_version = 1", Fault::Foreign),
        ("PRAGMA user_version = 3", Fault::Foreign),
        ("CREATE TABLE x (y); PRAGMA application_id = 0x63656962; PRAGMA user_version = 2", Fault::Newer),
    ];
    for (number, (made, wanted)) in cases.into_iter().enumerate() {
        let path = folder.0.join(format!("{number}.db"));
        foreign(&path, made);
        let before = std::fs::read(&path).unwrap();
        let error = SqliteStore::open_alone(&path).await.err().unwrap();
        assert_eq!(
            (error.kind(), fault(&error), error.retryable()),
            (Kind::Storage, wanted, false),
            "{made}"
        );
        assert!(std::fs::read(&path).unwrap() == before, "{made}: it was changed");
    }
}

#[tokio::test]
async fn what_is_not_there_is_made_only_if_told() {
    let folder = Folder::new();
    let path = folder.0.join("not/there.db");
    let error = SqliteStore::open(&path, false).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(!folder.0.join("not").exists());
    SqliteStore::open(&path, true).await.unwrap().close(&soon()).await.unwrap();
    SqliteStore::open(&path, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_who_closes_waits_for_the_file() {
    let folder = Folder::new();
    let one = SqliteStore::open(&folder.file(), true).await.unwrap();
    let two = SqliteStore::open(&folder.file(), false).await.unwrap();
    one.insert(&soon(), vec![row("x")]).await.unwrap();
    one.close(&soon()).await.unwrap();
    two.insert(&soon(), vec![row("y")]).await.unwrap();
    two.close(&soon()).await.unwrap();
    assert!(!folder.0.join("outbox.db-wal").exists(), "it is written into the file");
    assert!(two.insert(&soon(), vec![row("z")]).await.unwrap_err().message().contains("closed"));
    let three = SqliteStore::open(&folder.file(), false).await.unwrap();
    assert_eq!(three.list(&soon(), Query { limit: 9, ..Query::default() }).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_read_do_not_stop_the_others() {
    let folder = Folder::new();
    let store = another(&folder.file()).await;
    let large = "x".repeat(5000);
    let rows = ["a", "b", &large, "c", "d"].map(row);
    let ids: Vec<_> =
        store.insert(&soon(), rows.into()).await.unwrap().iter().map(|row| row.id.0 as i64).collect();
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other.execute("UPDATE outbox SET head = CAST(x'7bff7d' AS TEXT) WHERE id = ?1", [ids[1]]).unwrap();
    other.execute("UPDATE outbox SET topic = CAST(x'ff' AS TEXT) WHERE id = ?1", [ids[1]]).unwrap();
    other.execute("DELETE FROM outbox_body WHERE id = ?1", [ids[2]]).unwrap();
    let claim = || crate::outbox::row::Claim {
        producer: "orders".into(),
        now: 1000,
        until: 2000,
        rows: 9,
        bytes: u64::MAX,
        tell: true,
    };
    let claims = store.claim(&soon(), claim()).await.unwrap();
    let bodies: Vec<_> = claims.rows.iter().map(|row| &row.message.body[..]).collect();
    assert_eq!(bodies, [b"a", b"c", b"d"]);
    assert!(store.claim(&soon(), claim()).await.unwrap().rows.is_empty());
    let rows = store.list(&soon(), Query { limit: 9, ..Query::default() }).await.unwrap();
    // Whoever claims says whether somebody is to be told of those.
    assert_eq!(store.untold(&soon(), "orders", 3000, 4000, 9, 0).await.unwrap().rows.len(), 2);
    let id = store.insert(&soon(), vec![row(&large)]).await.unwrap()[0].id.0 as i64;
    other.execute("DELETE FROM outbox_body WHERE id = ?1", [id]).unwrap();
    let silent = crate::outbox::row::Claim { tell: false, ..claim() };
    assert!(store.claim(&soon(), silent).await.unwrap().rows.is_empty());
    assert!(store.untold(&soon(), "orders", 3000, 4000, 9, 0).await.unwrap().rows.is_empty());
    for place in [1, 2] {
        assert_eq!(rows[place].state, crate::outbox::row::State::Dead);
        let why = rows[place].error.as_deref().unwrap();
        assert!(why.contains(r#""kind":"storage""#) && why.contains("cannot be read"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_costs_its_own_rows() {
    const ROWS: usize = 2000;
    let folder = Folder::new();
    let store = SqliteStore::open_alone(&folder.file()).await.unwrap();
    let rows = (0..ROWS).map(|number| row(&format!("{number:05}{}", "x".repeat(300)))).collect();
    store.insert(&soon(), rows).await.unwrap();
    store.close_file(&soon()).await.unwrap();
    let mut bytes = std::fs::read(folder.file()).unwrap();
    // One page, of the table.
    let page = bytes
        .chunks(4096)
        .position(|page| page[0] == 0x0d && page.windows(8).any(|part| part == b"01000xxx"))
        .unwrap();
    bytes[page * 4096..(page + 1) * 4096].iter_mut().for_each(|byte| *byte = 0xa5);
    std::fs::write(folder.file(), bytes).unwrap();
    let store = another(&folder.file()).await;
    let inner = StandIn::new([], Step::Sent);
    let outbox = opened(json!({}), &inner, None, &store, &Time::new());
    let last = || inner.bodies().iter().any(|body| body.starts_with("01999"));
    for _ in 0..6000 {
        if inner.count() >= ROWS - 40 && last() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(inner.count() >= ROWS - 40, "{} were sent: {}", inner.count(), outbox.status());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sent: std::collections::HashSet<String> = inner.bodies().into_iter().collect();
    assert_eq!(sent.len(), inner.count(), "none twice");
    assert!(sent.len() < ROWS && sent.iter().any(|body| body.starts_with("01999")), "{}", sent.len());
    outbox.close(&soon()).await.unwrap();
}

/// Commits in a write-ahead log that nobody has begun anew: frames that say how long the file is by then.
fn commits(log: &Path) -> usize {
    let bytes = std::fs::read(log).unwrap();
    let frames = bytes.get(32..).unwrap_or_default().chunks_exact(24 + 4096);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_that_wait_share_commits() {
    let folder = Folder::new();
    let store = another(&folder.file()).await;
    let before = commits(&folder.0.join("outbox.db-wal"));
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut inserts = tokio::task::JoinSet::new();
    for number in 0..500 {
        let store = store.clone();
        inserts.spawn(async move { store.insert(&soon(), vec![row(&number.to_string())]).await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(inserts.join_all().await.len(), 500);
    let commits = commits(&folder.0.join("outbox.db-wal")) - before;
    assert!((1..=20).contains(&commits), "{commits} commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_into_one_transaction_and_one_failure_is_its_own() {
    let folder = Folder::new();
    let store = Arc::new(SqliteStore::open_alone(&folder.file()).await.unwrap());
    // Refused by a rule of the table: the others of its group are inserted all the same.
    let bad = NewRow { start: Start::Pending { due: 1 }, ..row("bad") };
    let other = rusqlite::Connection::open(folder.file()).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON outbox WHEN NEW.due = 1 BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut inserts = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (store, row) = (store.clone(), if number == 77 { bad.clone() } else { row(&number.to_string()) });
        inserts.spawn(async move { store.insert(&soon(), vec![row]).await.map(|_| ()) });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.execute_batch("ROLLBACK").unwrap();
    let results = inserts.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Other));
    let rows = store.list(&soon(), Query { limit: 1000, ..Query::default() }).await.unwrap();
    assert_eq!(rows.len(), 199);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_close_it_takes_nothing() {
    let folder = Folder::new();
    let store = SqliteStore::open_alone(&folder.file()).await.unwrap();
    store.insert(&soon(), vec![row("x")]).await.unwrap();
    store.close_file(&soon()).await.unwrap();
    assert_eq!(store.insert(&soon(), vec![row("y")]).await.unwrap_err().kind(), Kind::Storage);
    assert!(!folder.0.join("outbox.db-wal").exists(), "the last one who closes leaves one file");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_mebibytes_go_through_an_outbox() {
    let body: Vec<u8> =
        (0..16 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let inner = StandIn::new([fails(Kind::Unavailable)], Step::Sent);
    let case = Case::new(json!({}), &inner).await;
    let receipt = case.outbox.send(&soon(), Arc::new(Message::new(body.clone()))).await.unwrap();
    assert_eq!(receipt.disposition, crate::message::Disposition::Stored);
    assert_eq!(case.rows().await[0]["size"], 16 << 20);
    case.outbox.drain(&soon()).await.unwrap();
    assert_eq!(inner.count(), 2);
    assert!(inner.messages()[1].body()[..] == body[..], "as it was");
    assert!(case.rows().await.is_empty());
    case.outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_longer_than_his_lease_changes_nothing_of_its_next_owner() {
    let inner = StandIn::new([], Step::Takes(Duration::from_millis(400)));
    let case = Case::new(json!({"when": "always"}), &inner).await;
    case.send("slow").await.unwrap();
    until("the send", || inner.count() == 1).await;
    let now = case.time.0.load(Ordering::SeqCst) + 60_000;
    let claim = crate::outbox::row::Claim {
        producer: "orders".into(),
        now,
        until: now + 60_000,
        rows: 9,
        bytes: u64::MAX,
        tell: true,
    };
    let next = case.store.claim(&soon(), claim).await.unwrap().rows.remove(0);
    until("the end", || case.state()["lost"] == 1).await;
    assert_eq!(case.count("leased").await, 1);
    let how = crate::outbox::row::How::Sent { keep: false };
    let end = crate::outbox::row::End { id: next.id, token: next.token, now, how };
    assert_eq!(case.store.settle(&soon(), vec![end]).await.unwrap(), [true]);
    case.outbox.close(&soon()).await.unwrap();
}
