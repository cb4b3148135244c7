// Package ratelimit refuses what is over a limit.
package ratelimit

import (
	"context"
	"errors"
	"time"

	"ceiba/comm"
)

// ErrLimited is the error of a send that the limiter refused; nothing was sent.
var ErrLimited = errors.New("ratelimit: the limit is met")

// ErrLimiterFailed is what errors.Is finds in a [LimiterError].
var ErrLimiterFailed = errors.New("ratelimit: the limiter failed")

// LimiterError is the error of a send whose limiter could not tell, such as one over a Redis that is away, or whose
// context ended meanwhile; nothing was sent. The limit is a promise to somebody else, so the send does not go on; a
// sender that prefers to do so looks for this error:
//
//	if errors.Is(err, ratelimit.ErrLimiterFailed) {
//		err = unlimited.Send(ctx, biz, args, to...)
//	}
type LimiterError struct {
	// Key is what the limiter was asked with.
	Key string
	// Err is its own error, which errors.Is and errors.As find too.
	Err error
}

func (e *LimiterError) Error() string { return ErrLimiterFailed.Error() + ": " + e.Err.Error() }

// Unwrap returns the limiter's own error.
func (e *LimiterError) Unwrap() error { return e.Err }

// Is is true for ErrLimiterFailed.
func (e *LimiterError) Is(target error) bool { return target == ErrLimiterFailed }

// How long a limiter may take to hear that a send has ended.
const giveBack = 5 * time.Second

// Limiter says whether the limit of a key is met. A limiter that cannot tell returns its own error.
type Limiter interface {
	Limit(ctx context.Context, key string) (limited bool, err error)
}

// Service asks a limiter before each send.
type Service[T any] struct {
	svc      comm.Sender[T]
	limitKey string
	limiter  Limiter
}

// NewService wraps svc; the limiter is asked with limitKey.
func NewService[T any](svc comm.Sender[T], limitKey string, limiter Limiter) *Service[T] {
	return &Service[T]{svc: svc, limitKey: limitKey, limiter: limiter}
}

// Send sends, or returns ErrLimited, or a *[LimiterError] where the limiter could not tell. A limiter with a method
// Decr(ctx, key) error, which counts requests under way, is told when the send has ended.
func (s *Service[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	limited, err := s.limiter.Limit(ctx, s.limitKey)
	if err != nil {
		return &LimiterError{Key: s.limitKey, Err: err}
	}
	if limited {
		return ErrLimited
	}
	if active, ok := s.limiter.(interface {
		Decr(ctx context.Context, key string) error
	}); ok {
		// Also when ctx has ended: the place must come back.
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBack)
			defer cancel()
			_ = active.Decr(ctx, s.limitKey)
		}()
	}
	return s.svc.Send(ctx, biz, args, to...)
}
