//! What a MongoDB that fails in the middle of a call leaves: an answer that is lost, refused or late is met by a command of
//! the test's choice.

use std::time::Instant;

use ::mongodb::bson::{Document, doc};

use super::mongodb::{claimed, fault, keyed, keys, large, opened_at, raw};
use super::server::Mongo;
use super::*;
use crate::outbox::mongodb::{Fault, MongoStore};
use crate::outbox::row::{Claim, End, How, Query, RowId, RowInfo, State};

pub(super) const ROWS: &str = "ceiba_outbox";
const BODIES: &str = "ceiba_outbox.bodies";
pub(super) const LINES: &str = "ceiba_outbox.lines";

pub(super) fn hex(document: &Document) -> String {
    document.to_vec().unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn document(hex: &str) -> Document {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    Document::from_reader(&bytes[..]).unwrap()
}

/// An answer of a write that refused one document.
pub(super) fn refusing(place: i32, code: i32) -> String {
    let error = doc! {"index": place, "code": code, "errmsg": "by the test"};
    hex(&doc! {"ok": 1.0, "n": 0, "writeErrors": [error]})
}

/// An answer of a write that no majority has confirmed.
pub(super) fn unconfirmed() -> String {
    let error = doc! {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "by the test"};
    hex(&doc! {"ok": 1.0, "n": 1, "nModified": 1, "writeConcernError": error})
}

pub(super) async fn list(store: &MongoStore) -> Vec<RowInfo> {
    store.list(&soon(), Query { limit: 100, ..Query::default() }).await.unwrap()
}

async fn until_row(store: &MongoStore, what: &str, there: impl Fn(&RowInfo) -> bool) {
    for _ in 0..1600 {
        if list(store).await.iter().any(&there) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not so: {what}: {:?}", list(store).await);
}

/// Waits until the row is in this state, which it would not be for long by itself.
async fn becomes(store: &MongoStore, id: RowId, state: State) {
    until_row(store, &format!("{id} is {state:?}"), |row| row.id == id && row.state == state).await;
}

fn with_key(key: &str) -> NewRow {
    NewRow { dedup: Some(key.into()), ..row("x") }
}

/// A row whose body stands apart, in one part.
fn apart() -> NewRow {
    let mut row = row("");
    row.message.body = vec![b'x'; 100 << 10].into();
    row
}

pub(super) fn again() -> How {
    How::Again { due: 5000, counted: true, error: "{}".into(), rest: None }
}

pub(super) const SENT: How = How::Sent { keep: false };

pub(super) async fn settled(store: &MongoStore, id: RowId, token: u64, how: How) -> Result<bool> {
    Ok(store.settle(&soon(), vec![End { id, token, now: 1000, how }]).await?[0])
}

pub(super) async fn inserted(store: &MongoStore, row: NewRow) -> Result<crate::outbox::row::Inserted> {
    Ok(store.insert(&soon(), vec![row]).await?[0])
}

/// Leases that last longer than any test.
fn long(rows: usize) -> Claim {
    Claim { producer: "orders".into(), now: 1000, until: 10_000_000, rows, bytes: u64::MAX, tell: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_row_that_could_not_begin_anew_is_told() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let first = inserted(&store, with_key("k")).await.unwrap();
    let token = claimed(&store, 1000, 1).await.rows[0].token;
    let dead = How::Dead { counted: true, error: "{}".into(), rest: None, tell: false };
    assert!(settled(&store, first.id, token, dead).await.unwrap());
    server.meddle("update", ROWS, 0, "refuse");
    let error = inserted(&store, with_key("k")).await.unwrap_err();
    assert_eq!(
        (error.kind(), fault(&error), error.outcome()),
        (Kind::Storage, Fault::Away, Outcome::Unknown)
    );
    assert_eq!(list(&store).await[0].state, State::Dead);
    // The caller has it still, and tries again.
    let known = inserted(&store, with_key("k")).await.unwrap();
    assert_eq!((known.id, known.fresh), (first.id, false));
    assert_eq!(list(&store).await[0].state, State::Pending);
    assert_eq!(claimed(&store, 1000, 1).await.rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_goes_while_its_key_is_looked_for_is_inserted() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let first = inserted(&store, with_key("k")).await.unwrap();
    let token = claimed(&store, 1000, 1).await.rows[0].token;
    let dead = How::Dead { counted: true, error: "{}".into(), rest: None, tell: false };
    assert!(settled(&store, first.id, token, dead).await.unwrap());
    // It was found to be there, and is dropped before it begins anew.
    server.meddle("update", ROWS, 0, "wait");
    let inserting = tokio::spawn({
        let store = store.clone();
        async move { inserted(&store, with_key("k")).await }
    });
    server.met();
    let other = opened_at(&server.url()).await;
    other.drop_rows(&soon(), None, vec![first.id], 1000).await.unwrap();
    server.go_on();
    let second = inserting.await.unwrap().unwrap();
    assert!(second.fresh && second.id != first.id);
    assert_eq!(list(&store).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_two_who_chose_the_same_number_are_both_kept() {
    let mut server = Mongo::start();
    let (one, two) = (opened_at(&server.url()).await, opened_at(&server.url()).await);
    let first = inserted(&one, row("first")).await.unwrap();
    // A machine whose clock is ahead numbered it: whoever comes now takes the next number.
    let rows = raw(&server, "").await;
    let mut ahead = rows.find_one(doc! {"_id": first.id.0 as i64}).await.unwrap().unwrap();
    ahead.insert("_id", 1_i64 << 62);
    ahead.insert("only", format!("i{}", 1_i64 << 62));
    rows.insert_one(ahead).await.unwrap();
    server.meddle("insert", ROWS, 0, "wait");
    let inserting = tokio::spawn(async move { inserted(&one, row("slow")).await });
    server.met();
    let fast = inserted(&two, row("fast")).await.unwrap();
    assert_eq!(fast.id.0, (1 << 62) + 1);
    server.go_on();
    let slow = inserting.await.unwrap().unwrap();
    assert!(slow.fresh && slow.id.0 == fast.id.0 + 1, "{slow:?}");
    let bodies: Vec<String> =
        list(&two).await.iter().map(|row| String::from_utf8(row.short.to_vec()).unwrap()).collect();
    assert_eq!(bodies, ["first", "first", "fast", "slow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_ends_unknown_says_so() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let both = {
        let mut answer = document(&refusing(0, 11000));
        answer.extend(document(&unconfirmed()));
        hex(&answer)
    };
    let confirm = [unconfirmed(), both].map(|answer| format!("confirm {answer}"));
    for (told, what) in
        [("lose", Fault::Away), (&confirm[0], Fault::Unconfirmed), (&confirm[1], Fault::Unconfirmed)]
    {
        let before = list(&store).await.len();
        server.meddle("insert", ROWS, 0, told);
        let error = inserted(&store, row("x")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert!(error.kind() == Kind::Storage && error.retryable(), "{error:?}");
        assert_eq!(fault(&error), what, "{error:?}");
        assert_eq!(list(&store).await.len(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_document_is_told_by_its_code_and_is_not_stored() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    for (code, what, again) in [
        (14031, Fault::Full, true),
        (10107, Fault::Away, true),
        (13, Fault::Denied, false),
        (2, Fault::Other, false),
    ] {
        server.meddle("insert", ROWS, 0, &format!("answer {}", refusing(0, code)));
        let error = inserted(&store, row("x")).await.unwrap_err();
        assert_eq!((fault(&error), error.retryable()), (what, again), "{error:?}");
        assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::NotSent), "{error:?}");
    }
    assert!(list(&store).await.is_empty());
    // A part of a body may be there, its row is not.
    for what in ["refuse", "lose"] {
        server.meddle("insert", BODIES, 1, what);
        let error = inserted(&store, large(1)).await.unwrap_err();
        assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Away), "{error:?}");
        assert_eq!((error.outcome(), error.retryable()), (Outcome::NotSent, true), "{error:?}");
    }
    assert!(list(&store).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_row_finds_no_number_leaves_nothing() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    server.meddle("insert", ROWS, 0, &format!("confirm {}", refusing(1, 11000)));
    for _ in 1..8 {
        server.meddle("insert", ROWS, 0, &format!("answer {}", refusing(0, 11000)));
    }
    let large = large(1);
    let error = store.insert(&soon(), vec![large, row("small")]).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::NotSent), "{error:?}");
    assert!(error.retryable() && error.message().contains("number"), "{error:?}");
    // The second is there because the refusal was a lie.
    let left = list(&store).await;
    assert!(left.len() == 1 && &left[0].short[..] == b"small", "{left:?}");
    assert!(keys(&raw(&server, ".bodies").await).await.is_empty());
    // Where the first cannot go it may be sent.
    server.meddle("insert", ROWS, 0, &format!("answer {}", refusing(1, 13)));
    server.meddle("delete", ROWS, 0, "refuse");
    let error = store.insert(&soon(), vec![row("a"), row("b")]).await.unwrap_err();
    assert_eq!((fault(&error), error.outcome()), (Fault::Denied, Outcome::Unknown), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_deleted_with_the_majority_and_what_refuses_is_told() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let parts = raw(&server, ".bodies").await;
    parts.insert_one(doc! {"_id": "aaaa/000000", "made": 5_i64}).await.unwrap();
    for (answer, what) in [(refusing(0, 14031), Fault::Full), (unconfirmed(), Fault::Unconfirmed)] {
        server.meddle("delete", BODIES, 0, &format!("answer {answer}"));
        let error = store.sweep(&soon(), 6).await.unwrap_err();
        assert_eq!((fault(&error), error.outcome()), (what, Outcome::Unknown), "{error:?}");
        let command = document(&server.met());
        let concern = command.get_document("writeConcern").unwrap();
        assert_eq!(concern.get_str("w").unwrap(), "majority");
        assert!(concern.get_bool("j").unwrap());
    }
    assert_eq!(keys(&parts).await.len(), 1);
    store.sweep(&soon(), 6).await.unwrap();
    assert!(keys(&parts).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_claim_took_is_given_back() {
    // The answer to the update that leases them; the search for those that it has, twice, because the driver tries again;
    // the turn of the line.
    let cuts: [&[(&str, &str, u32)]; 3] =
        [&[("update", ROWS, 0)], &[("find", ROWS, 3), ("find", ROWS, 3)], &[("insert", LINES, 0)]];
    for cut in cuts {
        let mut server = Mongo::start();
        let (store, other) = (opened_at(&server.url()).await, opened_at(&server.url()).await);
        let id = inserted(&store, keyed("x", "k")).await.unwrap().id;
        let lines = raw(&server, ".lines").await;
        for (command, collection, skip) in cut {
            server.meddle(command, collection, *skip, "lose");
        }
        let error = store.claim(&soon(), long(9)).await.unwrap_err();
        assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Away), "{cut:?} {error:?}");
        for _ in cut {
            server.met();
        }
        // Its lease, and the turn, would last for hours.
        becomes(&store, id, State::Pending).await;
        let mut row = None;
        for _ in 0..400 {
            row = claimed(&other, 1000, 9).await.rows.pop();
            if row.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let row = row.expect("the turn of the line is given back");
        assert!(settled(&other, id, row.token, How::Released).await.unwrap());
        assert!(keys(&lines).await.is_empty());
    }
    // So is what is claimed for somebody who waits no longer.
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    inserted(&store, row("x")).await.unwrap();
    server.meddle("update", ROWS, 0, "hang");
    let error = store.claim(&Context::within(Duration::from_millis(500)), long(9)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown), "{error:?}");
    store.close(&soon()).await.unwrap();
    assert_eq!(list(&store).await[0].state, State::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_leases_after_the_claim_has_ended_is_given_back() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let id = inserted(&store, row("x")).await.unwrap().id;
    server.meddle("update", ROWS, 0, "wait");
    let short = Context::within(Duration::from_millis(300));
    let error = store.claim(&short, Claim { now: 1500, ..long(9) }).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown), "{error:?}");
    let command = document(&server.met());
    assert!(command.get_i64("maxTimeMS").unwrap() < 20_000, "{command}");
    // Whoever looks meanwhile finds nothing that he could give back.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(list(&store).await[0].state, State::Pending);
    server.go_on();
    until_row(&store, "it is given back", |row| row.id == id && row.updated == 1500).await;
    becomes(&store, id, State::Pending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_never_comes_ends_all_the_same() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    inserted(&store, row("x")).await.unwrap();
    server.meddle("update", ROWS, 0, "hang");
    let began = Instant::now();
    let error = store.claim(&Context::within(Duration::from_secs(120)), long(9)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Late), "{error:?}");
}

#[test]
fn a_runtime_may_end_in_the_middle_of_a_claim() {
    let mut server = Mongo::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = runtime.block_on(opened_at(&server.url()));
    runtime.block_on(inserted(&store, row("x"))).unwrap();
    server.meddle("update", ROWS, 0, "hang");
    let claim = runtime.spawn(async move { store.claim(&soon(), long(9)).await });
    server.met();
    runtime.shutdown_timeout(Duration::from_secs(20));
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(other.block_on(claim).unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_keeps_no_other_row() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let ids = store.insert(&soon(), vec![row("small"), apart(), apart()]).await.unwrap();
    // Two are read, and the one that is not is due as before.
    server.meddle("find", BODIES, 0, "hang");
    server.meddle("find", ROWS, 3, "wait");
    let claims = store.claim(&Context::within(Duration::from_secs(8)), long(9)).await.unwrap();
    let small = claims.rows.iter().find(|row| row.id == ids[0].id).unwrap();
    assert!(claims.rows.len() == 2 && claims.rows.iter().all(|row| row.unread.is_none()), "{claims:?}");
    assert!(claims.more);
    // Those that were read did not wait until the server took the other one back.
    server.met();
    server.met();
    server.go_on();
    let left = ids[1..].iter().find(|id| claims.rows.iter().all(|row| row.id != id.id)).unwrap().id;
    becomes(&store, left, State::Pending).await;
    let left = list(&store).await.into_iter().find(|row| row.id == left).unwrap();
    assert_eq!((left.attempts, left.due), (0, Some(1000)));
    // Where it is the first it had all the time, and whoever sends it is told.
    assert!(settled(&store, small.id, small.token, SENT).await.unwrap());
    server.meddle("find", BODIES, 0, "hang");
    let claims = store.claim(&Context::within(Duration::from_secs(8)), long(9)).await.unwrap();
    let [unread] = &claims.rows[..] else { panic!("{claims:?}") };
    let why = unread.unread.as_ref().unwrap();
    assert_eq!((unread.id, fault(why), why.retryable()), (left.id, Fault::Late, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_body_never_comes_is_given_up() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let slow = inserted(&store, apart()).await.unwrap().id;
    // A machine that is busy may take more than two claims for it.
    for _ in 0..20 {
        server.meddle("find", BODIES, 0, "hang");
    }
    let (inner, time) = (StandIn::new([], Step::Sent), Time::new());
    let shared: Arc<dyn Store> = store.clone();
    let more = json!({"lease": "6s", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "1ms"}});
    let outbox = opened(more, &inner, None, &shared, &time);
    for _ in 0..1600 {
        if list(&store).await[0].attempts == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    time.pass(1);
    becomes(&store, slow, State::Dead).await;
    let dead = list(&store).await.remove(0);
    assert_eq!(dead.attempts, 2);
    assert!(dead.error.as_ref().unwrap().contains("body"), "{:?}", dead.error);
    assert_eq!(inner.count(), 0);
    outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_keeps_nobody_else() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    server.meddle("insert", ROWS, 0, "hang");
    let stuck = tokio::spawn({
        let store = store.clone();
        let ctx = Context::within(Duration::from_secs(120));
        async move { store.insert(&ctx, vec![row("stuck")]).await }
    });
    server.met();
    let began = Instant::now();
    assert!(inserted(&store, row("next")).await.unwrap().fresh);
    assert!(!stuck.is_finished(), "the next waited for it: {:?}", began.elapsed());
    let error = stuck.await.unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::Unknown), "{error:?}");
    assert_eq!(fault(&error), Fault::Late);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_slow_is_overtaken_by_no_row_of_its_key() {
    let mut server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let begin = |body: &'static str, key: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { inserted(&store, keyed(body, key)).await.unwrap().id })
    };
    server.meddle("insert", ROWS, 0, "wait");
    let first = begin("a1", "a");
    server.met();
    let second = begin("a2", "a");
    // Others wait no longer for it than for any that is slow.
    let other = begin("b1", "b").await.unwrap();
    let there: Vec<RowId> = list(&store).await.iter().map(|row| row.id).collect();
    assert_eq!(there, [other]);
    server.go_on();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first < second, "{first} {second}");
}
