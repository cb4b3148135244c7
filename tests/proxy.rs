//! A TCP proxy between a client and its server that goes silent, cuts connections or is away when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client.
    Up,
    /// From the server.
    Down,
}

/// Sees all bytes, by connection and way, before they are passed on.
pub type Tap = Arc<dyn Fn(u64, Way, &[u8]) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Silent,
    Cut,
    Away,
}

impl Mode {
    fn closes(self) -> bool {
        matches!(self, Mode::Cut | Mode::Away)
    }
}

struct Shared {
    server: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: AtomicU64,
    live: AtomicU64,
    swallowed: AtomicU64,
    swallowing: AtomicU64,
    listening: watch::Sender<bool>,
    // Bytes a second and way; 0 for no bound.
    rate: AtomicU64,
    tap: Option<Tap>,
}

/// See the module. Dropping it closes its connections.
pub struct Proxy {
    address: SocketAddr,
    // Keeps the port while nobody listens on it.
    _port: TcpSocket,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of `server`, on a free port of 127.0.0.1.
    pub async fn start(server: SocketAddr, tap: Option<Tap>) -> Proxy {
        let port = socket(([127, 0, 0, 1], 0).into());
        let address = port.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            mode: watch::Sender::new(Mode::Forward),
            accepted: AtomicU64::new(0),
            live: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            swallowing: AtomicU64::new(0),
            listening: watch::Sender::new(true),
            rate: AtomicU64::new(0),
            tap,
        });
        let listener = socket(address).listen(1024).unwrap();
        let task = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, _port: port, shared, task }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes nothing on and tells nobody: connections that exist now, and those made until [`Proxy::mend`],
    /// stay open and dead for good.
    pub fn silence(&self) {
        self.shared.mode.send_replace(Mode::Silent);
    }

    /// Closes what exists, and whatever connects until [`Proxy::mend`].
    pub fn cut(&self) {
        self.shared.mode.send_replace(Mode::Cut);
    }

    /// Closes what exists, and refuses whatever connects until [`Proxy::mend`], as where nobody listens. It is so when
    /// this returns.
    pub async fn leave(&self) {
        let mut listening = self.shared.listening.subscribe();
        self.shared.mode.send_replace(Mode::Away);
        let _ = listening.wait_for(|listening| !listening).await;
    }

    /// Lets new connections pass.
    pub fn mend(&self) {
        self.shared.mode.send_replace(Mode::Forward);
    }

    /// Ends [`Proxy::leave`]; whoever connects once this returned is let in.
    pub async fn come_back(&self) {
        let mut listening = self.shared.listening.subscribe();
        self.shared.mode.send_replace(Mode::Forward);
        let _ = listening.wait_for(|listening| *listening).await;
    }

    /// Passes on no more than this many bytes a second, each way of each connection.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::Release);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Clients that are connected now.
    pub fn live(&self) -> u64 {
        self.shared.live.load(Ordering::Acquire)
    }

    /// Bytes that clients wrote into silence.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::Acquire)
    }

    /// Connections on which clients wrote into silence.
    pub fn swallowing(&self) -> u64 {
        self.shared.swallowing.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// Bound to an address that other sockets of this kind may share while none of them listens.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(mut listener: TcpListener, shared: Arc<Shared>) {
    let address = listener.local_addr().unwrap();
    let mut mode = shared.mode.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = until(&mut mode, |mode| mode == Mode::Away) => {
                drop(listener);
                shared.listening.send_replace(false);
                until(&mut mode, |mode| mode != Mode::Away).await;
                listener = socket(address).listen(1024).unwrap();
                shared.listening.send_replace(true);
            }
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let number = shared.accepted.fetch_add(1, Ordering::AcqRel) + 1;
                let shared = shared.clone();
                connections.spawn(async move { connection(number, client, &shared).await });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn until(mode: &mut watch::Receiver<Mode>, is: impl Fn(Mode) -> bool) {
    // The sender lives as long as what is behind `shared`.
    let _ = mode.wait_for(|mode| is(*mode)).await;
}

async fn connection(number: u64, client: TcpStream, shared: &Shared) {
    let live = Live::new(&shared.live);
    let mode = shared.mode.subscribe();
    let now = *mode.borrow();
    let _ = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    match now {
        Mode::Cut | Mode::Away => return,
        Mode::Silent => return swallow(&mut from_client, shared, mode, live).await,
        Mode::Forward => {}
    }
    let Ok(server) = TcpStream::connect(shared.server).await else { return };
    let _ = server.set_nodelay(true);
    // The halves live until the end of this function: dropped earlier, they would tell the other side.
    let (mut from_server, mut to_server) = server.into_split();
    let (up, down) = tokio::join!(
        pass(number, Way::Up, &mut from_client, &mut to_server, shared, mode.clone()),
        pass(number, Way::Down, &mut from_server, &mut to_client, shared, mode.clone()),
    );
    if up == Stopped::Silent || down == Stopped::Silent {
        swallow(&mut from_client, shared, mode, live).await;
    }
}

struct Live<'a>(&'a AtomicU64);

impl<'a> Live<'a> {
    fn new(count: &'a AtomicU64) -> Live<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Live(count)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stopped {
    Ended,
    Silent,
}

async fn pass(
    number: u64,
    way: Way,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    mut mode: watch::Receiver<Mode>,
) -> Stopped {
    let mut buffer = vec![0; 64 << 10];
    let mut open = true;
    loop {
        let read = tokio::select! {
            biased;
            mode = changed(&mut mode) => {
                return if mode == Mode::Silent { Stopped::Silent } else { Stopped::Ended };
            }
            read = from.read(piece(&mut buffer, shared.rate.load(Ordering::Acquire))) => read,
        };
        let Ok(count @ 1..) = read else { break };
        if let Some(tap) = &shared.tap {
            tap(number, way, &buffer[..count]);
        }
        // What the client wrote is seen by the tap also when nobody takes it any more.
        open = open && to.write_all(&buffer[..count]).await.is_ok();
        if !open && way == Way::Down {
            break;
        }
        let rate = shared.rate.load(Ordering::Acquire);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
    }
    let _ = to.shutdown().await;
    Stopped::Ended
}

// What is read at once: on a slow line a fiftieth of a second, so that it trickles and does not come in gusts.
fn piece(buffer: &mut [u8], rate: u64) -> &mut [u8] {
    let most = match usize::try_from(rate / 50) {
        _ if rate == 0 => buffer.len(),
        Ok(most) => most.clamp(1, buffer.len()),
        Err(_) => buffer.len(),
    };
    &mut buffer[..most]
}

async fn changed(mode: &mut watch::Receiver<Mode>) -> Mode {
    mode.wait_for(|mode| *mode != Mode::Forward).await.map_or(Mode::Cut, |mode| *mode)
}

async fn swallow(from: &mut OwnedReadHalf, shared: &Shared, mut mode: watch::Receiver<Mode>, live: Live<'_>) {
    let mut live = Some(live);
    let mut wrote = false;
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! {
            _ = mode.wait_for(|mode| mode.closes()) => return,
            read = from.read(&mut buffer), if live.is_some() => match read {
                Ok(count @ 1..) => {
                    shared.swallowed.fetch_add(count as u64, Ordering::AcqRel);
                    if !std::mem::replace(&mut wrote, true) {
                        shared.swallowing.fetch_add(1, Ordering::AcqRel);
                    }
                }
                // The server is not told: to it the connection lives.
                _ => live = None,
            },
        }
    }
}
