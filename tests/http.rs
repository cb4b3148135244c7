//! An HTTP server that keeps the requests it accepted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The values of the query.
    pub fn query(&self) -> HashMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// The values of a body that is a form.
    pub fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// What a service says to a request, and what it keeps of it.
#[derive(Debug)]
pub struct Reply<T> {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// What arrived, where the request is accepted.
    pub kept: Option<T>,
}

/// Answers a request, the number of which it is told.
pub type Service<T> = Arc<dyn Fn(u64, &Request) -> Reply<T> + Send + Sync>;

/// See the module. Dropping it closes its connections.
pub struct HttpServer<T> {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<T>>>,
    task: JoinHandle<()>,
}

impl<T: Clone + Send + 'static> HttpServer<T> {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(service: Service<T>) -> HttpServer<T> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::default();
        let task = tokio::spawn(accept(listener, service, Arc::clone(&kept)));
        HttpServer { address, kept, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it accepted, from the first of these on.
    pub fn kept_from(&self, first: usize, max: usize) -> Vec<T> {
        self.kept.lock().unwrap().iter().skip(first).take(max).cloned().collect()
    }
}

impl<T> Drop for HttpServer<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<T: Send + 'static>(listener: TcpListener, service: Service<T>, kept: Arc<Mutex<Vec<T>>>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                number += 1;
                let (service, kept) = (service.clone(), kept.clone());
                connections.spawn(async move { serve(stream, number << 32, &service, &kept).await });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve<T>(
    stream: TcpStream,
    mut number: u64,
    service: &Service<T>,
    kept: &Mutex<Vec<T>>,
) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let request = read(&mut from).await?;
        number += 1;
        let reply = service(number, &request);
        kept.lock().unwrap().extend(reply.kept);
        let answer = format!(
            "HTTP/1.1 {} X\r\ncontent-length: {}\r\n\r\n{}",
            reply.status,
            reply.body.len(),
            reply.body
        );
        to.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(from: &mut BufReader<tokio::net::tcp::OwnedReadHalf>) -> Option<Request> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await.ok().filter(|read| *read > 0)?;
    let first = String::from_utf8(line).ok()?;
    let mut first = first.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).await.ok().filter(|read| *read > 0)?;
        let line = String::from_utf8(line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).await.ok()?;
    Some(Request { method, target, headers, body })
}
