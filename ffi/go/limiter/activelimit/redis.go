package activelimit

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed acquire.lua
var code string

var script = redis.NewScript(code)

const (
	// Lease is how long a request still counts after its process died. Until it ends it is renewed.
	Lease = 60 * time.Second
	// After that a renewal, or the end of a request whose caller went away, waits no longer for a connection and is not
	// sent again. Its answer is read to the end of the client's ReadTimeout, unless the client heeds contexts there too.
	background = 2 * time.Second
	// Requests whose ends are sought in the background at once; further ones end with their leases.
	mostEnding = 1000
	// Leases that are renewed in one round trip.
	mostAtOnce = 1000
)

// RedisActiveLimiter counts the requests of all processes.
type RedisActiveLimiter struct {
	cmd    redis.Cmdable
	most   int64
	lease  time.Duration
	holder string
	ending chan struct{}

	mu sync.Mutex
	// The leases that this process holds, by key, the latest last.
	held  map[string][]string
	count uint64
	// Renews while there is any.
	renewing bool
}

// NewRedisActiveLimiter lets maxActive requests of a key be under way in all processes together. Each holds a lease
// of [Lease], renewed in the background: those of a process that died end with it. When Redis does not answer, Limit
// returns the error; whether to go on is the caller's to decide. It panics when maxActive is not positive.
func NewRedisActiveLimiter(cmd redis.Cmdable, maxActive int64) *RedisActiveLimiter {
	check(maxActive)
	return newLimiter(cmd, maxActive, Lease)
}

func newLimiter(cmd redis.Cmdable, maxActive int64, lease time.Duration) *RedisActiveLimiter {
	return &RedisActiveLimiter{
		cmd:    cmd,
		most:   maxActive,
		lease:  lease,
		holder: rand.Text(),
		ending: make(chan struct{}, mostEnding),
		held:   make(map[string][]string),
	}
}

func (l *RedisActiveLimiter) name(key string) string {
	return fmt.Sprintf("ceiba:limit:key:%s:concurrent:%d:%dus", key, l.most, l.lease.Microseconds())
}

func (l *RedisActiveLimiter) acquire(ctx context.Context, key, name string, always int) (int64, error) {
	return script.Run(ctx, l.cmd, []string{l.name(key)}, l.arguments(name, always)...).Int64()
}

func (l *RedisActiveLimiter) arguments(name string, always int) []any {
	return []any{l.most, l.lease.Microseconds(), name, (2 * l.lease).Milliseconds(), always}
}

// Limit is true when as many are under way as may be; then there is nothing to end.
func (l *RedisActiveLimiter) Limit(ctx context.Context, key string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	l.mu.Lock()
	l.count++
	name := l.holder + "-" + strconv.FormatUint(l.count, 10)
	l.mu.Unlock()
	taken, err := l.acquire(ctx, key, name, 0)
	if err != nil {
		// It may have been taken all the same.
		l.endLater(key, name)
		return true, fmt.Errorf("activelimit: Redis did not decide: %w", err)
	}
	if taken != 1 {
		return true, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[key] = append(l.held[key], name)
	if !l.renewing {
		l.renewing = true
		go l.renew()
	}
	return false, nil
}

// Decr ends a request that Limit let begin. After an error it counts until Redis is told, which is tried once more in
// the background, or its lease ends.
func (l *RedisActiveLimiter) Decr(ctx context.Context, key string) error {
	l.mu.Lock()
	names := l.held[key]
	if len(names) == 0 {
		l.mu.Unlock()
		return ErrNotActive
	}
	name := names[len(names)-1]
	if len(names) == 1 {
		delete(l.held, key)
	} else {
		l.held[key] = names[:len(names)-1]
	}
	l.mu.Unlock()
	if err := l.cmd.ZRem(ctx, l.name(key), name).Err(); err != nil {
		l.endLater(key, name)
		return fmt.Errorf("activelimit: Redis was not told of an end: %w", err)
	}
	return nil
}

func (l *RedisActiveLimiter) endLater(key, name string) {
	select {
	case l.ending <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-l.ending }()
		ctx, cancel := context.WithTimeout(context.Background(), background)
		defer cancel()
		_ = l.cmd.ZRem(ctx, l.name(key), name).Err()
	}()
}

func (l *RedisActiveLimiter) renew() {
	for {
		time.Sleep(l.lease / 3)
		l.mu.Lock()
		if len(l.held) == 0 {
			l.renewing = false
			l.mu.Unlock()
			return
		}
		held := make(map[string][]string, len(l.held))
		for key, names := range l.held {
			held[key] = append([]string(nil), names...)
		}
		l.mu.Unlock()
		l.renewAll(held)
	}
}

// renewAll renews in one round trip, or few: a slow Redis must not make leases end while others are renewed.
func (l *RedisActiveLimiter) renewAll(held map[string][]string) {
	type lease struct{ key, name string }
	var leases []lease
	for key, names := range held {
		for _, name := range names {
			leases = append(leases, lease{key, name})
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(background, l.lease/3))
	defer cancel()
	for chunk := range slices.Chunk(leases, mostAtOnce) {
		for range 2 {
			pipe := l.cmd.Pipeline()
			for _, one := range chunk {
				if l.holds(one.key, one.name) {
					script.EvalSha(ctx, pipe, []string{l.name(one.key)}, l.arguments(one.name, 1)...)
				}
			}
			if _, err := pipe.Exec(ctx); !redis.HasErrorPrefix(err, "NOSCRIPT") {
				break
			}
			// A server that was started anew.
			_ = script.Load(ctx, l.cmd).Err()
		}
		for _, one := range chunk {
			if !l.holds(one.key, one.name) {
				// It ended meanwhile, and Redis may have heard of that first.
				l.endLater(one.key, one.name)
			}
		}
	}
}

func (l *RedisActiveLimiter) holds(key, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, held := range l.held[key] {
		if held == name {
			return true
		}
	}
	return false
}
