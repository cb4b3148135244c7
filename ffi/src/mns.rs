//! The administration of MNS: queues, topics and subscriptions.

use std::ffi::c_char;

use ceiba_core::config::ClientConfig;
use ceiba_core::{calls, runtime};

use crate::boundary::{asked_for, give, not_json, put, text};
use crate::error::ceiba_error;
use crate::runtime::timeout;
use crate::text::ceiba_string;

/// Carries out a command on an MNS account. `config` is the config of a client, as a URL or JSON: its service and keys
/// count, and a queue or topic that it names does not; "mns://KEY_ID@HOST:PORT?secret_file=FILE" is enough.
///
/// `command` is a JSON object with one key: `create_queue`, `set_queue`, `get_queue`, `delete_queue` and `peek` with an
/// object that has the key `queue`; `create_topic`, `set_topic`, `get_topic` and `delete_topic` with `topic`;
/// `subscribe`, `set_subscription`, `get_subscription` and `unsubscribe` with `topic` and `subscription`; `list_queues`,
/// `list_topics`, and `list_subscriptions` with `topic`. Those that make or change something take `attributes` too, with
/// times in whole seconds and sizes in bytes:
///
/// - of a queue `delay_seconds`, `maximum_message_size`, `message_retention_period`, `visibility_timeout`,
///   `polling_wait_seconds`, `logging_enabled`
/// - of a topic `maximum_message_size`, `logging_enabled`
/// - of a subscription `endpoint` ("http://…", "acs:mns:REGION:ACCOUNT:queues/QUEUE"), `filter_tag`,
///   `notify_strategy` ("BACKOFF_RETRY", "EXPONENTIAL_DECAY_RETRY"), `notify_content_format` ("XML", "SIMPLIFIED",
///   "JSON"); only the strategy can be changed
///
/// as in {"create_queue": {"queue": "orders", "attributes": {"visibility_timeout": 60}}}. Lists take `prefix`, `limit`
/// (up to 1000, 100 unless set) and `after`, the `next` of the page before; `peek` takes `limit` (up to 16, 1 unless
/// set). A key that is not known is an error. MNS cannot empty a queue: delete it and make it again.
///
/// `json` gets the answer, which the caller frees: {"created": true} of what makes something, false where the same is
/// there already; {} of what changes or deletes; a `name` and attributes and counts of what gets; {"queues": […],
/// "next": null}, {"topics": …} and {"subscriptions": …} of lists; {"messages": [{"message_id", "body", "enqueued_ms",
/// "dequeue_count", "priority"}]} of `peek`, where a body that is no text is in `body_base64`. New keys may come.
///
/// Any thread; blocks, for 30 seconds unless `timeout_ms` says otherwise. Errors: CEIBA_ERR_INVALID_CONFIG,
/// CEIBA_ERR_INVALID_ARGUMENT (also: it exists with other attributes), CEIBA_ERR_NOT_FOUND,
/// CEIBA_ERR_AUTHENTICATION, CEIBA_ERR_PERMISSION, CEIBA_ERR_THROTTLED, CEIBA_ERR_UNAVAILABLE, CEIBA_ERR_UNSUPPORTED,
/// CEIBA_ERR_TIMEOUT (it may have been done), CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_mns_admin(
    config: *const c_char,
    config_len: usize,
    command: *const c_char,
    command_len: usize,
    timeout_ms: i64,
    json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let config = ClientConfig::parse(text("config", config, config_len)?)?;
        let command = serde_json::from_str(text("command", command, command_len)?);
        let command = command.map_err(|error| not_json("command", &error))?;
        asked_for("json", json)?;
        let answer = runtime::block_on(calls::mns::admin(&config, command, timeout(timeout_ms)))?;
        put(json, || give(answer.to_string()));
        Ok(())
    })
}
