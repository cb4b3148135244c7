//! The life of the library: its threads, and its end.

use std::time::Duration;

use ceiba_core::{calls, runtime};
use serde_json::json;

use crate::boundary::{give, put};
use crate::error::ceiba_error;
use crate::text::ceiba_string;

/// How long a shutdown that names no time may take: as long as a call that names none.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// A timeout in milliseconds; negative leaves it to the client's deadline.
pub(crate) fn timeout(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Sets how many threads run the clients: 1 to 1024, before the first client or broker opens. Without it
/// there is one per processor.
///
/// Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the number is out of range, or it is too late.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_runtime_set_workers(workers: u32, error: *mut *mut ceiba_error) -> i32 {
    ffi_call!(error, { runtime::configure_workers(workers as usize) })
}

/// Closes every producer and consumer within `timeout_ms` (negative: 30 seconds), as their close functions
/// do. Others can be opened afterwards.
///
/// `report_json` may be NULL; else it gets a JSON object with how many clients ended how:
/// {"clean": 2, "forced": 0, "failed": 0}. Forced ones had sends that were ended with their outcome; failed
/// ones were being closed by another call, or failed to close. The caller frees it.
///
/// Any thread; blocks until all are closed. CEIBA_ERR_WOULD_DEADLOCK on a thread of the runtime.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_shutdown(
    timeout_ms: i64,
    report_json: *mut *mut ceiba_string,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let within = timeout(timeout_ms).unwrap_or(SHUTDOWN);
        let report = runtime::block_on(calls::shutdown(within))?;
        put(report_json, || {
            let report = json!({"clean": report.clean, "forced": report.forced, "failed": report.failed});
            give(report.to_string())
        });
        Ok(())
    })
}
