//! `POST /ProducerSend`: HTTP status 200 whether the message was taken or not, 503 when nobody knows.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::super::body::{self, Budget};
use super::super::form::Form;
use super::super::socket::NAME_BYTES;
use super::super::{LOG_FAILED, json, plain, unread};
use super::outlet::{self, Failed};
use crate::broker::hub::Hub;
use crate::wire::dpmq::{
    BAD_TOPIC, DATA_FIELD, EMPTY_TOPIC, FORBIDDEN, LONG_MESSAGE, LONG_TOPIC, TOPIC_FIELD, encode_reply,
};

/// Answers one request.
pub(super) async fn answer(
    State(hub): State<Arc<Hub>>,
    Extension(budget): Extension<Arc<Budget>>,
    request: Request,
) -> Response {
    let form = match body::read(request, hub.config.limits.body_bytes, Some(&budget)).await {
        Ok(form) => form,
        Err(why) => return unread(why),
    };
    let reply = match refused(&hub, &form) {
        Some(reason) => Err(Failed::Refused(reason)),
        None => outlet::accept(&hub, form.get(TOPIC_FIELD), form.get(DATA_FIELD)).await,
    };
    match reply {
        Ok(code) => json(encode_reply(Ok(&code))),
        Err(Failed::Refused(reason)) => json(encode_reply(Err(reason))),
        Err(Failed::Unknown) => plain(StatusCode::SERVICE_UNAVAILABLE, LOG_FAILED),
    }
}

fn refused(hub: &Hub, form: &Form) -> Option<&'static str> {
    let (topic, data) = (form.get(TOPIC_FIELD), form.get(DATA_FIELD));
    if topic.is_empty() {
        Some(EMPTY_TOPIC)
    } else if topic.contains(FORBIDDEN) {
        Some(BAD_TOPIC)
    } else if topic.len() > NAME_BYTES {
        Some(LONG_TOPIC)
    } else if data.len() > hub.config.limits.frame_bytes {
        Some(LONG_MESSAGE)
    } else {
        None
    }
}
