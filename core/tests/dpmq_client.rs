//! The DPMQ clients against an HTTP server that does what the test says, and against the broker.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ceiba_core::client::{Consumer, Context, Producer};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Outcome, Result};
use ceiba_core::message::Message;
use ceiba_core::open;
use ceiba_core::provider::memory::Topics;
use parking_lot::Mutex;
use serde_json::{Value, json};
use socket::{start, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SETTINGS: &str =
    r#"{"code":0,"data":{"messageChanBuffer":100,"pushMessagesSpeed":0,"sendRetryCount":3}}"#;
const TAKEN: &str = r#"{"code":0,"msg":"d9a624ffa17a6c51fcb2381686dd335161b7252d"}"#;

/// What the server does with a request.
#[derive(Debug, Clone)]
enum Act {
    Answer(u16, &'static str),
    AnswerAndClose(&'static str),
    Write(&'static str),
    Drop,
    Hang,
}

#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
}

type Script = dyn Fn(&Request) -> Act + Send + Sync;

struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Server {
        Server::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    async fn at(address: SocketAddr, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, accepted) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicUsize>::default());
        let script: Arc<Script> = Arc::new(script);
        let task = tokio::spawn({
            let (requests, accepted) = (requests.clone(), accepted.clone());
            async move {
                // Connections end with this task.
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(serve(stream, script.clone(), requests.clone()));
                }
            }
        });
        Server { address, requests, accepted, task }
    }

    /// Answers as a server does, and posts as told.
    async fn posts(act: Act) -> Server {
        Server::start(move |request| if is_post(request) { act.clone() } else { Act::Answer(200, SETTINGS) })
            .await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn sent(&self) -> Vec<Request> {
        self.requests.lock().iter().filter(|request| is_post(request)).cloned().collect()
    }
}

fn is_post(request: &Request) -> bool {
    request.head.starts_with("POST ")
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, requests: Arc<Mutex<Vec<Request>>>) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).unwrap();
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while read.len() < length {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8(read.drain(..length).collect()).unwrap();
        let request = Request { head, body };
        let act = script(&request);
        requests.lock().push(request);
        let (status, body, close) = match act {
            Act::Answer(status, body) => (status, body, false),
            Act::AnswerAndClose(body) => (200, body, true),
            Act::Write(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Act::Drop => return,
            Act::Hang => std::future::pending().await,
        };
        let connection = if close { "Connection: close\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 {status} Told\r\n{connection}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

fn config(address: SocketAddr, more: Value) -> ClientConfig {
    let mut config = json!({"provider": {"type": "dpmq", "url": format!("http://{address}"), "topic": "t"}});
    for (key, value) in more.as_object().unwrap() {
        match key.strip_prefix("provider.") {
            Some(key) => config["provider"][key] = value.clone(),
            None => config[key] = value.clone(),
        }
    }
    ClientConfig::from_json(config).unwrap()
}

async fn producer(address: SocketAddr, more: Value) -> Result<Arc<dyn Producer>> {
    open::producer("p", &config(address, more), &Topics::default()).await
}

async fn consumer(address: SocketAddr, more: Value) -> Result<Arc<dyn Consumer>> {
    open::consumer("c", &config(address, more), &Topics::default()).await
}

fn ctx() -> Context {
    Context::within(Duration::from_secs(10))
}

fn message(body: &str) -> Arc<Message> {
    Arc::new(Message::new(body.to_owned()))
}

#[tokio::test]
async fn a_send_is_a_form_and_its_receipt_has_the_code() {
    let server = Server::posts(Act::Answer(200, TAKEN)).await;
    let more = json!({"provider.url": format!("http://{}/mq/", server.address), "provider.topic": "t 木"});
    let producer = producer(server.address, more).await.unwrap();
    let receipt = producer.send(&ctx(), message("a b&<木>")).await.unwrap();
    assert_eq!(receipt.message_id.as_deref(), Some("d9a624ffa17a6c51fcb2381686dd335161b7252d"));
    assert_eq!((receipt.provider, receipt.attempts), ("dpmq", 1));
    let sent = server.sent().remove(0);
    let head = sent.head.to_lowercase();
    assert!(sent.head.starts_with("POST /mq/ProducerSend HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", server.address)), "{head}");
    assert_eq!(sent.body, "topic=t%20%E6%9C%A8&messageData=a%20b%26%3C%E6%9C%A8%3E");
}

#[tokio::test]
async fn one_after_the_other_needs_one_connection() {
    let server = Server::posts(Act::Answer(200, TAKEN)).await;
    let producer = producer(server.address, json!({})).await.unwrap();
    for _ in 0..50 {
        producer.send(&ctx(), message("x")).await.unwrap();
    }
    assert_eq!((server.accepted(), server.sent().len()), (1, 50));
}

#[tokio::test]
async fn at_most_so_many_connections() {
    let server = Server::posts(Act::Hang).await;
    let producer = producer(server.address, json!({"provider.connections": 3})).await.unwrap();
    let ctx = ctx();
    let calls = (0..20).map(|_| producer.send(&ctx, message("x")));
    let (_, results) = tokio::join!(
        async {
            until("three requests", || server.sent().len() == 3).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!((server.sent().len(), server.accepted()), (3, 3));
            assert_eq!(producer.status()["unacked"], 3);
            producer.close(&Context::within(Duration::from_millis(50))).await.unwrap_err();
        },
        futures_util::future::join_all(calls)
    );
    let errors: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| error.kind() == Kind::Closed));
    let unknown = errors.iter().filter(|error| error.outcome() == Outcome::Unknown);
    assert!(unknown.clone().all(|error| error.attempts() == 1));
    assert_eq!(unknown.count(), 3);
}

#[tokio::test]
async fn each_answer_has_its_error() {
    let refused = r#"{"code":-1,"msg":"topic不能包含字符“|”"}"#;
    let full = r#"{"code":-1,"msg":"消息队列已满"}"#;
    let no_disk = r#"{"code":-1,"msg":"磁盘空间不足"}"#;
    for (act, kind, outcome, retryable) in [
        (Act::Answer(200, refused), Kind::InvalidArgument, Outcome::NotSent, false),
        (Act::Answer(200, full), Kind::QueueFull, Outcome::NotSent, true),
        (Act::Answer(200, no_disk), Kind::Storage, Outcome::NotSent, true),
        (Act::Answer(200, "{}"), Kind::Protocol, Outcome::Unknown, true),
        (Act::Answer(200, "welcome"), Kind::Protocol, Outcome::Unknown, true),
        (Act::Answer(404, "404 page not found"), Kind::NotFound, Outcome::NotSent, false),
        (Act::Answer(413, ""), Kind::TooLarge, Outcome::NotSent, false),
        (Act::Answer(429, ""), Kind::Throttled, Outcome::NotSent, true),
        (Act::Answer(502, ""), Kind::Unavailable, Outcome::Unknown, true),
        (Act::Drop, Kind::Unavailable, Outcome::Unknown, true),
        (
            Act::Write("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
            Kind::Unavailable,
            Outcome::Unknown,
            true,
        ),
        (Act::Write("SSH-2.0\r\n\r\n"), Kind::Protocol, Outcome::Unknown, true),
    ] {
        let server = Server::posts(act.clone()).await;
        let producer = producer(server.address, json!({})).await.unwrap();
        let error = producer.send(&ctx(), message("x")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{act:?}: {error}");
        assert_eq!(error.retryable(), retryable, "{act:?}: {error}");
        assert_eq!((error.attempts(), error.provider()), (1, Some("dpmq")), "{act:?}");
        assert_eq!(server.sent().len(), 1, "{act:?}: nothing is sent again");
        if kind == Kind::InvalidArgument {
            assert!(error.message().contains("topic不能包含字符"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unknown() {
    let server = Server::posts(Act::Hang).await;
    let producer = producer(server.address, json!({})).await.unwrap();
    let error = producer.send(&Context::within(Duration::from_millis(300)), message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.attempts()), (Kind::Timeout, Outcome::Unknown, 1));
}

#[tokio::test]
async fn nobody_there_is_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = producer(address, json!({"connect_timeout": "300ms"})).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let told = "no DPMQ server listens there; start one, such as `ceiba broker --dpmq`";
    assert!(error.text().contains(told), "{}", error.text());
    let lazy = producer(address, json!({"connect": "lazy"})).await.unwrap();
    let error = lazy.send(&Context::within(Duration::from_millis(400)), message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.attempts()), (Kind::Timeout, Outcome::NotSent, 0));
    assert!(error.text().contains("cannot be reached"), "{}", error.text());
    let fail = producer(address, json!({"connect": "lazy", "when_disconnected": "fail"})).await.unwrap();
    let error = fail.send(&ctx(), message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent));
    // It comes back by itself.
    let _server =
        Server::at(address, |request| Act::Answer(200, if is_post(request) { TAKEN } else { SETTINGS }))
            .await;
    lazy.send(&ctx(), message("x")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_dpmq_server_fails_at_once() {
    for (act, kind) in [
        (Act::Answer(404, "404 page not found"), Kind::NotFound),
        (Act::Answer(200, "<html>"), Kind::Protocol),
        (Act::Write("SSH-2.0\r\n\r\n"), Kind::Protocol),
    ] {
        let server = Server::start(move |_| act.clone()).await;
        let at = std::time::Instant::now();
        let error = producer(server.address, json!({})).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(at.elapsed() < Duration::from_secs(3), "{:?}", at.elapsed());
    }
    // Our broker without the front is none either, and says so.
    let broker = start(|_| {}).await;
    let error = producer(broker.address(), json!({})).await.err().unwrap();
    let told = "is it a DPMQ server? One of ceiba is when it was started with `--dpmq` (`dpmq: true`)";
    assert!(error.kind() == Kind::NotFound && error.message().ends_with(told), "{error}");
    let error = consumer(broker.address(), json!({})).await.err().unwrap();
    assert!(error.kind() == Kind::NotFound && error.message().ends_with(told), "{error}");
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_works_and_is_not_asked_in_a_loop() {
    let server =
        Server::start(|request| Act::AnswerAndClose(if is_post(request) { TAKEN } else { SETTINGS })).await;
    let producer = producer(server.address, json!({"provider.connections": 2})).await.unwrap();
    for _ in 0..20 {
        producer.send(&ctx(), message("x")).await.unwrap();
    }
    assert_eq!(server.sent().len(), 20);
    let before = server.accepted();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.accepted() - before < 30, "{} connections in a second", server.accepted() - before);
}

#[tokio::test]
async fn a_lost_server_shows_without_a_send_and_comes_back() {
    let server = Server::posts(Act::Answer(200, TAKEN)).await;
    let address = server.address;
    let producer = producer(address, json!({})).await.unwrap();
    assert_eq!(producer.status()["state"], "connected");
    drop(server);
    until("the loss", || producer.status()["state"] != "connected").await;
    let _server =
        Server::at(address, |request| Act::Answer(200, if is_post(request) { TAKEN } else { SETTINGS }))
            .await;
    until("the return", || producer.status()["state"] == "connected").await;
    assert_eq!(producer.status()["reconnects"], 1);
    producer.send(&ctx(), message("x")).await.unwrap();
}

#[tokio::test]
async fn a_silent_server_is_noticed_by_its_check() {
    let silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let server = Server::start({
        let silent = silent.clone();
        move |_| if silent.load(Ordering::SeqCst) { Act::Hang } else { Act::Answer(200, SETTINGS) }
    })
    .await;
    let more = json!({"provider.check_time": "50ms", "connect_timeout": "200ms"});
    let producer = producer(server.address, more).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((&producer.status()["state"], server.accepted()), (&json!("connected"), 1));
    silent.store(true, Ordering::SeqCst);
    until("the silence", || producer.status()["state"] != "connected").await;
    silent.store(false, Ordering::SeqCst);
    until("the return", || producer.status()["state"] == "connected").await;
}

#[tokio::test]
async fn a_full_consumer_stops_reading_and_loses_nothing() {
    let broker = start(|config| config.dpmq = true).await;
    let consumer =
        consumer(broker.address(), json!({"provider.prefetch_bytes": 50_000, "provider.check_time": "50ms"}))
            .await
            .unwrap();
    let producer = producer(broker.address(), json!({"provider.connections": 1})).await.unwrap();
    // More than the buffers between hold.
    let filler = "x".repeat(100_000);
    let count = 150;
    for number in 0..count {
        producer.send(&ctx(), message(&format!("{number} {filler}"))).await.unwrap();
    }
    // Longer than the checks of a connection that is read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = consumer.status();
    assert!(held["prefetched_bytes"].as_u64().unwrap() < 250_000, "{held}");
    assert!(broker.status().waiting > 0, "all went into buffers");
    let mut next = 0;
    while next < count {
        let deliveries = consumer.receive(&ctx(), 7).await.unwrap();
        assert!(!deliveries.is_empty(), "{next} came: {}", consumer.status());
        for delivery in deliveries {
            let body = std::str::from_utf8(delivery.message.body()).unwrap();
            assert!(body.starts_with(&format!("{next} ")), "not {next}");
            assert_eq!(delivery.code.len(), 40);
            next += 1;
        }
    }
    assert_eq!(consumer.status()["reconnects"], 0);
    let results = consumer.ack(&ctx(), vec!["code".into()]).await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test]
async fn the_code_of_the_receipt_is_that_of_the_delivery() {
    let broker = start(|config| config.dpmq = true).await;
    let text = format!("dpmq://{}/orders?connections=2", broker.address());
    let config = ClientConfig::parse(&text).unwrap();
    let producer = open::producer("p", &config, &Topics::default()).await.unwrap();
    let config = ClientConfig::parse(&format!("dpmq://{}/orders", broker.address())).unwrap();
    let consumer = open::consumer("c", &config, &Topics::default()).await.unwrap();
    let receipt = producer.send(&ctx(), message("hello")).await.unwrap();
    let delivery = consumer.receive(&ctx(), 1).await.unwrap().remove(0);
    assert_eq!(receipt.message_id, Some(delivery.code));
    assert_eq!((&delivery.message.body()[..], &*delivery.topic), (&b"hello"[..], "orders"));
    let age = delivery.created.unwrap().elapsed().unwrap();
    assert!(age < Duration::from_secs(5), "{age:?}");
}

#[test]
fn urls() {
    let config = ClientConfig::parse("dpmqs://mq.example.com/a%20b?deadline=2s&connections=3").unwrap();
    let expected =
        json!({"type": "dpmq", "url": "https://mq.example.com:443", "topic": "a b", "connections": 3});
    assert_eq!(Value::Object(config.provider), expected);
    assert_eq!(ClientConfig::parse("dpmq://h/t").unwrap().provider["url"], "http://h:80");
    let error = ClientConfig::parse("dpmq://:hunter2@h/t").err().unwrap();
    assert!(error.message().contains("no login") && !error.message().contains("hunter2"), "{error}");
    assert!(ClientConfig::parse("dpm://h/t").err().unwrap().message().contains("`dpmq`"));
}
