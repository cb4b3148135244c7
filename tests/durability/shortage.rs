//! The disk is full, and no further file can be opened. The answer of the disk that a sync fails cannot be had
//! here without a device that fails on demand; the log's own tests have a disk that does.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::broker::{Folder, Setting, runtime, turn};
use crate::crash::SEGMENT;
use crate::load::emptied;
use crate::mounts::{Mount, skipped};
use crate::raw::{Told, Wire, post};

const SOON: Duration = Duration::from_secs(10);

fn body(number: usize) -> String {
    format!("{number}-{}", "x".repeat(20_000))
}

/// Takes and acknowledges all of these, and nothing else.
async fn take_all(consumer: &mut Wire, mut wanted: HashSet<String>) {
    while !wanted.is_empty() {
        let push = consumer.push(SOON).await.unwrap_or_else(|| panic!("{} never came", wanted.len()));
        let body = std::str::from_utf8(&push.body).unwrap();
        assert!(wanted.remove(body), "{} came twice or was refused", body.split('-').next().unwrap());
        consumer.ack(&push).await;
    }
}

/// Sends until a message is accepted.
async fn accepted_again(address: SocketAddr, topic: &str, body: &str) {
    let since = Instant::now();
    loop {
        let answer = post(address, topic, body).await;
        if answer["code"] == 0 {
            return;
        }
        assert!(since.elapsed() < SOON, "still {answer}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn full_disk(mount: &Mount) {
    let mut setting = Setting::new(&mount.path().join("data"), &[SEGMENT]);
    let mut broker = setting.start().unwrap();
    let address = broker.address();
    let mut producer = Wire::producer(address, "full", "p").await;
    let mut accepted = HashSet::new();
    for number in 0..20 {
        assert_eq!(producer.send(&body(number), Duration::ZERO).await, Told::Accepted);
        accepted.insert(body(number));
    }
    // What is made ahead is made by now; the rest of the disk is taken.
    sleep(Duration::from_millis(700)).await;
    let ballast = mount.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);

    let mut refused = None;
    for number in 20..400 {
        let answer = post(address, "full", &body(number)).await;
        if answer["code"] != 0 {
            refused = Some(answer);
            break;
        }
        accepted.insert(body(number));
    }
    let refused = refused.expect("the disk is full, and everything is accepted");
    assert_eq!(refused["msg"], "The disk is full");
    assert!(accepted.len() > 20, "{}", accepted.len());
    assert_eq!(producer.send(&body(500), Duration::ZERO).await, Told::Closed(1013));
    // It stays so, for connections of both kinds.
    sleep(Duration::from_millis(600)).await;
    assert_eq!(post(address, "full", &body(501)).await["msg"], "The disk is full");
    let mut producer = Wire::producer(address, "full", "p2").await;
    assert_eq!(producer.send(&body(502), Duration::ZERO).await, Told::Closed(1013));

    // A restart on the full disk keeps what it has.
    broker.kill();
    broker = setting.start().unwrap();
    // Deliveries and acks go on.
    let mut consumer = Wire::consumer(address, "full", "c").await;
    take_all(&mut consumer, accepted).await;
    emptied(address).await.unwrap();
    drop(consumer);

    std::fs::remove_file(&ballast).unwrap();
    accepted_again(address, "full", &body(600)).await;
    let mut producer = Wire::producer(address, "full", "p3").await;
    let mut later = HashSet::from([body(600)]);
    for number in 601..640 {
        assert_eq!(producer.send(&body(number), Duration::ZERO).await, Told::Accepted);
        later.insert(body(number));
    }
    // The acks from the time of the full disk are there after a kill.
    sleep(Duration::from_millis(100)).await;
    broker.kill();
    broker = setting.start().unwrap();
    let mut consumer = Wire::consumer(address, "full", "c").await;
    take_all(&mut consumer, later).await;
    emptied(address).await.unwrap();
    broker.kill();
}

#[test]
fn a_full_disk_refuses_messages_and_nothing_else() {
    let _turn = turn();
    match Mount::memory("full", 4 << 20) {
        Ok(mount) => runtime().block_on(full_disk(&mount)),
        Err(why) => skipped("a full disk", &why),
    }
}

async fn no_files() {
    let folder = Folder::new("files");
    let mut setting = Setting::new(&folder.path().join("data"), &[SEGMENT]);
    setting.files = Some(40);
    let broker = setting.start().unwrap();
    let address = broker.address();
    let mut producer = Wire::producer(address, "files", "p").await;
    let mut consumer = Wire::consumer(address, "files", "c").await;
    let mut crowd = Vec::new();
    for _ in 0..120 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    sleep(Duration::from_millis(300)).await;
    // There is no file for a further connection.
    let mut late = tokio::spawn(Wire::open(address, "Producers/Conn/files/late", false));
    let waits = tokio::time::timeout(Duration::from_millis(500), &mut late).await;
    assert!(waits.is_err(), "40 files are enough for 120 connections");
    // Those that are there are served, until the log needs a further file: what is not acknowledged keeps those
    // that it has.
    let (mut accepted, mut refused) = (HashSet::new(), false);
    for number in 0..200 {
        let told = producer.send(&body(number), Duration::ZERO).await;
        if told != Told::Accepted {
            assert_eq!(told, Told::Closed(1013));
            refused = true;
            break;
        }
        accepted.insert(body(number));
    }
    assert!(refused && accepted.len() > 10, "of {} messages none was refused", accepted.len());
    take_all(&mut consumer, accepted).await;
    drop(crowd);
    let mut late = late.await.unwrap().unwrap();
    let since = Instant::now();
    while late.send(&body(300), Duration::ZERO).await != Told::Accepted {
        assert!(since.elapsed() < SOON, "the broker does not recover");
        sleep(Duration::from_millis(100)).await;
        late = Wire::producer(address, "files", "late").await;
    }
    for number in 301..340 {
        assert_eq!(late.send(&body(number), Duration::ZERO).await, Told::Accepted);
    }
    take_all(&mut consumer, (300..340).map(body).collect()).await;
    emptied(address).await.unwrap();
    broker.stop();
}

#[test]
fn a_broker_without_files_lives_and_recovers() {
    let _turn = turn();
    runtime().block_on(no_files());
}
