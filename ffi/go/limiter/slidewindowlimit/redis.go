package slidewindowlimit

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/limiter"
)

//go:embed sliding_window.lua
var code string

var script = redis.NewScript(code)

// How much longer than the window Redis keeps an idle list: its own clock for that is coarser.
const spare = time.Second

type redisWindow struct {
	cmd    redis.Scripter
	window time.Duration
	rate   int
}

// NewRedisSlidingWindowLimiter lets rate requests of a key begin in any span of interval, in all processes together:
// one round trip each, by the server's clock. Bounds of time are those of cmd and of the caller's context. When Redis
// does not answer, Limit returns the error; whether to go on is the caller's to decide. It panics when interval or
// rate is not positive.
func NewRedisSlidingWindowLimiter(cmd redis.Cmdable, interval time.Duration, rate int) limiter.Limiter {
	check(interval, rate)
	return &redisWindow{cmd: cmd, window: interval, rate: rate}
}

func (l *redisWindow) Limit(ctx context.Context, key string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	micros := l.window.Microseconds()
	name := fmt.Sprintf("ceiba:limit:key:%s:sliding_window:%d:%dus", key, l.rate, micros)
	answer, err := script.Run(ctx, l.cmd, []string{name}, l.rate, micros, (l.window + spare).Milliseconds()).Result()
	if err != nil {
		return true, fmt.Errorf("slidewindowlimit: Redis did not decide: %w", err)
	}
	switch answer.(type) {
	case string:
		return false, nil
	case int64:
		return true, nil
	}
	return true, fmt.Errorf("slidewindowlimit: Redis answered a %T", answer)
}
