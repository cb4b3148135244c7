//! Producers that the host implements: its function is called for each send.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls;
use ceiba_core::error::{Error, Kind, Outcome};
use ceiba_core::provider::callback::{Abandoned, Host, HostCall, receipt};
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
    abandoned: Option<extern "C" fn(user: *mut c_void, number: u64)>,
    user: User,
    _release: Release,
}

impl Function {
    fn tell(&self, call: &Abandoned) {
        if let Some(abandoned) = self.abandoned {
            abandoned(self.user.0, call.number());
        }
    }
}

struct Registered(Arc<Function>);

impl Host for Registered {
    fn send(&self, call: HostCall) {
        (self.0.send)(self.0.user.0, give(call));
    }

    // The place that the call keeps bounds the line.
    fn abandoned(&self, call: Abandoned) {
        if self.0.abandoned.is_some() {
            let function = self.0.clone();
            callback::off_the_runtime(move || function.tell(&call));
        }
    }
}

/// Makes a producer of the host known under `name`, for configs with `"provider": {"type": "callback", "name": …}`.
/// `send` gets `user` and each call; it runs on threads of the producer, may block there and make any call of this
/// library but the close of a producer that waits for it, and ends the call then or later. As many calls as the config's
/// `threads` says (16 unless set) may be under way; each counts until `send` has returned and the call was ended. One
/// that is late is reported at its deadline, with an unknown outcome, and counts on until it is ended all the same; a
/// close waits for it until its own deadline.
///
/// `abandoned` (may be NULL) is called with `user` and the number of a call (ceiba_call_number()) when nobody waits for
/// its end any more, also just after it was ended. It runs on a thread that the callbacks of the library share, so it
/// should be short. `release` (may be NULL) is called with `user` once, when neither is called any more; also when this
/// call fails.
///
/// Any thread. CEIBA_ERR_ALREADY_OPEN: the name is taken. CEIBA_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_callback_register(
    name: *const c_char,
    name_len: usize,
    send: Option<extern "C" fn(user: *mut c_void, call: *mut ceiba_call)>,
    abandoned: Option<extern "C" fn(user: *mut c_void, number: u64)>,
    release: Option<extern "C" fn(user: *mut c_void)>,
    user: *mut c_void,
    error: *mut *mut ceiba_error,
) -> i32 {
    let release = Release::new(release, user);
    ffi_call!(error, {
        let name = text("name", name, name_len)?;
        let send = send.ok_or_else(|| invalid("`send` is NULL"))?;
        callback::ready()?;
        let function = Function { send, abandoned, user: User(user), _release: release };
        calls::callback_register(name, Arc::new(Registered(Arc::new(function))))
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

/// The number of the call, which no other call of the process has; 0 for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_number(call: *const ceiba_call) -> u64 {
    ffi_call!(else 0, { view(call).map_or(0, HostCall::number) })
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
/// `outcome` says whether the message may have been sent all the same; `retryable` whether a retry may help: 0 no, more
/// yes, negative as is usual for the code; `retry_after_ms` is the least wait before a retry, negative for none. NULL as `call` does nothing.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_call_failed(
    call: *mut ceiba_call,
    code: i32,
    outcome: i32,
    retryable: i32,
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
        if retryable >= 0 {
            error = error.retryable_is(retryable > 0);
        }
        if let Ok(wait) = u64::try_from(retry_after_ms) {
            error = error.after(Duration::from_millis(wait));
        }
        call.finish(Err(error));
    })
}
