//! Topics that push to HTTP endpoints and queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::broker::Broker;
use ceiba_core::wire::mns::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::raw::{ask_for, queue};
use crate::{Shared, config, start, until};

/// A request that came to the endpoint.
#[derive(Debug, Clone)]
struct Came {
    at: Instant,
    head: String,
    body: String,
}

struct Endpoint {
    port: u16,
    came: Shared<Vec<Came>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers with these first lines and headers, one after the other, then with 204.
async fn endpoint(answers: &[&str]) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let came: Shared<Vec<Came>> = Shared::default();
    let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let task = tokio::spawn({
        let came = Arc::clone(&came);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let (head, body) = loop {
                    let mut more = [0; 4096];
                    let read = stream.read(&mut more).await.unwrap();
                    assert!(read > 0);
                    bytes.extend_from_slice(&more[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    if body.len() == length.parse::<usize>().unwrap() {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                came.lock().push(Came { at: Instant::now(), head, body });
                let answer = answers.pop_front().unwrap_or_else(|| "204 No Content\r\n".to_owned());
                let _ =
                    stream.write_all(format!("HTTP/1.1 {answer}content-length: 0\r\n\r\n").as_bytes()).await;
            }
        }
    });
    Endpoint { port, came, task }
}

async fn subscribe(broker: &Broker, name: &str, inside: &str) {
    let body = format!("<Subscription>{inside}</Subscription>");
    let made = ask_for(broker, "PUT", &format!("/topics/t/subscriptions/{name}"), &body).await;
    assert_eq!(made.status, 201, "{made:?}");
}

async fn publish(broker: &Broker, body: &str, tag: &str) -> Sent {
    let tag = if tag.is_empty() { String::new() } else { format!("<MessageTag>{tag}</MessageTag>") };
    let body = format!("<Message><MessageBody>{body}</MessageBody>{tag}</Message>");
    let sent = ask_for(broker, "POST", "/topics/t/messages", &body).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    Sent::decode(sent.body.as_bytes()).unwrap()
}

#[tokio::test]
async fn three_formats_and_filters() {
    let broker = start().await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let mut all = Vec::new();
    for (format, filter) in [("XML", ""), ("SIMPLIFIED", ""), ("JSON", "<FilterTag>red</FilterTag>")] {
        let endpoint = endpoint(&[]).await;
        let url = format!("http://127.0.0.1:{}/hook?a=b", endpoint.port);
        let inside =
            format!("<Endpoint>{url}</Endpoint>{filter}<NotifyContentFormat>{format}</NotifyContentFormat>");
        subscribe(&broker, format, &inside).await;
        all.push(endpoint);
    }
    queue(&broker, "q", 30).await;
    subscribe(&broker, "q", "<Endpoint>acs:mns:here:1:queues/q</Endpoint>").await;
    let red = publish(&broker, "a &lt; 木", "red").await;
    publish(&broker, "other", "").await;
    let count = |at: usize| all[at].came.lock().len();
    until("all came", || async { (count(0), count(1), count(2)) == (2, 2, 1) }).await;
    let of = |at: usize, text: &str| {
        let came = all[at].came.lock();
        came.iter().find(|came| came.body.contains(text)).cloned().unwrap()
    };
    let xml = of(0, "木");
    assert!(xml.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", xml.head);
    for part in [
        "<Notification xmlns=",
        "<TopicName>t</TopicName>",
        "<SubscriptionName>XML</SubscriptionName>",
        &format!("<MessageId>{}</MessageId>", red.message_id),
        &format!("<MessageMD5>{}</MessageMD5>", red.body_md5),
        "<MessageTag>red</MessageTag>",
        "<PublishTime>",
    ] {
        assert!(xml.body.contains(part), "{part} in {}", xml.body);
    }
    let simple = of(1, "木");
    assert_eq!(simple.body, "a < 木");
    assert!(simple.head.contains(&format!("x-mns-message-id: {}", red.message_id)));
    assert!(simple.head.contains("x-mns-message-tag: red"));
    let json: serde_json::Value = serde_json::from_str(&of(2, "木").body).unwrap();
    assert_eq!((&json["Message"], &json["MessageId"]), (&"a < 木".into(), &red.message_id.into()));
    let got = ask_for(&broker, "GET", "/queues/q/messages?numOfMessages=16&waitseconds=5", "").await;
    let got = decode_received_batch(got.body.as_bytes()).unwrap();
    assert!(got[0].body.contains("<SubscriptionName>q</SubscriptionName>"));
    assert!(broker.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn what_fails_is_tried_again_and_redirects_are_failures() {
    let broker = start().await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let elsewhere = endpoint(&[]).await;
    let location = format!("302 Found\r\nlocation: http://127.0.0.1:{}/\r\n", elsewhere.port);
    let hook = endpoint(&["500 No\r\n", &location]).await;
    let inside = format!(
        "<Endpoint>http://127.0.0.1:{}/</Endpoint><NotifyStrategy>EXPONENTIAL_DECAY_RETRY</NotifyStrategy>",
        hook.port
    );
    subscribe(&broker, "s", &inside).await;
    publish(&broker, "x", "").await;
    until("it came three times", || async { hook.came.lock().len() == 3 }).await;
    let came = hook.came.lock().clone();
    let waits: Vec<u64> = came.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis() as u64).collect();
    assert!((990..1900).contains(&waits[0]) && (1990..2900).contains(&waits[1]), "{waits:?}");
    assert!(elsewhere.came.lock().is_empty());
    until("it is done", || async { broker.status().waiting == 0 }).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(hook.came.lock().len(), 3);
}

#[tokio::test]
async fn the_other_strategy_waits_longer_before_its_first_try_again() {
    let broker = start().await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let hook = endpoint(&["503 No\r\n"]).await;
    // It is what holds without a word.
    subscribe(&broker, "s", &format!("<Endpoint>http://127.0.0.1:{}/</Endpoint>", hook.port)).await;
    publish(&broker, "x", "").await;
    until("it came", || async { hook.came.lock().len() == 1 }).await;
    let end = Instant::now() + Duration::from_secs(25);
    while hook.came.lock().len() < 2 {
        assert!(Instant::now() < end, "it did not come again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let came = hook.came.lock().clone();
    let wait = (came[1].at - came[0].at).as_millis();
    assert!(wait >= 9_990, "{wait}");
    until("it is done", || async { broker.status().waiting == 0 }).await;
}

/// A broker whose subscriptions may push to these networks of the closed ones.
async fn closed(networks: &[&str]) -> Broker {
    let mut config = config();
    let mns = config.mns.as_mut().unwrap();
    mns.private_endpoints = false;
    mns.endpoints = networks.iter().map(|network| network.parse().unwrap()).collect();
    Broker::start(config).await.unwrap()
}

/// Endpoints that all lead to a port of this machine, in the words that there are for it.
const OURS: [&str; 9] = [
    "127.0.0.1",
    "localhost",
    "[::ffff:127.0.0.1]",
    "[::1]",
    "0.0.0.0",
    "127.1",
    "2130706433",
    "0x7f000001",
    "[0:0:0:0:0:ffff:7f00:1]",
];

/// With the strategy that tries again within seconds.
const SOON: &str = "<NotifyStrategy>EXPONENTIAL_DECAY_RETRY</NotifyStrategy>";

#[tokio::test]
async fn addresses_of_this_machine_are_not_for_subscribers() {
    let broker = closed(&[]).await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let hook = endpoint(&[]).await;
    for (at, host) in OURS.into_iter().enumerate() {
        subscribe(
            &broker,
            &format!("s{at}"),
            &format!("<Endpoint>http://{host}:{}/</Endpoint>{SOON}", hook.port),
        )
        .await;
    }
    // Link-local, private, and one that stands in another.
    for (at, host) in
        ["169.254.169.254", "10.0.0.1", "192.168.0.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]"]
            .into_iter()
            .enumerate()
    {
        subscribe(&broker, &format!("p{at}"), &format!("<Endpoint>http://{host}/</Endpoint>{SOON}")).await;
    }
    publish(&broker, "x", "").await;
    // A connection that was tried would not be refused so soon.
    until("all were tried twice", || async {
        let status = broker.status();
        status.redelivered as usize >= 2 * status.waiting
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(hook.came.lock().is_empty());
}

#[tokio::test]
async fn networks_that_are_allowed_are_reached_and_no_others() {
    let broker = closed(&["10.0.0.0/8", "127.0.0.1"]).await;
    assert_eq!(ask_for(&broker, "PUT", "/topics/t", "").await.status, 201);
    let (hook, other) = (endpoint(&[]).await, endpoint(&[]).await);
    // What a name resolves to counts, and what stands in another address.
    let reached = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"];
    for (at, host) in reached.into_iter().enumerate() {
        subscribe(
            &broker,
            &format!("s{at}"),
            &format!("<Endpoint>http://{host}:{}/</Endpoint>{SOON}", hook.port),
        )
        .await;
    }
    for (at, host) in ["127.0.0.2", "[::1]", "0.0.0.0"].into_iter().enumerate() {
        let inside = format!("<Endpoint>http://{host}:{}/</Endpoint>{SOON}", other.port);
        subscribe(&broker, &format!("o{at}"), &inside).await;
    }
    publish(&broker, "x", "").await;
    until("three came", || async { hook.came.lock().len() == 3 }).await;
    until("the others were tried twice", || async {
        let status = broker.status();
        status.redelivered as usize >= 2 * status.waiting
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(other.came.lock().is_empty());
}
