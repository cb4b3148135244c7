//! The WebSocket side of the KapokMQ protocol: handshake, login, and how a connection ends.

mod consumer;
mod producer;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio_tungstenite::tungstenite::Error as WireError;

use super::{not_found, plain};
use crate::broker::hub::{Hub, count};
use crate::broker::listen::Peer;
use crate::broker::session::Role;
use crate::wire::kapokmq::{LOGIN_ERROR, LOGIN_OK, PROMPT};

/// Wrong keys that a connection may send before it is closed.
const LOGIN_TRIES: usize = 3;
/// How long the other side may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read at a time, and written at a time.
const READ_BYTES: usize = 32 << 10;
const WRITE_BYTES: usize = 64 << 10;
/// The longest name of a topic or client.
const NAME_BYTES: usize = 4096;

/// Status and reason of the close frame when the broker stops.
const STOPPING: (u16, &str) = (1001, "the broker stops");

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The other side closed it, or it broke.
    Gone,
    /// What it sent breaks the protocol above WebSocket: dropped without a close frame, as the original does.
    Dropped,
    /// Closed with a status.
    Closed(u16, &'static str),
}

impl End {
    const STOPPING: End = End::Closed(STOPPING.0, STOPPING.1);
    const REPLACED: End = End::Closed(1000, "a newer connection uses this id");

    /// What a failed read means.
    fn of(error: axum::Error) -> End {
        match error.into_inner().downcast::<WireError>().as_deref() {
            Ok(WireError::Utf8(_)) => End::Closed(1007, "invalid UTF-8"),
            Ok(WireError::Capacity(_)) => End::Closed(1009, "the frame is too large"),
            Ok(WireError::Protocol(_)) => End::Closed(1002, "the WebSocket protocol was broken"),
            _ => End::Gone,
        }
    }
}

type Names = Result<Path<(String, String)>, PathRejection>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /Producers/Conn/{topic}/{producerId}`
pub(super) async fn producer(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    names: Names,
    upgrade: Upgrade,
) -> Response {
    open(hub, peer, names, upgrade, Role::Producer).await
}

/// `GET /Consumers/Conn/{topic}/{consumerId}`
pub(super) async fn consumer(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    names: Names,
    upgrade: Upgrade,
) -> Response {
    open(hub, peer, names, upgrade, Role::Consumer).await
}

async fn open(hub: Arc<Hub>, peer: Peer, names: Names, upgrade: Upgrade, role: Role) -> Response {
    let Ok(Path((topic, id))) = names else {
        return plain(StatusCode::BAD_REQUEST, "Bad Request");
    };
    // An encoded slash makes another path of it, which the original does not know either.
    if topic.is_empty() || id.is_empty() || topic.contains('/') || id.contains('/') {
        return not_found().await;
    }
    if topic.len() > NAME_BYTES || id.len() > NAME_BYTES {
        return plain(StatusCode::URI_TOO_LONG, "URI Too Long");
    }
    let Ok(upgrade) = upgrade else {
        return plain(StatusCode::BAD_REQUEST, "Bad Request");
    };
    peer.gate.narrow();
    // Counted from now on, so that a stop waits for it.
    let task = hub.tasks.token();
    let frame_bytes = hub.config.limits.frame_bytes;
    upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(frame_bytes)
        .max_frame_size(frame_bytes)
        .on_upgrade(move |socket| async move {
            let connection = Connection { hub, peer, role, topic: Arc::from(topic), id: Arc::from(id) };
            connection.run(socket).await;
            drop(task);
        })
}

/// A connection before and after its login.
struct Connection {
    hub: Arc<Hub>,
    peer: Peer,
    role: Role,
    topic: Arc<str>,
    id: Arc<str>,
}

impl Connection {
    async fn run(self, mut socket: WebSocket) {
        let aborted = self.hub.aborted.clone();
        tokio::select! {
            biased;
            () = aborted.cancelled() => {}
            () = self.converse(&mut socket) => {}
        }
    }

    async fn converse(&self, socket: &mut WebSocket) {
        let login = tokio::select! {
            biased;
            () = self.hub.stopping.cancelled() => Err(End::STOPPING),
            login = tokio::time::timeout(self.hub.config.limits.login, self.login(socket)) => {
                login.unwrap_or(Err(End::Closed(1008, "the login took too long")))
            }
        };
        let end = match login {
            Err(end) => end,
            Ok(()) => {
                self.peer.gate.open();
                match (self.hub.topic(&self.topic), self.role) {
                    (Ok(topic), Role::Producer) => producer::run(self, &topic, socket).await,
                    (Ok(topic), Role::Consumer) => consumer::run(self, &topic, socket).await,
                    (Err(_), _) => End::Closed(1013, "too many topics"),
                }
            }
        };
        tracing::debug!(role = ?self.role, topic = %self.topic, id = %self.id, ?end, "a connection ends");
        if let End::Closed(code, reason) = end {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, close(socket, code, reason)).await;
        }
    }

    async fn login(&self, socket: &mut WebSocket) -> Result<(), End> {
        for _ in 0..LOGIN_TRIES {
            say(socket, PROMPT).await?;
            let right = loop {
                match socket.recv().await {
                    Some(Ok(Message::Text(key))) => break self.hub.config.secret.matches(key.as_bytes()),
                    Some(Ok(Message::Binary(key))) => break self.hub.config.secret.matches(&key),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(End::of(error)),
                    None => return Err(End::Gone),
                }
            };
            if right {
                return say(socket, LOGIN_OK).await;
            }
            count(&self.hub.counters.failed_logins, 1);
            tracing::warn!(peer = %self.peer.address, topic = %self.topic, id = %self.id, "a wrong key");
            say(socket, LOGIN_ERROR).await?;
        }
        Err(End::Closed(1008, "too many wrong keys"))
    }
}

async fn say(socket: &mut WebSocket, text: &'static str) -> Result<(), End> {
    socket.send(Message::Text(Utf8Bytes::from_static(text))).await.map_err(|_| End::Gone)
}

/// Sends a close frame and reads until the other side closed too, so that what was written before arrives.
async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}
