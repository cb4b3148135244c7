//! An outbox on a full disk.

use std::io::Write;
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::{Disposition, Message};
use ceiba_core::outbox::sqlite::Fault;
use serde_json::json;

use crate::broker::{runtime, turn};
use crate::mounts::{Mount, skipped};

fn fault(error: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    error.downcast_ref::<Fault>().copied().or_else(|| error.source().and_then(fault))
}

async fn full_disk(mount: &Mount) {
    let url = format!("sqlite:{}/outbox.db", mount.path().display());
    let topic = |capacity: u64| json!({"type": "memory", "topic": "full-outbox", "capacity": capacity});
    // What is sent is sent by the drain: no run is that soon.
    let outbox = json!({"type": "outbox", "url": url, "schedule": "1d"});
    let open = |capacity: u64| {
        let config = json!({"id": "full", "provider": topic(capacity), "strategies": [outbox]});
        calls::producer_open(None, ClientConfig::from_json(config).unwrap(), None)
    };
    open(1).await.unwrap();
    let send = |number: u64| {
        let body = format!("{number}-{}", "x".repeat(20_000));
        calls::producer_send("full", Message::new(body), Some(Duration::from_secs(5)))
    };
    assert_eq!(send(0).await.unwrap().disposition, Disposition::Sent);
    let mut kept = 0;
    for number in 1..=20 {
        assert_eq!(send(number).await.unwrap().disposition, Disposition::Stored);
        kept += 1;
    }
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut refused = None;
    for number in 21..2000 {
        match send(number).await {
            Ok(_) => kept += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disk is full, and everything is stored");
    assert_eq!((refused.kind(), fault(&refused)), (Kind::Storage, Some(Fault::Full)), "{refused:?}");
    assert!(refused.retryable() && refused.message().contains("holds 1 messages"), "{refused}");
    // What is there can be read, and is there when the disk has room again.
    let pending = |stats: serde_json::Value| stats["producers"][0]["pending"].as_u64().unwrap();
    assert_eq!(pending(calls::outbox::stats("full", json!({}), None).await.unwrap()), kept);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(send(5000).await.unwrap().disposition, Disposition::Stored);
    calls::producer_close("full", None).await.unwrap();
    open(1_000_000).await.unwrap();
    let drained = calls::outbox::drain("full", None).await.unwrap();
    assert_eq!(drained["sent"], kept + 1, "{drained}");
    calls::producer_close("full", None).await.unwrap();
}

async fn full_disk_stored_first(mount: &Mount) {
    let url = format!("sqlite:{}/outbox.db", mount.path().display());
    let provider = json!({"type": "memory", "topic": "full-always", "discard": true});
    let outbox = json!({"type": "outbox", "url": url, "when": "always", "poll": "100ms", "lease": "2s"});
    let config = json!({"id": "first", "deadline": "1s", "provider": provider, "strategies": [outbox]});
    calls::producer_open(None, ClientConfig::from_json(config).unwrap(), None).await.unwrap();
    let send = |number: u64| {
        let body = format!("{number}-{}", "x".repeat(20_000));
        calls::producer_send("first", Message::new(body), Some(Duration::from_secs(5)))
    };
    assert_eq!(send(0).await.unwrap().disposition, Disposition::Stored);
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut refused = None;
    for number in 1..2000 {
        if let Err(error) = send(number).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("the disk is full, and everything is stored");
    assert_eq!((refused.kind(), fault(&refused)), (Kind::Storage, Some(Fault::Full)), "{refused:?}");
    assert!(refused.retryable() && refused.outcome() == Outcome::NotSent, "{refused:?}");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(send(5000).await.unwrap().disposition, Disposition::Stored);
    // What was accepted is sent, also what could not be noted while the disk was full.
    let since = Instant::now();
    loop {
        let stats = calls::outbox::stats("first", json!({}), None).await.unwrap();
        let of = |state: &str| stats["producers"][0][state].as_u64().unwrap_or_default();
        if of("pending") + of("leased") == 0 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{stats}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    calls::producer_close("first", None).await.unwrap();
}

#[test]
fn outbox_on_a_full_disk_that_stores_first() {
    let _turn = turn();
    match Mount::memory("outbox-full-first", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk_stored_first(&mount)),
        Err(why) => skipped("an outbox that stores first on a full disk", &why),
    }
}

#[test]
fn outbox_on_a_full_disk() {
    let _turn = turn();
    match Mount::memory("outbox-full", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk(&mount)),
        Err(why) => skipped("an outbox on a full disk", &why),
    }
}
