//! A server that does with each request what the test says.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What is done with a request, or with a connection.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// An answer with this status, headers and body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// These bytes, then nothing more.
    Stuck(Vec<u8>),
    /// The end, before anything was read.
    CloseAtOnce,
    /// The end after so many bytes.
    CloseAfter(usize),
    /// These bytes, then others without end.
    Endless(Vec<u8>),
    /// An answer of 200 with what this makes of the request.
    By(fn(&Seen) -> String),
    /// An answer once the gate opens.
    AtGate,
    /// The end once the gate opens.
    UntilGate,
}

pub(crate) fn ok(body: &str) -> Act {
    Act::Answer(200, Vec::new(), body.to_owned())
}

pub(crate) fn status(status: u16) -> Act {
    Act::Answer(status, Vec::new(), String::new())
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn query(&self) -> HashMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }
}

#[derive(Default)]
pub(crate) struct Shared {
    // The last one is for all requests that follow.
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    opened: std::sync::atomic::AtomicBool,
    gate: Notify,
}

/// A port that nobody else gets, also while nobody listens on it.
pub(crate) struct Port {
    address: SocketAddr,
    _kept: TcpSocket,
}

impl Port {
    pub(crate) fn free() -> Port {
        let kept = Port::socket(([127, 0, 0, 1], 0).into());
        Port { address: kept.local_addr().unwrap(), _kept: kept }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn listen(&self) -> TcpListener {
        Port::socket(self.address).listen(1024).unwrap()
    }

    // Others of this kind may share its address while none of them listens.
    fn socket(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    }
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(acts: impl IntoIterator<Item = Act>) -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), acts)
    }

    pub(crate) fn on(listener: TcpListener, acts: impl IntoIterator<Item = Act>) -> Server {
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { acts: Mutex::new(acts.into_iter().collect()), ..Shared::default() });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, shared.clone()));
                }
            }
        });
        Server { port, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Refuses whoever connects from now on; connections that exist go on.
    pub(crate) async fn is_full(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    pub(crate) fn open_gate(&self) {
        self.shared.opened.store(true, Ordering::SeqCst);
        self.shared.gate.notify_waiters();
    }
}

impl Shared {
    fn next(&self) -> Act {
        let mut acts = self.acts.lock();
        if acts.len() > 1 { acts.pop_front().unwrap() } else { acts.front().cloned().expect("an act") }
    }

    fn peek_closes(&self) -> Option<Act> {
        let acts = self.acts.lock();
        acts.front().filter(|act| matches!(act, Act::CloseAtOnce | Act::CloseAfter(_))).cloned()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    converse(stream, &shared).await;
}

/// Serves one connection, encrypted or not.
pub(crate) async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    loop {
        if let Some(act) = shared.peek_closes() {
            if let Act::CloseAfter(bytes) = act {
                let mut some = vec![0; bytes];
                let _ = stream.read_exact(&mut some).await;
            }
            shared.next();
            return;
        }
        let Some(request) = read(&mut stream).await else { return };
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        let act = match shared.next() {
            Act::By(made) => ok(&made(&request)),
            act => act,
        };
        shared.seen.lock().push(request);
        let goes_on = play(&mut stream, shared, act).await;
        shared.at_once.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

async fn play(stream: &mut (impl AsyncWrite + Unpin), shared: &Shared, act: Act) -> bool {
    let answer = |status: u16, headers: &[(&str, String)], body: &str| {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("HTTP/1.1 {status} X\r\n{lines}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    match act {
        Act::Answer(status, headers, body) => {
            stream.write_all(&answer(status, &headers, &body)).await.is_ok()
        }
        Act::AtGate | Act::UntilGate => {
            let opened = shared.gate.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if !shared.opened.load(Ordering::SeqCst) {
                opened.await;
            }
            if matches!(act, Act::UntilGate) {
                return false;
            }
            stream.write_all(&answer(200, &[], "")).await.is_ok()
        }
        Act::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Act::Stuck(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending().await
        }
        Act::Endless(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            false
        }
        Act::CloseAtOnce | Act::CloseAfter(_) | Act::By(_) => false,
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, target, headers, body })
}
