// Package bucketlimit lets requests begin at a pace: a token bucket keeps what was not used, a leaky bucket does not.
package bucketlimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// ErrClosed is the error of a bucket that was closed.
var ErrClosed = errors.New("bucketlimit: the bucket is closed")

// Bucket is a bucket of this process, the same for all keys.
type Bucket struct {
	interval time.Duration
	// How many tokens may lie in it.
	capacity int
	closed   chan struct{}
	once     sync.Once

	mu sync.Mutex
	// When the next token is one that nobody has: tokens come every interval from then on.
	next time.Time
	now  func() time.Time
}

// NewTokenBucketLimiter adds a token every interval until capacity of them lie there; it begins full. It panics when
// interval or capacity is not positive.
func NewTokenBucketLimiter(interval time.Duration, capacity int) *Bucket {
	if interval <= 0 || capacity < 1 {
		panic(fmt.Sprintf("bucketlimit: %d tokens, one every %v, are no bucket: both must be positive",
			capacity, interval))
	}
	if most := int(min(int64(math.MaxInt64/interval), math.MaxInt32)); capacity > most {
		capacity = most
	}
	return &Bucket{interval: interval, capacity: capacity, closed: make(chan struct{}), now: time.Now}
}

// NewLeakyBucketLimiter lets a request begin an interval or more after the one before it. It panics when interval is
// not positive.
func NewLeakyBucketLimiter(interval time.Duration) *Bucket {
	return NewTokenBucketLimiter(interval, 1)
}

// Put returns when the bucket is closed; tokens are reckoned from the clock.
func (b *Bucket) Put() {
	<-b.closed
}

// Close ends all waits and every later call with ErrClosed. It may be called more than once.
func (b *Bucket) Close() {
	b.once.Do(func() { close(b.closed) })
}

func (b *Bucket) ended(ctx context.Context) error {
	select {
	case <-b.closed:
		return ErrClosed
	default:
		return ctx.Err()
	}
}

// take takes a token, or says how long it is until the next.
func (b *Bucket) take() (wait time.Duration, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if full := now.Add(-time.Duration(b.capacity-1) * b.interval); b.next.Before(full) {
		b.next = full
	}
	if wait := b.next.Sub(now); wait > 0 {
		return wait, false
	}
	b.next = b.next.Add(b.interval)
	return 0, true
}

// Limit is true when there is no token. The error is ErrClosed or that of ctx.
func (b *Bucket) Limit(ctx context.Context, _ string) (bool, error) {
	if err := b.ended(ctx); err != nil {
		return true, err
	}
	_, taken := b.take()
	return !taken, nil
}

// BlockLimit waits for a token. When ctx ends before there is one it is true, with that error, and no token is lost.
// Those that wait come in any order.
func (b *Bucket) BlockLimit(ctx context.Context, _ string) (bool, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := b.ended(ctx); err != nil {
			return true, err
		}
		wait, taken := b.take()
		if taken {
			return false, nil
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-b.closed:
		}
	}
}
