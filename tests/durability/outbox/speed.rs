//! How fast an outbox is beside bare SQLite.

use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::outbox::row::{NewRow, StoredMessage};
use ceiba_core::outbox::sqlite::SqliteStore;
use ceiba_core::outbox::store::Store;

use super::stored;
use crate::broker::{Folder, runtime, turn};

/// Prints how fast rows go in and out beside bare SQLite; run with `--ignored` in an optimized build.
#[test]
#[ignore = "a measurement"]
fn outbox_speed() {
    let _turn = turn();
    let folder = Folder::new("outbox-speed");
    let bare = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    bare.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         CREATE TABLE rows (id INTEGER PRIMARY KEY, state INTEGER, due INTEGER, created INTEGER, body BLOB)",
    )
    .unwrap();
    let body = vec![7_u8; 200];
    let lasts = Duration::from_secs(3);
    let mut told = Vec::new();
    for batch in [1_usize, 100] {
        let (began, mut count) = (Instant::now(), 0_usize);
        while began.elapsed() < lasts {
            bare.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in 0..batch {
                let mut insert = bare
                    .prepare_cached("INSERT INTO rows (state, due, created, body) VALUES (0, ?1, ?1, ?2)")
                    .unwrap();
                insert.execute((count as i64, &body)).unwrap();
                count += 1;
            }
            bare.execute_batch("COMMIT").unwrap();
        }
        let bare_rate = count as f64 / began.elapsed().as_secs_f64();
        let (rate, claims) = runtime().block_on(async {
            let path = folder.path().join(format!("outbox-{batch}.db"));
            let store = SqliteStore::open_alone(&path).await.unwrap();
            let ctx = Context::within(Duration::from_secs(60));
            let row = NewRow {
                message: StoredMessage { body: body.clone().into(), ..stored(1).message },
                ..stored(1)
            };
            let (began, mut count) = (Instant::now(), 0_usize);
            while began.elapsed() < lasts {
                store.insert(&ctx, vec![row.clone(); batch]).await.unwrap();
                count += batch;
            }
            let rate = count as f64 / began.elapsed().as_secs_f64();
            let (began, mut claimed) = (Instant::now(), 0_usize);
            while began.elapsed() < lasts {
                let claim = ceiba_core::outbox::row::Claim {
                    producer: "orders".into(),
                    now: 0,
                    until: 1_000_000,
                    rows: batch,
                    bytes: u64::MAX,
                };
                let claims = store.claim(&ctx, claim).await.unwrap();
                claimed += claims.rows.len();
                if claims.rows.is_empty() {
                    break;
                }
            }
            (rate, claimed as f64 / began.elapsed().as_secs_f64())
        });
        told.push(format!("batch {batch}: bare {bare_rate:.0}/s, inserts {rate:.0}/s, claims {claims:.0}/s"));
    }
    eprintln!("{}", told.join("\n"));
}
