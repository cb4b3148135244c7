//! Queues, topics and subscriptions are made, changed, listed and deleted.

use ceiba_core::error::Kind;
use ceiba_core::message::Message;
use ceiba_core::provider::mns::{Admin, Created};
use ceiba_core::wire::mns::{Listing, QueueAttributes, SubscriptionAttributes, TopicAttributes};
use serde_json::json;

use crate::server::Server;
use crate::{producer, section, send, setup, within};

#[tokio::test]
async fn queues() {
    let server = Server::start().await;
    let admin = Admin::open(&setup(), section(&server, json!({"queue": null}))).await.unwrap();
    let ctx = within(10);
    let attributes = QueueAttributes { visibility_timeout: Some(5), ..QueueAttributes::default() };
    assert_eq!(admin.create_queue(&ctx, "new", attributes.clone()).await.unwrap(), Created::New);
    assert_eq!(admin.create_queue(&ctx, "new", attributes).await.unwrap(), Created::Same);
    let other = QueueAttributes { visibility_timeout: Some(6), ..QueueAttributes::default() };
    assert_eq!(
        admin.create_queue(&ctx, "new", other.clone()).await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
    admin.set_queue(&ctx, "new", other).await.unwrap();
    let meta = admin.queue(&ctx, "new").await.unwrap();
    assert_eq!((&*meta.name, meta.attributes.visibility_timeout, meta.create_time), ("new", Some(6), 1));
    for number in 0..5 {
        admin.create_queue(&ctx, &format!("many-{number}"), QueueAttributes::default()).await.unwrap();
    }
    let mut names = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let listing = Listing {
            prefix: Some("many-".into()),
            marker: marker.clone().map(Into::into),
            number: Some(2),
            with_meta: true,
        };
        let (page, next) = admin.queues(&ctx, listing).await.unwrap();
        names.extend(page.iter().map(|listed| listed.meta.as_ref().unwrap().name.clone()));
        assert!(page.iter().all(|listed| listed.name() == listed.meta.as_ref().unwrap().name));
        match next {
            Some(next) => marker = Some(next),
            None => break,
        }
    }
    assert_eq!(names, ["many-0", "many-1", "many-2", "many-3", "many-4"]);
    admin.delete_queue(&ctx, "new").await.unwrap();
    assert_eq!(admin.delete_queue(&ctx, "new").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(admin.queue(&ctx, "a/b").await.unwrap_err().kind(), Kind::InvalidArgument);
    let odd = Listing { prefix: Some("a\nb".into()), ..Listing::default() };
    assert_eq!(admin.queues(&ctx, odd).await.unwrap_err().kind(), Kind::InvalidArgument);
    let many = Listing { number: Some(1001), ..Listing::default() };
    assert_eq!(admin.queues(&ctx, many).await.unwrap_err().kind(), Kind::InvalidArgument);

    assert!(admin.peek(&ctx, "q", 16).await.unwrap().is_empty());
    assert_eq!(admin.peek(&ctx, "missing", 16).await.unwrap_err().kind(), Kind::NotFound);
    let producer = producer(&server, json!({})).await;
    send(&producer, Message::new("seen")).await.unwrap();
    let seen = admin.peek(&ctx, "q", 16).await.unwrap();
    assert_eq!((seen.len(), &*seen[0].body), (1, "seen"));
    assert_eq!(server.stored(), 1);
}

#[tokio::test]
async fn topics_and_subscriptions() {
    let server = Server::start().await;
    let admin = Admin::open(&setup(), section(&server, json!({}))).await.unwrap();
    let ctx = within(10);
    assert_eq!(admin.create_topic(&ctx, "news", TopicAttributes::default()).await.unwrap(), Created::New);
    let logged = TopicAttributes { logging_enabled: Some(true), ..TopicAttributes::default() };
    assert_eq!(
        admin.create_topic(&ctx, "news", logged.clone()).await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
    admin.set_topic(&ctx, "news", logged).await.unwrap();
    assert_eq!(admin.topic(&ctx, "news").await.unwrap().attributes.logging_enabled, Some(true));
    let (listed, next) = admin.topics(&ctx, Listing::default()).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.name()).collect::<Vec<_>>(), ["news", "t"]);
    assert!(next.is_none() && listed[0].meta.is_none());

    let pushed = SubscriptionAttributes {
        endpoint: Some("http://127.0.0.1:1/?a=1&b=2".into()),
        filter_tag: Some("t".into()),
        notify_content_format: Some("SIMPLIFIED".into()),
        ..SubscriptionAttributes::default()
    };
    assert_eq!(admin.subscribe(&ctx, "news", "s", pushed.clone()).await.unwrap(), Created::New);
    assert_eq!(admin.subscribe(&ctx, "news", "s", pushed).await.unwrap(), Created::Same);
    let strategy = |name: &str| SubscriptionAttributes {
        notify_strategy: Some(name.into()),
        ..SubscriptionAttributes::default()
    };
    admin.set_subscription(&ctx, "news", "s", strategy("EXPONENTIAL_DECAY_RETRY")).await.unwrap();
    let meta = admin.subscription(&ctx, "news", "s").await.unwrap();
    assert_eq!((&*meta.name, &*meta.topic), ("s", "news"));
    assert_eq!(meta.attributes.endpoint.as_deref(), Some("http://127.0.0.1:1/?a=1&b=2"));
    assert_eq!(meta.attributes.notify_strategy.as_deref(), Some("EXPONENTIAL_DECAY_RETRY"));
    let listing = Listing { with_meta: true, ..Listing::default() };
    let (listed, _) = admin.subscriptions(&ctx, "news", listing).await.unwrap();
    assert_eq!(listed[0].meta.as_ref().unwrap().attributes.filter_tag.as_deref(), Some("t"));
    admin.unsubscribe(&ctx, "news", "s").await.unwrap();
    assert_eq!(admin.subscription(&ctx, "news", "s").await.unwrap_err().kind(), Kind::NotFound);
    admin.delete_topic(&ctx, "news").await.unwrap();
    assert_eq!(admin.topic(&ctx, "news").await.unwrap_err().kind(), Kind::NotFound);
}
