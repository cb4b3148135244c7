//! The broker's console over HTTP.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Posts to a console endpoint and returns its JSON.
pub async fn post(broker: SocketAddr, secret: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(broker).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {broker}\r\nsecretKey: {secret}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let from = answer.find('{').unwrap_or_else(|| panic!("no JSON from {path}: {answer}"));
    let to = answer.rfind('}').unwrap();
    serde_json::from_str(&answer[from..=to]).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

/// The wire ids of the consumers or producers that the broker lists.
pub async fn clients(broker: SocketAddr, secret: &str, list: &str, id: &str) -> Vec<String> {
    let answer = post(broker, secret, "/Console/GetClients").await;
    assert_eq!(answer["code"], 0, "{answer}");
    let entries = answer[list].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry[id].as_str().unwrap().to_owned()).collect()
}
