//! Raw sockets of the wire for the tests of the broker: no code of ours but the address.

// Each test file uses a part of it, and what fails here fails the test.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig};
use ceiba_core::secret::Secret;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(20);

/// A WebSocket connection.
pub struct Socket(pub WebSocketStream<TcpStream>);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Dropped,
    Closed(u16),
}

pub async fn start(change: impl FnOnce(&mut BrokerConfig)) -> Broker {
    let mut config = BrokerConfig::new(Secret::new("test"));
    change(&mut config);
    Broker::start(config).await.unwrap()
}

pub fn send_frame(body: &str, delay: i64) -> String {
    serde_json::json!({ "MessageData": body, "DelayTime": delay }).to_string()
}

impl Socket {
    /// Connects without logging in.
    pub async fn dial(address: SocketAddr, path: &str) -> Result<Socket, Error> {
        Ok(Socket::offering(address, path, &[]).await?.0)
    }

    /// The same with further headers, and those of the answer.
    pub async fn offering(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<(Socket, HeaderMap), Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}{path}");
        // A body of `<` grows sixfold on its way out.
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let (socket, answer) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok((Socket(socket), answer.headers().clone()))
    }

    /// Connects with the extension and logs in with the key `test`.
    pub async fn extended(address: SocketAddr, path: &str, more: &[(&'static str, &'static str)]) -> Socket {
        let headers: Vec<_> = more.iter().copied().chain([("ceiba-wire", "1")]).collect();
        let (mut socket, answer) = Socket::offering(address, path, &headers).await.unwrap();
        assert_eq!(answer["ceiba-wire"], "1");
        socket.log_in().await;
        socket
    }

    async fn log_in(&mut self) {
        assert_eq!(self.text().await, "Please enter the secret key");
        self.send("test").await;
        assert_eq!(self.text().await, "Secret key matching succeeded");
    }

    /// Connects and logs in with the key `test`.
    pub async fn open(address: SocketAddr, path: &str) -> Socket {
        let mut socket = Socket::dial(address, path).await.unwrap();
        socket.log_in().await;
        socket
    }

    pub async fn producer(address: SocketAddr, topic: &str) -> Socket {
        Socket::open(address, &format!("/Producers/Conn/{topic}/p")).await
    }

    pub async fn consumer(address: SocketAddr, topic: &str, id: &str) -> Socket {
        Socket::open(address, &format!("/Consumers/Conn/{topic}/{id}")).await
    }

    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Sends a message and waits for its ack.
    pub async fn produce(&mut self, body: &str, delay: i64) {
        self.send(&send_frame(body, delay)).await;
        assert_eq!(self.text().await, "ok");
    }

    /// The next text.
    pub async fn text(&mut self) -> String {
        tokio::time::timeout(LONG, async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("no text but {other:?}"),
                }
            }
        })
        .await
        .expect("no text in time")
    }

    /// Returns when the broker has handled all that was sent before: a ping is answered in its turn.
    pub async fn handled(&mut self) {
        self.0.send(Message::Ping("turn".into())).await.unwrap();
        let frame = tokio::time::timeout(LONG, self.0.next()).await.expect("no pong in time");
        assert!(matches!(frame, Some(Ok(Message::Pong(_)))), "no pong but {frame:?}");
    }

    /// The next push.
    pub async fn push(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next push, acknowledged; returns its body.
    pub async fn consume(&mut self) -> String {
        let push = self.push().await;
        self.send(push["MessageCode"].as_str().unwrap()).await;
        push["MessageData"].as_str().unwrap().to_owned()
    }

    /// Nothing comes for this long.
    pub async fn quiet(&mut self, time: Duration) {
        if let Ok(frame) = tokio::time::timeout(time, self.0.next()).await {
            panic!("quiet was expected, but there is {frame:?}");
        }
    }

    /// Reads to the end.
    pub async fn ended(&mut self) -> Ended {
        tokio::time::timeout(LONG, async {
            let mut status = None;
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(frame))) => status = frame.map(|frame| u16::from(frame.code)),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return status.map_or(Ended::Dropped, Ended::Closed),
                }
            }
        })
        .await
        .expect("the connection did not end in time")
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: String,
}

/// One HTTP request on a connection of its own.
pub async fn http(address: SocketAddr, method: &str, path: &str, key: &str, form: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\nsecretKey: {key}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("no answer in time").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    });
    Answer { status, kind: kind.unwrap_or_default(), body: body.to_owned() }
}

/// A POST with the right key; the body of its answer.
pub async fn post(address: SocketAddr, path: &str, form: &str) -> String {
    http(address, "POST", path, "test", form).await.body
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
