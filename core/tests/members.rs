//! Members that are open producers by themselves: what a strategy over them does when their brokers go.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod socket;

use std::time::{Duration, Instant};

use ceiba_core::broker::Broker;
use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use serde_json::{Value, json};
use socket::start;

/// Longer than a send takes that goes on at once, and shorter than any deadline here.
const SOON: Duration = Duration::from_secs(5);

fn config(value: Value) -> ClientConfig {
    ClientConfig::from_json(value).unwrap()
}

async fn open(id: &str, value: Value) -> ceiba_core::error::Result<()> {
    calls::producer_open(Some(id), config(value), None).await.map(drop)
}

fn to(broker: &Broker, kind: &str) -> Value {
    let scheme = if kind == "dpmq" { "http" } else { "ws" };
    let url = format!("{scheme}://{}", broker.address());
    let mut provider = json!({"type": kind, "url": url, "topic": "t", "reconnect_max": "200ms"});
    if kind == "kapokmq" {
        provider["secret_key"] = "test".into();
    }
    json!({"provider": provider})
}

fn memory(topic: &str) -> Value {
    json!({"type": "memory", "topic": topic})
}

/// Both ids are opened with nothing but their address: by themselves they wait for a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_over_open_producers_goes_on_when_a_broker_dies() {
    for kind in ["kapokmq", "dpmq"] {
        let name = |part: &str| format!("{kind}-{part}");
        let (one, two) = (start(|config| config.dpmq = true).await, start(|config| config.dpmq = true).await);
        open(&name("a"), to(&one, kind)).await.unwrap();
        open(&name("b"), to(&two, kind)).await.unwrap();
        let members = [name("a"), name("b")];
        open(&name("pair"), json!({"strategies": [{"type": "failover", "members": members}]})).await.unwrap();
        let send = |body: &'static str| {
            calls::producer_send(members_of(kind), Message::new(body), Some(Duration::from_secs(20)))
        };
        send("first").await.unwrap();
        assert_eq!(one.status().accepted, 1, "{kind}");

        one.abort();
        // As many wait in `a` as it has connections, and more: whoever has somewhere else to go is not behind them.
        let waits: Vec<_> = (0..20)
            .map(|_| {
                let id = name("a");
                tokio::spawn(async move {
                    calls::producer_send(&id, Message::new("waits"), Some(Duration::from_secs(3))).await
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        for number in 0..5 {
            send("more").await.unwrap_or_else(|error| panic!("{kind} {number}: {error:?}"));
        }
        assert!(begun.elapsed() < SOON, "{kind}: {:?}", begun.elapsed());
        let status = calls::producer_status(members_of(kind)).unwrap();
        assert_eq!(status["strategies"][0]["current_member"], name("b"), "{kind}: {status}");
        assert!(two.status().accepted >= 5, "{kind}");
        for waits in waits {
            let error = waits.await.unwrap().unwrap_err();
            let how = (error.kind(), error.outcome());
            // Some may have been written to a connection whose end was not seen yet.
            let written = how == (Kind::Unavailable, Outcome::Unknown);
            assert!(written || how == (Kind::Timeout, Outcome::NotSent), "{kind}: {error:?}");
        }

        two.abort();
        let begun = Instant::now();
        assert_eq!(send("none").await.unwrap_err().kind(), Kind::AllFailed, "{kind}");
        assert!(begun.elapsed() < SOON, "{kind}: {:?}", begun.elapsed());
        for id in ["pair", "a", "b"] {
            let _ = calls::producer_close(&name(id), Some(Duration::from_secs(1))).await;
        }
    }
}

fn members_of(kind: &str) -> &'static str {
    if kind == "dpmq" { "dpmq-pair" } else { "kapokmq-pair" }
}

#[tokio::test]
async fn clients_of_a_file_that_fails_are_all_closed_also_those_that_are_held() {
    let clients = json!({"clients": [
        {"id": "file-held", "role": "producer", "provider": memory("file")},
        {"id": "file-holds", "role": "producer", "strategies": [{"type": "failover", "members": ["file-held"]}]},
        {"id": "file-fails", "role": "producer", "strategies": [{"type": "failover", "members": ["nobody"]}]},
    ]});
    let error = calls::open_file(&clients.to_string(), None).await.unwrap_err();
    assert!(error.message().contains("nobody"), "{error}");
    for id in ["file-held", "file-holds", "file-fails"] {
        assert_eq!(calls::producer_status(id).unwrap_err().kind(), Kind::UnknownId, "{id} is still open");
    }
}

#[tokio::test]
async fn a_member_of_itself_is_not_open_yet() {
    let error =
        open("cycle", json!({"strategies": [{"type": "failover", "members": ["cycle"]}]})).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UnknownId);
    assert!(
        error.message().contains("member `cycle`") && error.message().contains("open it first"),
        "{error}"
    );
    // And nothing is left of it.
    open("cycle", json!({"provider": memory("cycle")})).await.unwrap();
    calls::producer_close("cycle", None).await.unwrap();
}

#[tokio::test]
async fn strategies_within_strategies_have_a_bound_also_over_ids() {
    let bound = |number: usize| vec![json!({"type": "timeout", "after": "9s"}); number];
    open("deep-0", json!({"provider": memory("deep"), "strategies": bound(64)})).await.unwrap();
    calls::producer_send("deep-0", Message::new("x"), None).await.unwrap();
    let error = open("deep", json!({"provider": memory("deep"), "strategies": bound(65)})).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidConfig);
    let over = |id: &str| json!({"strategies": [{"type": "failover", "members": [id]}]});
    let error = open("deep", over("deep-0")).await.unwrap_err();
    assert!(error.message().contains("65 strategies"), "{error}");
    open("deep-1", json!({"provider": memory("deep")})).await.unwrap();
    let mut last = 1;
    while open(&format!("deep-{}", last + 1), over(&format!("deep-{last}"))).await.is_ok() {
        last += 1;
    }
    assert_eq!(last, 65, "64 over one that has none");
    for number in (0..=last).rev() {
        calls::producer_close(&format!("deep-{number}"), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_group_of_one_beside_a_provider_is_refused() {
    for group in ["failover", "fan_out", "timeout_failover"] {
        for members in [json!({"members": []}), json!({})] {
            let mut strategy = json!({"type": group});
            strategy.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            if group == "timeout_failover" {
                strategy["after"] = 2.into();
            }
            let client = json!({"provider": memory("alone"), "strategies": [strategy]});
            let error = open("alone", client).await.unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.message().contains("at least one"), "{error}");
        }
    }
}

/// A member keeps to the deadline of its own client or of its own config, so that there is time for the next.
#[tokio::test]
async fn the_deadline_of_a_member_is_its_own() {
    // Takes connections and says nothing: nobody knows for long that there is no broker.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let provider = json!({"type": "kapokmq", "url": url, "topic": "t", "secret_key": "test"});
    let inline =
        json!({"provider": provider, "deadline": "300ms", "connect": "lazy", "connect_timeout": "60s"});
    open("slow", inline.clone()).await.unwrap();
    for (id, member) in [("bound-id", json!("slow")), ("bound-inline", inline)] {
        let other = json!({"provider": memory(id)});
        open(id, json!({"strategies": [{"type": "failover", "members": [member, other]}]})).await.unwrap();
        let begun = Instant::now();
        calls::producer_send(id, Message::new("x"), Some(Duration::from_secs(20))).await.unwrap();
        assert!(begun.elapsed() < SOON, "{id}: {:?}", begun.elapsed());
        calls::producer_close(id, None).await.unwrap();
    }
    calls::producer_close("slow", None).await.unwrap();
}

/// Neither of both ways to send: the member is not asked, and stays the one to begin with.
#[tokio::test]
async fn a_caller_who_comes_late_says_nothing_of_a_member() {
    let group = json!({"provider": memory("late"), "strategies": [
        {"type": "failover", "members": [{"provider": memory("late-too")}]},
        {"type": "circuit_breaker", "consecutive": 1},
    ]});
    open("late", group).await.unwrap();
    let error = calls::producer_send("late", Message::new("x"), Some(Duration::ZERO)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    let status = calls::producer_status("late").unwrap();
    let failover = &status["strategies"][0];
    assert_eq!((&failover["current"], &failover["attempts"]), (&json!(0), &json!(0)), "{status}");
    calls::producer_send("late", Message::new("x"), None).await.unwrap();
    calls::producer_close("late", None).await.unwrap();
}

/// The member is behind an intake that waits for a silent broker: whoever has somewhere else to go does not wait too.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_broker_is_silent_and_whose_room_is_full_holds_up_nobody() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for kind in ["kapokmq", "dpmq"] {
        let scheme = if kind == "dpmq" { "http" } else { "ws" };
        let url = format!("{scheme}://{}", silent.local_addr().unwrap());
        let mut provider = json!({"type": kind, "url": url, "topic": "t"});
        if kind == "kapokmq" {
            provider["secret_key"] = "test".into();
        }
        let full =
            json!({"provider": provider, "connect": "lazy", "connect_timeout": "60s", "max_pending": 2});
        open("room", full.clone()).await.unwrap();
        let waits: Vec<_> = (0..2)
            .map(|_| {
                tokio::spawn(calls::producer_send("room", Message::new("x"), Some(Duration::from_secs(60))))
            })
            .collect();
        let begun = Instant::now();
        while calls::producer_status("room").unwrap()["under_way"] != 2 {
            assert!(begun.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut inline = full;
        inline["max_pending"] = 1.into();
        inline["when_disconnected"] = "wait".into();
        for (id, member) in [("room-id", json!("room")), ("room-inline", inline)] {
            let other = json!({"provider": memory(id)});
            open(id, json!({"strategies": [{"type": "failover", "members": [member, other]}]}))
                .await
                .unwrap();
            let mut waits = None;
            if id == "room-inline" {
                waits = Some(tokio::spawn(calls::producer_send(id, Message::new("x"), Some(SOON * 9))));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let begun = Instant::now();
            let receipt = calls::producer_send(id, Message::new("x"), Some(SOON * 9)).await.unwrap();
            assert_eq!(receipt.provider, "memory", "{kind} {id}");
            assert!(begun.elapsed() < SOON, "{kind} {id}: {:?}", begun.elapsed());
            if let Some(waits) = waits {
                assert!(!waits.is_finished());
                waits.abort();
            }
            let _ = calls::producer_close(id, Some(Duration::from_millis(100))).await;
        }
        let _ = calls::producer_close("room", Some(Duration::from_millis(100))).await;
        for waits in waits {
            assert!(waits.await.unwrap().is_err());
        }
    }
}
