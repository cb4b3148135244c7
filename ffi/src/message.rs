//! Full messages: built by steps, sent any number of times.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use ceiba_core::error::Result;
use ceiba_core::message::{Attachment, Fields, Message};

use crate::boundary::{Release, bytes, copied, give, invalid, lent_body, needed_mut, take_back, text};
use crate::error::ceiba_error;

opaque! {
    /// A message to send. One thread at a time may change it; sending it changes nothing, so that many
    /// threads may send one that nobody changes meanwhile. A send keeps what it needs: the message can be
    /// changed or freed as soon as the call returns.
    ceiba_message => Message
}

/// A new message with an empty body and no other field. The caller frees it with ceiba_message_free().
/// NULL only if there was a fault in the library.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_new() -> *mut ceiba_message {
    ffi_call!(else std::ptr::null_mut(), { give(Message::default()) })
}

/// Frees a message. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_free(message: *mut ceiba_message) {
    ffi_call!(else (), { drop(take_back(message)) })
}

/// Sets the body to a copy of `data`: any bytes.
///
/// One thread at a time. CEIBA_ERR_TOO_LARGE: no memory for the copy.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_body(
    message: *mut ceiba_message,
    data: *const c_void,
    data_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let message = needed_mut("message", message)?;
        message.set_body(copied(bytes("data", data, data_len)?)?);
        Ok(())
    })
}

/// Sets the body to `data` itself, without a copy: it must stay as it is until `release` is called with
/// `user`, exactly once, when neither the message nor a send needs it any more; also when this call fails.
/// The call may come on any thread, and before this function returns. `release` may be NULL for data that
/// lasts as long as the process.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_body_owned(
    message: *mut ceiba_message,
    data: *const c_void,
    data_len: usize,
    release: Option<extern "C" fn(user: *mut c_void)>,
    user: *mut c_void,
    error: *mut *mut ceiba_error,
) -> i32 {
    let release = Release::new(release, user);
    ffi_call!(error, {
        let message = needed_mut("message", message)?;
        message.set_body(lent_body(data, data_len, release)?);
        Ok(())
    })
}

/// Sets the delay, counted from when the message is accepted. A provider rounds it up to its own unit.
///
/// One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the delay is negative.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_delay_ms(
    message: *mut ceiba_message,
    delay_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        needed_mut("message", message)?.set_delay(millis("delay_ms", delay_ms)?);
        Ok(())
    })
}

/// A delay in milliseconds, as an argument.
pub(crate) fn millis(name: &str, delay_ms: i64) -> Result<Duration> {
    u64::try_from(delay_ms)
        .map(Duration::from_millis)
        .map_err(|_| invalid(format!("`{name}` is {delay_ms}: a delay cannot be negative")))
}

/// A delay in seconds, as an argument.
#[inline]
pub(crate) fn seconds(name: &str, delay_seconds: i64) -> Result<Duration> {
    u64::try_from(delay_seconds)
        .map(Duration::from_secs)
        .map_err(|_| invalid(format!("`{name}` is {delay_seconds}: a delay cannot be negative")))
}

fn set_text(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    set: impl FnOnce(&mut Fields, String),
) -> Result<()> {
    let message = needed_mut("message", message)?;
    let value = text("value", value, value_len)?.to_owned();
    set(message.fields_mut(), value);
    Ok(())
}

/// Sets the MIME type of the body.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_content_type(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        set_text(message, value, value_len, |fields, value| fields.content_type = Some(value))
    })
}

/// Sets the key, for order and de-duplication.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_key(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { set_text(message, value, value_len, |fields, value| fields.key = Some(value)) })
}

/// Sets the tag, for filters.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_tag(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { set_text(message, value, value_len, |fields, value| fields.tag = Some(value)) })
}

/// Sets the topic, where it differs from the client's.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_topic(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { set_text(message, value, value_len, |fields, value| fields.topic = Some(value)) })
}

/// Sets the name or id of the template.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_template(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { set_text(message, value, value_len, |fields, value| fields.template = Some(value)) })
}

/// Sets the arguments of the template, as JSON.
///
/// One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the text is not JSON.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_args(
    message: *mut ceiba_message,
    json: *const c_char,
    json_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let message = needed_mut("message", message)?;
        let args = serde_json::from_str(text("json", json, json_len)?)
            .map_err(|error| invalid("`json` is not valid JSON").caused_by(error))?;
        message.fields_mut().args = Some(args);
        Ok(())
    })
}

/// Adds a recipient: an address, a number or a user id.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_add_recipient(
    message: *mut ceiba_message,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, { set_text(message, value, value_len, |fields, value| fields.recipients.push(value)) })
}

/// Sets an attribute; one with the same name is replaced.
///
/// One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the name is empty.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_set_attribute(
    message: *mut ceiba_message,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let message = needed_mut("message", message)?;
        let name = text("name", name, name_len)?;
        if name.is_empty() {
            return Err(invalid("`name` is empty: an attribute has a name"));
        }
        let value = text("value", value, value_len)?;
        message.fields_mut().attributes.insert(name.to_owned(), value.to_owned());
        Ok(())
    })
}

/// Adds a file that goes along: its name as the recipient sees it, its MIME type, and a copy of its content.
///
/// One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the name is empty. CEIBA_ERR_TOO_LARGE: no memory for
/// the copy.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_message_add_attachment(
    message: *mut ceiba_message,
    name: *const c_char,
    name_len: usize,
    content_type: *const c_char,
    content_type_len: usize,
    data: *const c_void,
    data_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let message = needed_mut("message", message)?;
        let name = text("name", name, name_len)?;
        if name.is_empty() {
            return Err(invalid("`name` is empty: an attachment has a name"));
        }
        let content_type = text("content_type", content_type, content_type_len)?;
        let body = copied(bytes("data", data, data_len)?)?;
        message.fields_mut().attachments.push(Attachment {
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            body,
        });
        Ok(())
    })
}
