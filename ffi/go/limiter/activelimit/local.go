// Package activelimit bounds the requests that are under way at once.
package activelimit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrNotActive is the error of a Decr without a Limit that let a request begin.
var ErrNotActive = errors.New("activelimit: no request is under way")

// LocalActiveLimiter counts the requests of this process, whatever their keys.
type LocalActiveLimiter struct {
	most   int64
	active atomic.Int64
}

// NewLocalActiveLimiter lets maxActive requests be under way. It panics when that is not positive.
func NewLocalActiveLimiter(maxActive int64) *LocalActiveLimiter {
	check(maxActive)
	return &LocalActiveLimiter{most: maxActive}
}

func check(maxActive int64) {
	if maxActive < 1 {
		panic(fmt.Sprintf("activelimit: %d requests at once are no limit: 1 or more are", maxActive))
	}
}

// Limit is true when as many are under way as may be; then there is nothing to end. The error is that of a context
// that has ended.
func (l *LocalActiveLimiter) Limit(ctx context.Context, _ string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	for {
		active := l.active.Load()
		if active >= l.most {
			return true, nil
		}
		if l.active.CompareAndSwap(active, active+1) {
			return false, nil
		}
	}
}

// Decr ends a request that Limit let begin; without one it returns ErrNotActive and changes nothing.
func (l *LocalActiveLimiter) Decr(context.Context, string) error {
	for {
		active := l.active.Load()
		if active < 1 {
			return ErrNotActive
		}
		if l.active.CompareAndSwap(active, active-1) {
			return nil
		}
	}
}
