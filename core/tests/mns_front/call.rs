//! The administration by one call, its commands and answers as JSON.

use std::sync::Arc;

use ceiba_core::broker::Broker;
use ceiba_core::calls::mns::{COMMANDS, admin};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind};
use ceiba_core::message::Message;
use ceiba_core::provider::mns;
use serde_json::{Value, json};

use crate::{section, setup, start, within};

fn account(broker: &Broker) -> ClientConfig {
    ClientConfig::parse(&format!("mns://id:secret@{}", broker.mns_address().unwrap())).unwrap()
}

async fn done(broker: &Broker, name: &str, arguments: Value) -> Value {
    admin(&account(broker), json!({ name: arguments }), None).await.unwrap()
}

async fn refused(broker: &Broker, name: &str, arguments: Value) -> Error {
    admin(&account(broker), json!({ name: arguments }), None).await.unwrap_err()
}

#[tokio::test]
async fn queues() {
    let broker = start().await;
    let made = json!({"queue": "q", "attributes": {"visibility_timeout": 40, "logging_enabled": true}});
    assert_eq!(done(&broker, "create_queue", made.clone()).await, json!({"created": true}));
    assert_eq!(done(&broker, "create_queue", made).await, json!({"created": false}));
    let other = json!({"queue": "q", "attributes": {"visibility_timeout": 41}});
    assert_eq!(refused(&broker, "create_queue", other.clone()).await.kind(), Kind::InvalidArgument);
    assert_eq!(done(&broker, "set_queue", other).await, json!({}));
    let told = done(&broker, "get_queue", json!({"queue": "q"})).await;
    assert_eq!((&told["name"], &told["visibility_timeout"]), (&json!("q"), &json!(41)));
    assert_eq!((&told["logging_enabled"], &told["active_messages"]), (&json!(true), &json!(0)));

    for encoding in ["raw", "base64"] {
        let options = json!({"body_encoding": encoding});
        let producer = mns::open_producer(&setup(), section(&broker, options)).await.unwrap();
        producer.send(&within(10), Arc::new(Message::new("hello 木"))).await.unwrap();
    }
    let wire = done(&broker, "peek", json!({"queue": "q", "limit": 16})).await;
    let bodies: Vec<&Value> = wire["messages"].as_array().unwrap().iter().map(|one| &one["body"]).collect();
    assert_eq!(bodies, ["hello 木", "aGVsbG8g5pyo"]);
    assert_eq!(
        (&wire["messages"][0]["dequeue_count"], &wire["messages"][0]["priority"]),
        (&json!(0), &json!(8))
    );
    // One that has the account's bodies in Base64 decodes them.
    let mut decoding = account(&broker);
    decoding.provider.insert("body_encoding".to_owned(), json!("base64"));
    let seen = admin(&decoding, json!({"peek": {"queue": "q", "limit": 16}}), None).await.unwrap();
    assert_eq!(
        (&seen["messages"][0]["body"], &seen["messages"][1]["body"]),
        (&json!("hello 木"), &json!("hello 木"))
    );

    for number in 0..5 {
        done(&broker, "create_queue", json!({"queue": format!("many-{number}")})).await;
    }
    let mut names = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut part = json!({"prefix": "many-", "limit": 2});
        if !after.is_null() {
            part["after"] = after;
        }
        let page = done(&broker, "list_queues", part).await;
        names.extend(page["queues"].as_array().unwrap().iter().map(|one| one["name"].clone()));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(names, ["many-0", "many-1", "many-2", "many-3", "many-4"]);
    assert_eq!(done(&broker, "list_queues", Value::Null).await["queues"].as_array().unwrap().len(), 6);
    let purged = refused(&broker, "purge_queue", json!({"queue": "q"})).await;
    assert_eq!((purged.kind(), purged.message().contains("delete it")), (Kind::Unsupported, true));
    assert_eq!(done(&broker, "delete_queue", json!({"queue": "q"})).await, json!({}));
    for name in ["get_queue", "delete_queue", "peek"] {
        assert_eq!(refused(&broker, name, json!({"queue": "q"})).await.kind(), Kind::NotFound, "{name}");
    }
}

#[tokio::test]
async fn topics_and_subscriptions() {
    let broker = start().await;
    let made = json!({"topic": "t", "attributes": {"maximum_message_size": 2048}});
    assert_eq!(done(&broker, "create_topic", made).await, json!({"created": true}));
    done(&broker, "set_topic", json!({"topic": "t", "attributes": {"logging_enabled": true}})).await;
    let told = done(&broker, "get_topic", json!({"topic": "t"})).await;
    assert_eq!((&told["maximum_message_size"], &told["logging_enabled"]), (&json!(2048), &json!(true)));
    assert_eq!(done(&broker, "list_topics", json!({})).await["topics"][0]["name"], "t");
    let endpoint = "acs:mns:here:1:queues/q";
    let of =
        json!({"topic": "t", "subscription": "s", "attributes": {"endpoint": endpoint, "filter_tag": "red"}});
    assert_eq!(done(&broker, "subscribe", of.clone()).await, json!({"created": true}));
    assert_eq!(done(&broker, "subscribe", of).await, json!({"created": false}));
    let strategy = json!({"topic": "t", "subscription": "s", "attributes": {"notify_strategy": "EXPONENTIAL_DECAY_RETRY"}});
    assert_eq!(done(&broker, "set_subscription", strategy).await, json!({}));
    let which = json!({"topic": "t", "subscription": "s"});
    let told = done(&broker, "get_subscription", which.clone()).await;
    assert_eq!((&told["endpoint"], &told["filter_tag"]), (&json!(endpoint), &json!("red")));
    assert_eq!(told["notify_strategy"], "EXPONENTIAL_DECAY_RETRY");
    let listed = done(&broker, "list_subscriptions", json!({"topic": "t"})).await;
    assert_eq!((&listed["subscriptions"][0]["name"], &listed["next"]), (&json!("s"), &Value::Null));
    assert_eq!(done(&broker, "unsubscribe", which.clone()).await, json!({}));
    assert_eq!(refused(&broker, "get_subscription", which).await.kind(), Kind::NotFound);
    assert_eq!(done(&broker, "delete_topic", json!({"topic": "t"})).await, json!({}));
    assert_eq!(refused(&broker, "get_topic", json!({"topic": "t"})).await.kind(), Kind::NotFound);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let broker = start().await;
    for (command, part) in [
        (json!([]), "one key"),
        (json!({}), "has 0"),
        (json!({"get_queue": {"queue": "q"}, "peek": {"queue": "q"}}), "has 2"),
        (json!({"get_queu": {"queue": "q"}}), "did you mean `get_queue`"),
        (json!({"get_queue": {}}), "`queue`"),
        (json!({"get_queue": "q"}), "`get_queue`"),
        (json!({"get_queue": {"queue": "a/b"}}), "a name has"),
        (json!({"create_queue": {"queue": "q", "visibility_timeout": 3}}), "visibility_timeout"),
        (
            json!({"create_queue": {"queue": "q", "attributes": {"visibilty_timeout": 3}}}),
            "`visibility_timeout`",
        ),
        (
            json!({"create_queue": {"queue": "q", "attributes": {"visibility_timeout": -1}}}),
            "attributes.visibility_timeout",
        ),
        (
            json!({"create_queue": {"queue": "q", "attributes": {"visibility_timeout": 99999}}}),
            "VisibilityTimeout",
        ),
        (json!({"subscribe": {"topic": "t", "subscription": "s"}}), "`attributes`"),
        (json!({"list_queues": {"limit": 0}}), "1 to 1000"),
        (json!({"list_queues": {"prefix": "a\nb"}}), "prefix"),
        (json!({"peek": {"queue": "q", "limit": 17}}), "from 1 to 16"),
    ] {
        let error = admin(&account(&broker), command.clone(), None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{command}: {error}");
        assert!(error.message().contains(part), "{command}: {error}");
    }
    for name in COMMANDS {
        let error = refused(&broker, name, json!({"no such key": 1})).await;
        assert_eq!(error.kind(), Kind::InvalidArgument, "{name}: {error}");
    }
    let address = broker.mns_address().unwrap();
    for (config, kind) in [
        ("memory://t".to_owned(), Kind::InvalidConfig),
        (format!("mns://{address}"), Kind::InvalidConfig),
        (format!("mns://id:other@{address}"), Kind::Authentication),
        (format!("mns://id:secret@{address}/queues/q?retry=3"), Kind::InvalidConfig),
        ("mns://id:secret@127.0.0.1:1".to_owned(), Kind::Unavailable),
    ] {
        let error = match ClientConfig::parse(&config) {
            Ok(config) => admin(&config, json!({"list_queues": {}}), None).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{config}: {error}");
        assert!(!error.text().contains("secret@"), "{error}");
    }
}
