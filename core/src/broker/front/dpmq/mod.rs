//! The DPMQ protocol: messages in by HTTP, out by WebSocket, and the console's two questions. It has no login.
//!
//! `send` and `console` answer HTTP, `consumer` is a connection that messages are pushed to, `outlet` is all
//! that this front asks of topics and queues.

mod console;
mod consumer;
mod outlet;
mod send;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::body::Budget;
use super::socket::{NAME_BYTES, Names, READ_BYTES, Upgrade, WRITE_BYTES, finish};
use super::{json, not_found, plain};
use crate::broker::hub::Hub;
use crate::broker::listen::Peer;
use crate::wire::dpmq::{
    BAD_CONSUMER, BAD_TOPIC, CONSUMERS_PATH, FORBIDDEN, SEND_PATH, SETTINGS_PATH, encode_reply,
};

/// A consumer has nothing to say: pings and a close frame are all that is read of it.
const HEARD_BYTES: usize = 64 << 10;

/// Bytes of bodies that all senders together may have on their way: they have no login.
const BODIES: usize = 256 << 20;

/// Adds the paths of this protocol.
pub(super) fn add_to(router: Router<Arc<Hub>>) -> Router<Arc<Hub>> {
    router
        .route(SEND_PATH, post(send::answer).layer(Extension(Arc::new(Budget::new(BODIES)))))
        .route("/ConsumersConn/{topic}/{id}", get(open))
        .route(CONSUMERS_PATH, get(console::consumers))
        .route(SETTINGS_PATH, get(console::settings))
}

/// `GET /ConsumersConn/{topic}/{consumersId}`
async fn open(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    names: Names,
    upgrade: Upgrade,
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
    for (name, reason) in [(&topic, BAD_TOPIC), (&id, BAD_CONSUMER)] {
        if name.contains(FORBIDDEN) {
            return (StatusCode::BAD_REQUEST, json(encode_reply(Err(reason)))).into_response();
        }
    }
    let Ok(upgrade) = upgrade else {
        return plain(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let (topic, id): (Arc<str>, Arc<str>) = (Arc::from(topic), Arc::from(id));
    let place = consumer::Place::take(&hub, &topic, &id, peer.address.ip());
    // Counted from now on, so that a stop waits for it.
    let task = hub.tasks.token();
    upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(HEARD_BYTES)
        .max_frame_size(HEARD_BYTES)
        .on_upgrade(move |mut socket| async move {
            let serve = async {
                let end = match place {
                    Ok(place) => place.serve(&hub, &mut socket).await,
                    Err(end) => end,
                };
                tracing::debug!(%topic, %id, ?end, "a DPMQ consumer ends");
                finish(&mut socket, &end).await;
            };
            tokio::select! {
                biased;
                () = hub.aborted.cancelled() => {}
                () = serve => {}
            }
            drop(task);
        })
}
