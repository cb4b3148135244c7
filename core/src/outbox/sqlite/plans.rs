//! How the file is set up, and that no statement that runs again and again reads rows that it does not want.

use rusqlite::Connection;

use super::change::{OLD_DONE, OLD_TOLD, OLD_UNTOLD, PURGE_DEAD, PURGE_DONE, PURGE_TOLD};
use super::claim::{DUE, DUE_IDS, LEASE, NEXT, SEEN, TAKE};
use super::look::{LATER, OF_STATE, OLDEST};
use super::schema;

fn plan(connection: &Connection, query: &str) -> Vec<String> {
    let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    let count = explained.parameter_count();
    let none = rusqlite::params_from_iter(vec![rusqlite::types::Value::Null; count]);
    let rows = explained.query_map(none, |row| row.get(3)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn each_goes_by_an_index_and_the_file_is_safe() {
    let folder = std::env::temp_dir().join(format!("ceiba-plans-{:032x}", rand::random::<u128>()));
    std::fs::create_dir(&folder).unwrap();
    let (connection, _) = schema::open(&folder.join("outbox.db"), "x", true).unwrap();
    for (query, wanted) in [
        (DUE, "INDEX outbox_due (producer=? AND state=? AND due<?)"),
        (DUE_IDS, "COVERING INDEX outbox_due (producer=? AND state=? AND due<?)"),
        (NEXT, "COVERING INDEX outbox_due (producer=? AND state=? AND due>?)"),
        (OF_STATE, "COVERING INDEX outbox_state (producer=? AND state=? AND rowid>?)"),
        (LATER, "COVERING INDEX outbox_due (producer=? AND state=? AND due>? AND due<?)"),
        (OLDEST, "INDEX outbox_state (producer=? AND state=?)"),
        (OLD_DONE, "COVERING INDEX outbox_due (producer=? AND state=? AND due<?)"),
        (OLD_TOLD, "COVERING INDEX outbox_dead (producer=? AND due=? AND updated<?)"),
        (OLD_UNTOLD, "COVERING INDEX outbox_dead (producer=? AND due<?)"),
        (LEASE, "INTEGER PRIMARY KEY (rowid=?)"),
        (TAKE, "INTEGER PRIMARY KEY (rowid=?)"),
        (SEEN, "COVERING INDEX outbox_due (producer=? AND state=? AND due=? AND rowid=?)"),
        (PURGE_DONE, "INTEGER PRIMARY KEY (rowid=?)"),
        (PURGE_TOLD, "INTEGER PRIMARY KEY (rowid=?)"),
        (PURGE_DEAD, "INTEGER PRIMARY KEY (rowid=?)"),
    ] {
        let plan = plan(&connection, query);
        assert!(
            plan.iter().any(|step| step.starts_with("SEARCH") && step.contains(wanted)),
            "{query}: {plan:?}"
        );
        let sorts = |step: &&String| step.contains("TEMP B-TREE") && query != LATER;
        assert_eq!(plan.iter().find(sorts), None, "{query}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN outbox")), "{query}: {plan:?}");
    }
    let set = |pragma: &str| -> i64 {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
    };
    // A full sync, an incremental vacuum, and a log that does not stay large.
    assert_eq!((set("synchronous"), set("auto_vacuum"), set("journal_size_limit")), (2, 2, 64 << 20));
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    drop(connection);
    std::fs::remove_dir_all(folder).unwrap();
}
