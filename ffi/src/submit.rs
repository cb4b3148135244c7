//! Submits: they return once the message is in the bounded window; the result comes to the queue.

use std::ffi::{c_char, c_void};

use ceiba_core::calls;

use crate::boundary::{asked_for, byte_strings, bytes, needed, put, text};
use crate::error::ceiba_error;
use crate::message::{ceiba_message, seconds};
use crate::runtime::timeout;
use crate::text::ceiba_slice;

/// Submits a copy of `data` and returns without waiting. The queue given at open gets exactly one completion
/// with `token`, within the client's deadline, also when the call is cancelled or the producer closed. Tokens
/// are the caller's and need not differ, except to cancel.
///
/// Any thread; does not block. A failed submit has no completion. Errors: CEIBA_ERR_QUEUE_FULL (poll the
/// queue, or wait), CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT (a negative delay, or the producer was
/// opened without a queue), CEIBA_ERR_TOO_LARGE, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_submit(
    id: *const c_char,
    id_len: usize,
    data: *const c_void,
    data_len: usize,
    delay_seconds: i64,
    token: u64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let data = bytes("data", data, data_len)?;
        calls::producer_submit(id, token, data, seconds("delay_seconds", delay_seconds)?)
    })
}

/// Submits copies of `count` bodies at one cost for look-up and lock. The first has `first_token`, and each
/// further one the next number. `accepted` gets how many were taken, from the first on: fewer than `count`
/// when the queue or the window became full on the way. Those have one completion each, the others none.
///
/// Any thread; does not block. An error, as those of ceiba_producer_submit(), only when none was taken.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_submit_many(
    id: *const c_char,
    id_len: usize,
    bodies: *const ceiba_slice,
    count: usize,
    delay_seconds: i64,
    first_token: u64,
    accepted: *mut usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let bodies = byte_strings("bodies", bodies, count)?;
        let delay = seconds("delay_seconds", delay_seconds)?;
        asked_for("accepted", accepted)?;
        let taken = calls::producer_submit_many(id, first_token, bodies, delay)?;
        put(accepted, || taken);
        Ok(())
    })
}

/// Submits a full message, which stays the caller's, and returns without waiting. `timeout_ms` is the
/// deadline of its completion; negative: the client's.
///
/// Any thread; does not block. Errors as those of ceiba_producer_submit(); a field that the provider cannot
/// honour ends in a completion with CEIBA_ERR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_submit_message(
    id: *const c_char,
    id_len: usize,
    message: *const ceiba_message,
    timeout_ms: i64,
    token: u64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let message = needed("message", message)?.clone();
        calls::producer_submit_message(id, token, message, timeout(timeout_ms))
    })
}

/// Asks for the submits with this token to end as CEIBA_ERR_CANCELLED. What has ended is left alone: its
/// completion tells how. There is one completion either way.
///
/// Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_producer_cancel(
    id: *const c_char,
    id_len: usize,
    token: u64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { calls::producer_cancel(text("id", id, id_len)?, token) })
}
