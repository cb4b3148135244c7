//! Requests by hand.

use std::time::SystemTime;

use ceiba_core::broker::Broker;
use ceiba_core::wire::mns::{Account, Operation, Refusal, Request, headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The code of a refusal.
    pub(crate) fn code(&self) -> String {
        Refusal::decode(self.body.as_bytes()).unwrap_or_else(|_| panic!("no refusal: {self:?}")).code
    }

    /// A header of exactly this name: the official clients tell capitals from small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

pub(crate) const ACCOUNT: Account<'_> = Account { key_id: "id", key_secret: "secret", security_token: None };

/// The bytes of a request that is signed as it should be.
pub(crate) fn bytes(request: &Request) -> Vec<u8> {
    bytes_as(request, headers(ACCOUNT, request, request.body.as_bytes(), SystemTime::now()))
}

pub(crate) fn bytes_as(request: &Request, headers: Vec<(&'static str, String)>) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\nhost: here\r\n", request.method, request.resource);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{}", request.body.len(), request.body));
    text.into_bytes()
}

pub(crate) async fn ask_bytes(broker: &Broker, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(broker.mns_address().unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream).await
}

pub(crate) async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Answer { status, head, body: String::new() };
            let length: usize = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                answer.body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                return answer;
            }
        }
        let mut more = [0; 16 << 10];
        let read = stream.read(&mut more).await.unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..read]);
    }
}

pub(crate) async fn ask(broker: &Broker, operation: &Operation<'_>) -> Answer {
    ask_bytes(broker, &bytes(&operation.encode())).await
}

pub(crate) async fn ask_for(broker: &Broker, method: &'static str, resource: &str, body: &str) -> Answer {
    let request =
        Request { method, resource: resource.to_owned(), headers: Vec::new(), body: body.to_owned() };
    ask_bytes(broker, &bytes(&request)).await
}

/// Makes a queue whose messages are hidden for so many seconds.
pub(crate) async fn queue(broker: &Broker, name: &str, visibility: u32) {
    let body = format!("<Queue><VisibilityTimeout>{visibility}</VisibilityTimeout></Queue>");
    let made = ask_for(broker, "PUT", &format!("/queues/{name}"), &body).await;
    assert_eq!(made.status, 201, "{made:?}");
}

pub(crate) async fn send(broker: &Broker, queue: &str, body: &str) -> Answer {
    let body = format!("<Message><MessageBody>{body}</MessageBody></Message>");
    let sent = ask_for(broker, "POST", &format!("/queues/{queue}/messages"), &body).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    sent
}

/// The body of the next message, which stays hidden.
pub(crate) async fn take(broker: &Broker, queue: &str) -> Option<(String, String)> {
    let answer = ask_for(broker, "GET", &format!("/queues/{queue}/messages?waitseconds=0"), "").await;
    if answer.status == 404 {
        assert_eq!(answer.code(), "MessageNotExist");
        return None;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let received = ceiba_core::wire::mns::decode_received(answer.body.as_bytes()).unwrap();
    Some((received.body.into_owned(), received.receipt_handle.unwrap().into_owned()))
}
