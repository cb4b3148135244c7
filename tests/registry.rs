//! A registry of brokers that names the nodes it is given, over HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// See the module. Dropping it stops it.
pub struct Registry {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Registry {
    /// One that names these nodes to whoever knows the secret, on a free port of 127.0.0.1.
    pub async fn start(secret: &str, nodes: &[SocketAddr]) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| {
                serde_json::json!({
                    "Name": format!("mq:{node}"), "Addr": node.ip().to_string(), "Port": node.port().to_string(),
                })
            })
            .collect();
        let (right, list) = (secret.as_bytes().to_vec(), serde_json::Value::Array(nodes).to_string());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, right.clone(), list.clone()));
            }
        });
        Registry { address, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, right: Vec<u8>, list: String) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) if head.len() < 65_536 => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let key = head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(b"secretKey").then(|| line[colon + 1..].trim_ascii())
    });
    let body = match key == Some(&right) && head.starts_with(b"POST /Registry/GetNodes ") {
        true => list,
        false => r#"{"code":-1,"msg":"Secret key matching error"}"#.to_owned(),
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
