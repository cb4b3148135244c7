//! What outlives a restart beside the messages: how long they are delayed, and how often they were pushed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ceiba_tests::program::BrokerProcess;
use tokio::time::sleep;

use crate::broker::{Folder, Setting, runtime, turn};
use crate::load::emptied;
use crate::raw::{Told, Wire};

const SOON: Duration = Duration::from_secs(15);

async fn delays(name: &str, end: fn(BrokerProcess)) {
    let folder = Folder::new(name);
    let mut setting = Setting::new(folder.path(), &[]);
    let mut broker = setting.start().unwrap();
    let address = broker.address();
    let mut producer = Wire::producer(address, "delays", "p").await;
    let mut sent = HashMap::new();
    for number in 0..120u64 {
        // One second passes while the broker is away.
        let delay = Duration::from_secs(1 + number % 4);
        let body = format!("{number}");
        sent.insert(body.clone(), (Instant::now(), delay));
        assert_eq!(producer.send(&body, delay).await, Told::Accepted);
        sleep(Duration::from_millis(3)).await;
    }
    end(broker);
    sleep(Duration::from_millis(1200)).await;
    broker = setting.start().unwrap();
    let mut up = Instant::now();
    let mut consumer = Wire::consumer(address, "delays", "c").await;
    // A second restart, with those of one second gone and the others as they were.
    let mut restarted = false;
    while !sent.is_empty() {
        let push = consumer.push(SOON).await.unwrap_or_else(|| panic!("{sent:?} never came"));
        let now = Instant::now();
        let body = std::str::from_utf8(&push.body).unwrap();
        let (since, delay) = sent.remove(body).unwrap_or_else(|| panic!("{body} came twice or was not sent"));
        assert!(now - since >= delay, "{body}, delayed by {delay:?}, came after {:?}", now - since);
        // A further push tells the age instead.
        if push.attempt == Some(1) {
            assert_eq!(push.delay_time, delay.as_secs() as i64);
        }
        let due = (since + delay).max(up);
        assert!(now - due < SOON, "{body} came {:?} after it was due", now - due);
        consumer.ack(&push).await;
        if !restarted && sent.len() < 90 {
            restarted = true;
            sleep(Duration::from_millis(100)).await;
            let came_meanwhile = consumer.push(Duration::from_millis(1)).await;
            if let Some(push) = came_meanwhile {
                consumer.ack(&push).await;
                sent.remove(std::str::from_utf8(&push.body).unwrap());
                sleep(Duration::from_millis(100)).await;
            }
            drop(consumer);
            end(broker);
            broker = setting.start().unwrap();
            up = Instant::now();
            consumer = Wire::consumer(address, "delays", "c").await;
        }
    }
    emptied(address).await.unwrap();
    broker.kill();
}

async fn attempts(name: &str, end: fn(BrokerProcess)) {
    let folder = Folder::new(name);
    let mut setting = Setting::new(folder.path(), &[]);
    let mut broker = setting.start().unwrap();
    let address = broker.address();
    assert_eq!(
        Wire::producer(address, "attempts", "p").await.send("again", Duration::ZERO).await,
        Told::Accepted
    );
    for attempt in 1..=6 {
        // Each leaves without an ack, so that the message goes to the next at once.
        let mut consumer = Wire::consumer(address, "attempts", &format!("c{attempt}")).await;
        let push = consumer.push(SOON).await.unwrap();
        assert_eq!((&push.body[..], push.attempt), (&b"again"[..], Some(attempt)));
        // A push is written to the log a moment later: nobody waits for it.
        sleep(Duration::from_millis(100)).await;
        if attempt % 2 == 0 {
            end(broker);
            broker = setting.start().unwrap();
        }
    }
    let mut consumer = Wire::consumer(address, "attempts", "last").await;
    let push = consumer.push(SOON).await.unwrap();
    assert_eq!(push.attempt, Some(7));
    consumer.ack(&push).await;
    emptied(address).await.unwrap();
    broker.kill();
}

#[test]
fn delays_and_attempts_outlive_a_clean_restart() {
    let _turn = turn();
    runtime().block_on(async {
        attempts("attempts-stop", BrokerProcess::stop).await;
        delays("delays-stop", BrokerProcess::stop).await;
    });
}

#[test]
fn delays_and_attempts_outlive_a_kill() {
    let _turn = turn();
    runtime().block_on(async {
        attempts("attempts-kill", BrokerProcess::kill).await;
        delays("delays-kill", BrokerProcess::kill).await;
    });
}
