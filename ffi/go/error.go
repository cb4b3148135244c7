package ceiba

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error is why a call failed. Every error of this package is one, or wraps one.
type Error struct {
	// Kind is what went wrong; errors.Is(err, ceiba.ErrTimeout) asks for it.
	Kind Kind
	// Outcome says whether the message of a failed send may have been sent.
	Outcome Outcome
	// Retryable says whether the same call may succeed later without a change.
	Retryable bool
	// RetryAfter is the least time to wait before a retry, where the other side named one; else 0.
	RetryAfter time.Duration
	// Provider is the provider that failed, such as "kapokmq"; empty where none did.
	Provider string
	// Attempts made; 0 when the call failed before the first.
	Attempts int
	// Message is the whole text with its causes, on one line.
	Message string
	// Parts is how each attempt of a retry, member of a failover or recipient ended, where there were several.
	Parts []Part

	cause error
}

// Error returns the text with kind and provider.
func (e *Error) Error() string {
	var text strings.Builder
	text.WriteString("ceiba: ")
	if e.Provider != "" {
		text.WriteString(e.Provider)
		text.WriteString(": ")
	}
	text.WriteString(e.Kind.String())
	text.WriteString(": ")
	text.WriteString(e.Message)
	if e.Outcome == Unknown {
		text.WriteString(" (whether the message was sent is unknown)")
	}
	return text.String()
}

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && kind == e.Kind
}

// Unwrap returns the context's error where a context caused this one.
func (e *Error) Unwrap() error { return e.cause }

func errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// contextError is the error of a call whose context ended before its message was handed over.
func contextError(ctx context.Context) *Error { return endedBy(ctx.Err(), NotSent) }

// endedBy is the error of a call that ended because its context did.
func endedBy(cause error, outcome Outcome) *Error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return &Error{Kind: ErrTimeout, Outcome: outcome, Retryable: true, Message: "the context's deadline passed", cause: cause}
	}
	return &Error{Kind: ErrCancelled, Outcome: outcome, Message: "the context was cancelled", cause: cause}
}

// blame gives an error the context as its cause where the context is what ended the call: the library
// sees only a deadline or a cancellation. deadline says that the call's deadline was the context's.
func blame(err *Error, ctx context.Context, deadline bool) *Error {
	switch {
	case err.Kind == ErrTimeout && deadline:
		err.cause = context.DeadlineExceeded
	case err.Kind == ErrCancelled && ctx.Err() != nil:
		err.cause = ctx.Err()
		if errors.Is(err.cause, context.DeadlineExceeded) {
			// The deadline was seen here first and passed on as a cancellation.
			err.Kind, err.Retryable, err.Message = ErrTimeout, true, "the context's deadline passed"
		}
	}
	return err
}

// orNil makes an *Error an error without the trap of a nil pointer in an interface.
func orNil(err *Error) error {
	if err == nil {
		return nil
	}
	return err
}

// CanRetry says whether the same call may succeed later; package ceiba/comm asks for it.
func (e *Error) CanRetry() bool { return e.Retryable }
