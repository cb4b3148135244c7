//! The connection to Redis: one for each limiter, kept by a task that makes a new one when it breaks.
//!
//! While Redis is away nobody waits for it: a send is told why at once. It waits, within `store_timeout`, where a
//! connection just broke or was never tried yet, because most of those are back in a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::request::{Request, ends_connection, failure, may_pass};
use super::target::Target;
use crate::error::{Error, Kind, Result};
use crate::strategy::Setup;
use crate::strategy::random::{Random, fresh};
use crate::strategy::rate_limit::config::StoreSettings;
use crate::tls;

/// How long one try to connect may take, the login included.
const CONNECT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a refused login: more tries could lock the user out.
const LOGIN_PAUSE: Duration = Duration::from_secs(30);
/// What was written when the limiter goes may still be answered.
const PARTING: Duration = Duration::from_secs(1);
/// The value of the marker, which is made where there is none.
const MARKER: &str = "local life = redis.call('GET', KEYS[1]) \
    if not life then life = ARGV[1] redis.call('SET', KEYS[1], life) end \
    return life";
/// Requests that may wait to be written.
const QUEUE: usize = 4096;

#[derive(Debug, Clone)]
enum State {
    Connecting,
    Up(Arc<Connection>),
    Down(Error),
}

#[derive(Debug)]
struct Connection {
    number: u64,
    shared: MultiplexedConnection,
    // Since when there is a server that knows nothing of what the one before it had granted.
    forgot: Option<Instant>,
}

impl Connection {
    // How long what was granted before may still count, of a server that does not know it.
    fn left(&self, memory: Duration) -> Duration {
        self.forgot.map_or(Duration::ZERO, |forgot| memory.saturating_sub(forgot.elapsed()))
    }
}

#[derive(Debug)]
struct Inner {
    id: Arc<str>,
    shown: String,
    bound: Duration,
    // How long a server is not asked that lost what it knew.
    memory: Duration,
    state: watch::Sender<State>,
    refusing: AtomicBool,
    failures: AtomicU64,
    connects: AtomicU64,
    stop: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug)]
enum Why {
    // There is no connection, or it broke or was too slow, or the server is not asked yet.
    Away(Error),
    // The server's own word.
    Refused { error: Error, may_pass: bool },
}

impl Why {
    fn may_pass(&self) -> bool {
        matches!(self, Why::Away(_) | Why::Refused { may_pass: true, .. })
    }

    fn error(self) -> Error {
        match self {
            Why::Away(error) | Why::Refused { error, .. } => error,
        }
    }
}

/// See the module. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Link {
    inner: Arc<Inner>,
    keeper: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        self.keeper.abort();
    }
}

impl Link {
    /// Begins to connect. `name` is that of the state in Redis; `memory` is how long what is in it counts.
    ///
    /// # Errors
    /// `invalid_config` for the URL; `internal` outside of a runtime.
    pub(super) fn open(setup: &Setup, store: &StoreSettings, name: String, memory: Duration) -> Result<Link> {
        let target = Target::parse(&store.url)?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(Kind::Internal, "a rate limit in Redis is opened outside of a runtime")
                .caused_by(error)
        })?;
        let inner = Arc::new(Inner {
            id: setup.id.clone(),
            shown: target.shown(),
            bound: store.timeout,
            memory,
            state: watch::Sender::new(State::Connecting),
            refusing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let keeper = Keeper {
            inner: inner.clone(),
            target,
            ca_file: store.ca_file.clone(),
            tls: None,
            random: setup.random.clone(),
            marker: format!("{name}:marker"),
            life: None,
            forgot: None,
        };
        Ok(Link { inner, keeper: runtime.spawn(keeper.run()) })
    }

    /// Asks, within `store_timeout` in all. A server that lost what it knew is not asked until `memory` has passed, or
    /// zero for what may be asked of any: what it granted before has to be over. `asked` is set once the request may have gone out.
    ///
    /// # Errors
    /// Why Redis did not decide.
    pub(super) async fn ask(&self, request: &Request, memory: Duration, asked: &AtomicBool) -> Result<Value> {
        let refusing = &self.inner.refusing;
        let why = match self.exchange(request, memory, asked).await {
            Ok(answer) => {
                if refusing.load(Ordering::Relaxed) && refusing.swap(false, Ordering::Relaxed) {
                    tracing::info!(id = %self.inner.id, redis = %self.inner.shown, "answers again");
                }
                return Ok(answer);
            }
            Err(why) => why,
        };
        self.inner.failures.fetch_add(1, Ordering::Relaxed);
        if let Why::Refused { error, .. } = &why
            && !refusing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(id = %self.inner.id, redis = %self.inner.shown, %error, "refuses");
        }
        Err(why.error())
    }

    /// Gives back, and tries that again with each new connection, and each second, until then. Only what may pass is
    /// tried again, and a refusal is no word about what sends are told.
    pub(super) async fn give_back(&self, request: &Request, until: Instant) {
        let mut connection = self.number();
        loop {
            match self.exchange(request, Duration::ZERO, &AtomicBool::new(false)).await {
                Ok(_) => return,
                Err(why) => {
                    let again = why.may_pass() && Instant::now() < until;
                    tracing::debug!(error = %why.error(), again, "nothing is given back");
                    if !again {
                        return;
                    }
                }
            }
            let pause = until.min(Instant::now() + Duration::from_secs(1));
            let _ = timeout_at(pause, self.reconnected(&mut connection)).await;
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        memory: Duration,
        asked: &AtomicBool,
    ) -> std::result::Result<Value, Why> {
        let until = Instant::now() + self.inner.bound;
        let mut again = true;
        loop {
            let connection = self.connection(until).await.map_err(Why::Away)?;
            let left = connection.left(memory);
            if !left.is_zero() {
                let text = "the Redis of the rate limit has lost what it knew, and what was granted before may still count";
                return Err(Why::Away(Error::new(Kind::Unavailable, text).after(left)));
            }
            let mut shared = connection.shared.clone();
            asked.store(true, Ordering::Release);
            match timeout_at(until, request.send(&mut shared)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if ends_connection(&error) => {
                    self.inner.lost(connection.number, State::Connecting);
                    // The first one that comes upon a connection that broke, maybe long ago, is not to blame.
                    if !again {
                        return Err(Why::Away(failure(&error)));
                    }
                    again = false;
                }
                Ok(Err(error)) => {
                    return Err(Why::Refused { may_pass: may_pass(&error), error: failure(&error) });
                }
                Err(_) => {
                    let error = self.inner.too_slow();
                    if self.inner.lost(connection.number, State::Down(error.clone())) {
                        tracing::warn!(id = %self.inner.id, redis = %self.inner.shown, %error, "is given up");
                    }
                    return Err(Why::Away(error));
                }
            }
        }
    }

    async fn connection(&self, until: Instant) -> Result<Arc<Connection>> {
        let state = self.inner.state.borrow().clone();
        match state {
            State::Up(connection) => return Ok(connection),
            State::Down(error) => return Err(error),
            State::Connecting => {}
        }
        let mut states = self.inner.state.subscribe();
        let settled = states.wait_for(|state| !matches!(state, State::Connecting));
        match timeout_at(until, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Up(connection) => Ok(connection.clone()),
                State::Down(error) => Err(error.clone()),
                State::Connecting => Err(self.inner.too_slow()),
            },
            _ => Err(self.inner.too_slow()),
        }
    }

    /// Resolves when there is another connection than the last one this was called for.
    pub(super) async fn reconnected(&self, number: &mut u64) {
        let mut states = self.inner.state.subscribe();
        let last = *number;
        let up = |state: &State| matches!(state, State::Up(connection) if connection.number != last);
        let found = match states.wait_for(up).await {
            Ok(state) => match &*state {
                State::Up(connection) => Some(connection.number),
                _ => None,
            },
            Err(_) => None,
        };
        match found {
            Some(found) => *number = found,
            None => std::future::pending().await,
        }
    }

    /// Whether no request would be answered now.
    pub(super) fn is_away(&self) -> bool {
        match &*self.inner.state.borrow() {
            State::Up(connection) => !connection.left(self.inner.memory).is_zero(),
            State::Down(_) => true,
            State::Connecting => false,
        }
    }

    /// The number of the connection, 0 while there is none.
    pub(super) fn number(&self) -> u64 {
        match &*self.inner.state.borrow() {
            State::Up(connection) => connection.number,
            _ => 0,
        }
    }

    /// `address`, `state`, `reason` where it is down, `failures`, `connects`, and where it has lost what it knew how long it
    /// is not asked for that, as `asked_in_ms`.
    pub(super) fn state(&self) -> serde_json::Value {
        let mut left = Duration::ZERO;
        if let State::Up(connection) = &*self.inner.state.borrow() {
            left = connection.left(self.inner.memory);
        }
        let (state, reason) = match &*self.inner.state.borrow() {
            State::Up(_) if !left.is_zero() => ("forgot", None),
            State::Connecting => ("connecting", None),
            State::Up(_) if self.inner.refusing.load(Ordering::Relaxed) => ("refusing", None),
            State::Up(_) => ("up", None),
            State::Down(error) => ("down", Some(error.message().to_owned())),
        };
        let mut shown = json!({
            "address": self.inner.shown,
            "state": state,
            "failures": self.inner.failures.load(Ordering::Relaxed),
            "connects": self.inner.connects.load(Ordering::Relaxed),
        });
        if let Some(shown) = shown.as_object_mut() {
            if let Some(reason) = reason {
                shown.insert("reason".into(), json!(reason));
            }
            if !left.is_zero() {
                shown
                    .insert("asked_in_ms".into(), json!(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
            }
        }
        shown
    }
}

impl Inner {
    fn too_slow(&self) -> Error {
        let text = format!("the Redis of the rate limit did not answer within {:?}", self.bound);
        Error::new(Kind::Unavailable, text)
    }

    // True for the first that found this connection broken.
    fn lost(&self, number: u64, next: State) -> bool {
        self.state.send_if_modified(|state| match state {
            State::Up(connection) if connection.number == number => {
                *state = next;
                true
            }
            _ => false,
        })
    }
}

/// The task that keeps the connection.
struct Keeper {
    inner: Arc<Inner>,
    target: Target,
    ca_file: Option<std::path::PathBuf>,
    tls: Option<tokio_rustls::TlsConnector>,
    random: Random,
    // A key beside the state that has another value once the server lost both. A restart alone loses neither, where the
    // server keeps its data or another one has a copy.
    marker: String,
    // Its value at the last connection, where that could be told.
    life: Option<Option<Vec<u8>>>,
    forgot: Option<Instant>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let since = Instant::now();
            let wait = match timeout(CONNECT, self.connect()).await {
                Ok(Ok((number, driver))) => {
                    self.keep(number, driver.detach()).await;
                    if since.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    pause
                }
                Ok(Err(error)) => {
                    let login = error.kind() == Kind::Authentication;
                    self.down(error);
                    if login { LOGIN_PAUSE } else { pause }
                }
                Err(_) => {
                    self.down(self.inner.too_slow());
                    pause
                }
            };
            tokio::time::sleep(self.random.between(wait / 2, wait)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn down(&self, error: Error) {
        let known =
            matches!(&*self.inner.state.borrow(), State::Down(before) if before.text() == error.text());
        if !known {
            tracing::warn!(id = %self.inner.id, redis = %self.inner.shown, %error, "is down");
        }
        self.inner.state.send_replace(State::Down(error));
    }

    // Until the connection breaks or is given up.
    async fn keep(&mut self, number: u64, mut driver: JoinHandle<()>) {
        let mut states = self.inner.state.subscribe();
        let given_up =
            states.wait_for(|state| !matches!(state, State::Up(connection) if connection.number == number));
        tokio::select! {
            _ = &mut driver => {}
            _ = given_up => {}
        }
        driver.abort();
        if self.inner.lost(number, State::Connecting) {
            tracing::warn!(id = %self.inner.id, redis = %self.inner.shown, "lost the connection");
        }
    }

    async fn connect(&mut self) -> Result<(u64, AbortOnDropHandle<()>)> {
        let address = (self.target.host(), self.target.port());
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if !self.target.tls() {
            return self.log_in(stream).await;
        }
        let connector = match &self.tls {
            Some(connector) => connector.clone(),
            None => {
                let config = tls::load_client_config(self.ca_file.as_deref()).await?;
                self.tls.insert(config.into()).clone()
            }
        };
        let name = rustls_pki_types::ServerName::try_from(self.target.host().to_owned())
            .map_err(|error| Error::new(Kind::InvalidConfig, "`url`: no name for TLS").caused_by(error))?;
        let stream = connector.connect(name, stream).await.map_err(unreachable)?;
        self.log_in(stream).await
    }

    async fn log_in<S>(&mut self, stream: S) -> Result<(u64, AbortOnDropHandle<()>)>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let (mut shared, driver) =
            MultiplexedConnection::new_with_config(&self.target.login(), stream, config)
                .await
                .map_err(|error| failure(&error))?;
        let stop = self.inner.stop.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let parting = async {
                stop.cancelled().await;
                tokio::time::sleep(PARTING).await;
            };
            tokio::select! {
                () = driver => {}
                () = parting => {}
            }
        }));
        let life = self.life_of_data(&mut shared).await?;
        Ok((self.publish(shared, life), driver))
    }

    // None where that cannot be told.
    async fn life_of_data(&self, shared: &mut MultiplexedConnection) -> Result<Option<Vec<u8>>> {
        let fresh = format!("{:016x}{:016x}", fresh(), fresh());
        match Request::command(&["EVAL", MARKER, "1", &self.marker, &fresh]).send(shared).await {
            Ok(Value::BulkString(life)) => Ok(Some(life)),
            Ok(_) => Ok(None),
            Err(error) => match failure(&error) {
                other if matches!(other.kind(), Kind::Authentication) || ends_connection(&error) => {
                    Err(other)
                }
                _ => Ok(None),
            },
        }
    }

    fn publish(&mut self, shared: MultiplexedConnection, life: Option<Vec<u8>>) -> u64 {
        // Data that cannot be told may be other.
        let same = life.is_some() && self.life.as_ref() == Some(&life);
        if !same && self.life.is_some() {
            self.forgot = Some(Instant::now());
        }
        self.life = Some(life);
        let number = self.inner.connects.fetch_add(1, Ordering::Relaxed) + 1;
        if number > 1 {
            tracing::info!(id = %self.inner.id, redis = %self.inner.shown, same, "is back");
        }
        self.inner.refusing.store(false, Ordering::Relaxed);
        let connection = Connection { number, shared, forgot: self.forgot };
        self.inner.state.send_replace(State::Up(Arc::new(connection)));
        number
    }
}

fn unreachable(error: std::io::Error) -> Error {
    let text = format!("the Redis of the rate limit cannot be reached: {error}");
    Error::new(Kind::Unavailable, text).caused_by(error)
}
