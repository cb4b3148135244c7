// Package ratelimit has the sliding window over Redis under the name that go-comm's documentation uses.
package ratelimit

import (
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/limiter"
	"ceiba/limiter/slidewindowlimit"
)

// NewRedisSlidingWindowLimiter is that of package slidewindowlimit.
func NewRedisSlidingWindowLimiter(cmd redis.Cmdable, interval time.Duration, rate int) limiter.Limiter {
	return slidewindowlimit.NewRedisSlidingWindowLimiter(cmd, interval, rate)
}
