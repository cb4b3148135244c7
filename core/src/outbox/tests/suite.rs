//! What every store does, over two openers of one store that is empty: each is run for each kind of store.

use std::collections::HashSet;

use super::*;
use crate::outbox::row::{Claim, Claimed, Claims, Dropped, End, How, Purge, Query, RowId, State, Which};

/// The same store, opened twice.
pub(in crate::outbox) type Pair = (Arc<dyn Store>, Arc<dyn Store>);

fn claim_of(now: Millis, rows: usize) -> Claim {
    Claim { producer: "orders".into(), now, until: now + 100, rows, bytes: u64::MAX, tell: true }
}

async fn claimed(store: &Arc<dyn Store>, now: Millis, rows: usize) -> Claims {
    store.claim(&soon(), claim_of(now, rows)).await.unwrap()
}

fn bodies(claims: &Claims) -> Vec<String> {
    claims.rows.iter().map(|row| String::from_utf8(row.message.body.to_vec()).unwrap()).collect()
}

async fn inserted(store: &Arc<dyn Store>, rows: Vec<NewRow>) -> Vec<RowId> {
    store.insert(&soon(), rows).await.unwrap().into_iter().map(|row| row.id).collect()
}

async fn settled(store: &Arc<dyn Store>, id: RowId, token: u64, now: Millis, how: How) -> bool {
    store.settle(&soon(), vec![End { id, token, now, how }]).await.unwrap()[0]
}

fn again(due: Millis) -> How {
    How::Again { due, counted: true, error: r#"{"kind":"unavailable"}"#.into(), rest: None }
}

fn dead(tell: bool) -> How {
    How::Dead { counted: true, error: r#"{"kind":"timeout"}"#.into(), rest: None, tell }
}

const SENT: How = How::Sent { keep: false };

async fn state_of(store: &Arc<dyn Store>, id: RowId) -> Option<State> {
    store.show(&soon(), id).await.unwrap().map(|(row, _)| row.state)
}

pub(in crate::outbox) async fn a_row_lives_and_ends((one, two): Pair) {
    let mut with_all = row("with all");
    with_all.message.head = Some(r#"{"key":"k"}"#.into());
    with_all.message.number = u64::MAX;
    with_all.message.delay = 5;
    with_all.topic = Some("t".into());
    with_all.error = Some("{}".into());
    let ids = inserted(&one, vec![row("plain"), with_all.clone()]).await;
    assert!(ids[0] < ids[1]);
    assert!(claimed(&one, 999, 9).await.rows.is_empty(), "not due");
    let claims = claimed(&two, 1000, 9).await;
    assert_eq!((bodies(&claims), claims.more), (vec!["plain".to_owned(), "with all".into()], false));
    assert_eq!(claims.rows[1].message, with_all.message);
    assert_eq!((claims.rows[1].accepted, claims.next), (900, Some(1100)));
    assert!(claimed(&one, 1000, 9).await.rows.is_empty(), "leased");
    let [first, second] = &claims.rows[..] else { panic!("two rows") };
    assert!(settled(&two, first.id, first.token, 1001, SENT).await);
    assert_eq!(state_of(&one, first.id).await, None);
    assert!(settled(&two, second.id, second.token, 1001, again(2000)).await);
    assert!(claimed(&one, 1999, 9).await.rows.is_empty());
    let claims = claimed(&one, 2000, 9).await;
    assert_eq!(claims.rows[0].attempts, 1);
    assert!(settled(&one, second.id, claims.rows[0].token, 2001, How::Sent { keep: true }).await);
    assert_eq!(state_of(&two, second.id).await, Some(State::Done));
    let purge =
        |before| Purge { producer: "orders".into(), state: State::Done, before, told: true, limit: 10 };
    assert_eq!(one.purge(&soon(), purge(2001)).await.unwrap(), 0);
    assert_eq!(one.purge(&soon(), purge(2002)).await.unwrap(), 1);
    assert_eq!(state_of(&two, second.id).await, None);
}

pub(in crate::outbox) async fn a_lease_ends_and_its_token_with_it((one, two): Pair) {
    let id = inserted(&one, vec![row("x")]).await[0];
    let first = claimed(&one, 1000, 1).await.rows.remove(0);
    assert!(claimed(&two, 1099, 1).await.rows.is_empty());
    let second = claimed(&two, 1100, 1).await.rows.remove(0);
    assert_eq!((first.id, second.id), (id, id));
    assert_ne!(first.token, second.token);
    for how in [SENT, again(1), dead(true), How::Released] {
        assert!(!settled(&one, id, first.token, 1101, how).await, "the lease is another's");
    }
    assert_eq!(state_of(&one, id).await, Some(State::Leased));
    // Late, but nobody else has it: that it was sent is true.
    assert!(settled(&two, id, second.token, 9000, SENT).await);
    assert!(!settled(&two, id, second.token, 9000, SENT).await);
    // Neither a number nor a token comes again.
    let last = id;
    let leased = NewRow { start: Start::Leased { until: 1500 }, ..row("z") };
    let next = two.insert(&soon(), vec![leased]).await.unwrap()[0];
    assert!(next.id > last);
    assert!(!settled(&one, next.id, first.token, 1001, SENT).await);
    assert!(settled(&one, next.id, next.token, 1001, SENT).await);
    // One that was released can be claimed by anybody.
    let id = inserted(&one, vec![row("y")]).await[0];
    let third = claimed(&one, 1000, 1).await.rows.remove(0);
    assert!(settled(&one, id, third.token, 1001, How::Released).await);
    assert_eq!(claimed(&two, 1001, 1).await.rows[0].attempts, 0);
}

pub(in crate::outbox) async fn a_row_comes_leased_to_who_inserts_it((one, two): Pair) {
    let leased = NewRow { start: Start::Leased { until: 1500 }, ..row("x") };
    let inserted = one.insert(&soon(), vec![leased]).await.unwrap()[0];
    assert!(inserted.fresh);
    assert!(claimed(&two, 1499, 9).await.rows.is_empty());
    assert!(settled(&one, inserted.id, inserted.token, 1001, again(1001)).await);
    let row = claimed(&two, 1001, 9).await.rows.remove(0);
    assert!(!settled(&one, row.id, inserted.token, 1002, SENT).await);
}

pub(in crate::outbox) async fn claims_are_bounded_by_rows_and_bytes((one, _two): Pair) {
    inserted(&one, (0..10).map(|number| row(&format!("{number}{}", "x".repeat(99)))).collect()).await;
    let claims = claimed(&one, 1000, 3).await;
    assert_eq!((claims.rows.len(), claims.more), (3, true));
    let claims = one.claim(&soon(), Claim { bytes: 250, ..claim_of(1000, 9) }).await.unwrap();
    assert_eq!((claims.rows.len(), claims.more), (2, true));
    let claims = one.claim(&soon(), Claim { bytes: 1, ..claim_of(1000, 9) }).await.unwrap();
    assert_eq!((claims.rows.len(), claims.more), (1, true), "one always");
    let claims = claimed(&one, 1000, 4).await;
    assert_eq!((claims.rows.len(), claims.more), (4, false), "exactly what there is");
}

pub(in crate::outbox) async fn large_bodies_and_changed_ones_come_back((one, two): Pair) {
    let body: Vec<u8> =
        (0..16 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut large = row("");
    large.message.body = body.clone().into();
    let id = inserted(&one, vec![large.clone()]).await[0];
    let claim = claimed(&two, 1000, 1).await.rows.remove(0);
    assert!(claim.message == large.message, "16 MiB as they were");
    let (info, shown) = one.show(&soon(), id).await.unwrap().unwrap();
    assert!(shown.body == body && info.size == 16 << 20 && info.short == body[..512]);
    // What is left after a part was sent.
    let rest = StoredMessage { head: Some(r#"{"rest":true}"#.into()), ..large.message.clone() };
    let how = How::Again { due: 1001, counted: true, error: "{}".into(), rest: Some(rest.clone()) };
    assert!(settled(&two, id, claim.token, 1001, how).await);
    let claim = claimed(&two, 1001, 1).await.rows.remove(0);
    assert!(claim.message == rest);
    let small = StoredMessage { body: "small".into(), ..rest.clone() };
    let how = How::Again { due: 1002, counted: true, error: "{}".into(), rest: Some(small.clone()) };
    assert!(settled(&two, id, claim.token, 1001, how).await);
    let claim = claimed(&one, 1002, 1).await.rows.remove(0);
    assert_eq!(claim.message, small);
    let how = How::Dead { counted: true, error: "{}".into(), rest: Some(rest.clone()), tell: false };
    assert!(settled(&one, id, claim.token, 1003, how).await);
    assert!(one.show(&soon(), id).await.unwrap().unwrap().1 == rest);
    assert_eq!(one.drop_rows(&soon(), None, vec![id], 1003).await.unwrap(), [Dropped::Gone]);
    // An empty body is one too.
    let id = inserted(&one, vec![row("")]).await[0];
    assert!(one.show(&soon(), id).await.unwrap().unwrap().1.body.is_empty());
}

/// A row shows the body itself, and not the attachments behind it.
pub(in crate::outbox) async fn a_short_form_is_of_the_body_alone((one, two): Pair) {
    for behind in [8, 5000] {
        let held = format!(r#"{{"attachments":[{{"name":"a","content_type":"b","length":{behind}}}]}}"#);
        let mut with = row("");
        with.message.head = Some(held);
        with.message.body = [b"body".to_vec(), vec![7; behind]].concat().into();
        let id = inserted(&one, vec![with.clone()]).await[0];
        let (info, message) = two.show(&soon(), id).await.unwrap().unwrap();
        assert!(message == with.message);
        assert_eq!((info.size, &info.short[..]), (4, &b"body"[..]), "{behind} behind it");
        one.drop_rows(&soon(), None, vec![id], 1000).await.unwrap();
    }
}

/// What comes from elsewhere does not bring back what is dead here.
pub(in crate::outbox) async fn what_is_restored_changes_nothing_that_is_known((one, two): Pair) {
    let restored =
        || NewRow { dedup: Some("d".into()), start: Start::Restored { due: 1000 }, ..row("first") };
    assert!(one.insert(&soon(), vec![restored()]).await.unwrap()[0].fresh);
    let row = claimed(&two, 1000, 9).await.rows.remove(0);
    assert!(settled(&two, row.id, row.token, 1001, dead(false)).await);
    assert!(!one.insert(&soon(), vec![restored()]).await.unwrap()[0].fresh);
    assert_eq!(state_of(&one, row.id).await, Some(State::Dead));
}

pub(in crate::outbox) async fn a_dedup_key_is_kept_once((one, two): Pair) {
    let keyed = |body: &str| NewRow { dedup: Some("d".into()), ..row(body) };
    let first = one.insert(&soon(), vec![keyed("first"), keyed("in the same")]).await.unwrap();
    assert_eq!((first[0].fresh, first[1].fresh, first[0].id == first[1].id), (true, false, true));
    let second = two.insert(&soon(), vec![keyed("second")]).await.unwrap()[0];
    assert_eq!((second.fresh, second.id), (false, first[0].id));
    let others = NewRow { producer: "other".into(), ..keyed("theirs") };
    assert!(two.insert(&soon(), vec![others]).await.unwrap()[0].fresh);
    // Dead, it begins anew; gone, it is a new one.
    let row = claimed(&one, 1000, 9).await.rows.remove(0);
    assert!(settled(&one, row.id, row.token, 1001, dead(false)).await);
    assert!(!two.insert(&soon(), vec![keyed("third")]).await.unwrap()[0].fresh);
    let row = claimed(&one, 1002, 9).await.rows.remove(0);
    assert_eq!((&row.message.body[..], row.attempts), (&b"first"[..], 0));
    assert!(settled(&one, row.id, row.token, 1003, SENT).await);
    assert!(two.insert(&soon(), vec![keyed("fourth")]).await.unwrap()[0].fresh);
}

pub(in crate::outbox) async fn rows_of_a_key_come_one_at_a_time((one, two): Pair) {
    let keyed = |body: &str, key: &str| NewRow { order_key: Some(key.into()), ..row(body) };
    assert!(!one.holds_key(&soon(), "orders", "a").await.unwrap());
    let ids =
        inserted(&one, vec![keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), keyed("a3", "a")]).await;
    assert!(two.holds_key(&soon(), "orders", "a").await.unwrap());
    assert!(!two.holds_key(&soon(), "other", "a").await.unwrap());
    let claims = claimed(&two, 1000, 9).await;
    assert_eq!(bodies(&claims), ["a1", "b1"]);
    assert!(claimed(&one, 1000, 9).await.rows.is_empty());
    // The first one's failure holds up the others of its key.
    assert!(settled(&two, ids[0], claims.rows[0].token, 1001, again(2000)).await);
    assert!(settled(&two, ids[2], claims.rows[1].token, 1001, SENT).await);
    assert!(claimed(&one, 1999, 9).await.rows.is_empty());
    // Given up, it lets them go.
    let row = claimed(&one, 2000, 9).await.rows.remove(0);
    assert!(settled(&one, row.id, row.token, 2001, dead(false)).await);
    let claims = claimed(&one, 2001, 9).await;
    assert_eq!(bodies(&claims), ["a2"]);
    // An older one that begins anew waits for the one under way, and goes before those behind it.
    let which = Which::Ids { producer: None, ids: vec![ids[0]] };
    assert_eq!(two.revive(&soon(), which, 2002).await.unwrap().count, 1);
    assert!(claimed(&two, 2002, 9).await.rows.is_empty());
    assert!(settled(&one, ids[1], claims.rows[0].token, 2003, again(2003)).await);
    let claims = claimed(&two, 2003, 9).await;
    assert_eq!(bodies(&claims), ["a1"]);
    assert!(settled(&two, ids[0], claims.rows[0].token, 2004, SENT).await);
    let claims = claimed(&two, 2004, 9).await;
    assert_eq!(bodies(&claims), ["a2"]);
    assert!(settled(&two, ids[1], claims.rows[0].token, 2005, How::Released).await);
    assert_eq!(one.drop_rows(&soon(), None, vec![ids[1]], 2005).await.unwrap(), [Dropped::Gone]);
    assert_eq!(bodies(&claimed(&two, 2005, 9).await), ["a3"]);
}

pub(in crate::outbox) async fn what_was_given_up_is_told_once((one, two): Pair) {
    let ids = inserted(&one, vec![row("a"), row("b"), row("c")]).await;
    let claims = claimed(&one, 1000, 9).await;
    for (claimed, tell) in claims.rows.iter().zip([true, false, true]) {
        assert!(settled(&one, claimed.id, claimed.token, 1001, dead(tell)).await);
    }
    let untold = |store: Arc<dyn Store>, now| async move {
        store.untold(&soon(), "orders", now, now + 50, 10, 1).await.unwrap()
    };
    let first = untold(one.clone(), 2000).await;
    assert_eq!(first.rows.iter().map(|row| row.0).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!((first.shown.len(), first.shown[0].attempts), (1, 1));
    assert!(untold(two.clone(), 2049).await.rows.is_empty(), "the first tells");
    let second = untold(two.clone(), 2050).await;
    assert_eq!(second.rows.len(), 2);
    one.told(&soon(), first.rows, None).await.unwrap();
    two.told(&soon(), second.rows, Some(3000)).await.unwrap();
    assert!(untold(one.clone(), 2999).await.rows.is_empty());
    let third = untold(one.clone(), 3000).await;
    assert_eq!(third.rows.len(), 2, "the first came too late");
    one.told(&soon(), third.rows, None).await.unwrap();
    assert!(untold(two.clone(), 1 << 50).await.rows.is_empty());
}

/// Rows of which somebody is still to be told go only when somebody asks for all.
pub(in crate::outbox) async fn what_is_still_to_be_told_is_not_purged((one, two): Pair) {
    let ids = inserted(&one, vec![row("a"), row("b"), row("c")]).await;
    let claims = claimed(&one, 1000, 9).await;
    for (claimed, tell) in claims.rows.iter().zip([true, false, true]) {
        assert!(settled(&one, claimed.id, claimed.token, 1001, dead(tell)).await);
    }
    let purged = async |told| {
        let purge = Purge { producer: "orders".into(), state: State::Dead, before: 5000, told, limit: 10 };
        one.purge(&soon(), purge).await.unwrap()
    };
    assert_eq!((purged(true).await, state_of(&two, ids[1]).await), (1, None), "nobody is to be told");
    // Being told, and put off, is not told.
    let untold = two.untold(&soon(), "orders", 2000, 2050, 10, 0).await.unwrap().rows;
    assert_eq!((untold.len(), purged(true).await), (2, 0));
    two.told(&soon(), untold[..1].to_vec(), Some(9000)).await.unwrap();
    two.told(&soon(), untold[1..].to_vec(), None).await.unwrap();
    assert_eq!(purged(true).await, 1);
    assert_eq!((state_of(&two, ids[0]).await, state_of(&two, ids[2]).await), (Some(State::Dead), None));
    assert_eq!((purged(false).await, state_of(&two, ids[0]).await), (1, None));
}

pub(in crate::outbox) async fn rows_are_retried_hastened_and_dropped((one, two): Pair) {
    let ids = inserted(&one, (0..6).map(|number| row(&number.to_string())).collect()).await;
    let claims = claimed(&one, 1000, 9).await;
    let token = |place: usize| claims.rows[place].token;
    assert!(settled(&one, ids[0], token(0), 1001, again(90_000)).await);
    assert!(settled(&one, ids[1], token(1), 1001, dead(false)).await);
    assert!(settled(&one, ids[2], token(2), 1001, again(50_000)).await);
    // 3, 4 and 5 are leased; 5 until the end.
    let ends = one.drop_rows(&soon(), None, vec![ids[3], RowId(1 << 40), ids[1]], 1002).await.unwrap();
    assert_eq!(ends, [Dropped::Leased, Dropped::Unknown, Dropped::Gone]);
    assert_eq!(
        two.drop_rows(&soon(), Some("other".into()), vec![ids[0]], 1002).await.unwrap(),
        [Dropped::Unknown]
    );
    assert_eq!(
        two.drop_rows(&soon(), None, vec![ids[3]], 1100).await.unwrap(),
        [Dropped::Gone],
        "its lease ended"
    );
    assert!(!settled(&one, ids[3], token(3), 1101, SENT).await);
    assert_eq!(one.hasten(&soon(), "orders", 60_000).await.unwrap(), 1);
    let due = |id| {
        let two = two.clone();
        async move { two.show(&soon(), id).await.unwrap().unwrap().0.due }
    };
    assert_eq!((due(ids[0]).await, due(ids[2]).await), (Some(60_000), Some(50_000)));
    assert!(settled(&one, ids[4], token(4), 1101, dead(false)).await);
    let page = |dead, after, limit| Which::Page { producer: Some("orders".into()), dead, after, limit };
    let first = one.revive(&soon(), page(true, RowId(0), 2), 1200).await.unwrap();
    assert_eq!((first.count, first.last), (2, Some(ids[2])));
    let second = one.revive(&soon(), page(true, ids[2], 2), 1200).await.unwrap();
    assert_eq!((second.count, second.last), (1, None));
    // What was revived is anybody's; what is leased stays who has it.
    let claims = claimed(&two, 1200, 9).await;
    let found: HashSet<RowId> = claims.rows.iter().map(|row| row.id).collect();
    assert_eq!(found, HashSet::from([ids[0], ids[2], ids[4], ids[5]]));
    assert_eq!(claims.rows.iter().find(|row| row.id == ids[4]).unwrap().attempts, 0, "it begins anew");
    assert_eq!(claims.rows.iter().find(|row| row.id == ids[0]).unwrap().attempts, 1, "it goes on");
    let which = Which::Ids { producer: None, ids: vec![ids[0]] };
    assert_eq!(one.revive(&soon(), which, 1201).await.unwrap().count, 0, "leased");
}

pub(in crate::outbox) async fn pages_skip_nothing_while_rows_go((one, two): Pair) {
    let ids = inserted(&one, (0..100).map(|number| row(&number.to_string())).collect()).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = Query { producer: Some("orders".into()), after, limit: 10, ..Query::default() };
        let page = two.list(&soon(), query).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        // What was listed goes before the next page is asked for.
        let listed: Vec<RowId> = page.iter().map(|row| row.id).collect();
        one.drop_rows(&soon(), None, listed.clone(), 1000).await.unwrap();
        seen.extend(listed);
    }
    assert_eq!(seen, ids);
}

pub(in crate::outbox) async fn rows_are_listed_and_counted((one, two): Pair) {
    let theirs = NewRow { producer: "other".into(), ..row("theirs") };
    let ids = inserted(&one, vec![row("a"), theirs, NewRow { accepted: 800, ..row("b") }]).await;
    let claims = claimed(&one, 1000, 1).await;
    assert!(settled(&one, ids[0], claims.rows[0].token, 1001, dead(false)).await);
    let of = |producer: Option<&str>, state| Query {
        producer: producer.map(str::to_owned),
        state,
        after: None,
        limit: 10,
    };
    let listed = |query| {
        let two = two.clone();
        async move { two.list(&soon(), query).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>() }
    };
    assert_eq!(listed(of(None, None)).await, ids);
    assert_eq!(listed(of(Some("other"), None)).await, [ids[1]]);
    assert_eq!(listed(of(None, Some(State::Dead))).await, [ids[0]]);
    assert_eq!(listed(of(Some("orders"), Some(State::Pending))).await, [ids[2]]);
    let info = two.list(&soon(), of(Some("orders"), Some(State::Dead))).await.unwrap().remove(0);
    assert_eq!((info.attempts, info.due, info.updated, &info.short[..]), (1, None, 1001, &b"a"[..]));
    assert_eq!(info.error.as_deref(), Some(r#"{"kind":"timeout"}"#));
    let stats = two.stats(&soon(), None).await.unwrap();
    assert_eq!(stats.iter().map(|stats| &stats.producer[..]).collect::<Vec<_>>(), ["orders", "other"]);
    assert_eq!((stats[0].rows, stats[0].next, stats[0].oldest), ([1, 0, 0, 1], Some(1000), Some(800)));
    assert_eq!(two.stats(&soon(), Some("nobody")).await.unwrap()[0].rows, [0; 4]);
    assert_eq!((one.identity(), one.kind()), (two.identity(), two.kind()));
}

/// Many claim at once from both openers: each row is given out once.
pub(in crate::outbox) async fn two_openers_never_hold_the_same_row((one, two): Pair) {
    const ROWS: usize = 2_000;
    // In portions: the MongoDB of the tests reads all rows for each command.
    const PORTION: usize = 500;
    let mut held: Vec<RowId> = Vec::new();
    for part in 0..ROWS / PORTION {
        let rows = (0..PORTION).map(|number| row(&format!("{}", part * PORTION + number)));
        inserted(&one, rows.collect()).await;
        let mut takers = tokio::task::JoinSet::new();
        for store in [&one, &two, &one, &two] {
            takers.spawn(taken(store.clone()));
        }
        held.extend(takers.join_all().await.into_iter().flatten());
    }
    assert_eq!(held.len(), ROWS);
    assert_eq!(held.iter().collect::<HashSet<_>>().len(), ROWS);
}

async fn taken(store: Arc<dyn Store>) -> Vec<RowId> {
    let mut held = Vec::new();
    loop {
        let claims = claimed(&store, 1000, 101).await;
        if claims.rows.is_empty() && !claims.more {
            return held;
        }
        let end = |row: &Claimed| End { id: row.id, token: row.token, now: 1001, how: SENT };
        let ends = claims.rows.iter().map(end).collect();
        assert!(store.settle(&soon(), ends).await.unwrap().into_iter().all(|own| own));
        held.extend(claims.rows.iter().map(|row| row.id));
    }
}
