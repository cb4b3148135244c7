// Package slidewindowlimit lets never more than a rate begin in any span of a period, wherever the span begins.
package slidewindowlimit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// LocalSlideWindowLimiter is a window of this process. It has one window for all keys.
type LocalSlideWindowLimiter struct {
	mu     sync.Mutex
	window time.Duration
	// From when on each place is free again; next is the oldest.
	freeAt []time.Time
	next   int
	now    func() time.Time
}

// Option changes a limiter that is being made.
type Option func(*LocalSlideWindowLimiter)

// WithTimeFunc takes the time from fn, which may be called from many goroutines.
func WithTimeFunc(fn func() time.Time) Option {
	return func(l *LocalSlideWindowLimiter) { l.now = fn }
}

// NewLocalSlideWindowLimiter lets rate requests begin in any span of window. It panics when window or rate is not
// positive: that is a mistake of the program.
func NewLocalSlideWindowLimiter(window time.Duration, rate int, opts ...Option) *LocalSlideWindowLimiter {
	check(window, rate)
	l := &LocalSlideWindowLimiter{window: window, freeAt: make([]time.Time, rate), now: time.Now}
	for _, opt := range opts {
		opt(l)
	}
	return l
}

func check(window time.Duration, rate int) {
	if window < time.Microsecond || rate < 1 {
		panic(fmt.Sprintf("slidewindowlimit: %d in %v is no limit: a rate of 1 or more in a microsecond or more is",
			rate, window))
	}
}

// Limit is true when the window is full. The error is that of a context that has ended.
func (l *LocalSlideWindowLimiter) Limit(ctx context.Context, _ string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.freeAt[l.next].After(now) {
		return true, nil
	}
	l.freeAt[l.next] = now.Add(l.window)
	if l.next++; l.next == len(l.freeAt) {
		l.next = 0
	}
	return false, nil
}
