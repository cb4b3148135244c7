//! What the WebSocket connections of all protocols share: bounds, and how one ends.

use std::time::Duration;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use tokio_tungstenite::tungstenite::Error as WireError;

/// How long the other side may take to answer a close frame.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read at a time, and written at a time.
pub(super) const READ_BYTES: usize = 32 << 10;
pub(super) const WRITE_BYTES: usize = 64 << 10;
/// The longest name of a topic or client.
pub(super) const NAME_BYTES: usize = 4096;

/// Status and reason of the close frame when the broker stops.
pub(super) const STOPPING: (u16, &str) = (1001, "the broker stops");

/// Topic and id of the path.
pub(super) type Names = Result<Path<(String, String)>, PathRejection>;
/// The upgrade, where the request asks for one.
pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The other side closed it, or it broke.
    Gone,
    /// What it sent breaks the protocol above WebSocket: dropped without a close frame, as the original does.
    Dropped,
    /// Closed with a status.
    Closed(u16, &'static str),
}

impl End {
    pub(super) const STOPPING: End = End::Closed(STOPPING.0, STOPPING.1);
    pub(super) const REPLACED: End = End::Closed(1000, "a newer connection uses this id");
    pub(super) const FULL: End = End::Closed(1013, "the topic is full");
    pub(super) const NO_DISK: End = End::Closed(1013, "the disk is full");
    pub(super) const FAILED: End = End::Closed(1011, "the log has failed");
    pub(super) const TOO_MANY_CONSUMERS: End = End::Closed(1013, "too many consumers");
    pub(super) const TOO_MANY_TOPICS: End = End::Closed(1013, "too many topics");

    /// What a failed read means.
    pub(super) fn of(error: axum::Error) -> End {
        match error.into_inner().downcast::<WireError>().as_deref() {
            Ok(WireError::Utf8(_)) => End::Closed(1007, "invalid UTF-8"),
            Ok(WireError::Capacity(_)) => End::Closed(1009, "the frame is too large"),
            Ok(WireError::Protocol(_)) => End::Closed(1002, "the WebSocket protocol was broken"),
            _ => End::Gone,
        }
    }
}

/// Ends a connection as said. With a close frame it is read until the other side closed too, so that what was
/// written before arrives.
pub(super) async fn finish(socket: &mut WebSocket, end: &End) {
    let End::Closed(code, reason) = *end else { return };
    let goodbye = async {
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
}
