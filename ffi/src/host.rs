//! Producers that the host implements: its function is called for each send.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::provider::callback::{Host, HostCall, receipt};
use serde_json::{Map, Value, json};

use crate::boundary::{Release, User, asked_for, give, invalid, needed, put, take_back, text, view};
use crate::callback;
use crate::error::{CEIBA_OUTCOME_NOT_SENT, ceiba_error};
use crate::text::{ceiba_slice, ceiba_string};

opaque! {
    /// One send for the host to make. It is ended, and freed, by ceiba_call_sent() or ceiba_call_failed(): once, at
    /// once or later, on any thread.
    ceiba_call => HostCall
}

struct Function {
    send: extern "C" fn(user: *mut c_void, call: *mut ceiba_call),
    user: User,
    _release: Release,
}

impl Host for Function {
    fn send(&self, call: HostCall) {
        (self.send)(self.user.0, give(call));
    }
}

/// Makes a producer of the host known under `name`, for configs with `"provider": {"type": "callback", "name": …}`.
/// `send` gets `user` and each call; it runs on threads that may block, on several at once (the config's `threads`,
/// 16 unless set), and ends the call then or later. A call that it never ends is ended by its deadline, with an
/// unknown outcome. `release` (may be NULL) is called with `user` once, when `send` is called no more; also when this
/// call fails.
///
/// Any thread. CEIBA_ERR_ALREADY_OPEN: the name is taken. CEIBA_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_callback_register(
    name: *const c_char,
    name_len: usize,
    send: Option<extern "C" fn(user: *mut c_void, call: *mut ceiba_call)>,
    release: Option<extern "C" fn(user: *mut c_void)>,
    user: *mut c_void,
    error: *mut *mut ceiba_error,
) -> i32 {
    let release = Release::new(release, user);
    ffi_call!(error, {
        let name = text("name", name, name_len)?;
        let send = send.ok_or_else(|| invalid("`send` is NULL"))?;
        callback::ready()?;
        calls::callback_register(name, Arc::new(Function { send, user: User(user), _release: release }))
    })
}

/// Forgets a producer of the host. Producers that were opened with it go on with it until they are closed.
///
/// Any thread. CEIBA_ERR_UNKNOWN_ID: nothing has this name.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_callback_unregister(
    name: *const c_char,
    name_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        drop(calls::callback_unregister(text("name", name, name_len)?)?);
        Ok(())
    })
}

/// The body of the message: a view, valid until the call is ended.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_body(call: *const ceiba_call) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        view(call).map_or_else(ceiba_slice::empty, |call| ceiba_slice::of(call.message().body()))
    })
}

/// The other fields of the message that are set, as a JSON object, which the caller frees: `content_type`, `key`,
/// `tag`, `topic`, `template`, `args`, `recipients`, `attributes`, `attachments` (each with `name`, `content_type` and
/// `length`) and `delay_ms`.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_fields(
    call: *const ceiba_call,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        asked_for("json", json)?;
        let fields = fields(needed("call", call)?);
        put(json, || give(Value::Object(fields).to_string()));
        Ok(())
    })
}

fn fields(call: &HostCall) -> Map<String, Value> {
    let message = call.message();
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    if !message.delay().is_zero() {
        set("delay_ms", json!(u64::try_from(message.delay().as_millis()).unwrap_or(u64::MAX)));
    }
    if let Some(fields) = message.fields() {
        set("content_type", json!(fields.content_type));
        set("key", json!(fields.key));
        set("tag", json!(fields.tag));
        set("topic", json!(fields.topic));
        set("template", json!(fields.template));
        set("args", json!(fields.args));
        if !fields.recipients.is_empty() {
            set("recipients", json!(fields.recipients));
        }
        if !fields.attributes.is_empty() {
            set("attributes", json!(fields.attributes));
        }
        if !fields.attachments.is_empty() {
            let shown = fields.attachments.iter().map(|file| {
                json!({"name": file.name, "content_type": file.content_type, "length": file.body.len()})
            });
            set("attachments", shown.collect());
        }
    }
    object
}

/// The content of an attachment, by its place in the list from 0: a view, valid until the call is ended; empty for a
/// place that is not there.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_attachment(call: *const ceiba_call, place: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let found = view(call).and_then(|call| call.message().fields()?.attachments.get(place));
        found.map_or_else(ceiba_slice::empty, |file| ceiba_slice::of(&file.body))
    })
}

/// What is left until the deadline, in milliseconds; -1 without one.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_remaining_ms(call: *const ceiba_call) -> i64 {
    ffi_call!(else -1, {
        let remaining = view(call).and_then(|call| call.remaining());
        remaining.map_or(-1, |left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Whether nobody waits for the end of the call any more: its deadline passed, or it was cancelled.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_abandoned(call: *const ceiba_call) -> bool {
    ffi_call!(else true, { view(call).is_none_or(HostCall::is_abandoned) })
}

/// Ends a call well, and frees it. `message_id` is the other side's id of the message, empty where there is none; an
/// id that is not UTF-8 counts as none. NULL as `call` does nothing.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_sent(call: *mut ceiba_call, message_id: *const c_char, message_id_len: usize) {
    ffi_call!(else (), {
        let Some(call) = take_back(call) else { return };
        let id = text("message_id", message_id, message_id_len).ok().filter(|id| !id.is_empty());
        call.finish(Ok(receipt(id.map(Into::into))));
    })
}

/// Ends a call with an error, and frees it. `code` is one of CEIBA_ERR_*, any other counts as CEIBA_ERR_UNAVAILABLE;
/// `outcome` says whether the message may have been sent all the same; `retry_after_ms` is the least wait before a
/// retry, negative for none. NULL as `call` does nothing.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_failed(
    call: *mut ceiba_call,
    code: i32,
    outcome: i32,
    retry_after_ms: i64,
    message: *const c_char,
    message_len: usize,
) {
    ffi_call!(else (), {
        let Some(call) = take_back(call) else { return };
        let said = text("message", message, message_len).unwrap_or("the callback failed");
        let kind = Kind::from_code(code).unwrap_or(Kind::Unavailable);
        let mut error = Error::new(kind, said).by("callback").tried(1);
        if outcome != CEIBA_OUTCOME_NOT_SENT {
            error = error.outcome_is(Outcome::Unknown);
        }
        if let Ok(wait) = u64::try_from(retry_after_ms) {
            error = error.after(Duration::from_millis(wait));
        }
        call.finish(Err(error));
    })
}
