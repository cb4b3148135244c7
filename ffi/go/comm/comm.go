// Package comm sends notifications (texts, mails) through senders of your own, wrapped by strategies that nest freely:
// packages retryable, ratelimit and failover.
//
// A program that was written for github.com/udugong/go-comm runs after a change of its imports: names, signatures and
// error values are the same. What is different is written in the packages.
//
// The strategies here are plain Go: a call into the C library costs more than a strategy does. To send by id through
// a client of the library, wrap it in a [SenderFunc].
package comm

import (
	"context"
	"errors"
)

// Sender sends to one provider. biz is the template or another name of what is sent, args its arguments, to the
// recipients. It is called from many goroutines at once and returns when ctx ends.
type Sender[T any] interface {
	Send(ctx context.Context, biz string, args T, to ...string) error
}

// SenderFunc is a function as a Sender.
type SenderFunc[T any] func(ctx context.Context, biz string, args T, to ...string) error

// Send calls the function.
func (f SenderFunc[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	return f(ctx, biz, args, to...)
}

type permanent struct{ error }

func (p permanent) Unwrap() error  { return p.error }
func (p permanent) CanRetry() bool { return false }

// Permanent marks an error that a retry cannot help: retries end at it. nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanent{err}
}

// CanRetry says whether a retry may help. It may, unless the error or one that it wraps says no by a method
// CanRetry() bool, as [Permanent] and the errors of package ceiba do.
func CanRetry(err error) bool {
	var told interface{ CanRetry() bool }
	return !errors.As(err, &told) || told.CanRetry()
}
