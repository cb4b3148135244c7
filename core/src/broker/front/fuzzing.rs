//! Checks of what HTTP requests carry against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use futures_util::FutureExt;

use super::console::local_seconds;
use super::form::Form;
use crate::wire::dpmq::{DATA_FIELD, TOPIC_FIELD, encode_send};
use crate::wire::mended;

/// Bytes that a form may have.
const LIMIT: usize = 1 << 20;

fn read(kind: &[u8], body: &[u8]) -> Option<Form> {
    let request =
        Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec())).ok()?;
    // The whole body is there: nothing is waited for.
    Form::read(request, LIMIT).now_or_never().expect("nothing to wait for").ok()
}

/// A form: the first line is its type, the rest its body. What our client writes is read as it was meant.
pub(in crate::broker) fn broker_form(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    let form = read(kind, body);
    if let Some(mut form) = form {
        for name in [DATA_FIELD, TOPIC_FIELD, "delayTime", "startTime", "messageCode"] {
            // Three bytes for each bad one are the most that mending makes of it.
            assert!(form.get(name).len() <= body.len() * 3);
            let (value, number) = (form.get(name).to_owned(), form.get(name).parse::<i64>());
            assert_eq!(form.take(name), value);
            assert_eq!(form.get(name), "");
            let _ = (number, local_seconds(&value));
        }
    }
    let text = mended(body);
    let (topic, value) = text.split_once('\n').unwrap_or(("t", &text));
    let form = encode_send(value, topic, || "boundary".to_owned());
    let form = read(form.content_type.as_bytes(), &form.body).filter(|_| form.body.len() <= LIMIT);
    if let Some(form) = form {
        assert_eq!((form.get(TOPIC_FIELD), form.get(DATA_FIELD)), (topic, value));
    }
}
