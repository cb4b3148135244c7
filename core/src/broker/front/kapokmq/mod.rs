//! The WebSocket side of the KapokMQ protocol: handshake, login, and how a connection ends. A handshake may ask
//! for the extension, see `wire::kapokmq`.

mod consumer;
mod producer;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::frames::{Frames, Handshake};
use super::socket::{End, NAME_BYTES, Names};
use super::{not_found, plain};
use crate::broker::hub::{Hub, count};
use crate::broker::listen::Peer;
use crate::broker::session::Role;
use crate::wire::kapokmq::{
    DURABLE, EXTENSION_HEADER, EXTENSION_VERSION, LOGIN_ERROR, LOGIN_OK, PROMPT, SUBSCRIPTION_HEADER,
};

/// Wrong keys that a connection may send before it is closed.
const LOGIN_TRIES: usize = 3;

/// `GET /Producers/Conn/{topic}/{producerId}`
pub(super) async fn producer(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    names: Names,
    headers: HeaderMap,
    upgrade: Result<Handshake, StatusCode>,
) -> Response {
    open((hub, peer), names, Terms::of(&headers), upgrade, Role::Producer).await
}

/// `GET /Consumers/Conn/{topic}/{consumerId}`
pub(super) async fn consumer(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    names: Names,
    headers: HeaderMap,
    upgrade: Result<Handshake, StatusCode>,
) -> Response {
    open((hub, peer), names, Terms::of(&headers), upgrade, Role::Consumer).await
}

/// What a handshake asks for beyond the original.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// The extension.
    extended: bool,
    /// A subscription that stays while the consumer is away.
    durable: bool,
}

impl Terms {
    fn of(headers: &HeaderMap) -> Terms {
        let says =
            |name, value: &str| headers.get(name).is_some_and(|said| said.as_bytes() == value.as_bytes());
        let extended = says(EXTENSION_HEADER, EXTENSION_VERSION);
        Terms { extended, durable: extended && says(SUBSCRIPTION_HEADER, DURABLE) }
    }
}

async fn open(
    (hub, peer): (Arc<Hub>, Peer),
    names: Names,
    terms: Terms,
    upgrade: Result<Handshake, StatusCode>,
    role: Role,
) -> Response {
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
    let terms = if hub.config.extension { terms } else { Terms { extended: false, durable: false } };
    let mut response = upgrade.accept(frame_bytes, move |socket| async move {
        let connection = Connection { hub, peer, role, terms, topic: Arc::from(topic), id: Arc::from(id) };
        connection.run(socket).await;
        drop(task);
    });
    if terms.extended {
        let name = HeaderName::from_static(EXTENSION_HEADER);
        response.headers_mut().insert(name, HeaderValue::from_static(EXTENSION_VERSION));
    }
    response
}

/// A connection before and after its login.
struct Connection {
    hub: Arc<Hub>,
    peer: Peer,
    role: Role,
    terms: Terms,
    topic: Arc<str>,
    id: Arc<str>,
}

impl Connection {
    async fn run(self, mut socket: Frames) {
        let aborted = self.hub.aborted.clone();
        tokio::select! {
            biased;
            () = aborted.cancelled() => {}
            () = self.converse(&mut socket) => {}
        }
    }

    async fn converse(&self, socket: &mut Frames) {
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
                    (Ok(topic), _) => consumer::run(self, &topic, socket).await,
                    (Err(_), _) => End::TOO_MANY_TOPICS,
                }
            }
        };
        tracing::debug!(role = ?self.role, topic = %self.topic, id = %self.id, ?end, "a connection ends");
        socket.finish(&end).await;
    }

    async fn login(&self, socket: &mut Frames) -> Result<(), End> {
        for _ in 0..LOGIN_TRIES {
            say(socket, PROMPT).await?;
            socket.message().await?;
            let right = self.hub.config.secret.matches(socket.payload());
            if right && self.role == Role::Consumer {
                // It goes out with the first flush, when the subscription stands: who has read it misses nothing.
                socket.push_text(LOGIN_OK.as_bytes());
                return Ok(());
            }
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

async fn say(socket: &mut Frames, text: &'static str) -> Result<(), End> {
    socket.push_text(text.as_bytes());
    socket.flush().await.map_err(|_| End::Gone)
}
