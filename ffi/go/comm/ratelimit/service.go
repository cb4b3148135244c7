// Package ratelimit refuses what is over a limit.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ceiba/comm"
)

// ErrLimited is the error of a send that the limiter refused; nothing was sent.
var ErrLimited = errors.New("ratelimit: the limit is met")

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

// Send sends, or returns ErrLimited, or wraps the limiter's own error. A limiter with a method
// Decr(ctx, key) error, which counts requests under way, is told when the send has ended.
func (s *Service[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	limited, err := s.limiter.Limit(ctx, s.limitKey)
	if err != nil {
		return fmt.Errorf("ratelimit: the limiter failed: %w", err)
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
