//! A drain of an outbox that keeps the order of keys.

use super::*;
use crate::outbox::row::State;

fn keyed(body: &str, key: &str, due: Millis) -> NewRow {
    let order_key = Some(key.into());
    NewRow { order_key, start: Start::Pending { due }, accepted: 1, ..row(body) }
}

async fn left(store: &Arc<dyn Store>) -> [u64; 4] {
    let stats = store.stats(&soon(), Some("orders")).await.unwrap();
    stats.first().map(|stats| stats.rows).unwrap_or_default()
}

async fn a_drain_goes_to_the_end_of_each_line(store: Arc<dyn Store>) {
    const EACH: usize = 12;
    let (inner, time) = (StandIn::new([], Step::Sent), Time::new());
    let due = time.0.load(Ordering::SeqCst) + 1_000_000;
    let rows =
        (0..EACH).flat_map(|number| ["a", "b", "c"].map(|key| keyed(&format!("{key}{number:02}"), key, due)));
    store.insert(&soon(), rows.collect()).await.unwrap();
    let outbox = opened(json!({"ordered": true, "concurrency": 2}), &inner, None, &store, &time);
    assert_eq!(outbox.drain(&soon()).await.unwrap(), [3 * EACH as u64, 0, 0]);
    assert_eq!(left(&store).await, [0; 4]);
    for key in ["a", "b", "c"] {
        let of_key: Vec<String> = inner.bodies().into_iter().filter(|body| body.starts_with(key)).collect();
        assert!(of_key.len() == EACH && of_key.is_sorted(), "{of_key:?}");
    }
    // What is given up lets the next go; what is put off holds up those behind it, and not the drain.
    store.insert(&soon(), ["d0", "d1", "d2", "d3"].map(|body| keyed(body, "d", due)).into()).await.unwrap();
    let steps = [Step::Sent, fails(Kind::InvalidArgument), fails(Kind::Unavailable)];
    *inner.script.lock() = steps.into();
    assert_eq!(outbox.drain(&soon()).await.unwrap(), [1, 2, 1]);
    assert_eq!(left(&store).await, [2, 0, 0, 1]);
    assert_eq!(outbox.drain(&soon()).await.unwrap(), [2, 0, 0]);
    assert_eq!(left(&store).await[State::Pending as usize], 0);
    outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_to_the_end_of_each_line_in_a_file() {
    let folder = Folder::new();
    a_drain_goes_to_the_end_of_each_line(another(&folder.file()).await).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_to_the_end_of_each_line_in_mongodb() {
    let server = super::server::Mongo::start();
    let address = crate::outbox::Address::parse(&server.url()).unwrap();
    let store = crate::outbox::open_store(&address, true).await.unwrap();
    a_drain_goes_to_the_end_of_each_line(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_follow_what_comes_after_it_into_a_line() {
    let inner = StandIn::new([], Step::Takes(Duration::from_millis(5)));
    let case = Case::new(json!({"ordered": true}), &inner).await;
    let now = || case.time.0.load(Ordering::SeqCst);
    case.store
        .insert(
            &soon(),
            (0..20).map(|number| keyed(&format!("old {number:02}"), "k", now() + 1_000_000)).collect(),
        )
        .await
        .unwrap();
    let outbox = case.outbox.clone();
    let mut drain = tokio::spawn(async move { outbox.drain(&soon()).await });
    until("the first", || inner.count() > 0).await;
    // The line grows faster than it goes.
    let drained = loop {
        case.time.pass(1);
        let new = NewRow { accepted: now(), ..keyed("new", "k", now()) };
        case.store.insert(&soon(), vec![new; 5]).await.unwrap();
        case.outbox.wake();
        tokio::select! {
            drained = &mut drain => break drained.unwrap().unwrap(),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    };
    let old = inner.bodies().iter().filter(|body| body.starts_with("old")).count();
    assert!(old == 20 && drained[0] >= 20, "{old} of 20, {drained:?}");
    assert!(case.count("pending").await > 0, "the line did not grow");
    case.outbox.close(&soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_along_a_line_ends_with_its_caller_s_time() {
    let inner = StandIn::new([], Step::Takes(Duration::from_millis(50)));
    let case = Case::new(json!({"ordered": true}), &inner).await;
    let due = case.time.0.load(Ordering::SeqCst) + 1_000_000;
    case.store.insert(&soon(), (0..40).map(|_| keyed("x", "k", due)).collect()).await.unwrap();
    let error = case.outbox.drain(&Context::within(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(inner.count() < 40);
    case.outbox.close(&soon()).await.unwrap();
}
