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
/// ones were not closed in time by another call that had begun to, or failed to close. The caller frees it.
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

/// What all open producers and consumers count, as Prometheus text: each number of their statuses with the client's
/// id, and those of strategies and members with their names. The caller frees it; empty text where nothing is open.
///
/// Any thread; does not block. NULL when there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_metrics() -> *mut ceiba_string {
    ffi_call!(else std::ptr::null_mut(), { give(calls::metrics()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::take_back;
    use crate::error::CEIBA_ERR_WOULD_DEADLOCK;
    use crate::queue::{ceiba_completions, ceiba_queue_free, ceiba_queue_new, ceiba_queue_poll};
    use crate::receive::ceiba_consumer_receive;
    use crate::send::{ceiba_producer_flush, ceiba_producer_send};
    use std::ptr::null_mut;

    #[test]
    fn calls_that_block_are_refused_on_a_thread_of_the_runtime() {
        let task = runtime::handle().unwrap().spawn(async {
            let id = c"a".as_ptr();
            let mut error: *mut ceiba_error = null_mut();
            let code = ceiba_producer_send(id, 1, id.cast(), 1, 0, null_mut(), &mut error);
            assert!(take_back(error).unwrap().text().contains("another thread"));
            let mut queue = null_mut();
            assert_eq!(ceiba_queue_new(1, &mut queue, null_mut()), 0);
            let mut batch: *mut ceiba_completions = null_mut();
            let waited = ceiba_queue_poll(queue, 1, -1, &mut batch, null_mut());
            assert!(batch.is_null());
            assert_eq!(ceiba_queue_poll(queue, 1, 0, &mut batch, null_mut()), 0);
            drop(take_back(batch));
            ceiba_queue_free(queue);
            let mut deliveries = null_mut();
            [
                code,
                waited,
                ceiba_producer_flush(id, 1, -1, null_mut()),
                ceiba_consumer_receive(id, 1, 1, -1, &mut deliveries, null_mut()),
                ceiba_shutdown(0, null_mut(), null_mut()),
            ]
        });
        let codes = runtime::block_on(async { Ok(task.await.unwrap()) }).unwrap();
        assert_eq!(codes, [CEIBA_ERR_WOULD_DEADLOCK; 5]);
    }
}
