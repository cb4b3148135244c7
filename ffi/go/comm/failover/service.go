// Package failover sends through another provider when one fails.
//
// Different from github.com/udugong/go-comm: many failures of one provider at once move on once, the index never
// leaves its range, the error of all holds each provider's, an empty list is an error and no panic, and a cancelled
// caller moves nothing.
package failover

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"ceiba/comm"
)

// ErrAllServiceFailed is what the error is, by errors.Is, when every provider failed.
var ErrAllServiceFailed = errors.New("failover: all providers failed")

// ErrNoServices is the error of a failover without providers.
var ErrNoServices = errors.New("failover: there are no providers")

// AllFailedError holds the error of each provider, by its place in the list.
type AllFailedError struct{ Errors []error }

// Error names ErrAllServiceFailed and each error.
func (e *AllFailedError) Error() string {
	return ErrAllServiceFailed.Error() + ": " + errors.Join(e.Errors...).Error()
}

// CanRetry says whether a retry may help one of the providers.
func (e *AllFailedError) CanRetry() bool { return slices.ContainsFunc(e.Errors, comm.CanRetry) }

// Unwrap returns ErrAllServiceFailed and the errors.
func (e *AllFailedError) Unwrap() []error { return append([]error{ErrAllServiceFailed}, e.Errors...) }

// index is which provider is used: the number that callers see, and how often it was moved.
type index struct {
	now    atomic.Uint32
	moves  atomic.Uint64
	lock   sync.Mutex
	length uint32
}

type seen struct {
	at    uint32
	moves uint64
}

func (i *index) see() seen {
	// The moves first: one between the two only keeps this look from moving.
	moves := i.moves.Load()
	return seen{at: i.now.Load() % i.length, moves: moves}
}

// moveOn goes to the next provider, unless somebody moved since the look.
func (i *index) moveOn(from seen) bool {
	i.lock.Lock()
	defer i.lock.Unlock()
	if i.moves.Load() != from.moves || i.now.Load()%i.length != from.at {
		return false
	}
	i.moves.Add(1)
	i.now.Store((from.at + 1) % i.length)
	return true
}

func (i *index) get() uint32 {
	if i.length == 0 {
		return 0
	}
	return i.now.Load() % i.length
}

func (i *index) set(to uint32) {
	if to >= i.length {
		to = 0
	}
	i.lock.Lock()
	defer i.lock.Unlock()
	i.moves.Add(1)
	i.now.Store(to)
}

// Service sends through the last good provider, and through the others in turn when it fails.
type Service[T any] struct {
	svcs   []comm.Sender[T]
	index  index
	logger *slog.Logger
}

// NewService makes one of svcs, beginning with the first.
func NewService[T any](svcs []comm.Sender[T], opts ...Option[T]) *Service[T] {
	s := &Service[T]{svcs: svcs, logger: slog.Default()}
	s.index.length = uint32(len(svcs))
	return s.WithOptions(opts...)
}

// Option is a setting of a Service.
type Option[T any] interface{ apply(*Service[T]) }

type optionFunc[T any] func(*Service[T])

func (f optionFunc[T]) apply(svc *Service[T]) { f(svc) }

// WithLogger sets where switches are logged; slog.Default() unless set.
func WithLogger[T any](logger *slog.Logger) Option[T] {
	return optionFunc[T](func(svc *Service[T]) { svc.logger = logger })
}

// WithOptions changes settings; not while sends are under way.
func (s *Service[T]) WithOptions(opts ...Option[T]) *Service[T] {
	for _, opt := range opts {
		opt.apply(s)
	}
	return s
}

// Send tries each provider at most once. When ctx ends, or a provider's error is that of a context, it returns at
// once with that error; a provider that took too long is left by the sends that follow.
func (s *Service[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	if len(s.svcs) == 0 {
		return ErrNoServices
	}
	first := s.index.see()
	err := s.svcs[first.at].Send(ctx, biz, args, to...)
	if err == nil {
		return nil
	}
	return s.others(ctx, first, err, biz, args, to)
}

func (s *Service[T]) others(ctx context.Context, now seen, err error, biz string, args T, to []string) error {
	length := uint32(len(s.svcs))
	failed := make([]error, length)
	for at, step := now.at, uint32(0); ; {
		late := errors.Is(err, context.DeadlineExceeded)
		ended := ctx.Err() != nil || errors.Is(err, context.Canceled)
		if (late || !ended) && now.at == at && s.index.moveOn(now) {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "a provider failed, the next one is used",
				slog.Uint64("provider", uint64(at)), slog.Any("err", err))
		}
		if late || ended {
			return err
		}
		failed[at] = err
		if step++; step == length {
			return &AllFailedError{Errors: failed}
		}
		at = (at + 1) % length
		now = s.index.see()
		if err = s.svcs[at].Send(ctx, biz, args, to...); err == nil {
			return nil
		}
	}
}

// GetCurrentServiceIndex returns which provider is used, from 0.
func (s *Service[T]) GetCurrentServiceIndex() uint32 { return s.index.get() }

// SetCurrentServiceIndex sets which provider is used; one that is out of range sets the first.
func (s *Service[T]) SetCurrentServiceIndex(idx uint32) { s.index.set(idx) }
