//! How the names of headers are written. HTTP does not tell them apart by capitals; official clients and the endpoints
//! that they make do.

use std::convert::Infallible;

use axum::http::Extensions;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

/// What makes hyper write these names as they are here, in a head that it is put into. It is nothing that can be made:
/// hyper keeps it of a head that it read.
pub(super) async fn spelled(names: &[&str]) -> Extensions {
    let mut head = String::from("GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n");
    for name in names {
        head.push_str(name);
        head.push_str(": -\r\n");
    }
    head.push_str("\r\n");
    let (mut one, other) = tokio::io::duplex(head.len() + 1024);
    if one.write_all(head.as_bytes()).await.is_err() {
        return Extensions::new();
    }
    let read = parking_lot::Mutex::new(Extensions::new());
    let service = service_fn(|request: Request<_>| {
        *read.lock() = request.extensions().clone();
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let answered =
        http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(other), service).await;
    if let Err(error) = answered {
        tracing::debug!(%error, "the names of headers are written in small letters");
    }
    read.into_inner()
}
