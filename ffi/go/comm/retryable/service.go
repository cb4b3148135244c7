// Package retryable sends again what failed.
//
// Different from github.com/udugong/go-comm: the error holds every attempt, an error that a retry cannot help ends at
// once (comm.CanRetry), a number of attempts below 1 is an error that says so, and the wait of an IntervalService
// starts after the failed attempt, so that a slow send eats nothing of it.
package retryable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ceiba/comm"
)

// ErrNoAttempts is the error of a service that may not even try once.
var ErrNoAttempts = errors.New("retryable: the number of attempts must be at least 1")

// ErrNoTime is what ended the attempts, by errors.Is, when the next wait would have passed the context's deadline.
var ErrNoTime = errors.New("retryable: the next wait would pass the deadline")

// Error is why all attempts failed. errors.Is and errors.As look into each of them.
type Error struct {
	// Attempts holds the error of each, in their order.
	Attempts []error
	// Ended is the error of the context where that ended the attempts, or ErrNoTime.
	Ended error
}

// Error names the number of attempts and the last error.
func (e *Error) Error() string {
	text := fmt.Sprintf("all %d attempts failed", len(e.Attempts))
	if e.Ended != nil {
		text = fmt.Sprintf("%v after %d attempts", e.Ended, len(e.Attempts))
	}
	if len(e.Attempts) > 0 {
		text += fmt.Sprintf("; last: %v", e.Attempts[len(e.Attempts)-1])
	}
	return text
}

// CanRetry says whether the last attempt's error is one that a retry may help.
func (e *Error) CanRetry() bool {
	return len(e.Attempts) == 0 || comm.CanRetry(e.Attempts[len(e.Attempts)-1])
}

// Unwrap returns the errors of the attempts, and what ended them.
func (e *Error) Unwrap() []error {
	if e.Ended == nil {
		return e.Attempts
	}
	return append([]error{e.Ended}, e.Attempts...)
}

// Service sends at most so many times in all, at once after each other.
type Service[T any] struct {
	svc      comm.Sender[T]
	retryMax int
}

// NewService wraps svc; retryMax counts the first attempt too.
func NewService[T any](svc comm.Sender[T], retryMax int) *Service[T] {
	return &Service[T]{svc: svc, retryMax: retryMax}
}

// Send sends until it goes well, retryMax attempts failed, one failed for good, or ctx ended. The error is an *Error
// when there was more than one attempt.
func (s *Service[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	return send(ctx, s.svc, s.retryMax, nil, biz, args, to)
}

// IntervalService does the same with a wait before each new attempt.
type IntervalService[T any] struct {
	svc          comm.Sender[T]
	retryMax     int
	intervalFunc func() time.Duration
}

// NewIntervalService wraps svc; intervalFn is asked for each wait. It is called from many goroutines at once.
func NewIntervalService[T any](svc comm.Sender[T], retryMax int, intervalFn func() time.Duration) *IntervalService[T] {
	return &IntervalService[T]{svc: svc, retryMax: retryMax, intervalFunc: intervalFn}
}

// Send sends until it goes well, retryMax attempts failed, one failed for good, or ctx ended. A wait that ctx would
// not outlive is not begun.
func (s *IntervalService[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	return send(ctx, s.svc, s.retryMax, s.intervalFunc, biz, args, to)
}

func send[T any](
	ctx context.Context, svc comm.Sender[T], retryMax int, interval func() time.Duration, biz string, args T, to []string,
) error {
	if retryMax < 1 {
		return ErrNoAttempts
	}
	err := svc.Send(ctx, biz, args, to...)
	if err == nil || retryMax == 1 || !comm.CanRetry(err) {
		return err
	}
	failed := &Error{Attempts: []error{err}}
	for len(failed.Attempts) < retryMax {
		if failed.Ended = wait(ctx, interval); failed.Ended != nil {
			return failed
		}
		if err = svc.Send(ctx, biz, args, to...); err == nil {
			return nil
		}
		failed.Attempts = append(failed.Attempts, err)
		if !comm.CanRetry(err) {
			break
		}
	}
	return failed
}

func wait(ctx context.Context, interval func() time.Duration) error {
	if err := ctx.Err(); err != nil || interval == nil {
		return err
	}
	pause := interval()
	if pause <= 0 {
		return ctx.Err()
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return ErrNoTime
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
