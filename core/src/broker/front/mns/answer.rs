//! Answers, before they are written.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Caller;
use crate::broker::depot::Store;
use crate::wire::mns::{Code, Refusal, VERSION};

/// The type of every answer's body.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/xml;charset=utf-8");

/// See the module.
#[derive(Debug)]
pub(super) enum Answer {
    /// A status, the address of what was made, and XML.
    Done {
        status: StatusCode,
        location: Option<String>,
        body: String,
    },
    Refused {
        code: &'static str,
        status: u16,
        text: &'static str,
    },
}

/// With a body.
pub(super) fn found(body: String) -> Answer {
    Answer::Done { status: StatusCode::OK, location: None, body }
}

/// For messages that were taken.
pub(super) fn created(body: String) -> Answer {
    Answer::Done { status: StatusCode::CREATED, location: None, body }
}

/// Nothing is to be said.
pub(super) fn empty() -> Answer {
    Answer::Done { status: StatusCode::NO_CONTENT, location: None, body: String::new() }
}

/// With a status that tells of failures in the body.
pub(super) fn partly(status: StatusCode, body: String) -> Answer {
    Answer::Done { status, location: None, body }
}

/// A refusal in other words than its code's.
pub(super) fn refuse(code: Code, text: &'static str) -> Answer {
    Answer::Refused { code: code.name(), status: code.status(), text }
}

/// A refusal.
pub(super) fn refused(code: Code) -> Answer {
    refuse(code, code.text())
}

/// There are as many names as there may be: no code of the table says so.
pub(super) fn too_many() -> Answer {
    let text = "there are as many queues, topics and subscriptions as there may be";
    Answer::Refused { code: "AccountLimitExceeded", status: 403, text }
}

/// The refusal for messages that were not stored.
pub(super) fn not_stored(why: &Store, gone: Code) -> Answer {
    match why {
        Store::Gone => refused(gone),
        Store::Full => refuse(Code::QpsLimitExceeded, "there is no room for messages: try again later"),
        Store::Failed(error) => {
            tracing::error!(%error, "a message may not be stored");
            refuse(Code::InternalError, "the log has failed")
        }
    }
}

impl Answer {
    /// The code and text for one message of a batch.
    pub(super) fn words(&self) -> (&'static str, &'static str) {
        match self {
            Answer::Done { .. } => ("", ""),
            Answer::Refused { code, text, .. } => (code, text),
        }
    }

    /// The response. hyper adds the header `Date`.
    pub(super) fn into_response(self, caller: &Caller) -> Response {
        let (status, location, body) = match self {
            Answer::Done { status, location, body } => (status, location, body),
            Answer::Refused { code, status, text } => {
                let refusal = Refusal {
                    code: code.to_owned(),
                    text: text.to_owned(),
                    request_id: caller.id.clone(),
                    host_id: caller.base.clone(),
                };
                (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), None, refusal.encode())
            }
        };
        let is_empty = body.is_empty();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("x-mns-version", HeaderValue::from_static(VERSION));
        if let Ok(id) = HeaderValue::from_str(&caller.id) {
            headers.insert("x-mns-request-id", id);
        }
        if !is_empty {
            headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        }
        if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
