//! The embedded broker.

use std::ffi::c_char;
use std::time::Duration;

use ceiba_core::broker::{Broker, LogHealth};
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::{runtime, settings};

use crate::boundary::{asked_for, give, needed, put, take_back, text, view};
use crate::error::ceiba_error;
use crate::runtime::timeout;
use crate::text::{ceiba_slice, ceiba_string};

/// How long a stop that names no time may take.
const STOP: Duration = Duration::from_secs(5);

/// A running broker and the text of its address.
pub(crate) struct HeldBroker {
    broker: Broker,
    address: String,
    generation: u32,
}

opaque! {
    /// An embedded broker. It runs until ceiba_broker_stop() or ceiba_broker_free(). Any number of threads may
    /// use it; one may free it, when no other does.
    ceiba_broker => HeldBroker
}

/// Starts a broker in this process, which speaks the KapokMQ protocol on loopback or wherever it is told to
/// listen. `config` is a JSON object with `secret_key`, and where wanted:
///
/// - `listen` ("127.0.0.1:0" takes a free port, and is the default), `delivery` ("work_queue", the default, or
///   "publish_subscribe"), `redeliver_after` ("300s")
/// - `data` (a folder for the messages; without one they are in memory), `durability` (of that folder: "fsync", the
///   default, "interval:200ms" or "memory")
/// - `nodes` (other brokers that the registry names: a list of "HOST:PORT"), `advertise` (the host that the registry
///   names for this one), `dpmq` (true: the DPMQ protocol too, which has no login)
/// - `mns` (MNS at an address of its own: an object with `keys`, {"ID": "SECRET"}, and where wanted `listen`,
///   "127.0.0.1:0" unless set, `private_endpoints`, true to let subscriptions push to HTTP endpoints at loopback,
///   link-local and private addresses, and `endpoints`, networks of such that they may push to, ["10.1.0.0/16"])
/// - of all topics `max_attempts` (then a message goes to the dead letters, the topic NAME.dead), `expire_after` ("24h";
///   dead letters too), `push_every` ("1s") and `push_count` (messages that go together), `max_messages`, `max_bytes`,
///   `when_full` ("wait" or "refuse"), `deduplicate` ("10m": how long a key is remembered) and `compat`
///   (publish-subscribe: the first ack consumes for all); `topics` has objects of the same keys for single topics
///
/// A secret is a text, {"env": "NAME"} or {"file": "PATH"}. `broker` gets the broker; the caller frees it.
///
/// Any thread; blocks until it listens. Errors: CEIBA_ERR_INVALID_CONFIG, CEIBA_ERR_UNAVAILABLE (the address
/// cannot be listened on), CEIBA_ERR_IN_USE and CEIBA_ERR_STORAGE (the folder), CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_start(
    config: *const c_char,
    config_len: usize,
    broker: *mut *mut ceiba_broker,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let config = settings::broker(text("config", config, config_len)?)?;
        asked_for("broker", broker)?;
        let started = runtime::block_on(Broker::start(config))?;
        let address = started.address().to_string();
        let held = HeldBroker { broker: started, address, generation: runtime::generation() };
        put(broker, || give(held));
        Ok(())
    })
}

/// The address it listens on, such as "127.0.0.1:41234": a view, valid until the broker is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_address(broker: *const ceiba_broker) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        view(broker).map_or_else(ceiba_slice::empty, |held| ceiba_slice::of(&held.address))
    })
}

/// Gives counts of what the broker did and holds as a JSON object, which the caller frees, with `address`, and
/// `mns_address` where MNS is spoken. New keys may come.
///
/// Any thread; does not block. CEIBA_ERR_FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_status(
    broker: *const ceiba_broker,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let held = own(needed("broker", broker)?)?;
        asked_for("json", json)?;
        let status = held.broker.status();
        let log = match &status.log {
            LogHealth::Serving => serde_json::json!({"state": "serving"}),
            LogHealth::Short(why) => serde_json::json!({"state": "short", "error": why}),
            LogHealth::Failed(why) => serde_json::json!({"state": "failed", "error": why}),
        };
        put(json, || {
            let status = serde_json::json!({
                "address": held.address,
                "mns_address": held.broker.mns_address().map(|address| address.to_string()),
                "accepted": status.accepted,
                "pushed": status.pushed,
                "redelivered": status.redelivered,
                "acknowledged": status.acknowledged,
                "bad_frames": status.bad_frames,
                "failed_logins": status.failed_logins,
                "waiting": status.waiting,
                "delayed": status.delayed,
                "unacked": status.unacked,
                "stored_bytes": status.stored_bytes,
                "topics": status.topics,
                "producers": status.producers,
                "consumers": status.consumers,
                "dead": status.dead,
                "expired": status.expired,
                "given_up": status.given_up,
                "durability": status.durability.name(),
                "log": log,
                "segments": status.segments,
                "log_bytes": status.log_bytes,
                "live_bytes": status.live_bytes,
            });
            give(status.to_string())
        });
        Ok(())
    })
}

/// Stops the broker: it accepts no more, answers what it has read, and closes every connection within
/// `timeout_ms` (negative: 5 seconds). Stopping it again does nothing. The caller still frees it.
///
/// Any thread; blocks. Errors: CEIBA_ERR_TIMEOUT (some connections were cut off; it is stopped all the same),
/// CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_stop(
    broker: *const ceiba_broker,
    timeout_ms: i64,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let held = own(needed("broker", broker)?)?;
        let deadline = timeout(timeout_ms).unwrap_or(STOP);
        runtime::block_on(async {
            if held.broker.stop(deadline).await {
                return Ok(());
            }
            Err(Error::new(Kind::Timeout, "connections were cut off at the deadline of the stop")
                .outcome_is(Outcome::Unknown))
        })
    })
}

/// Frees a broker. One that still runs is stopped at once, as a crash would. NULL does nothing.
///
/// Any thread; does not block.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_broker_free(broker: *mut ceiba_broker) {
    ffi_call!(else (), {
        let Some(held) = take_back(broker) else { return };
        if own(&held).is_err() {
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(held);
        }
    })
}

fn own(held: &HeldBroker) -> Result<&HeldBroker> {
    if held.generation != runtime::generation() {
        return Err(Error::new(
            Kind::Forked,
            "the broker was started before the fork and belongs to the parent process",
        ));
    }
    Ok(held)
}
