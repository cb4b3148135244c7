//! Leases that end over a MongoDB that fails in the middle of it.

use ::mongodb::bson::doc;

use super::cuts::{LINES, ROWS, SENT, again, hex, inserted, list, refusing, settled, unconfirmed};
use super::mongodb::{claimed, fault, keyed, opened_at};
use super::server::Mongo;
use super::*;
use crate::outbox::mongodb::Fault;
use crate::outbox::row::{End, How, RowInfo, State};

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_comes_too_late_changes_nothing() {
    let mut server = Mongo::start();
    let (store, other) = (opened_at(&server.url()).await, opened_at(&server.url()).await);
    for (command, how) in [("delete", SENT), ("update", again())] {
        let id = inserted(&store, row("x")).await.unwrap().id;
        let first = claimed(&store, 1000, 1).await.rows.remove(0);
        // It was found to be his, and is another's when the command comes.
        server.meddle(command, ROWS, 0, "wait");
        let settling = tokio::spawn({
            let store = store.clone();
            async move { settled(&store, id, first.token, how).await }
        });
        server.met();
        let second = claimed(&other, 1100, 1).await.rows.remove(0);
        assert_eq!(second.id, id);
        server.go_on();
        assert!(!settling.await.unwrap().unwrap(), "{command}");
        let there = list(&store).await.remove(0);
        assert_eq!((there.state, there.attempts), (State::Leased, 0));
        assert!(settled(&other, id, second.token, SENT).await.unwrap());
        assert!(list(&store).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_that_ends_unknown_says_so_and_its_line_goes_on() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    for (command, how, left) in [("delete", SENT, 0), ("update", again(), 1)] {
        for what in ["lose".to_owned(), format!("confirm {}", unconfirmed())] {
            let id = inserted(&store, row("x")).await.unwrap().id;
            let token = claimed(&store, 1000, 1).await.rows[0].token;
            server.meddle(command, ROWS, 0, &what);
            let error = settled(&store, id, token, how.clone()).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::Unknown), "{error:?}");
            assert_eq!(list(&store).await.len(), left);
            // It was done: there is nothing to end any more.
            assert!(!settled(&store, id, token, how.clone()).await.unwrap());
            store.drop_rows(&soon(), None, vec![id], 1001).await.unwrap();
        }
    }
    // The row is settled, and the turn of its line is not: that ends with the lease.
    let ids = store.insert(&soon(), vec![keyed("a1", "a"), keyed("a2", "a")]).await.unwrap();
    let first = claimed(&store, 1000, 9).await.rows.remove(0);
    server.meddle("update", LINES, 0, "refuse");
    assert!(settled(&store, ids[0].id, first.token, SENT).await.unwrap());
    assert!(claimed(&store, 1099, 9).await.rows.is_empty());
    assert_eq!(claimed(&store, 1100, 9).await.rows[0].id, ids[1].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_differ_go_in_one_command() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let hows = [
        How::Again { due: 5000, counted: true, error: "{\"n\":1}".into(), rest: None },
        How::Again { due: 6000, counted: false, error: "{\"n\":2}".into(), rest: None },
        How::Again { due: 7000, counted: true, error: "{}".into(), rest: Some(row("less").message) },
        How::Released,
        How::Sent { keep: true },
        How::Dead { counted: true, error: "{}".into(), rest: None, tell: false },
        SENT,
    ];
    store.insert(&soon(), vec![row("x"); hows.len()]).await.unwrap();
    let rows = claimed(&store, 1000, 9).await.rows;
    let ends = rows.iter().zip(hows).zip(1010..);
    let ends: Vec<End> =
        ends.map(|((row, how), now)| End { id: row.id, token: row.token, now, how }).collect();
    // A second one would be cut.
    server.meddle("update", ROWS, 1, "refuse");
    assert_eq!(store.settle(&soon(), ends).await.unwrap(), [true; 7]);
    let state = |row: &RowInfo| (row.state, row.attempts, row.due, row.short.to_vec());
    let there = list(&store).await;
    let wanted = [
        (State::Pending, 1, Some(5000), b"x".to_vec()),
        (State::Pending, 0, Some(6000), b"x".to_vec()),
        (State::Pending, 1, Some(7000), b"less".to_vec()),
        (State::Pending, 0, Some(1016), b"x".to_vec()),
        (State::Done, 0, None, b"x".to_vec()),
        (State::Dead, 1, None, b"x".to_vec()),
    ];
    assert_eq!(there.iter().map(state).collect::<Vec<_>>(), wanted);
    assert!(there.iter().all(|row| row.updated == 1016), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_refused_is_told_to_who_asked_for_it() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    store.insert(&soon(), vec![keyed("a1", "a"), keyed("a2", "a"), row("x")]).await.unwrap();
    let rows = claimed(&store, 1000, 9).await.rows;
    let end = |row: usize, how| End { id: rows[row].id, token: rows[row].token, now: 1000, how };
    // The one that is sent is deleted: its line goes on, whatever becomes of the other.
    server.meddle("update", ROWS, 0, &format!("answer {}", refusing(0, 14031)));
    let error = store.settle(&soon(), vec![end(0, SENT), end(1, again())]).await.unwrap_err();
    assert_eq!((fault(&error), error.outcome()), (Fault::Full, Outcome::Unknown), "{error:?}");
    let next = claimed(&store, 1000, 9).await.rows;
    assert_eq!(next.iter().map(|row| &row.message.body[..]).collect::<Vec<_>>(), [b"a2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_made_and_not_seen_is_unknown() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let none = hex(&doc! {"ok": 1.0, "n": 0});
    for (command, how) in [("delete", SENT), ("update", again())] {
        let id = inserted(&store, row("x")).await.unwrap().id;
        let token = claimed(&store, 1000, 1).await.rows[0].token;
        // As if another had one of them; and then nobody answers, nor at the driver's second try.
        server.meddle(command, ROWS, 0, &format!("confirm {none}"));
        for _ in 0..2 {
            server.meddle("find", ROWS, 1, "lose");
        }
        let error = settled(&store, id, token, how.clone()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::Unknown), "{error:?}");
        assert!(!settled(&store, id, token, how).await.unwrap());
        store.drop_rows(&soon(), None, vec![id], 1001).await.unwrap();
    }
}
