//! An outbox on a file system that does not answer.

use std::sync::mpsc::channel;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::Kind;
use ceiba_core::outbox::sqlite::SqliteStore;
use serde_json::json;

use crate::broker::turn;
use crate::mounts::{Silent, skipped};

#[test]
fn outbox_on_a_file_system_that_does_not_answer() {
    let _turn = turn();
    let silent = match Silent::mount("outbox-silent") {
        Ok(silent) => silent,
        Err(why) => return skipped("an outbox on a file system that does not answer", &why),
    };
    let path = silent.path().join("outbox.db");
    let url = format!("sqlite:{}", path.display());
    let (tell, told) = channel();
    let asks = std::thread::spawn(move || {
        // It has one thread: if that stands still, so does everything.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let short = Duration::from_millis(300);
        let kinds = runtime.block_on(async {
            let mut kinds = Vec::new();
            for _ in 0..3 {
                kinds.push(calls::outbox::list(&url, json!({}), Some(short)).await.unwrap_err().kind());
            }
            let opened = tokio::time::timeout(short, SqliteStore::open(&path, true)).await;
            assert!(opened.is_err(), "it was opened");
            kinds
        });
        let _ = tell.send(kinds);
        runtime
    });
    let kinds = told.recv_timeout(Duration::from_secs(30));
    // Who still waits fails now.
    drop(silent);
    drop(asks.join().unwrap());
    assert_eq!(kinds.expect("a thread of the runtime waits for the disk"), [Kind::Timeout; 3]);
}
