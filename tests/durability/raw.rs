//! The wire by hand: single frames, so that a test sees each answer, each attempt and each reason of a close.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ceiba_core::wire::kapokmq::{
    ACK, EXTENSION_HEADER, EXTENSION_VERSION, LOGIN_OK, PROMPT, Push, decode_push, encode_send,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::broker::SECRET;

/// An answer takes no longer.
const ANSWER: Duration = Duration::from_secs(20);

/// What a producer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Accepted,
    /// The connection was closed with this status.
    Closed(u16),
    /// It broke.
    Lost,
}

/// One connection that is logged in.
pub(crate) struct Wire(WebSocketStream<TcpStream>);

impl Wire {
    /// A connection that sends; it gets the original's answers.
    pub(crate) async fn producer(address: SocketAddr, topic: &str, id: &str) -> Wire {
        Wire::open(address, &format!("Producers/Conn/{topic}/{id}"), false).await.unwrap()
    }

    /// A connection that receives, and is told the attempt.
    pub(crate) async fn consumer(address: SocketAddr, topic: &str, id: &str) -> Wire {
        Wire::open(address, &format!("Consumers/Conn/{topic}/{id}"), true).await.unwrap()
    }

    /// The same, which may fail.
    pub(crate) async fn open(address: SocketAddr, path: &str, extended: bool) -> Result<Wire, String> {
        let login = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let mut request = format!("ws://{address}/{path}").into_client_request().unwrap();
            if extended {
                request.headers_mut().insert(EXTENSION_HEADER, EXTENSION_VERSION.parse().unwrap());
            }
            let (socket, _) = client_async(request, stream).await.map_err(|error| error.to_string())?;
            let mut wire = Wire(socket);
            for (expected, answer) in [(PROMPT, Some(SECRET)), (LOGIN_OK, None)] {
                match wire.next().await {
                    Ok(text) if text == expected.as_bytes() => {}
                    other => return Err(format!("{other:?} instead of {expected}")),
                }
                if let Some(answer) = answer {
                    wire.0.send(Message::text(answer)).await.map_err(|error| error.to_string())?;
                }
            }
            Ok(wire)
        };
        timeout(ANSWER, login).await.unwrap_or_else(|_| Err("the login takes too long".to_owned()))
    }

    /// The next text, or how the connection ended.
    async fn next(&mut self) -> Result<Bytes, Told> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.into()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(Told::Closed(frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Told::Lost),
            }
        }
    }

    /// Sends one message and waits for the answer.
    pub(crate) async fn send(&mut self, body: &str, delay: Duration) -> Told {
        let mut frame = Vec::new();
        encode_send(&mut frame, body, delay.as_secs());
        // A broker that has closed still says why.
        let _ = self.0.send(Message::text(String::from_utf8(frame).unwrap())).await;
        match timeout(ANSWER, self.next()).await.expect("no answer to a send") {
            Ok(text) => {
                assert_eq!(text, ACK);
                Told::Accepted
            }
            Err(told) => told,
        }
    }

    /// The next push, if one comes in time.
    pub(crate) async fn push(&mut self, within: Duration) -> Option<Push> {
        let text = timeout(within, self.next()).await.ok()?;
        Some(decode_push(&text.expect("the consumer's connection ended")).unwrap())
    }

    /// Acknowledges.
    pub(crate) async fn ack(&mut self, push: &Push) {
        self.0.send(Message::text(push.code.to_string())).await.unwrap();
    }
}

/// Sends one message over HTTP and returns the answer.
pub(crate) async fn post(address: SocketAddr, topic: &str, body: &str) -> Value {
    let form = format!("topic={topic}&delayTime=0&messageData={body}");
    let request = format!(
        "POST /Producer/Send HTTP/1.1\r\nHost: {address}\r\nsecretKey: {SECRET}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(ANSWER, exchange).await.expect("no answer to a post");
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
