//! Errors, their codes and what a caller can ask of them.

use std::sync::OnceLock;

use ceiba_core::error::{Error, Kind, Outcome};

use crate::boundary::{give, take_back, view};
use crate::text::{ceiba_slice, ceiba_string};

/// The call succeeded.
pub const CEIBA_OK: i32 = 0;
/// An argument of the call is wrong; the message names it.
pub const CEIBA_ERR_INVALID_ARGUMENT: i32 = 1;
/// The configuration is wrong; the message names the key.
pub const CEIBA_ERR_INVALID_CONFIG: i32 = 2;
/// No client with this id is open.
pub const CEIBA_ERR_UNKNOWN_ID: i32 = 3;
/// A client with this id is open already.
pub const CEIBA_ERR_ALREADY_OPEN: i32 = 4;
/// The client is held by another one.
pub const CEIBA_ERR_IN_USE: i32 = 5;
/// The client is being closed.
pub const CEIBA_ERR_CLOSED: i32 = 6;
/// The other side refused the credentials.
pub const CEIBA_ERR_AUTHENTICATION: i32 = 7;
/// The credentials do not allow this.
pub const CEIBA_ERR_PERMISSION: i32 = 8;
/// The queue, topic or message does not exist on the other side.
pub const CEIBA_ERR_NOT_FOUND: i32 = 9;
/// The provider cannot honour this; nothing was dropped in silence.
pub const CEIBA_ERR_UNSUPPORTED: i32 = 10;
/// The message is over a limit of size.
pub const CEIBA_ERR_TOO_LARGE: i32 = 11;
/// The deadline passed.
pub const CEIBA_ERR_TIMEOUT: i32 = 12;
/// The caller cancelled.
pub const CEIBA_ERR_CANCELLED: i32 = 13;
/// The other side cannot be reached or does not answer.
pub const CEIBA_ERR_UNAVAILABLE: i32 = 14;
/// The other side asked for fewer calls.
pub const CEIBA_ERR_THROTTLED: i32 = 15;
/// A rate limit of the configuration was met.
pub const CEIBA_ERR_LIMITED: i32 = 16;
/// Some recipients failed; the others were sent.
pub const CEIBA_ERR_PARTIAL: i32 = 17;
/// Every member of a failover failed.
pub const CEIBA_ERR_ALL_FAILED: i32 = 18;
/// The circuit breaker is open.
pub const CEIBA_ERR_CIRCUIT_OPEN: i32 = 19;
/// A bounded queue is full, or stayed full until the deadline.
pub const CEIBA_ERR_QUEUE_FULL: i32 = 20;
/// The local store failed.
pub const CEIBA_ERR_STORAGE: i32 = 21;
/// The other side broke the protocol.
pub const CEIBA_ERR_PROTOCOL: i32 = 22;
/// A blocking call was made on a thread of the library's runtime.
pub const CEIBA_ERR_WOULD_DEADLOCK: i32 = 23;
/// The client or queue belongs to the process that this one was forked from.
pub const CEIBA_ERR_FORKED: i32 = 24;
/// A fault of the library.
pub const CEIBA_ERR_INTERNAL: i32 = 25;

/// The message of the failed send did not reach the other side.
pub const CEIBA_OUTCOME_NOT_SENT: i32 = 0;
/// The message of the failed send may have reached the other side.
pub const CEIBA_OUTCOME_UNKNOWN: i32 = 1;

// The numbers above are the core's.
const _: () = {
    let codes = [
        CEIBA_ERR_INVALID_ARGUMENT,
        CEIBA_ERR_INVALID_CONFIG,
        CEIBA_ERR_UNKNOWN_ID,
        CEIBA_ERR_ALREADY_OPEN,
        CEIBA_ERR_IN_USE,
        CEIBA_ERR_CLOSED,
        CEIBA_ERR_AUTHENTICATION,
        CEIBA_ERR_PERMISSION,
        CEIBA_ERR_NOT_FOUND,
        CEIBA_ERR_UNSUPPORTED,
        CEIBA_ERR_TOO_LARGE,
        CEIBA_ERR_TIMEOUT,
        CEIBA_ERR_CANCELLED,
        CEIBA_ERR_UNAVAILABLE,
        CEIBA_ERR_THROTTLED,
        CEIBA_ERR_LIMITED,
        CEIBA_ERR_PARTIAL,
        CEIBA_ERR_ALL_FAILED,
        CEIBA_ERR_CIRCUIT_OPEN,
        CEIBA_ERR_QUEUE_FULL,
        CEIBA_ERR_STORAGE,
        CEIBA_ERR_PROTOCOL,
        CEIBA_ERR_WOULD_DEADLOCK,
        CEIBA_ERR_FORKED,
        CEIBA_ERR_INTERNAL,
    ];
    let mut index = 0;
    while index < codes.len() {
        assert!(codes[index] == Kind::ALL[index].code());
        index += 1;
    }
    assert!(codes.len() == Kind::ALL.len());
};

/// An error with its text, which is made when it is first asked for.
pub(crate) struct HeldError {
    error: Error,
    text: OnceLock<String>,
}

impl HeldError {
    pub(crate) fn new(error: Error) -> HeldError {
        HeldError { error, text: OnceLock::new() }
    }

    pub(crate) fn code(&self) -> i32 {
        self.error.kind().code()
    }

    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| self.error.text())
    }
}

opaque! {
    /// Why a call failed. One that came through a `ceiba_error **` is the caller's: free it with
    /// ceiba_error_free(). One asked of results or completions belongs to them.
    ceiba_error => HeldError
}

/// The code, one of CEIBA_ERR_*. CEIBA_OK for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_code(error: *const ceiba_error) -> i32 {
    ffi_call!(else CEIBA_ERR_INTERNAL, { view(error).map_or(CEIBA_OK, HeldError::code) })
}

/// Whether the message may have reached the other side: CEIBA_OUTCOME_NOT_SENT or CEIBA_OUTCOME_UNKNOWN.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_outcome(error: *const ceiba_error) -> i32 {
    ffi_call!(else CEIBA_OUTCOME_UNKNOWN, {
        match view(error).map(|held| held.error.outcome()) {
            Some(Outcome::Unknown) => CEIBA_OUTCOME_UNKNOWN,
            Some(Outcome::NotSent) | None => CEIBA_OUTCOME_NOT_SENT,
        }
    })
}

/// Whether the same call may succeed later without a change by the caller.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_retryable(error: *const ceiba_error) -> bool {
    ffi_call!(else false, { view(error).is_some_and(|held| held.error.retryable()) })
}

/// The least time in milliseconds to wait before a retry, where the other side named one; else -1.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_retry_after_ms(error: *const ceiba_error) -> i64 {
    ffi_call!(else -1, {
        let wait = view(error).and_then(|held| held.error.retry_after());
        wait.map_or(-1, |wait| i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
    })
}

/// How many attempts were made: 0 when the call failed before the first.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_attempts(error: *const ceiba_error) -> u32 {
    ffi_call!(else 0, { view(error).map_or(0, |held| held.error.attempts()) })
}

/// The whole text on one line, UTF-8, with each cause: a view, valid until the error is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_message(error: *const ceiba_error) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        view(error).map_or_else(ceiba_slice::empty, |held| ceiba_slice::of(held.text()))
    })
}

/// Everything about the error as a JSON object, which the caller frees: `kind`, `code`, `outcome`, `retryable`,
/// `attempts`, `message`, where there is one `provider` and `retry_after_ms`, and as `parts` how each attempt of a
/// retry, member of a failover or recipient ended: `of`, `name`, and `message_id` or `error`. NULL for NULL.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_json(error: *const ceiba_error) -> *mut ceiba_string {
    ffi_call!(else std::ptr::null_mut(), {
        view(error).map_or(std::ptr::null_mut(), |held| give(held.error.to_json().to_string()))
    })
}

/// How many attempts, members or recipients ceiba_error_json() tells of one by one; 0 where there was one alone.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_part_count(error: *const ceiba_error) -> usize {
    ffi_call!(else 0, { view(error).map_or(0, |held| held.error.parts().len()) })
}

/// The provider that failed, such as "kapokmq"; empty where none did. Valid until the error is freed.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_provider(error: *const ceiba_error) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        let provider = view(error).and_then(|held| held.error.provider());
        provider.map_or_else(ceiba_slice::empty, ceiba_slice::of)
    })
}

/// The name of a code in snake case, such as "unknown_id" for 3 and "ok" for 0: a static text. Empty for a
/// number that is no code.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_name(code: i32) -> ceiba_slice {
    ffi_call!(else ceiba_slice::empty(), {
        if code == CEIBA_OK {
            return ceiba_slice::of("ok");
        }
        Kind::from_code(code).map_or_else(ceiba_slice::empty, |kind| ceiba_slice::of(kind.name()))
    })
}

/// Frees an error. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_error_free(error: *mut ceiba_error) {
    ffi_call!(else (), { drop(take_back(error)) })
}
