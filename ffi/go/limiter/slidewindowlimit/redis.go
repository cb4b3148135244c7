package slidewindowlimit

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/limiter"
)

//go:embed sliding_window.lua
var code string

var script = redis.NewScript(code)

// How much longer than the window Redis keeps an idle set: its own clock for that is coarser.
const spare = time.Second

// Calls under way whose callers went away. A further caller waits for his call, as long as the timeouts of cmd let it
// take.
const mostAbandoned = 1024

type redisWindow struct {
	cmd    redis.Scripter
	window time.Duration
	rate   int
	// Names of grants: this and a number.
	holder    string
	count     atomic.Uint64
	abandoned atomic.Int64
	returned  returned
}

// NewRedisSlidingWindowLimiter lets rate requests of a key begin in any span of interval, in all processes together:
// one round trip each, by the server's clock. When Redis does not answer, within what cmd bounds, Limit returns the
// error; whether to go on is the caller's to decide. It panics when interval or rate is not positive.
//
// Limit returns when its context ends. Only while the calls of 1,024 others that went away are still under way it waits
// for its own: for as long as the timeouts of cmd let a call take, which reads an answer to the end of ReadTimeout
// whatever becomes of a context, unless its options have ContextTimeoutEnabled.
//
// What Redis granted to a call that ended with an error is given back in the background, for up to 30 s or until cmd is
// closed. Where that fails, the grant counts for one interval; the rate holds in any case. A call that cmd sends again,
// after it lost the connection, counts once.
func NewRedisSlidingWindowLimiter(cmd redis.Cmdable, interval time.Duration, rate int) limiter.Limiter {
	check(interval, rate)
	return &redisWindow{
		cmd: cmd, window: interval, rate: rate, holder: rand.Text(),
		returned: returned{cmd: cmd, window: interval},
	}
}

func (l *redisWindow) Limit(ctx context.Context, key string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	set := fmt.Sprintf("ceiba:limit:key:%s:sliding_window/2:%d:%dus", key, l.rate, l.window.Microseconds())
	name := l.holder + "-" + strconv.FormatUint(l.count.Add(1), 16)
	if ctx.Done() == nil {
		return l.ask(ctx, set, name)
	}
	// Unless told otherwise a Redis client reads its answers to the end, whatever becomes of the context.
	asked := call{answers: make(chan answer, 1)}
	go func() {
		limited, err := l.ask(ctx, set, name)
		if asked.ended.CompareAndSwap(false, true) {
			asked.answers <- answer{limited, err}
			return
		}
		l.abandoned.Add(-1)
		if !limited {
			l.returned.put(set, name)
		}
	}()
	select {
	case got := <-asked.answers:
		return got.limited, got.err
	case <-ctx.Done():
	}
	if l.abandoned.Add(1) <= mostAbandoned && asked.ended.CompareAndSwap(false, true) {
		return true, ctx.Err()
	}
	l.abandoned.Add(-1)
	got := <-asked.answers
	return got.limited, got.err
}

type answer struct {
	limited bool
	err     error
}

type call struct {
	// Set by whoever is first: the goroutine that has the answer, or the caller that goes away.
	ended   atomic.Bool
	answers chan answer
}

func (l *redisWindow) ask(ctx context.Context, set, name string) (bool, error) {
	life := (l.window + spare).Milliseconds()
	wait, err := script.Run(ctx, l.cmd, []string{set}, l.rate, l.window.Microseconds(), life, name).Int64()
	if err != nil {
		// It may have been granted all the same.
		if mayHaveGone(err) {
			l.returned.put(set, name)
		}
		return true, fmt.Errorf("slidewindowlimit: Redis did not decide: %w", err)
	}
	return wait > 0, nil
}

// mayHaveGone is false of an error that says that there was no connection to send on. One that was sent over an earlier
// connection and then again may have been granted even so: that grant counts for one interval.
func mayHaveGone(err error) bool {
	var failed *net.OpError
	dialing := errors.As(err, &failed) && failed.Op == "dial"
	return !dialing && !errors.Is(err, redis.ErrClosed)
}
