//! The protocols that the broker speaks.

mod body;
mod console;
mod dpmq;
mod form;
mod frames;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod kapokmq;
pub(super) mod mns;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::hub::Hub;

/// What is said when a message may or may not have been taken in.
const LOG_FAILED: &str = "503 the log has failed";

/// All paths.
pub(super) fn router(hub: Arc<Hub>) -> Router {
    let body_bytes = hub.config.limits.body_bytes;
    let mut router = Router::new()
        .route("/Producers/Conn/{topic}/{id}", get(kapokmq::producer))
        .route("/Consumers/Conn/{topic}/{id}", get(kapokmq::consumer));
    for path in console::PATHS {
        router = router.route(path, post(console::answer));
    }
    if hub.config.dpmq {
        router = dpmq::add_to(router);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(DefaultBodyLimit::max(body_bytes))
        .with_state(hub)
}

/// A body as text; these wires carry nothing else, so that it is.
fn text_of(body: &[u8]) -> std::borrow::Cow<'_, str> {
    // Checked by itself: the search for what is to be mended is several times slower.
    std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), std::borrow::Cow::Borrowed)
}

fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.into()).into_response()
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

/// The answer to a request whose form was not read.
fn unread(why: body::Unread) -> Response {
    match why {
        body::Unread::Large => plain(StatusCode::PAYLOAD_TOO_LARGE, "413 request body too large"),
        body::Unread::Slow => plain(StatusCode::REQUEST_TIMEOUT, "408 request body too slow"),
        body::Unread::Crowded => plain(StatusCode::TOO_MANY_REQUESTS, "429 too many request bodies"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain")], text).into_response()
}

#[cfg(test)]
mod tests;
