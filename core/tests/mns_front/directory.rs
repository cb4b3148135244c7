//! Queues, topics and subscriptions themselves, by our own administration.

use ceiba_core::error::Kind;
use ceiba_core::provider::mns::{Admin, Created};
use ceiba_core::wire::mns::*;
use serde_json::json;

use crate::raw::ask_for;
use crate::{section, setup, start, within};

#[tokio::test]
async fn queues() {
    let broker = start().await;
    let admin = Admin::open(&setup(), section(&broker, json!({}))).await.unwrap();
    let ctx = within(10);
    let attributes = QueueAttributes { visibility_timeout: Some(9), ..QueueAttributes::default() };
    assert_eq!(admin.create_queue(&ctx, "a", attributes.clone()).await.unwrap(), Created::New);
    assert_eq!(admin.create_queue(&ctx, "a", attributes.clone()).await.unwrap(), Created::Same);
    let other = admin.create_queue(&ctx, "a", QueueAttributes::default()).await;
    assert_eq!(other.unwrap_err().kind(), Kind::InvalidArgument);
    let meta = admin.queue(&ctx, "a").await.unwrap();
    assert_eq!((meta.attributes.visibility_timeout, meta.attributes.delay_seconds), (Some(9), Some(0)));
    assert!(meta.create_time > 1_700_000_000);
    let longer = QueueAttributes { delay_seconds: Some(3), ..QueueAttributes::default() };
    admin.set_queue(&ctx, "a", longer).await.unwrap();
    let meta = admin.queue(&ctx, "a").await.unwrap();
    assert_eq!((meta.attributes.visibility_timeout, meta.attributes.delay_seconds), (Some(9), Some(3)));
    for name in ["b1", "b2", "b3", "b4", "b5", "c"] {
        admin.create_queue(&ctx, name, QueueAttributes::default()).await.unwrap();
    }
    let mut names = Vec::new();
    let mut marker: Option<String> = None;
    let mut pages = 0;
    loop {
        let listing = Listing {
            prefix: Some("b".into()),
            number: Some(2),
            marker: marker.take().map(Into::into),
            with_meta: pages == 1,
        };
        let (page, next) = admin.queues(&ctx, listing).await.unwrap();
        names.extend(page.iter().map(|one| one.name().to_owned()));
        assert!(page.iter().all(|one| one.meta.is_some() == (pages == 1)));
        pages += 1;
        marker = next;
        if marker.is_none() {
            break;
        }
        // What is deleted meanwhile is no stumbling block.
        admin.delete_queue(&ctx, names.last().unwrap()).await.unwrap();
    }
    assert_eq!((pages, names.join(" ")), (3, "b1 b2 b3 b4 b5".to_owned()));
    admin.delete_queue(&ctx, "a").await.unwrap();
    assert_eq!(admin.queue(&ctx, "a").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn topics_and_subscriptions() {
    let broker = start().await;
    let admin = Admin::open(&setup(), section(&broker, json!({}))).await.unwrap();
    let ctx = within(10);
    let size = |size| TopicAttributes { maximum_message_size: Some(size), ..TopicAttributes::default() };
    assert_eq!(admin.create_topic(&ctx, "t", size(2048)).await.unwrap(), Created::New);
    assert_eq!(admin.create_topic(&ctx, "t", size(2048)).await.unwrap(), Created::Same);
    admin.create_topic(&ctx, "t", size(4096)).await.unwrap_err();
    admin.set_topic(&ctx, "t", size(4096)).await.unwrap();
    assert_eq!(admin.topic(&ctx, "t").await.unwrap().attributes.maximum_message_size, Some(4096));
    admin.create_topic(&ctx, "t-2", TopicAttributes::default()).await.unwrap();
    let to = |endpoint: &str| SubscriptionAttributes {
        endpoint: Some(endpoint.to_owned()),
        ..SubscriptionAttributes::default()
    };
    let queue = "acs:mns:here:1:queues/q";
    for name in ["s1", "s2", "s3"] {
        assert_eq!(admin.subscribe(&ctx, "t", name, to(queue)).await.unwrap(), Created::New);
    }
    assert_eq!(admin.subscribe(&ctx, "t", "s1", to(queue)).await.unwrap(), Created::Same);
    let other = admin.subscribe(&ctx, "t", "s1", to("acs:mns:here:1:queues/other")).await;
    assert_eq!(other.unwrap_err().kind(), Kind::InvalidArgument);
    let nowhere = admin.subscribe(&ctx, "t", "s4", to("mail:directmail:a@example.com")).await;
    assert_eq!(nowhere.unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(admin.subscribe(&ctx, "no", "s", to(queue)).await.unwrap_err().kind(), Kind::NotFound);
    let set = SubscriptionAttributes {
        notify_strategy: Some("EXPONENTIAL_DECAY_RETRY".into()),
        ..SubscriptionAttributes::default()
    };
    admin.set_subscription(&ctx, "t", "s1", set).await.unwrap();
    let meta = admin.subscription(&ctx, "t", "s1").await.unwrap();
    assert_eq!(meta.attributes.endpoint.as_deref(), Some(queue));
    assert_eq!(meta.attributes.notify_strategy.as_deref(), Some("EXPONENTIAL_DECAY_RETRY"));
    assert_eq!(meta.attributes.notify_content_format.as_deref(), Some("XML"));
    assert_eq!((&*meta.topic, &*meta.name), ("t", "s1"));
    let listing = Listing { number: Some(2), ..Listing::default() };
    let (page, next) = admin.subscriptions(&ctx, "t", listing).await.unwrap();
    assert_eq!((page.len(), next.as_deref()), (2, Some("s2")));
    let listing = Listing { marker: next.map(Into::into), ..Listing::default() };
    let (page, next) = admin.subscriptions(&ctx, "t", listing).await.unwrap();
    assert_eq!((page[0].name(), page.len(), next), ("s3", 1, None));
    admin.unsubscribe(&ctx, "t", "s2").await.unwrap();
    assert_eq!(admin.subscription(&ctx, "t", "s2").await.unwrap_err().kind(), Kind::NotFound);
    let (topics, _) = admin.topics(&ctx, Listing::default()).await.unwrap();
    assert_eq!(topics.iter().map(Listed::name).collect::<Vec<_>>(), ["t", "t-2"]);
    // Its subscriptions go with it.
    admin.delete_topic(&ctx, "t").await.unwrap();
    admin.create_topic(&ctx, "t", TopicAttributes::default()).await.unwrap();
    assert!(admin.subscriptions(&ctx, "t", Listing::default()).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn the_account_and_where_things_are() {
    let broker = start().await;
    let made = ask_for(&broker, "PUT", "/queues/q", "<Queue/>").await;
    assert_eq!((made.status, made.header("Location")), (201, Some("http://here/queues/q")));
    let made = ask_for(&broker, "PUT", "/topics/t", "").await;
    assert_eq!((made.status, made.header("Location")), (201, Some("http://here/topics/t")));
    let body = "<Account><LoggingBucket>logs</LoggingBucket></Account>";
    assert_eq!(ask_for(&broker, "PUT", "/?accountmeta=true", body).await.status, 204);
    let account = ask_for(&broker, "GET", "/?accountmeta=true", "").await;
    assert!(account.body.contains("<LoggingBucket>logs</LoggingBucket>"), "{account:?}");
    let opened = ask_for(&broker, "POST", "/commonbuy/openservice", "").await;
    assert!(opened.status == 200 && opened.body.contains("<OrderId>"), "{opened:?}");
}

#[tokio::test]
async fn names_of_headers_are_written_as_the_official_clients_read_them() {
    let broker = start().await;
    let made = ask_for(&broker, "PUT", "/queues/q", "").await;
    for name in ["\r\nLocation: ", "\r\nx-mns-request-id: ", "\r\nx-mns-version: "] {
        assert!(made.head.contains(name), "{name:?} in {:?}", made.head);
    }
    let refused = ask_for(&broker, "GET", "/queues/missing", "").await;
    assert!(refused.head.contains("\r\nContent-Type: text/xml"), "{:?}", refused.head);
    // Refusals have a namespace of their own.
    assert!(refused.body.contains("<Error xmlns=\"http://mns.aliyuncs.com/doc/v1\">"), "{}", refused.body);
}
