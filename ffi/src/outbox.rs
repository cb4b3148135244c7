//! The rows of outboxes: to see, to try again, to take away.

use std::ffi::c_char;
use std::time::Duration;

use ceiba_core::calls::outbox::{self, Operation};
use ceiba_core::error::Result;
use ceiba_core::runtime;
use serde_json::Value;

use crate::boundary::{asked_for, give, not_json, put, text};
use crate::error::ceiba_error;
use crate::runtime::timeout;
use crate::text::ceiba_string;

fn options(json: &str) -> Result<Value> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).map_err(|error| not_json("options_json", &error))
}

// All of them but the drain: what differs is the operation.
fn answer(
    operation: Operation,
    target: Result<&str>,
    options_json: Result<&str>,
    within: Option<Duration>,
    json: *mut *mut ceiba_string,
) -> Result<()> {
    let target = target?;
    let options = options(options_json?)?;
    asked_for("json", json)?;
    let answer = runtime::block_on(outbox::run(operation, target, options, within))?;
    put(json, || give(answer.to_string()));
    Ok(())
}

/// Gives a page of the rows of an outbox, oldest first: {"rows": [{"id": "12", "producer": "orders", "state":
/// "pending", "attempts": 1, …}, …], "next": "12"}.
///
/// `target`, of this and the other functions on outboxes, is the id of an open producer that has one, and then all is
/// about the rows of this producer; or the address of a store, such as "sqlite:outbox.db" or "mongodb://HOST/DATABASE",
/// which needs no open producer and has the rows of all. `options_json` is a JSON object, empty for none: `producer`
/// (the rows of this one), `state` ("pending", "leased", "done" or "dead"), `limit` (1 to 1000, 100 unless set) and
/// `after`, the `next` of the page before. `next` is null on the last page. Paging skips no row, whatever is added or
/// deleted meanwhile.
///
/// A row has `id`, `producer`, `state`, `attempts` (out of the store, that failed), `size` (of the body, in bytes),
/// `accepted`, `created`, `updated` and `short` (the begin of the body); `next_attempt`, or `leased_until` where it is
/// being sent; and where there is one `topic`, `order_key`, `dedup` and `error`, the last one: {"kind", "outcome",
/// "message", "provider"}. Times are texts such as "2026-01-31T12:00:00.000Z". A pending row without a `next_attempt`
/// waits for another one of its key.
///
/// `json` gets the answer, which the caller frees; new keys may come. Without a `timeout_ms` (negative) each of these
/// functions has 30 seconds.
///
/// Any thread; blocks. Errors, of all these functions: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_UNSUPPORTED (the producer has no
/// outbox), CEIBA_ERR_INVALID_ARGUMENT (an unknown option too), CEIBA_ERR_NOT_FOUND (an address of a file that is not
/// there), CEIBA_ERR_STORAGE, CEIBA_ERR_QUEUE_FULL (too much waits for the store, or too many stores are open),
/// CEIBA_ERR_TIMEOUT, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_list(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::List, target, options, timeout(timeout_ms), json)
    })
}

/// Gives one row with its message. `options_json`: {"id": "12"}. The answer is a row as in ceiba_outbox_list(), with
/// `message`: its fields and its `body`, or `body_base64` where that is not UTF-8.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), and CEIBA_ERR_NOT_FOUND.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_show(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Show, target, options, timeout(timeout_ms), json)
    })
}

/// Makes pending and dead rows due at once; dead ones begin anew. `options_json`: {"ids": ["12", …]}, 10000 at most. The
/// answer is {"retried": 1}: others are not counted. Who sends them is an open producer, of any process, with this
/// outbox; one that waits for another row of its key goes on waiting.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_retry(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Retry, target, options, timeout(timeout_ms), json)
    })
}

/// Makes all pending and dead rows due at once, as ceiba_outbox_retry() does. `options_json`: empty, or {"producer":
/// "orders"}. The answer is {"retried": 100}: those that are due already are not counted.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list(). A call that fails may have changed some rows.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_retry_all(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::RetryAll, target, options, timeout(timeout_ms), json)
    })
}

/// Deletes rows for good. `options_json`: {"ids": ["12", …]}, 10000 at most. The answer is {"dropped": 1, "leased": [],
/// "unknown": []}: leased ones are being sent and stay, unknown ones are not there.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_drop(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Drop, target, options, timeout(timeout_ms), json)
    })
}

/// Gives a page of rows with all that is in them, as texts for ceiba_outbox_import(): {"lines": ["{…}", …], "next":
/// "12"}. `options_json` and `next` are those of ceiba_outbox_list(). A page ends early once it holds 32 MiB of bodies,
/// so only `next` tells whether more is there.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_export(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Export, target, options, timeout(timeout_ms), json)
    })
}

/// Puts rows of an export into an outbox. `options_json`: {"lines": ["{…}", …]}, 10000 at most. The answer is
/// {"imported": 1, "known": 0}: known ones are there already, from an earlier import too, and stay as they are. One that
/// was sent meanwhile, and is not kept by `keep_done`, is not known any more.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), but a file that is not there is made;
/// CEIBA_ERR_INVALID_ARGUMENT names a line that is wrong, and then none is imported.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_import(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Import, target, options, timeout(timeout_ms), json)
    })
}

/// Counts rows. `options_json`: empty, or {"producer": "orders"}. The answer is {"store": "sqlite", "producers":
/// [{"producer": "orders", "pending": 1, "leased": 0, "done": 0, "dead": 0, …}, …]}, and where there is one with
/// `next_attempt` and `oldest`, when the next row is due and when the oldest message was accepted that is still to be sent.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_stats(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Stats, target, options, timeout(timeout_ms), json)
    })
}

/// Deletes rows that have ended. `options_json`: {"older": "7d"}, and if need be `state` ("done", which is the default,
/// or "dead") and `producer`; a row counts from when it ended. The answer is {"purged": 1}. Dead rows go also where their
/// notifier was not told of them yet, for which `keep_dead` waits.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list(). A call that fails may have deleted some rows.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_purge(
    target: *const c_char,
    target_len: usize,
    options_json: *const c_char,
    options_json_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len);
        let options = text("options_json", options_json, options_json_len);
        answer(Operation::Purge, target, options, timeout(timeout_ms), json)
    })
}

/// Tries every pending row of a producer once, now, and waits until all have ended. `target` is the id of an open
/// producer: an address alone has nobody who sends. The answer is {"sent": 99, "failed": 1, "given_up": 0}, counted over
/// all that the producer sent out of the store meanwhile; given up are those of the failed that failed for the last time.
/// The call waits until `notify` was told of them.
///
/// With `ordered`, the rows of a key are tried one after the other to the end of their line. What stands behind one that
/// failed and was not given up, or that another process is sending, goes on waiting: a drain never waits for rows that
/// other processes send, nor for what is accepted after the call.
///
/// Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), and CEIBA_ERR_CLOSED. The rows of a call that
/// ends early are tried all the same.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_outbox_drain(
    target: *const c_char,
    target_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let target = text("target", target, target_len)?;
        asked_for("json", json)?;
        let answer = runtime::block_on(outbox::drain(target, timeout(timeout_ms)))?;
        put(json, || give(answer.to_string()));
        Ok(())
    })
}
