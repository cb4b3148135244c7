package ceiba

import (
	"context"
	"errors"

	"ceiba/comm"
	"ceiba/comm/failover"
	"ceiba/comm/ratelimit"
	"ceiba/comm/retryable"
)

// hostError is what the library is told of a sender's error.
func hostError(err error) *Error {
	failed := &Error{Outcome: Unknown, Retryable: comm.CanRetry(err), Message: err.Error()}
	if notSent(err, false) {
		failed.Outcome = NotSent
	}
	var told *Error
	switch {
	case errors.As(err, &told):
		failed.Kind, failed.RetryAfter = told.Kind, told.RetryAfter
		if err == error(told) {
			failed.Message = told.Message
		}
	case errors.Is(err, context.DeadlineExceeded):
		failed.Kind = ErrTimeout
	case errors.Is(err, context.Canceled):
		failed.Kind, failed.Retryable = ErrCancelled, false
	case failed.Outcome == NotSent && errors.Is(err, ratelimit.ErrLimited):
		failed.Kind = ErrLimited
	case errors.Is(err, failover.ErrNoServices), errors.Is(err, retryable.ErrNoAttempts):
		failed.Kind, failed.Retryable = ErrInvalidConfig, false
	case !failed.Retryable:
		failed.Kind = ErrInvalidArgument
	default:
		failed.Kind = ErrUnavailable
	}
	return failed
}

// notSent says whether every error that err is made of says that nothing was sent. Nobody but the sender knows that of
// an error without more; within a permanent one the sender says so.
func notSent(err error, permanent bool) bool {
	all := func(errs []error) bool {
		for _, one := range errs {
			if !notSent(one, permanent) {
				return false
			}
		}
		return len(errs) > 0
	}
	switch err {
	case nil, ratelimit.ErrLimited, failover.ErrNoServices, retryable.ErrNoAttempts:
		return true
	case context.DeadlineExceeded, context.Canceled:
		return false
	}
	switch err := err.(type) {
	case *Error:
		return err.Outcome == NotSent
	case *ratelimit.LimiterError:
		// Whatever the limiter's own error is.
		return true
	case *retryable.Error:
		// What ended the attempts sent nothing.
		return all(err.Attempts)
	case *failover.AllFailedError:
		return all(err.Errors)
	}
	if told, ok := err.(interface{ CanRetry() bool }); ok && !told.CanRetry() {
		permanent = true
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			return notSent(inner, permanent)
		}
	case interface{ Unwrap() []error }:
		return all(err.Unwrap())
	}
	return permanent
}
