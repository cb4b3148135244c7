//! What bounds the broker: slow consumers, memory, churn, stops.

mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode};
use ceiba_core::error::Kind;
use ceiba_core::secret::Secret;
use futures_util::{SinkExt, StreamExt};
use socket::{Ended, Socket, http, post, send_frame, start, until};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_read_holds_up_nobody() {
    for mode in [DeliveryMode::WorkQueue, DeliveryMode::PublishSubscribe] {
        let broker = start(|config| config.delivery = mode).await;
        let mut stuck = Socket::consumer(broker.address(), "t", "stuck").await;
        let mut good = Socket::consumer(broker.address(), "t", "good").await;
        let mut other = Socket::consumer(broker.address(), "u", "c").await;
        let mut producer = Socket::producer(broker.address(), "t").await;
        let body = "x".repeat(10_000);
        // 30 MB: more than the buffers of a connection hold.
        for _ in 0..3000 {
            producer.0.feed(Message::text(send_frame(&body, 0))).await.unwrap();
        }
        producer.0.flush().await.unwrap();
        for _ in 0..3000 {
            assert_eq!(producer.text().await, "ok");
        }
        let mut got = 0;
        while let Ok(body) = tokio::time::timeout(Duration::from_secs(2), good.consume()).await {
            assert_eq!(body.len(), 10_000);
            got += 1;
        }
        let mut others = Socket::producer(broker.address(), "u").await;
        others.produce("through", 0).await;
        assert_eq!(other.consume().await, "through");
        match mode {
            // In a work queue it took what fits its connection; the rest went to the other.
            DeliveryMode::WorkQueue => assert!(got >= 1000, "{got}"),
            DeliveryMode::PublishSubscribe => assert_eq!(got, 3000),
        }
        // When it goes, what it had comes at once.
        stuck.0.get_mut().shutdown_now();
        drop(stuck);
        if mode == DeliveryMode::WorkQueue {
            while got < 3000 {
                good.consume().await;
                got += 1;
            }
        }
        assert!(broker.stop(Duration::from_secs(5)).await);
    }
}

trait ShutdownNow {
    fn shutdown_now(&mut self);
}

impl ShutdownNow for tokio::net::TcpStream {
    fn shutdown_now(&mut self) {
        let _ = self.set_zero_linger();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_acks_wait_and_http_is_refused() {
    let broker = start(|config| config.limits.stored_bytes = 100_000).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let body = "x".repeat(10_000);
    for _ in 0..9 {
        producer.produce(&body, 0).await;
    }
    producer.send(&send_frame(&body, 0)).await;
    producer.quiet(Duration::from_millis(300)).await;
    let form = format!("messageData={body}&topic=t&delayTime=0");
    assert_eq!(
        post(broker.address(), "/Producer/Send", &form).await,
        r#"{"code":-1,"msg":"No room for the message"}"#
    );
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    consumer.consume().await;
    assert_eq!(producer.text().await, "ok");
    for _ in 0..9 {
        consumer.consume().await;
    }
    until("all acks", || broker.status().stored_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_no_more_than_it_may_hold_unacknowledged() {
    let broker = start(|config| config.limits.unacked = 10).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    for number in 0..25 {
        producer.produce(&number.to_string(), 0).await;
    }
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(consumer.push().await["MessageCode"].as_str().unwrap().to_owned());
    }
    consumer.quiet(Duration::from_millis(100)).await;
    for code in codes {
        consumer.send(&code).await;
    }
    for number in 10..25 {
        assert_eq!(consumer.consume().await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_bounded_and_idle_ones_make_room() {
    let broker = start(|config| config.limits.topics = 2).await;
    let mut first = Socket::producer(broker.address(), "a").await;
    first.produce("kept", 0).await;
    let _second = Socket::producer(broker.address(), "b").await;
    let mut third = Socket::producer(broker.address(), "c").await;
    assert_eq!(third.ended().await, Ended::Closed(1013));
    drop(_second);
    until("the second is gone", || broker.status().producers == 1).await;
    let mut third = Socket::producer(broker.address(), "c").await;
    third.produce("x", 0).await;
    assert_eq!(broker.status().topics, 2);
    let mut consumer = Socket::consumer(broker.address(), "a", "c").await;
    assert_eq!(consumer.consume().await, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_under_load_loses_nothing() {
    let broker = Arc::new(start(|_| {}).await);
    let address = broker.address();
    const PRODUCERS: usize = 4;
    const EACH: usize = 1500;
    let acked = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(tokio::spawn(async move {
            let mut socket = Socket::open(address, &format!("/Producers/Conn/t/p{number}")).await;
            for message in 0..EACH {
                socket.produce(&format!("{number}-{message}"), 0).await;
            }
        }));
    }
    let mut consumers = Vec::new();
    for number in 0..6 {
        let (acked, done) = (Arc::clone(&acked), Arc::clone(&done));
        consumers.push(tokio::spawn(async move {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let mut socket = Socket::open(address, &format!("/Consumers/Conn/t/c{number}")).await;
                for message in 0..(20 * number + round % 50) {
                    let wait = tokio::time::timeout(Duration::from_millis(50), socket.0.next()).await;
                    let Ok(Some(Ok(Message::Text(text)))) = wait else { break };
                    let push: serde_json::Value = serde_json::from_str(&text).unwrap();
                    if message % 3 != 0 {
                        socket.send(push["MessageCode"].as_str().unwrap()).await;
                        acked.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Some say goodbye, some just vanish.
                if round % 2 == 0 {
                    let _ = socket.0.close(None).await;
                }
            }
        }));
    }
    for producer in producers {
        producer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for consumer in consumers {
        consumer.await.unwrap();
    }
    assert_eq!(broker.status().accepted, (PRODUCERS * EACH) as u64);
    // All that was not acknowledged is still there.
    let mut last = Socket::open(address, "/Consumers/Conn/t/last").await;
    until("the others are gone", || broker.status().consumers == 1).await;
    while broker.status().waiting > 0 {
        if tokio::time::timeout(Duration::from_millis(100), last.consume()).await.is_err() {
            until("the acks are counted", || broker.status().unacked == 0).await;
        }
    }
    assert_eq!(broker.status().acknowledged, (PRODUCERS * EACH) as u64);
    assert!(acked.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_was_read_and_closes() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let mut login = Socket::dial(broker.address(), "/Producers/Conn/t/q").await.unwrap();
    login.text().await;
    producer.produce("a", 0).await;
    let code = consumer.push().await["MessageCode"].as_str().unwrap().to_owned();
    consumer.send(&code).await;
    let ends =
        tokio::spawn(async move { (producer.ended().await, consumer.ended().await, login.ended().await) });
    assert!(broker.stop(Duration::from_secs(5)).await);
    let closed = || Ended::Closed(1001);
    assert_eq!(ends.await.unwrap(), (closed(), closed(), closed()));
    assert_eq!(broker.status().acknowledged, 1);
    assert!(Socket::dial(broker.address(), "/Producers/Conn/t/p").await.is_err());
    assert!(broker.stop(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_past_its_deadline() {
    let broker = start(|_| {}).await;
    // A consumer that neither reads nor closes.
    let _stuck = Socket::consumer(broker.address(), "t", "c").await;
    let begin = std::time::Instant::now();
    broker.stop(Duration::from_millis(300)).await;
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_drops_connections_and_messages() {
    let mut broker = start(|_| {}).await;
    let address = broker.address();
    let mut producer = Socket::producer(address, "t").await;
    producer.produce("a", 0).await;
    broker.abort();
    assert_eq!(producer.ended().await, Ended::Dropped);
    // The port is free again at once, and the new one knows nothing.
    let config = BrokerConfig { listen: address.to_string(), ..BrokerConfig::new(Secret::new("test")) };
    for _ in 0..100 {
        match Broker::start(config.clone()).await {
            Ok(next) => {
                broker = next;
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let mut consumer = Socket::consumer(address, "t", "c").await;
    consumer.quiet(Duration::from_millis(100)).await;
    assert_eq!(broker.status().accepted, 0);
}

#[tokio::test]
async fn a_data_folder_is_private_and_for_one_broker() {
    use std::os::unix::fs::PermissionsExt;
    let parent = std::env::temp_dir().join(format!("ceiba-broker-{}", std::process::id()));
    let folder = parent.join("data");
    let config = BrokerConfig { data: Some(folder.clone()), ..BrokerConfig::new(Secret::new("test")) };
    let broker = Broker::start(config.clone()).await.unwrap();
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(Broker::start(config.clone()).await.unwrap_err().kind(), Kind::InUse);
    broker.stop(Duration::from_secs(1)).await;
    Broker::start(config).await.unwrap();
    std::fs::remove_dir_all(parent).unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let broker = start(|_| {}).await;
    let config =
        BrokerConfig { listen: broker.address().to_string(), ..BrokerConfig::new(Secret::new("test")) };
    assert_eq!(Broker::start(config).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_further_ones_wait() {
    let broker = start(|config| config.limits.connections = 2).await;
    let address = broker.address();
    let first = Socket::producer(address, "t").await;
    let mut second = Socket::consumer(address, "t", "c").await;
    let third = tokio::spawn(async move { Socket::producer(address, "u").await });
    second.quiet(Duration::from_millis(200)).await;
    assert!(!third.is_finished());
    drop(first);
    third.await.unwrap().produce("x", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_body_over_the_cap_is_refused() {
    let broker = start(|config| config.limits.body_bytes = 1000).await;
    let form = |length: usize| format!("messageData={}&topic=t&delayTime=0", "x".repeat(length));
    assert!(post(broker.address(), "/Producer/Send", &form(900)).await.starts_with(r#"{"code":0,"#));
    let refused = http(broker.address(), "POST", "/Producer/Send", "test", &form(1100)).await;
    assert_eq!(refused.status, 413);
    assert_eq!(broker.status().accepted, 1);
}
