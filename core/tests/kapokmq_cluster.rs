//! The KapokMQ cluster producer against a registry and nodes that do what the test says.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod peer;

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{Context, Producer};
use ceiba_core::completion::CompletionQueue;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::intake::Intake;
use ceiba_core::message::Message;
use futures_util::StreamExt;
use peer::registry::Registry;
use peer::*;
use serde_json::{Value, json};
use tokio::net::TcpStream;

fn section(registry: &Registry, more: Value) -> Value {
    let mut section = json!({"registry": registry.url, "topic": "t1", "secret_key": KEY, "check_time": "300ms",
                             "reconnect_base": "10ms", "reconnect_max": "50ms"});
    for (key, value) in object(more) {
        section[key] = value;
    }
    section
}

struct Cluster {
    registry: Registry,
    nodes: Vec<Peer>,
    sessions: Vec<Session<TcpStream>>,
    producer: Arc<dyn Producer>,
    intake: Arc<Intake>,
    queue: Arc<CompletionQueue>,
}

/// Two nodes, connected.
async fn cluster(more: Value) -> Cluster {
    let nodes = vec![Peer::start().await, Peer::start().await];
    let registry = Registry::start(&[&nodes[0], &nodes[1]]).await;
    let setup = setup("p");
    let opened = producer(&setup, section(&registry, more));
    let (opened, first, second) = tokio::join!(opened, nodes[0].accept(), nodes[1].accept());
    let producer = opened.expect("opened");
    let (intake, queue) = submits(&producer);
    Cluster { registry, nodes, sessions: vec![first, second], producer, intake, queue }
}

/// Waits until the condition holds, and answers the pings that come meanwhile.
async fn until_answering(sessions: &mut [Session<TcpStream>], what: &str, mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            for session in sessions.iter_mut() {
                let next = session.wire.next();
                if let Ok(frame) = tokio::time::timeout(Duration::from_millis(1), next).await {
                    assert!(matches!(frame, Some(Ok(ref frame)) if frame.is_ping()), "{frame:?}");
                }
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), waits).await.is_ok(), "not within 10 s: {what}");
}

fn node_states(producer: &Arc<dyn Producer>) -> Vec<Value> {
    let status = producer.status();
    status["nodes"].as_array().expect("nodes").iter().map(|node| node["state"].clone()).collect()
}

#[tokio::test]
async fn messages_are_spread_and_each_gets_its_own_ack() {
    let mut cluster = cluster(json!({"spread": "round_robin"})).await;
    for token in 1..=4 {
        cluster.intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(cluster.sessions[0].bodies(2).await, ["m1", "m3"]);
    assert_eq!(cluster.sessions[1].bodies(2).await, ["m2", "m4"]);
    // The acks of one node say nothing about the other's messages.
    cluster.sessions[1].ok(2).await;
    let ends = completions(&cluster.queue, 2).await;
    assert_eq!(ends.iter().map(|end| end.token).collect::<Vec<_>>(), [2, 4]);
    assert!(ends.iter().all(|end| end.result.is_ok()));
    cluster.sessions[0].ok(2).await;
    assert_eq!(completions(&cluster.queue, 2).await.len(), 2);
    let requests = cluster.registry.requests.lock().unwrap().clone();
    let request = requests[0].to_lowercase();
    assert!(request.starts_with("post /registry/getnodes http/1.1"), "{request}");
    assert!(request.contains(&format!("secretkey: {KEY}")), "{request}");
    let status = cluster.producer.status();
    assert_eq!(status["registry"]["stale"], false);
    assert!(!status.to_string().contains(KEY));
}

#[tokio::test]
async fn random_and_least_pending_use_every_node() {
    let mut cluster = cluster(json!({})).await;
    for token in 0..64 {
        cluster.intake.submit(token, b"x", Duration::ZERO).unwrap();
    }
    // Each node got some: 64 draws of one of two miss one of them never in practice.
    cluster.sessions[0].bodies(1).await;
    cluster.sessions[1].bodies(1).await;

    let mut cluster = self::cluster(json!({"spread": "least_pending"})).await;
    for token in 0..3 {
        cluster.intake.submit(token, token.to_string().as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(cluster.sessions[0].bodies(2).await, ["0", "2"]);
    assert_eq!(cluster.sessions[1].bodies(1).await, ["1"]);
    cluster.sessions[0].ok(2).await;
    completions(&cluster.queue, 2).await;
    for token in 3..5 {
        cluster.intake.submit(token, token.to_string().as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(cluster.sessions[0].bodies(1).await, ["3"]);
}

#[tokio::test]
async fn a_dead_node_is_not_used_and_its_unsent_messages_go_to_others() {
    let mut cluster = cluster(json!({"spread": "round_robin", "window": 1})).await;
    for token in 1..=4 {
        cluster.intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(cluster.sessions[0].bodies(1).await, ["m1"]);
    assert_eq!(cluster.sessions[1].bodies(1).await, ["m2"]);
    // The first node dies, with its listener, and stays in the list.
    drop(cluster.sessions.remove(0));
    let registry = cluster.registry;
    drop(cluster.nodes.remove(0));
    let lost = completions(&cluster.queue, 1).await;
    let error = lost[0].result.as_ref().unwrap_err();
    assert_eq!((lost[0].token, error.kind(), error.outcome()), (1, Kind::Unavailable, Outcome::Unknown));
    let alive = &mut cluster.sessions[0];
    alive.ok(1).await;
    assert_eq!(alive.bodies(1).await, ["m3"]);
    alive.ok(1).await;
    assert_eq!(alive.bodies(1).await, ["m4"]);
    alive.ok(1).await;
    let ends = completions(&cluster.queue, 3).await;
    assert_eq!(ends.iter().map(|end| end.token).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(ends.iter().all(|end| end.result.is_ok()));
    drop(registry);
}

#[tokio::test]
async fn a_new_node_is_used_and_one_that_left_the_list_is_not() {
    let mut cluster = cluster(json!({"spread": "round_robin"})).await;
    // A message waits for its ack on the second node, which then leaves the list.
    for token in 1..=2 {
        cluster.intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    assert_eq!(cluster.sessions[0].bodies(1).await, ["m1"]);
    assert_eq!(cluster.sessions[1].bodies(1).await, ["m2"]);
    cluster.sessions[0].ok(1).await;
    let third = Peer::start().await;
    cluster.registry.lists(&[&cluster.nodes[0], &third]);
    let joined = third.accept().await;
    let producer = cluster.producer.clone();
    cluster.sessions.push(joined);
    let states = ["connected", "leaving", "connected"];
    until_answering(&mut cluster.sessions, "the states", || node_states(&producer) == states).await;
    let mut joined = cluster.sessions.remove(2);
    for token in 3..=6 {
        cluster.intake.submit(token, format!("m{token}").as_bytes(), Duration::ZERO).unwrap();
    }
    let (mut old, mut new) = (cluster.sessions[0].bodies(2).await, joined.bodies(2).await);
    old.append(&mut new);
    old.sort();
    assert_eq!(old, ["m3", "m4", "m5", "m6"]);
    // Its ack still counts; then the connection is closed.
    cluster.sessions[1].ok(1).await;
    assert_eq!(cluster.sessions[1].ends().await, Seen::Closed);
    let ends = completions(&cluster.queue, 2).await;
    assert_eq!(ends.iter().map(|end| end.token).collect::<Vec<_>>(), [1, 2]);
    until("the states", || node_states(&producer) == ["connected", "connected"]).await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_connected_again() {
    let mut cluster = cluster(json!({"spread": "round_robin"})).await;
    drop(cluster.sessions.remove(0));
    let again = cluster.nodes[0].accept().await;
    cluster.sessions.push(again);
    let producer = cluster.producer.clone();
    let states = ["connected", "connected"];
    until_answering(&mut cluster.sessions, "the states", || node_states(&producer) == states).await;
    for token in 1..=2 {
        cluster.intake.submit(token, b"x", Duration::ZERO).unwrap();
    }
    cluster.sessions[0].bodies(1).await;
    cluster.sessions[1].bodies(1).await;
}

#[tokio::test]
async fn a_failing_or_empty_registry_keeps_the_last_list_and_says_so() {
    let mut cluster = cluster(json!({"spread": "round_robin"})).await;
    let long = format!("[{}]", " ".repeat(1 << 20));
    let cases = [
        (200, "[]", "unavailable"),
        (200, "null", "unavailable"),
        (500, "", "unavailable"),
        (200, "<html>", "protocol"),
        (200, r#"{"code":-1,"msg":"Secret key matching error"}"#, "authentication"),
        (200, &long, "protocol"),
    ];
    let producer = cluster.producer.clone();
    for (number, (status, body, kind)) in cases.into_iter().enumerate() {
        cluster.registry.answers(status, body);
        until_answering(&mut cluster.sessions, "a stale list", || {
            producer.status()["registry"]["last_error"]["kind"] == kind
        })
        .await;
        assert_eq!(producer.status()["registry"]["stale"], true);
        let token = number as u64 * 2;
        cluster.intake.submit(token, b"x", Duration::ZERO).unwrap();
        cluster.intake.submit(token + 1, b"y", Duration::ZERO).unwrap();
        for session in &mut cluster.sessions {
            session.bodies(1).await;
            session.ok(1).await;
        }
        assert!(completions(&cluster.queue, 2).await.iter().all(|end| end.result.is_ok()));
        cluster.registry.lists(&[&cluster.nodes[0], &cluster.nodes[1]]);
        until_answering(&mut cluster.sessions, "a fresh list", || {
            producer.status()["registry"]["stale"] == false
        })
        .await;
    }
    assert_eq!(producer.status()["reconnects"], 0);
}

#[tokio::test]
async fn the_open_fails_with_a_wrong_key_and_without_nodes() {
    let registry = Registry::start(&[]).await;
    registry.answers(200, r#"{"code":-1,"msg":"Secret key matching error"}"#);
    let error = soon(producer(&setup("p"), section(&registry, json!({})))).await.err().expect("refused");
    assert_eq!(error.kind(), Kind::Authentication);

    registry.lists(&[]);
    let mut short = setup("p");
    short.connect_timeout = Duration::from_millis(300);
    let error = soon(producer(&short, section(&registry, json!({})))).await.err().expect("no node");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.text().contains("lists no node"), "{}", error.text());

    // A node that refuses the key, with a registry that takes it.
    let node = Peer::start().await;
    registry.lists(&[&node]);
    let setup = setup("p");
    let (opened, _) = tokio::join!(soon(producer(&setup, section(&registry, json!({})))), node.refuse());
    assert_eq!(opened.err().expect("refused").kind(), Kind::Authentication);
}

#[tokio::test]
async fn a_list_with_unusable_nodes_leaves_the_others() {
    let node = Peer::start().await;
    let registry = Registry::start(&[]).await;
    let good = format!(r#"{{"Name":"n","Addr":"127.0.0.1","Port":"{}"}}"#, node.addr.port());
    let bad = r#"{"Name":"a","Addr":"x y","Port":"1"},{"Name":"b","Addr":"127.0.0.1","Port":"0"},{"Name":"c","Addr":"u@h/p?q","Port":"80"}"#;
    registry.answers(200, &format!("[{bad},{good},{good}]"));
    let setup = setup("p");
    let (opened, mut session) = tokio::join!(producer(&setup, section(&registry, json!({}))), node.accept());
    let producer = opened.unwrap();
    assert_eq!(producer.status()["nodes"].as_array().unwrap().len(), 1);
    let ctx = Context::within(Duration::from_secs(5));
    let (sent, _) = tokio::join!(producer.send(&ctx, Arc::new(Message::new("x"))), async {
        session.bodies(1).await;
        session.ok(1).await;
    });
    sent.unwrap();
}

#[tokio::test]
async fn a_lazy_open_waits_for_the_registry_within_the_deadline() {
    let dead = dead_port().await;
    let more = json!({"registry": format!("http://{dead}")});
    let registry = Registry::start(&[]).await;
    let producer = producer(&lazy("p"), section(&registry, more)).await.unwrap();
    let ctx = Context::within(Duration::from_secs(2));
    let error = producer.send(&ctx, Arc::new(Message::new("x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    assert!(error.text().contains("registry"), "{}", error.text());
}
