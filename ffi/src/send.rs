//! Producers: opened, sent with, closed. These calls wait for their result.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use bytes::Bytes;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Result;
use ceiba_core::message::Message;
use ceiba_core::{calls, runtime};

use crate::boundary::{
    Release, asked_for, bytes, copied, give, handles, lent_body, needed, not_json, put, text,
};
use crate::error::ceiba_error;
use crate::message::{ceiba_message, seconds};
use crate::queue::{ceiba_queue, of_this_process};
use crate::receipt::{Results, ceiba_receipt, ceiba_results};
use crate::runtime::timeout;
use crate::text::ceiba_string;

/// Opens a producer under `id` with a configuration: a JSON object, or a URL such as
/// kapokmq://:SECRET@HOST:PORT/TOPIC. An empty `id` takes the `id` of the configuration.
///
/// `queue` may be NULL; with one, the producer takes submits, and their completions come to that queue. It
/// stays alive inside for as long as the producer is open, also when the caller frees it.
///
/// Any thread; blocks until the first connection stands (the configuration's `connect_timeout`), unless the
/// configuration says `"connect": "lazy"`. Errors: CEIBA_ERR_INVALID_CONFIG (the message names the key and
/// the nearest known one), CEIBA_ERR_ALREADY_OPEN, CEIBA_ERR_AUTHENTICATION, CEIBA_ERR_UNAVAILABLE,
/// CEIBA_ERR_TIMEOUT, CEIBA_ERR_FORKED (the queue is the parent's).
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_open(
    id: *const c_char,
    id_len: usize,
    config: *const c_char,
    config_len: usize,
    queue: *const ceiba_queue,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let config = ClientConfig::parse(text("config", config, config_len)?)?;
        let queue = of_this_process(queue)?;
        runtime::block_on(calls::producer_open(Some(id), config, queue)).map(drop)
    })
}

/// Sends a copy of `data` and waits for its receipt, within the client's deadline. `delay_seconds` counts
/// from now; 0 is none.
///
/// `receipt` may be NULL; else it gets a receipt that the caller frees. On an error,
/// ceiba_error_outcome() tells whether the message may have been sent all the same.
///
/// Any thread; blocks. Errors: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT (a negative delay, NULL with
/// a length), CEIBA_ERR_TOO_LARGE, CEIBA_ERR_UNSUPPORTED, CEIBA_ERR_TIMEOUT, CEIBA_ERR_UNAVAILABLE,
/// CEIBA_ERR_QUEUE_FULL, CEIBA_ERR_CLOSED (the id is being closed), CEIBA_ERR_FORKED,
/// CEIBA_ERR_WOULD_DEADLOCK, and what the provider adds.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_send(
    id: *const c_char,
    id_len: usize,
    data: *const c_void,
    data_len: usize,
    delay_seconds: i64,
    receipt: *mut *mut ceiba_receipt,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let delay = seconds("delay_seconds", delay_seconds)?;
        send_body(id, copied(bytes("data", data, data_len)?)?, delay, receipt)
    })
}

/// As ceiba_producer_send(), without the copy: `data` must stay as it is until `release` is called with
/// `user`. That comes exactly once, also when this call fails; on any thread, before or after this call
/// returns. `release` may be NULL for data that lasts as long as the process.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_send_owned(
    id: *const c_char,
    id_len: usize,
    data: *const c_void,
    data_len: usize,
    delay_seconds: i64,
    release: Option<extern "C" fn(user: *mut c_void)>,
    user: *mut c_void,
    receipt: *mut *mut ceiba_receipt,
    error: *mut *mut ceiba_error,
) -> i32 {
    let release = Release::new(release, user);
    ffi_call!(error, {
        let body = lent_body(data, data_len, release)?;
        let id = text("id", id, id_len)?;
        let delay = seconds("delay_seconds", delay_seconds)?;
        send_body(id, body, delay, receipt)
    })
}

fn send_body(id: &str, body: Bytes, delay: Duration, receipt: *mut *mut ceiba_receipt) -> Result<()> {
    let message = Message::new(body).with_delay(delay);
    let result = runtime::block_on(calls::producer_send(id, message, None))?;
    put(receipt, || give(result));
    Ok(())
}

/// Sends a full message and waits for its receipt, within `timeout_ms` or, when that is negative, within the
/// client's deadline. The message stays the caller's.
///
/// `receipt` may be NULL; else it gets a receipt that the caller frees. A field that the provider cannot
/// honour gives CEIBA_ERR_UNSUPPORTED, and nothing is sent.
///
/// Any thread; blocks. Errors as those of ceiba_producer_send().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_send_message(
    id: *const c_char,
    id_len: usize,
    message: *const ceiba_message,
    timeout_ms: i64,
    receipt: *mut *mut ceiba_receipt,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let message = needed("message", message)?.clone();
        let result = runtime::block_on(calls::producer_send(id, message, timeout(timeout_ms)))?;
        put(receipt, || give(result));
        Ok(())
    })
}

/// Sends `count` messages and waits for all. `results` gets a result for each, in their order, which the
/// caller frees; the call succeeds also when some, or all, of the sends failed.
///
/// Any thread; blocks. Errors of the call: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT,
/// CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK; then nothing was sent.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_send_batch(
    id: *const c_char,
    id_len: usize,
    messages: *const *const ceiba_message,
    count: usize,
    timeout_ms: i64,
    results: *mut *mut ceiba_results,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let messages: Vec<Message> = handles("messages", messages, count)?.into_iter().cloned().collect();
        asked_for("results", results)?;
        let sent = runtime::block_on(calls::producer_send_batch(id, messages, timeout(timeout_ms)))?;
        put(results, || give(Results::of_sends(sent)));
        Ok(())
    })
}

/// Waits until every send and submit made before has ended, within `timeout_ms` or, when that is negative,
/// within the client's deadline. A send of another thread that still waits for room in the producer is not
/// waited for.
///
/// Any thread; blocks. Errors: CEIBA_ERR_TIMEOUT, CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED,
/// CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_flush(
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        runtime::block_on(calls::producer_flush(id, timeout(timeout_ms)))
    })
}

/// Gives the live state as a JSON object, which the caller frees: `state`, `provider`, `under_way`, and what
/// the provider adds. New keys may come.
///
/// Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_status(
    id: *const c_char,
    id_len: usize,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        asked_for("json", json)?;
        let status = calls::producer_status(id)?;
        put(json, || give(status.to_string()));
        Ok(())
    })
}

/// Changes the live state of a strategy. `command` is a JSON object that names it, such as
/// `{"strategy": "failover", "current": 0}` or `{"strategy": "circuit_breaker", "state": "open"}`; `json`, which may be
/// NULL, gets the new state, and the caller frees it.
///
/// Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT, CEIBA_ERR_NOT_FOUND and CEIBA_ERR_UNSUPPORTED: no strategy
/// of that name takes commands. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_control(
    id: *const c_char,
    id_len: usize,
    command: *const c_char,
    command_len: usize,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let command = serde_json::from_str(text("command", command, command_len)?)
            .map_err(|error| not_json("command", &error))?;
        let state = calls::producer_control(id, &command)?;
        put(json, || give(state.to_string()));
        Ok(())
    })
}

/// Closes a producer: it takes no more sends, those under way end within `timeout_ms` (negative: the
/// client's deadline), and the rest are ended with their outcome. Every submit has its completion, and the
/// id is free, when this returns; while a call is stuck in the host (see ceiba_callback_register()), the id stays
/// taken until that returns. Other threads may be in calls with the id.
///
/// Any thread; blocks. CEIBA_ERR_TIMEOUT: some sends had to be ended; the producer is closed all the same.
/// CEIBA_ERR_CLOSED: another thread is closing it. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_FORKED,
/// CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_close(
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        runtime::block_on(calls::producer_close(id, timeout(timeout_ms)))
    })
}
