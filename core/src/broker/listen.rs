//! Accepting connections: bounded in number, each a guarded stream that reads little before its login.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tower_service::Service;

use super::hub::Hub;
use crate::error::{Error, Kind};

/// What a WebSocket connection may send before it has logged in.
const LOGIN_BYTES: usize = 64 << 10;
/// How long an HTTP connection may take for the head of a request, and stay idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a request's head is read.
const HEAD_BYTES: usize = 64 << 10;

/// How many bytes a connection may still send: without bound but between the upgrade and the login.
#[derive(Debug)]
pub(super) struct Gate(AtomicUsize);

impl Gate {
    fn new() -> Gate {
        Gate(AtomicUsize::new(usize::MAX))
    }

    /// Bounds what is read from now on.
    pub(super) fn narrow(&self) {
        self.0.store(LOGIN_BYTES, Ordering::Relaxed);
    }

    /// Lifts the bound.
    pub(super) fn open(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    fn pass(&self, bytes: usize) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        if left == usize::MAX {
            return true;
        }
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        left > bytes
    }
}

/// Who is at the other end; part of every request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) gate: Arc<Gate>,
}

/// A connection that counts as one of the bounded number while it lives.
struct Guarded {
    stream: TcpStream,
    gate: Arc<Gate>,
    /// How long what is written may wait for its reader, and when that is over.
    unread: Option<Duration>,
    until: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    /// Ends the connection of a peer that does not read: its time begins when nothing more can be written.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(unread) = self.unread else { return written };
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::other("the peer does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.gate.pass(buffer.filled().len().saturating_sub(before)) {
            return Poll::Ready(Err(io::Error::other("too much was sent before the login")));
        }
        result
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The error of an address that cannot be listened on.
pub(super) fn failed(address: &str, error: io::Error) -> Error {
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    let why = match (port, error.kind()) {
        (None | Some(Err(_)), _) => ": write HOST:PORT, such as 127.0.0.1:8011",
        (_, io::ErrorKind::AddrInUse) => {
            ": another program listens there; stop it, or choose another port (0 takes a free one)"
        }
        (_, io::ErrorKind::AddrNotAvailable) => {
            ": it is no address of this machine (0.0.0.0 is every one of them)"
        }
        _ => "",
    };
    Error::new(Kind::Unavailable, format!("cannot listen on {address}{why}")).caused_by(error)
}

/// Accepts until the broker stops. Where `unread` is given, a peer may leave what is written unread for so long.
pub(super) async fn run(listener: TcpListener, hub: Arc<Hub>, router: Router, unread: Option<Duration>) {
    let places = Arc::new(Semaphore::new(hub.config.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        let accepted = async {
            let permit = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = hub.aborted.cancelled() => return,
            () = hub.stopping.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Some((Ok((stream, address)), permit)) => {
                let stopped = serve(stream, address, permit, Arc::clone(&hub), router.clone(), unread);
                hub.tasks.spawn(stopped);
            }
            Some((Err(error), _)) => {
                // Most likely no file descriptor is left: others must close first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => return,
        }
    }
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
    hub: Arc<Hub>,
    router: Router,
    unread: Option<Duration>,
) {
    prepare(&stream);
    let gate = Arc::new(Gate::new());
    let peer = Peer { address, gate: Arc::clone(&gate) };
    let io = TokioIo::new(Guarded { stream, gate, unread, until: None, _permit: permit });
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        biased;
        () = hub.aborted.cancelled() => return,
        result = connection.as_mut() => result,
        () = hub.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                () = hub.aborted.cancelled() => return,
                result = connection.as_mut() => result,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "an HTTP connection ended");
    }
}

/// Small frames go out at once, and a host that vanished is noticed.
fn prepare(stream: &TcpStream) {
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?))
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?))
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_keepcnt(stream, 3)?));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set an option of a connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair(unread: Option<Duration>) -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Guarded { stream, gate: Arc::new(Gate::new()), unread, until: None, _permit: permit }, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go() {
        const MUCH: usize = 64 << 20;
        let (mut guarded, mut peer) = pair(Some(Duration::from_secs(60))).await;
        let failed = guarded.write_all(&vec![0; MUCH]).await.unwrap_err();
        assert_eq!(failed.to_string(), "the peer does not read");
        drop(guarded);
        let mut all = Vec::new();
        let _ = peer.read_to_end(&mut all).await;
        assert!(!all.is_empty() && all.len() < MUCH);
        // A connection that stays has no such bound.
        let (mut guarded, _peer) = pair(None).await;
        let much = vec![0; MUCH];
        tokio::time::timeout(Duration::from_secs(3600), guarded.write_all(&much)).await.unwrap_err();
    }
}
