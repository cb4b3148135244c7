//! Consumers: opened, received from, acknowledged to, closed.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::message::{Delivery, Fields};
use ceiba_core::{calls, runtime};

use crate::boundary::{asked_for, give, put, take_back, text, texts, view};
use crate::error::ceiba_error;
use crate::message::millis;
use crate::receipt::{Results, ceiba_results};
use crate::runtime::timeout;
use crate::text::{ceiba_slice, ceiba_string};

/// Opens a consumer under `id` with a configuration: a JSON object, or a URL such as
/// kapokmq://:SECRET@HOST:PORT/TOPIC. An empty `id` takes the `id` of the configuration. Producers and
/// consumers have ids of their own: one of each may have the same.
///
/// Any thread; blocks until the first connection stands (the configuration's `connect_timeout`), unless the
/// configuration says `"connect": "lazy"`. Errors as those of ceiba_producer_open().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_open(
    id: *const c_char,
    id_len: usize,
    config: *const c_char,
    config_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let config = ClientConfig::parse(text("config", config, config_len)?)?;
        runtime::block_on(calls::consumer_open(Some(id), config)).map(drop)
    })
}

/// Waits for deliveries, and takes up to `max` of them: those that are there, at least one. At the deadline,
/// `timeout_ms` or when that is negative the client's, the call succeeds with none. 0 takes what is there.
///
/// `deliveries` gets a list that the caller frees. Freeing it acknowledges nothing.
///
/// Any thread, several at a time; blocks. Errors: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED (also when it is
/// closed meanwhile), CEIBA_ERR_INVALID_ARGUMENT (`max` is 0), CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_receive(
    id: *const c_char,
    id_len: usize,
    max: usize,
    timeout_ms: i64,
    deliveries: *mut *mut ceiba_deliveries,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        asked_for("deliveries", deliveries)?;
        let received = runtime::block_on(calls::consumer_receive(id, max, timeout(timeout_ms)))?;
        put(deliveries, || give(Deliveries(received)));
        Ok(())
    })
}

/// Acknowledges a delivery by its code. It succeeds when the ack is on its way.
///
/// Any thread; may block for a moment. Errors: CEIBA_ERR_NOT_FOUND (no such delivery waits for an ack; only a
/// provider that can tell says so: KapokMQ cannot), CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_UNSUPPORTED,
/// CEIBA_ERR_UNAVAILABLE, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_ack(
    id: *const c_char,
    id_len: usize,
    code: *const c_char,
    code_len: usize,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let code = text("code", code, code_len)?;
        only(runtime::block_on(calls::consumer_ack(id, vec![code.into()]))?)
    })
}

/// Acknowledges several. `results` gets a result for each code, in their order, which the caller frees; the
/// call succeeds also when some, or all, of the acks failed.
///
/// Any thread; may block for a moment. Errors of the call: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED,
/// CEIBA_ERR_INVALID_ARGUMENT, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_ack_many(
    id: *const c_char,
    id_len: usize,
    codes: *const ceiba_slice,
    count: usize,
    results: *mut *mut ceiba_results,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let codes = all_codes(codes, count)?;
        asked_for("results", results)?;
        let acked = runtime::block_on(calls::consumer_ack(id, codes))?;
        put(results, || give(Results::of_acks(acked)));
        Ok(())
    })
}

/// Gives a delivery back, to come again after `delay_ms`.
///
/// Any thread; may block for a moment. Errors as those of ceiba_consumer_ack(); CEIBA_ERR_INVALID_ARGUMENT
/// for a negative delay, CEIBA_ERR_UNSUPPORTED where the wire has no such thing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_nack(
    id: *const c_char,
    id_len: usize,
    code: *const c_char,
    code_len: usize,
    delay_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let code = text("code", code, code_len)?;
        let delay = millis("delay_ms", delay_ms)?;
        only(runtime::block_on(calls::consumer_nack(id, vec![code.into()], delay))?)
    })
}

/// Gives several back, to come again after `delay_ms`. `results` as in ceiba_consumer_ack_many().
///
/// Any thread; may block for a moment. Errors of the call as those of ceiba_consumer_ack_many().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_nack_many(
    id: *const c_char,
    id_len: usize,
    codes: *const ceiba_slice,
    count: usize,
    delay_ms: i64,
    results: *mut *mut ceiba_results,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        let codes = all_codes(codes, count)?;
        let delay = millis("delay_ms", delay_ms)?;
        asked_for("results", results)?;
        let given_back = runtime::block_on(calls::consumer_nack(id, codes, delay))?;
        put(results, || give(Results::of_acks(given_back)));
        Ok(())
    })
}

fn all_codes(codes: *const ceiba_slice, count: usize) -> Result<Vec<Arc<str>>> {
    Ok(texts("codes", codes, count)?.into_iter().map(Arc::from).collect())
}

fn only(results: Vec<Result<()>>) -> Result<()> {
    results
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "the provider gave no result for the code")))
}

/// Gives the live state as a JSON object, which the caller frees. New keys may come.
///
/// Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_status(
    id: *const c_char,
    id_len: usize,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        asked_for("json", json)?;
        let status = calls::consumer_status(id)?;
        put(json, || give(status.to_string()));
        Ok(())
    })
}

/// Closes a consumer: receives under way on other threads return CEIBA_ERR_CLOSED, and acks that wait are
/// written within `timeout_ms` (negative: the client's deadline). What was delivered and not acknowledged
/// comes again to another consumer. The id is free when this returns.
///
/// Any thread; blocks. Errors as those of ceiba_producer_close().
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_consumer_close(
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let id = text("id", id, id_len)?;
        runtime::block_on(calls::consumer_close(id, timeout(timeout_ms)))
    })
}

/// Deliveries of one receive.
pub(crate) struct Deliveries(Vec<Delivery>);

opaque! {
    /// Deliveries of one receive. The caller frees them with ceiba_deliveries_free(); the views that the
    /// functions below return are valid until then.
    ceiba_deliveries => Deliveries
}

fn part<'a>(deliveries: *const ceiba_deliveries, index: usize) -> Option<&'a Delivery> {
    view(deliveries).and_then(|deliveries| deliveries.0.get(index))
}

fn fields<'a>(deliveries: *const ceiba_deliveries, index: usize) -> Option<&'a Fields> {
    part(deliveries, index).and_then(|delivery| delivery.message.fields())
}

/// How many deliveries there are; 0 for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_count(deliveries: *const ceiba_deliveries) -> usize {
    ffi_call!(else 0, { view(deliveries).map_or(0, |deliveries| deliveries.0.len()) })
}

/// The body: any bytes. Empty when there is no delivery at `index`.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_body(deliveries: *const ceiba_deliveries, index: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        part(deliveries, index)
            .map_or_else(ceiba_slice::empty, |delivery| ceiba_slice::of(delivery.message.body()))
    })
}

/// The code that ceiba_consumer_ack() and ceiba_consumer_nack() take.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_code(deliveries: *const ceiba_deliveries, index: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        part(deliveries, index).map_or_else(ceiba_slice::empty, |delivery| ceiba_slice::of(&*delivery.code))
    })
}

/// The topic or queue it came from.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_topic(deliveries: *const ceiba_deliveries, index: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        part(deliveries, index).map_or_else(ceiba_slice::empty, |delivery| ceiba_slice::of(&*delivery.topic))
    })
}

/// The key of the message; empty if it has none.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_key(deliveries: *const ceiba_deliveries, index: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let key = fields(deliveries, index).and_then(|fields| fields.key.as_deref());
        key.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// The tag of the message; empty if it has none.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_tag(deliveries: *const ceiba_deliveries, index: usize) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let tag = fields(deliveries, index).and_then(|fields| fields.tag.as_deref());
        tag.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// The MIME type of the body; empty if it was not told.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_content_type(
    deliveries: *const ceiba_deliveries,
    index: usize,
) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let content_type = fields(deliveries, index).and_then(|fields| fields.content_type.as_deref());
        content_type.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// When the other side accepted the message, in milliseconds since 1970; -1 where the wire does not tell.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_created_ms(deliveries: *const ceiba_deliveries, index: usize) -> i64 {
    ffi_call!(else -1, {
        part(deliveries, index)
            .and_then(|delivery| delivery.created)
            .and_then(|created| created.duration_since(UNIX_EPOCH).ok())
            .map(|since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            .unwrap_or(-1)
    })
}

/// How often the message was delivered, from 1; 0 where the wire does not tell.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_attempt(deliveries: *const ceiba_deliveries, index: usize) -> u32 {
    ffi_call!(else 0, { part(deliveries, index).and_then(|delivery| delivery.attempt).unwrap_or(0) })
}

/// How many attributes the message has.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_attribute_count(
    deliveries: *const ceiba_deliveries,
    index: usize,
) -> usize {
    ffi_call!(else 0, { fields(deliveries, index).map_or(0, |fields| fields.attributes.len()) })
}

/// The name of an attribute by its number, from 0, in the order of the names. Empty when there is none.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_attribute_name(
    deliveries: *const ceiba_deliveries,
    index: usize,
    attribute: usize,
) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let pair = fields(deliveries, index).and_then(|fields| fields.attributes.iter().nth(attribute));
        pair.map_or_else(ceiba_slice::empty, |(name, _)| ceiba_slice::of(name))
    })
}

/// Finds an attribute by its name: `value` (may be NULL) gets a view of it. False, and `value` untouched,
/// when the message has none of that name.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_get_attribute(
    deliveries: *const ceiba_deliveries,
    index: usize,
    name: *const c_char,
    name_len: usize,
    value: *mut ceiba_slice,
) -> bool {
    ffi_call!(else false, {
        let Ok(name) = text("name", name, name_len) else { return false };
        let Some(found) = fields(deliveries, index).and_then(|fields| fields.attributes.get(name)) else {
            return false;
        };
        put(value, || ceiba_slice::of(found));
        true
    })
}

/// Frees deliveries. It acknowledges nothing: what has no ack comes again. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_deliveries_free(deliveries: *mut ceiba_deliveries) {
    ffi_call!(else (), { drop(take_back(deliveries)) })
}
