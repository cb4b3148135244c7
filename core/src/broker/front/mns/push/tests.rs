use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;

use axum::http::Extensions;
use futures_util::poll;

use super::*;
use crate::broker::config::{BrokerConfig, MnsConfig};
use crate::broker::hub::Hub;
use crate::broker::queue::LeaseCounts;
use crate::broker::store;
use crate::secret::Secret;
use crate::wire::mns::{Operation, Outgoing, QueueAttributes, SubscriptionAttributes, TopicAttributes};

/// A front whose log is in this folder, or in memory.
fn front(folder: Option<&Path>, stored_bytes: usize) -> Arc<Front> {
    let mut config = BrokerConfig::new(Secret::new("test"));
    config.data = folder.map(Path::to_owned);
    config.limits.stored_bytes = stored_bytes;
    let stored = store::open(&config).unwrap();
    let hub = Hub::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), stored);
    Front::new(&hub, MnsConfig::new("id", Secret::new("secret")), Extensions::new())
}

fn subscribe(name: &'static str, strategy: Strategy) -> Operation<'static> {
    let attributes = SubscriptionAttributes {
        endpoint: Some("acs:mns:here:1:queues/q".into()),
        notify_strategy: Some(strategy.name().into()),
        notify_content_format: Some("SIMPLIFIED".into()),
        ..SubscriptionAttributes::default()
    };
    Operation::Subscribe { topic: "t".into(), subscription: name.into(), attributes }
}

async fn done(front: &Arc<Front>, operation: Operation<'_>) -> bool {
    let caller = front.caller(&axum::http::HeaderMap::new());
    let answer = front.done(operation, &caller).await;
    answer.into_response(&caller).status().is_success()
}

async fn topic(front: &Arc<Front>) {
    let attributes = TopicAttributes::default();
    assert!(done(front, Operation::CreateTopic { topic: "t".into(), attributes }).await);
}

async fn queue(front: &Arc<Front>, attributes: QueueAttributes) -> Arc<Shelf> {
    assert!(done(front, Operation::CreateQueue { queue: "q".into(), attributes }).await);
    front.hub.depot.find(Sort::Queue, "q").unwrap()
}

async fn publish(front: &Arc<Front>, body: &str) -> bool {
    let message = Outgoing { body: body.into(), ..Outgoing::default() };
    done(front, Operation::Publish { topic: "t".into(), message }).await
}

fn ready(shelf: &Shelf) -> usize {
    let LeaseCounts { ready, .. } = shelf.counts();
    ready
}

fn tries_and_ends(front: &Front) -> (u64, u64) {
    let again = front.hub.shared.redelivered.load(Ordering::Relaxed);
    (again + 1, front.hub.counters.given_up.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn tries_end_and_what_was_given_up_is_counted() {
    for (strategy, before, after, tries) in
        [(Strategy::Backoff, 29, 70, 4), (Strategy::ExponentialDecay, 80_000, 90_000, 177)]
    {
        let front = front(None, 1 << 20);
        topic(&front).await;
        assert!(done(&front, subscribe("s", strategy)).await);
        assert!(publish(&front, "x").await);
        // There is no such queue.
        tokio::time::sleep(Duration::from_secs(before)).await;
        assert_eq!(tries_and_ends(&front).1, 0);
        tokio::time::sleep(Duration::from_secs(after - before)).await;
        assert_eq!(tries_and_ends(&front), (tries, 1));
        assert_eq!(front.hub.room().used(), 0);
        front.hub.clear();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_queue_may_not_have_is_not_put_into_it() {
    let front = front(None, 1 << 20);
    topic(&front).await;
    let attributes = QueueAttributes { maximum_message_size: Some(1024), ..QueueAttributes::default() };
    let queue = queue(&front, attributes).await;
    assert!(done(&front, subscribe("s", Strategy::Backoff)).await);
    assert!(publish(&front, &"x".repeat(1025)).await && publish(&front, &"x".repeat(1024)).await);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((ready(&queue), tries_and_ends(&front).1), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_there_is_a_place_for_it() {
    let front = front(None, 1 << 20);
    topic(&front).await;
    let queue = queue(&front, QueueAttributes::default()).await;
    let all = front.pushes.clone().acquire_many_owned(ALL_AT_ONCE as u32).await.unwrap();
    for name in ["a", "b", "c"] {
        assert!(done(&front, subscribe(name, Strategy::Backoff)).await);
    }
    for _ in 0..20 {
        assert!(publish(&front, "x").await);
    }
    // Longer than a try may take, and than all of them together.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((ready(&queue), tries_and_ends(&front)), (0, (1, 0)));
    drop(all);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((ready(&queue), tries_and_ends(&front)), (60, (1, 0)));
    assert_eq!(front.pushes.available_permits(), ALL_AT_ONCE);
}

#[tokio::test]
async fn a_publish_reaches_all_subscriptions_or_none() {
    let front = front(None, 2000);
    topic(&front).await;
    for name in ["a", "b", "c"] {
        assert!(done(&front, subscribe(name, Strategy::Backoff)).await);
    }
    // A first one has room whatever its length.
    assert!(publish(&front, &"x".repeat(100)).await);
    let used = front.hub.room().used();
    assert!(!publish(&front, &"x".repeat(500)).await);
    assert_eq!(front.hub.room().used(), used);
    let counts = |name| front.hub.depot.find(Sort::Subscription, name).unwrap().counts();
    for name in ["t/a", "t/b", "t/c"] {
        assert_eq!(counts(name).ready + counts(name).leased, 1, "{name}");
    }
    assert!(publish(&front, "x").await);
}

#[tokio::test]
async fn who_does_not_wait_for_its_answer_has_a_subscription_all_the_same() {
    let folder = std::env::temp_dir().join(format!("ceiba-mns-push-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let front = front(Some(&folder), 1 << 20);
    topic(&front).await;
    let queue = queue(&front, QueueAttributes::default()).await;
    {
        let mut asking = Box::pin(done(&front, subscribe("s", Strategy::Backoff)));
        // It waits for the disk, unless that was quicker.
        let _ = poll!(&mut asking);
    }
    assert!(publish(&front, "x").await);
    let came = async {
        while ready(&queue) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), came).await.unwrap();
    let taken = queue.take(1, 30_000, None).remove(0).received;
    let handle = front.handles.encode(queue.number, taken.sequence, taken.priority, taken.serial);
    let change =
        |handle: String| Operation::ChangeVisibility { queue: "q".into(), handle: handle.into(), timeout: 1 };
    assert!(!done(&front, change(handle.replace("8-", "7-"))).await);
    assert!(done(&front, change(handle)).await);
    front.hub.aborted.cancel();
    front.hub.clear();
    drop(front);
    let _ = std::fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_subscription_is_never_without_its_topic() {
    let front = front(None, 1 << 20);
    assert!(!done(&front, subscribe("s", Strategy::Backoff)).await);
    assert!(front.hub.depot.all().is_empty());
}
