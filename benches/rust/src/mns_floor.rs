//! What the front of MNS could do at most: requests that were signed before, to it and to a bare handler of the same
//! library that reads them and answers with the same bytes.

use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::post;
use ceiba_core::calls::mns::admin;
use ceiba_core::config::ClientConfig;
use ceiba_core::wire::mns::{Account, Operation, Outgoing, Sent, body_md5, headers};
use serde_json::{Value, json};

use crate::Arguments;
use crate::http::{Wanted, rounds};
use crate::measure::Failure;

const ACCOUNT: Account<'_> = Account { key_id: "id", key_secret: "secret", security_token: None };

/// Sends, one request at a time on each of `clients` connections.
pub(crate) fn run(arguments: &Arguments, mode: &str) -> Result<Value, Failure> {
    if mode == "mns_raw" {
        let account = ClientConfig::parse(&format!("mns://id:secret@{}", arguments.addr))?;
        let made = admin(&account, json!({"create_queue": {"queue": arguments.topic}}), None);
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(made)?;
    }
    let message = Outgoing { body: "x".repeat(arguments.size).into(), ..Outgoing::default() };
    let request = Operation::Send { queue: arguments.topic.as_str().into(), message }.encode();
    let mut text =
        format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.resource, arguments.addr);
    for (name, value) in headers(ACCOUNT, &request, request.body.as_bytes(), SystemTime::now()) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{}", request.body.len(), request.body));
    rounds(arguments, mode, text.as_bytes(), &Wanted { status: b"http/1.1 201", part: b"<MessageBodyMD5>" })
}

/// Serves until it is killed. Prints its address.
pub(crate) fn serve() -> Result<Value, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let sent = Sent {
            message_id: "0123456789ABCDEF0123456789ABCDEF".into(),
            body_md5: body_md5(b"x"),
            ..Sent::default()
        };
        let answer = sent.encode();
        let name = HeaderName::from_static;
        let known = [
            (name("content-type"), HeaderValue::from_static("text/xml;charset=utf-8")),
            (name("x-mns-version"), HeaderValue::from_static("2015-06-06")),
            (name("x-mns-request-id"), HeaderValue::from_static("DDFBC40932C2196900000001")),
        ];
        let handler = move |body: Bytes| {
            let answer = answer.clone();
            let known = known.clone();
            async move {
                // It is read, and nothing is done with it.
                drop(body);
                (StatusCode::CREATED, known, answer)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, Router::new().route("/queues/{queue}/messages", post(handler))).await?;
        Ok(json!({"mode": "mns-floor-server"}))
    })
}
