package ceiba

// #include "shim.h"
import "C"

// outboxOperation is a call on an outbox that takes options.
type outboxOperation C.int

const (
	outboxList     outboxOperation = C.SHIM_OUTBOX_LIST
	outboxShow     outboxOperation = C.SHIM_OUTBOX_SHOW
	outboxRetry    outboxOperation = C.SHIM_OUTBOX_RETRY
	outboxRetryAll outboxOperation = C.SHIM_OUTBOX_RETRY_ALL
	outboxDrop     outboxOperation = C.SHIM_OUTBOX_DROP
	outboxExport   outboxOperation = C.SHIM_OUTBOX_EXPORT
	outboxImport   outboxOperation = C.SHIM_OUTBOX_IMPORT
	outboxStats    outboxOperation = C.SHIM_OUTBOX_STATS
	outboxPurge    outboxOperation = C.SHIM_OUTBOX_PURGE
)

// cOutbox blocks the thread until the call has ended.
func cOutbox(operation outboxOperation, target, options string, timeout int64) (string, *Error) {
	t, n := chars(target)
	o, m := chars(options)
	return takenText(C.shim_outbox(C.int(operation), t, n, o, m, C.int64_t(timeout)))
}

// cOutboxDrain blocks the thread until the drain has ended.
func cOutboxDrain(target string, timeout int64) (string, *Error) {
	t, n := chars(target)
	return takenText(C.shim_outbox_drain(t, n, C.int64_t(timeout)))
}
