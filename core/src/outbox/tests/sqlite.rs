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
    a_dedup_key_is_kept_once,
    rows_of_a_key_come_one_at_a_time,
    what_was_given_up_is_told_once,
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
    let one = open_store(&Address::parse(&url).unwrap()).await.unwrap();
    let two = open_store(&Address::parse(&url.replace("sqlite:", "sqlite://")).unwrap()).await.unwrap();
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
    assert!(matches!(error.kind(), Kind::Storage | Kind::Timeout), "{error}");
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
        store.close(&soon()).await.unwrap();
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
    store.close(&soon()).await.unwrap();
    assert_eq!(store.insert(&soon(), vec![row("y")]).await.unwrap_err().kind(), Kind::Storage);
    assert!(!folder.0.join("outbox.db-wal").exists(), "the last one who closes leaves one file");
}
