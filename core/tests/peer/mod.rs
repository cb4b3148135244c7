//! A KapokMQ server whose every step is written down by the test: for faults that no real one makes on demand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

pub mod registry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceiba_core::client::{Consumer, Producer};
use ceiba_core::completion::{Completion, CompletionQueue};
use ceiba_core::config::{Connect, WhenDisconnected};
use ceiba_core::error::Result;
use ceiba_core::intake::{Intake, Limits};
use ceiba_core::provider::{Setup, kapokmq};
use ceiba_core::wire::kapokmq::{LOGIN_ERROR, LOGIN_OK, PROMPT, PushText, decode_send, encode_push_line};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

pub const KEY: &str = "s3cret-key";

/// What a peer awaits comes, or the test fails.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within 10 s")
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn setup(id: &str) -> Setup {
    Setup {
        id: id.to_owned(),
        limits: Limits::default(),
        connect: Connect::Eager,
        connect_timeout: Duration::from_secs(5),
        when_disconnected: WhenDisconnected::Wait,
        clock: ceiba_core::clock::Clock::from_system(),
        random: ceiba_core::random::Random::from_system(),
    }
}

pub fn lazy(id: &str) -> Setup {
    Setup { connect: Connect::Lazy, ..setup(id) }
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

pub async fn producer(setup: &Setup, section: Value) -> Result<Arc<dyn Producer>> {
    kapokmq::open_producer(setup, object(section)).await
}

pub async fn consumer(setup: &Setup, section: Value) -> Result<Arc<dyn Consumer>> {
    kapokmq::open_consumer(setup, object(section)).await
}

/// A producer's intake with a completion queue, to submit in a known order.
pub fn submits(producer: &Arc<dyn Producer>) -> (Arc<Intake>, Arc<CompletionQueue>) {
    let intake = producer.intake().expect("an intake").clone();
    let queue = Arc::new(CompletionQueue::new(100_000).expect("a queue"));
    intake.set_queue(queue.clone());
    (intake, queue)
}

/// The next completions, in the order they came.
pub async fn completions(queue: &CompletionQueue, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    until("completions", || {
        let mut some = Vec::new();
        queue.poll(count - all.len(), &mut some);
        all.append(&mut some);
        all.len() == count
    })
    .await;
    all
}

/// A port that nothing listens on.
pub async fn dead_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    listener.local_addr().expect("address")
}

pub struct Peer {
    listener: TcpListener,
    pub addr: SocketAddr,
}

impl Peer {
    pub async fn start() -> Peer {
        Peer::at("127.0.0.1:0".parse().expect("address")).await
    }

    pub async fn at(addr: SocketAddr) -> Peer {
        let listener = TcpListener::bind(addr).await.expect("bind");
        let addr = listener.local_addr().expect("address");
        Peer { listener, addr }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// A section for this peer, with further keys.
    pub fn section(&self, more: Value) -> Value {
        let mut section = serde_json::json!({"url": self.url(), "topic": "t1", "secret_key": KEY,
                                             "reconnect_base": "10ms", "reconnect_max": "50ms"});
        for (key, value) in object(more) {
            section[key] = value;
        }
        section
    }

    pub async fn accept_tcp(&self) -> TcpStream {
        soon(self.listener.accept()).await.expect("accept").0
    }

    /// Whether nobody connects for this long.
    pub async fn quiet(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.listener.accept()).await.is_err()
    }

    /// Accepts a client and lets it log in.
    pub async fn accept(&self) -> Session<TcpStream> {
        let mut session = Session::handshake(self.accept_tcp().await).await;
        session.log_in().await;
        session
    }

    /// Accepts a client and refuses its key.
    pub async fn refuse(&self) -> Session<TcpStream> {
        let mut session = Session::handshake(self.accept_tcp().await).await;
        session.text(PROMPT).await;
        session.next_text().await;
        session.text(LOGIN_ERROR).await;
        session.text(PROMPT).await;
        session
    }

    /// Opens a producer on this peer and accepts it.
    pub async fn producer(&self, setup: &Setup, more: Value) -> (Arc<dyn Producer>, Session<TcpStream>) {
        let (opened, session) = tokio::join!(producer(setup, self.section(more)), self.accept());
        (opened.expect("opened"), session)
    }

    /// Opens a consumer on this peer and accepts it.
    pub async fn consumer(&self, setup: &Setup, more: Value) -> (Arc<dyn Consumer>, Session<TcpStream>) {
        let (opened, session) = tokio::join!(consumer(setup, self.section(more)), self.accept());
        (opened.expect("opened"), session)
    }
}

/// What a client did next.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Text(String),
    Ping,
    Closed,
    Lost,
}

/// One connection of a client. It answers pings only while something is awaited from it.
pub struct Session<S> {
    pub wire: WebSocketStream<S>,
    pub path: String,
    pub host: String,
    pub headers: HeaderMap,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub async fn handshake(stream: S) -> Session<S> {
        Session::answering(stream, HeaderMap::new()).await
    }

    /// Accepts a client with further headers in the answer.
    pub async fn answering(stream: S, more: HeaderMap) -> Session<S> {
        let (mut path, mut host) = (String::new(), String::new());
        let mut headers = HeaderMap::new();
        #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let note =
            |request: &Request, mut response: Response| -> std::result::Result<Response, ErrorResponse> {
                path = request.uri().path().to_owned();
                host = request.headers()["host"].to_str().expect("text").to_owned();
                headers = request.headers().clone();
                response.headers_mut().extend(more);
                Ok(response)
            };
        let wire = soon(accept_hdr_async(stream, note)).await.expect("handshake");
        Session { wire, path, host, headers }
    }

    pub async fn log_in(&mut self) {
        self.text(PROMPT).await;
        assert_eq!(self.next_text().await, KEY);
        self.text(LOGIN_OK).await;
    }

    pub async fn text(&mut self, text: &str) {
        soon(self.wire.send(Message::text(text))).await.expect("sent");
    }

    /// Acknowledges this many.
    pub async fn ok(&mut self, count: usize) {
        for _ in 0..count {
            self.wire.feed(Message::text("ok")).await.expect("fed");
        }
        soon(self.wire.flush()).await.expect("flushed");
    }

    pub async fn seen(&mut self) -> Seen {
        match soon(self.wire.next()).await {
            Some(Ok(Message::Text(text))) => Seen::Text(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_))) => Seen::Ping,
            Some(Ok(Message::Close(_))) => Seen::Closed,
            Some(Ok(other)) => panic!("unexpected frame {other:?}"),
            Some(Err(_)) | None => Seen::Lost,
        }
    }

    pub async fn next_text(&mut self) -> String {
        loop {
            match self.seen().await {
                Seen::Text(text) => return text,
                Seen::Ping => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next message of a producer: body and delay.
    pub async fn message(&mut self) -> (String, i64) {
        let text = self.next_text().await;
        let frame = decode_send(text.as_bytes()).expect("a frame");
        (frame.body.into_owned(), frame.delay)
    }

    pub async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(self.message().await.0);
        }
        bodies
    }

    /// Pushes a message to a consumer.
    pub async fn push(&mut self, code: &str, body: &str) {
        let sent = soon(self.wire.send(Message::text(push_text(code, body)))).await;
        sent.expect("pushed");
    }

    /// Whether the client closes, after whatever else it does.
    pub async fn ends(&mut self) -> Seen {
        loop {
            if let end @ (Seen::Closed | Seen::Lost) = self.seen().await {
                return end;
            }
        }
    }
}

pub fn push_text(code: &str, body: &str) -> String {
    let push = PushText {
        code,
        body,
        topic: "t1",
        create_time: 1_795_250_913,
        consumed_time: 0,
        delay_time: 0,
        status: -1,
    };
    let mut out = Vec::new();
    encode_push_line(&mut out, &push);
    String::from_utf8(out).expect("UTF-8")
}

/// A body as text.
pub fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).expect("UTF-8")
}
