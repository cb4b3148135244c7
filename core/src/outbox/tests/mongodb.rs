//! The store in MongoDB: the suite, and what a server away from here brings with it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use ::mongodb::Collection;
use ::mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};
use futures_util::TryStreamExt;

use super::server::Mongo;
use super::suite;
use super::*;
use crate::outbox::mongodb::{Fault, MongoStore, Target};
use crate::outbox::row::{Claim, Claims, End, How, Query, RowId, State};
use crate::outbox::{Address, open_store};

fn target(url: &str) -> Target {
    match Address::parse(url).unwrap() {
        Address::Mongo(target) => target,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn opened_at(url: &str) -> Arc<MongoStore> {
    Arc::new(MongoStore::open_alone(&target(url)).await.unwrap())
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let server = Mongo::start();
            let pair: suite::Pair = (opened_at(&server.url()).await, opened_at(&server.url()).await);
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

pub(super) fn fault(error: &Error) -> Fault {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return *fault;
        }
        source = error.source();
    }
    panic!("no fault: {error:?}");
}

pub(super) async fn raw(server: &Mongo, name: &str) -> Collection<Document> {
    let client = ::mongodb::Client::with_uri_str(server.url()).await.unwrap();
    client.database("shop").collection(&format!("ceiba_outbox{name}"))
}

pub(super) async fn keys(of: &Collection<Document>) -> Vec<String> {
    let found: Vec<Document> = of.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    found.iter().map(|one| one.get_str("_id").unwrap().to_owned()).collect()
}

pub(super) async fn claimed(store: &MongoStore, now: Millis, rows: usize) -> Claims {
    let claim = Claim { producer: "orders".into(), now, until: now + 100, rows, bytes: u64::MAX, tell: true };
    store.claim(&soon(), claim).await.unwrap()
}

pub(super) fn large(fill: u8) -> NewRow {
    let mut row = row("");
    row.message.body = vec![fill; 9 << 20].into();
    row
}

#[tokio::test]
async fn who_gives_the_same_address_has_the_same_store() {
    let server = Mongo::start();
    let open = async |url: String| open_store(&Address::parse(&url).unwrap(), true).await.unwrap();
    let one = open(server.url()).await;
    assert!(Arc::ptr_eq(&one, &open(server.url()).await));
    let other = open(format!("{}?collection=others", server.url())).await;
    assert!(!Arc::ptr_eq(&one, &other));
    assert_ne!(one.identity(), other.identity());
    other.insert(&soon(), vec![row("x")]).await.unwrap();
    assert!(one.list(&soon(), Query { limit: 1, ..Query::default() }).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_or_refuses_is_told_without_the_password() {
    let mut server = Mongo::start();
    let url = format!("mongodb://ann:hunter2@{}/shop", server.address());
    let refused = MongoStore::open_alone(&target(&url)).await.err().unwrap();
    assert_eq!((refused.kind(), fault(&refused)), (Kind::Storage, Fault::Login), "{refused:?}");
    server.kill();
    let began = Instant::now();
    let away = MongoStore::open_alone(&target(&url)).await.err().unwrap();
    assert_eq!((away.kind(), fault(&away)), (Kind::Storage, Fault::Away), "{away:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(away.retryable() && !refused.retryable());
    for error in [refused, away] {
        let text = format!("{error} {error:?} {} {}", error.text(), error.to_json());
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_waited_for_until_the_deadline() {
    let server = Mongo::start();
    let store = opened_at(&server.url()).await;
    store.insert(&soon(), vec![row("x")]).await.unwrap();
    server.freeze();
    let began = Instant::now();
    let short = || Context::within(Duration::from_millis(300));
    let insert = store.insert(&short(), vec![row("y")]).await.unwrap_err();
    let list = store.list(&short(), Query { limit: 1, ..Query::default() }).await.unwrap_err();
    let claim = Claim { producer: "orders".into(), now: 1000, until: 2000, rows: 1, bytes: 1, tell: true };
    let claim = store.claim(&short(), claim).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.thaw();
    for error in [&insert, &list, &claim] {
        assert_eq!((error.kind(), fault(error)), (Kind::Timeout, Fault::Late), "{error:?}");
    }
    let outcomes = [insert.outcome(), list.outcome(), claim.outcome()];
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotSent, Outcome::Unknown]);
    store.insert(&soon(), vec![row("z")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_stays_the_callers_and_all_goes_on_after_a_restart() {
    let mut server = Mongo::start();
    let store: Arc<dyn Store> = opened_at(&server.url()).await;
    let (inner, time) = (StandIn::new([], fails(Kind::Unavailable)), Time::new());
    let outbox = opened(json!({"schedule": "60s", "store_timeout": "4s"}), &inner, None, &store, &time);
    let send = |body: &'static str| {
        let (outbox, message) = (outbox.clone(), Arc::new(Message::new(body)));
        async move { outbox.send(&Context::within(Duration::from_secs(2)), message).await }
    };
    assert!(send("before").await.is_ok());
    server.kill();
    let began = Instant::now();
    let error = send("mine").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Away), "{error:?}");
    assert!(error.message().contains("by the script") && error.retryable(), "{error}");
    let last = || outbox.status()["strategies"][0]["last_error"]["kind"].clone();
    until("the status", || last() == json!("storage")).await;
    server.restart();
    let mut stored = send("after").await;
    for _ in 0..10 {
        // The driver looks for the server now and then.
        if stored.is_ok() {
            break;
        }
        stored = send("after").await;
    }
    assert_eq!(stored.unwrap().disposition, crate::message::Disposition::Stored);
    inner.becomes(Step::Sent);
    let sent = inner.count();
    time.pass(60);
    until("what was stored", || inner.count() >= sent + 2).await;
    let bodies: HashSet<String> = inner.bodies().split_off(sent).into_iter().collect();
    assert_eq!(bodies, HashSet::from(["before".to_owned(), "after".into()]));
    until("an answer of the store", || last() == Value::Null).await;
    outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_go_on_over_a_restart_of_the_server() {
    let mut server = Mongo::start();
    let store: Arc<dyn Store> = opened_at(&server.url()).await;
    let (inner, time) = (StandIn::new([], Step::Sent), Time::new());
    let outbox = opened(json!({"when": "always", "schedule": "1s"}), &inner, None, &store, &time);
    let mut senders = tokio::task::JoinSet::new();
    let over = tokio_util::sync::CancellationToken::new();
    for sender in 0..4 {
        let (outbox, over) = (outbox.clone(), over.clone());
        senders.spawn(async move {
            let (mut taken, mut refused) = (Vec::new(), 0_usize);
            for number in 0.. {
                let body = format!("{sender}-{number}");
                match outbox.send(&soon(), Arc::new(Message::new(body.clone()))).await {
                    Ok(_) => taken.push(body),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Storage, "{error:?}");
                        refused += 1;
                    }
                }
                if over.is_cancelled() {
                    return (taken, refused);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            unreachable!()
        });
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.kill();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    server.restart();
    let before = inner.count();
    until("a send after the restart", || inner.count() > before + 20).await;
    over.cancel();
    let ends = senders.join_all().await;
    assert!(ends.iter().map(|(_, refused)| refused).sum::<usize>() > 0, "nobody noticed");
    let taken: HashSet<String> = ends.into_iter().flat_map(|(taken, _)| taken).collect();
    let left = || taken.difference(&inner.bodies().into_iter().collect()).count();
    for _ in 0..300 {
        if left() == 0 {
            break;
        }
        // What was claimed when the server went is claimed anew when its lease has ended.
        time.pass(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left(), 0, "of {} messages", taken.len());
    outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_body_that_never_came_into_a_row_are_deleted() {
    let server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let parts = raw(&server, ".bodies").await;
    let kept = store.insert(&soon(), vec![large(1)]).await.unwrap()[0].id;
    let own = keys(&parts).await;
    assert_eq!(own.len(), 3, "9 MiB are three parts");
    // As of who died after the second of three parts, and of who died before the last one went.
    let data = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 1000] };
    for left in ["aaaa/000000", "aaaa/000001", "bbbb/000002"] {
        parts.insert_one(doc! {"_id": left, "made": 5_i64, "data": data.clone()}).await.unwrap();
    }
    store.sweep(&soon(), 5).await.unwrap();
    assert_eq!(keys(&parts).await.len(), 6, "it may be on its way");
    store.sweep(&soon(), 6).await.unwrap();
    assert_eq!(keys(&parts).await, own);
    // What a row names stays, however old it is.
    store.sweep(&soon(), Millis::MAX).await.unwrap();
    let (_, message) = store.show(&soon(), kept).await.unwrap().unwrap();
    assert!(message.body == vec![1; 9 << 20]);
    // The runner of a client does it too.
    parts.insert_one(doc! {"_id": "cccc/000000", "made": 5_i64, "data": data}).await.unwrap();
    let (inner, time) = (StandIn::new([], fails(Kind::Unavailable)), Time::new());
    let shared: Arc<dyn Store> = store.clone();
    let outbox = opened(json!({}), &inner, None, &shared, &time);
    for _ in 0..400 {
        if keys(&parts).await.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(keys(&parts).await, own);
    outbox.close(&soon()).await.unwrap();
    // The parts go with the row, and with a body that changes.
    let claim = claimed(&store, Millis::MAX / 2, 1).await.rows.remove(0);
    let rest = StoredMessage { body: vec![2; 5 << 20].into(), ..claim.message.clone() };
    let how = How::Again { due: 1, counted: true, error: "{}".into(), rest: Some(rest) };
    let end = End { id: kept, token: claim.token, now: 1, how };
    assert_eq!(store.settle(&soon(), vec![end]).await.unwrap(), [true]);
    let changed = keys(&parts).await;
    assert!(changed.len() == 2 && changed.iter().all(|key| !own.contains(key)), "{changed:?}");
    store.drop_rows(&soon(), None, vec![kept], 2).await.unwrap();
    assert!(keys(&parts).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_is_given_up_and_the_others_are_sent() {
    let server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let ids = store.insert(&soon(), vec![large(1), large(2), row("small")]).await.unwrap();
    let parts = raw(&server, ".bodies").await;
    let rows = raw(&server, "").await;
    let first = rows.find_one(doc! {"_id": ids[0].id.0 as i64}).await.unwrap().unwrap();
    let name = first.get_document("body_at").unwrap().get_str("name").unwrap().to_owned();
    parts.delete_one(doc! {"_id": format!("{name}/000001")}).await.unwrap();
    let error = store.show(&soon(), ids[0].id).await.unwrap_err();
    assert_eq!((error.kind(), fault(&error)), (Kind::Storage, Fault::Damaged));
    let inner = StandIn::new([], Step::Sent);
    let shared: Arc<dyn Store> = store.clone();
    let outbox = opened(json!({}), &inner, None, &shared, &Time::new());
    until("the others", || inner.count() == 2).await;
    let dead = Query { state: Some(State::Dead), limit: 10, ..Query::default() };
    for _ in 0..400 {
        if !store.list(&soon(), dead.clone()).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let dead = store.list(&soon(), dead).await.unwrap();
    assert_eq!(dead.iter().map(|row| row.id).collect::<Vec<RowId>>(), [ids[0].id]);
    assert!(dead[0].error.as_ref().unwrap().contains("storage"), "{:?}", dead[0].error);
    outbox.close(&soon()).await.unwrap();
}

pub(super) fn keyed(body: &str, key: &str) -> NewRow {
    NewRow { order_key: Some(key.into()), ..row(body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_goes_on_after_who_had_its_turn_died() {
    let server = Mongo::start();
    let store = opened_at(&server.url()).await;
    let ids = store.insert(&soon(), vec![keyed("a1", "a"), keyed("a2", "a")]).await.unwrap();
    assert_eq!(claimed(&store, 1000, 9).await.rows[0].id, ids[0].id);
    // It died after its row went, and before the next was made due.
    raw(&server, "").await.delete_one(doc! {"_id": ids[0].id.0 as i64}).await.unwrap();
    assert!(claimed(&store, 1099, 9).await.rows.is_empty(), "it may still be at it");
    let row = claimed(&store, 1100, 9).await.rows.remove(0);
    assert_eq!(row.id, ids[1].id);
    // Or before that: its lease ends, and it is tried again before the others.
    let third = store.insert(&soon(), vec![keyed("a3", "a")]).await.unwrap()[0].id;
    assert!(claimed(&store, 1150, 9).await.rows.is_empty());
    let row = claimed(&store, 1200, 9).await.rows.remove(0);
    assert_eq!(row.id, ids[1].id);
    let end = End { id: row.id, token: row.token, now: 1201, how: How::Sent { keep: false } };
    assert_eq!(store.settle(&soon(), vec![end]).await.unwrap(), [true]);
    assert_eq!(claimed(&store, 1201, 9).await.rows[0].id, third);
    assert_eq!(keys(&raw(&server, ".lines").await).await.len(), 1, "one has a turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_keep_their_order_among_many_claimers() {
    const KEYS: usize = 8;
    const EACH: usize = 6;
    let server = Mongo::start();
    let stores = [opened_at(&server.url()).await, opened_at(&server.url()).await];
    let sent: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let under_way: Arc<Mutex<HashSet<String>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    let inserter = stores[0].clone();
    tasks.spawn(async move {
        for number in 0..EACH {
            let rows = (0..KEYS).map(|key| keyed(&format!("{key}:{number}"), &key.to_string())).collect();
            inserter.insert(&soon(), rows).await.unwrap();
        }
    });
    for place in 0..4 {
        let store = stores[place % 2].clone();
        let (sent, under_way) = (sent.clone(), under_way.clone());
        tasks.spawn(async move {
            let mut now = 1000;
            let done = || sent.lock().values().map(Vec::len).sum::<usize>() == KEYS * EACH;
            while !done() {
                // Nobody's lease ends here.
                let claim = Claim {
                    producer: "orders".into(),
                    now,
                    until: 1 << 40,
                    rows: 5,
                    bytes: u64::MAX,
                    tell: true,
                };
                let claims = store.claim(&soon(), claim).await.unwrap();
                now += 1;
                if claims.rows.is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                for row in claims.rows {
                    let body = String::from_utf8(row.message.body.to_vec()).unwrap();
                    let (key, number) = body.split_once(':').unwrap();
                    assert!(under_way.lock().insert(key.to_owned()), "two of {key} at once");
                    tokio::task::yield_now().await;
                    sent.lock().entry(key.to_owned()).or_default().push(number.parse().unwrap());
                    assert!(under_way.lock().remove(key));
                    let end = End { id: row.id, token: row.token, now, how: How::Sent { keep: false } };
                    assert_eq!(store.settle(&soon(), vec![end]).await.unwrap(), [true]);
                }
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(100), tasks.join_all()).await.expect("a line stands still");
    let sent = sent.lock();
    assert!(sent.values().all(|numbers| *numbers == (0..EACH).collect::<Vec<_>>()), "{sent:?}");
}
