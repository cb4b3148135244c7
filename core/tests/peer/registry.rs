//! A registry that answers what the test says.

use std::sync::Arc;

use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Peer;

/// One request, as it was read.
pub type Requests = Arc<Mutex<Vec<String>>>;

pub struct Registry {
    pub url: String,
    answer: Arc<Mutex<String>>,
    pub requests: Requests,
    task: tokio::task::JoinHandle<()>,
}

impl Registry {
    pub async fn start(nodes: &[&Peer]) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let answer = Arc::new(Mutex::new(String::new()));
        let requests = Requests::default();
        let task = tokio::spawn(serve(listener, answer.clone(), requests.clone()));
        let registry = Registry { url, answer, requests, task };
        registry.lists(nodes);
        registry
    }

    /// Answers with these nodes from now on.
    pub fn lists(&self, nodes: &[&Peer]) {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|peer| {
                let (addr, port) = (peer.addr.ip().to_string(), peer.addr.port().to_string());
                serde_json::json!({"Name": format!("mq:{addr}:{port}"), "Addr": addr, "Port": port})
            })
            .collect();
        self.answers(200, &serde_json::Value::from(nodes).to_string());
    }

    /// Answers with this from now on.
    pub fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().expect("lock") = format!(
            "HTTP/1.1 {status} Some\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    pub fn count(&self) -> usize {
        self.requests.lock().expect("lock").len()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<String>>, requests: Requests) {
    while let Ok((mut tcp, _)) = listener.accept().await {
        let (mut head, mut some) = (Vec::new(), [0; 1024]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match tcp.read(&mut some).await {
                Ok(1..) => head.extend_from_slice(&some),
                _ => break,
            }
        }
        let head = String::from_utf8_lossy(&head).trim_end_matches(['\0', '\r', '\n']).to_owned();
        let text = answer.lock().expect("lock").clone();
        requests.lock().expect("lock").push(head);
        let _ = tcp.write_all(text.as_bytes()).await;
    }
}
