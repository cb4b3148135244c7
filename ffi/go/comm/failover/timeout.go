package failover

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"ceiba/comm"
)

// TimeoutService moves on to the next provider after several timeouts in a row.
type TimeoutService[T any] struct {
	svcs       []comm.Sender[T]
	index      index
	threshold  uint32
	setIdxFunc func(ctx context.Context, current uint32) (uint32, bool)

	// Timeouts in a row of the provider that was seen like this.
	lock      sync.Mutex
	count     atomic.Uint32
	countedAt seen
}

// NewTimeoutService makes one of svcs; threshold is the number of timeouts in a row that moves on, 0 as 1.
func NewTimeoutService[T any](svcs []comm.Sender[T], threshold uint32, opts ...TimeoutOption[T]) *TimeoutService[T] {
	s := &TimeoutService[T]{svcs: svcs, threshold: max(threshold, 1)}
	s.index.length = uint32(len(svcs))
	for _, opt := range opts {
		opt.apply(s)
	}
	return s
}

// TimeoutOption is a setting of a TimeoutService.
type TimeoutOption[T any] interface{ apply(*TimeoutService[T]) }

type timeoutOptionFunc[T any] func(*TimeoutService[T])

func (f timeoutOptionFunc[T]) apply(svc *TimeoutService[T]) { f(svc) }

// WithSetIdxFunc sets what runs, in a goroutine of its own, after a switch: it may wait and then store another
// index, such as 0 to go back to the first, which holds from when it returns. The context never ends. An index that is
// out of range sets the first. The pointer is a *atomic.Uint32, or the *int32 of earlier versions of go-comm, which
// is written with package atomic's functions.
func WithSetIdxFunc[T any, P *int32 | *atomic.Uint32](fn func(context.Context, P)) TimeoutOption[T] {
	var run func(ctx context.Context, current uint32) (uint32, bool)
	switch fn := any(fn).(type) {
	case func(context.Context, *int32):
		run = func(ctx context.Context, current uint32) (uint32, bool) {
			idx := int32(current)
			fn(ctx, &idx)
			stored := uint32(atomic.LoadInt32(&idx))
			return stored, stored != current
		}
	case func(context.Context, *atomic.Uint32):
		run = func(ctx context.Context, current uint32) (uint32, bool) {
			var idx atomic.Uint32
			idx.Store(current)
			fn(ctx, &idx)
			return idx.Load(), idx.Load() != current
		}
	}
	return timeoutOptionFunc[T](func(svc *TimeoutService[T]) { svc.setIdxFunc = run })
}

// Send sends through the current provider. An error that is context.DeadlineExceeded counts as a timeout, a success
// ends the row, other errors do neither. The switch comes before the send that follows the last timeout.
func (t *TimeoutService[T]) Send(ctx context.Context, biz string, args T, to ...string) error {
	if len(t.svcs) == 0 {
		return ErrNoServices
	}
	now := t.index.see()
	if t.count.Load() >= t.threshold {
		now = t.switched(now)
	}
	err := t.svcs[now.at].Send(ctx, biz, args, to...)
	switch {
	case err == nil:
		if t.count.Load() != 0 {
			t.note(now, false)
		}
	case errors.Is(err, context.DeadlineExceeded):
		t.note(now, true)
	}
	return err
}

// note counts a timeout or ends the row; what began before the last switch says nothing of the present provider.
func (t *TimeoutService[T]) note(at seen, timeout bool) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.index.see() != at {
		return
	}
	if t.countedAt != at {
		t.countedAt = at
		t.count.Store(0)
	}
	if !timeout {
		t.count.Store(0)
		return
	}
	t.count.Add(1)
}

func (t *TimeoutService[T]) switched(from seen) seen {
	t.lock.Lock()
	moved := t.count.Load() >= t.threshold && t.countedAt == from && t.index.moveOn(from)
	if moved {
		t.count.Store(0)
	}
	t.lock.Unlock()
	now := t.index.see()
	if moved && t.setIdxFunc != nil {
		go func() {
			if to, set := t.setIdxFunc(context.Background(), now.at); set {
				t.index.set(to)
			}
		}()
	}
	return now
}

// GetCurrentServiceIndex returns which provider is used, from 0.
func (t *TimeoutService[T]) GetCurrentServiceIndex() uint32 { return t.index.get() }

// SetCurrentServiceIndex sets which provider is used; one that is out of range sets the first.
func (t *TimeoutService[T]) SetCurrentServiceIndex(idx uint32) { t.index.set(idx) }
