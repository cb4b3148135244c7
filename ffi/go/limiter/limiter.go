// Package limiter says whether one more request may begin: by a sliding window, a bucket or the number of requests
// under way, in this process or, over Redis, across all of them. Its limiters are what ceiba/comm/ratelimit asks.
//
// A program that was written for github.com/udugong/limiter runs after a change of its imports, but for the local
// sliding window, which takes a rate where that one takes a queue.
//
// The limiters over Redis keep the state that a rate_limit of a ceiba config with the same key, rate and period keeps:
// services of several languages share one limit. This module is apart from the rest so that only its users need a
// Redis client.
package limiter

import "context"

// Limiter says whether the limit of a key is met. All limiters are for many goroutines at once.
type Limiter interface {
	// Limit is true when the request may not begin, at once. A limiter that cannot tell returns its error, and
	// true.
	Limit(ctx context.Context, key string) (bool, error)
}

// ActiveLimiter counts the requests that are under way.
type ActiveLimiter interface {
	Limiter
	// Decr ends a request that Limit let begin.
	Decr(ctx context.Context, key string) error
}

// BucketLimiter lets requests begin at a pace.
type BucketLimiter interface {
	// Put returns when the bucket is closed. Tokens are reckoned from the clock: nothing has to put them, and a
	// bucket works without a call of it.
	Put()
	// Close ends all waits, and every later Limit, with an error.
	Close()
	// Limit is true when there is no token.
	Limit(ctx context.Context, key string) (bool, error)
	// BlockLimit waits for a token. It is true, with the error of ctx, when ctx ends first.
	BlockLimit(ctx context.Context, key string) (bool, error)
}
