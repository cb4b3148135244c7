//! An outbox in MongoDB whose process is killed, and one that two processes share.

use std::path::Path;
use std::time::Duration;

use ceiba_core::outbox::{Address, open_store};
use ceiba_tests::mongo::Mongo;

use super::process::{PLACES, Place};
use super::{killed, number, shared_by_two};
use crate::broker::{Folder, runtime, turn};

fn in_mongodb(server: &Mongo, folder: &Path) -> Place {
    // The server of the tests reads all rows for each command.
    let other_side = folder.join("other-side");
    Place { url: server.url(), other_side, lease: "3s", poll: "20ms", places: PLACES, bytes: 0 }
}

#[test]
fn outbox_in_mongodb_killed_while_it_stores() {
    let _turn = turn();
    for when in ["always", "on_failure"] {
        let (server, folder) = (Mongo::start(), Folder::new(&format!("outbox-mongo-{when}")));
        killed(&in_mongodb(&server, folder.path()), when, 5, Duration::from_millis(400), 2);
    }
}

#[test]
fn outbox_in_mongodb_killed_in_the_middle_of_large_bodies() {
    let _turn = turn();
    let (server, folder) = (Mongo::start(), Folder::new("outbox-mongo-large"));
    // Two parts each.
    let place = Place { bytes: 5 << 20, places: 2, lease: "10s", ..in_mongodb(&server, folder.path()) };
    killed(&place, "always", 4, Duration::from_millis(1200), 0);
}

#[test]
fn outbox_in_mongodb_shared_by_two_processes() {
    let _turn = turn();
    let (server, folder, runtime) = (Mongo::start(), Folder::new("outbox-mongo-shared"), runtime());
    // Few at a time, seldom asked for: who asks waits behind all who asked before, in both processes.
    let place = Place { places: 50, lease: "60s", poll: "300ms", ..in_mongodb(&server, folder.path()) };
    let store = runtime.block_on(open_store(&Address::parse(&server.url()).unwrap(), true)).unwrap();
    // The server's time for one command grows with the rows that are there.
    let rows = number("CEIBA_OUTBOX_ROWS").map_or(600, |rows| rows.min(10_000));
    shared_by_two(&runtime, &place, &*store, rows, [50, 100]);
}
