use std::time::Duration;

use super::*;
use crate::broker::config::{TopicConfig, WhenFull};
use crate::broker::store;
use crate::broker::topic::Drafts;
use crate::secret::Secret;

fn hub(topic: TopicConfig) -> Arc<Hub> {
    let config = BrokerConfig { topic, ..BrokerConfig::new(Secret::new("test")) };
    let stored = store::open(&config).unwrap();
    Hub::new(config, SocketAddr::from(([127, 0, 0, 1], 1)), stored)
}

fn drafts(messages: &[(&str, &str)]) -> Drafts {
    let mut drafts = Drafts::default();
    messages.iter().for_each(|(body, key)| drafts.push(body, key, 0));
    drafts
}

async fn reserved<'a>(hub: &'a Hub, drafts: &Drafts) -> Reserved<'a> {
    hub.room().reserve(drafts.cost()).await
}

#[tokio::test]
async fn nothing_of_a_key_stays_in_the_room() {
    let hub = hub(TopicConfig { deduplicate: Some(Duration::from_secs(60)), ..TopicConfig::default() });
    let topic = hub.topic("t").unwrap();
    let batch = drafts(&[("body", "a key"), ("body", "a key"), ("more", "another")]);
    let results = hub.accept(&topic, &batch, reserved(&hub, &batch).await).await.unwrap();
    assert_eq!(results, [Accepted::New(0), Accepted::Duplicate(0), Accepted::New(1)]);
    assert_eq!(hub.room().used(), 2 * Room::cost(4));
    hub.bury(&topic, &batch).await.unwrap();
    assert_eq!(hub.room().used(), 5 * Room::cost(4));
    for topic in hub.all_topics() {
        topic.purge();
    }
    assert_eq!(hub.room().used(), 0);
}

#[tokio::test]
async fn two_dead_messages_of_one_key_are_both_kept() {
    let hub = hub(TopicConfig { deduplicate: Some(Duration::from_secs(60)), ..TopicConfig::default() });
    let topic = hub.topic("t").unwrap();
    for body in ["first", "second"] {
        let results = hub.bury(&topic, &drafts(&[(body, "k")])).await.unwrap();
        assert!(matches!(results[..], [Accepted::New(_)]), "{results:?}");
    }
    assert_eq!(hub.topic("t.dead").unwrap().read(Queue::counts), (2, 0));
}

#[tokio::test]
async fn who_goes_gives_its_room_back() {
    let hub = hub(TopicConfig { max_messages: Some(1), when_full: WhenFull::Wait, ..TopicConfig::default() });
    let topic = hub.topic("t").unwrap();
    let batch = drafts(&[("body", ""), ("body", "k"), ("body", "")]);
    // Before the first look at it.
    drop(hub.accept(&topic, &batch, reserved(&hub, &batch).await));
    assert_eq!(hub.room().used(), 0);
    // While it waits: the first is in the queue.
    let accept = hub.accept(&topic, &batch, reserved(&hub, &batch).await);
    tokio::time::timeout(Duration::from_millis(50), accept).await.unwrap_err();
    assert_eq!(hub.room().used(), Room::cost(4));
    assert_eq!(topic.read(Queue::counts), (1, 0));
    assert_eq!(topic.read(Queue::waiters), 0);
    topic.purge();
    assert_eq!(hub.room().used(), 0);
    // A log that takes nothing.
    hub.log().abort();
    let error = hub.accept(&topic, &batch, reserved(&hub, &batch).await).await.unwrap_err();
    assert!(!error.retryable(), "{error}");
    assert_eq!(hub.room().used(), 0);
}

#[tokio::test]
async fn a_list_is_of_the_newest_that_are_wanted() {
    let hub = hub(TopicConfig::default());
    let topic = hub.topic("t").unwrap();
    let mut batch = Drafts::default();
    // Over several of the steps in which the queue is looked at.
    (0..3000).for_each(|number| batch.push(&number.to_string(), "", if number % 3 == 0 { 60 } else { 0 }));
    hub.accept(&topic, &batch, reserved(&hub, &batch).await).await.unwrap();
    for sequence in 1500..2900 {
        assert!(topic.delete(sequence));
    }
    let newest = |most, delayed: Option<bool>| -> Vec<u64> {
        let listed = topic.newest(most, 0, |is| delayed.is_none_or(|wanted| wanted == is), |_| true);
        listed.iter().map(|shown| shown.sequence).collect()
    };
    let there = || (0..1500u64).chain(2900..3000).rev();
    assert_eq!(newest(10_000, None), there().collect::<Vec<_>>());
    assert_eq!(newest(120, None), there().take(120).collect::<Vec<_>>());
    assert_eq!(newest(200, Some(true)), there().filter(|at| at % 3 == 0).take(200).collect::<Vec<_>>());
    assert_eq!(newest(200, Some(false)), there().filter(|at| at % 3 > 0).take(200).collect::<Vec<_>>());
    assert!(topic.newest(10, i64::MAX, |_| true, |_| true).is_empty());
}
