package slidewindowlimit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/limiter/internal/redistest"
	"ceiba/limiter/slidewindowlimit"
)

// One of go-redis that loses the answers to scripts, and answers what is given back as it is told.
type answering struct {
	deaf
	// An error in place of the answer, for a set.
	zrem  func(set string) error
	count *atomic.Int64
}

func (a answering) ZRem(ctx context.Context, set string, members ...any) *redis.IntCmd {
	a.count.Add(1)
	if a.zrem != nil {
		if err := a.zrem(set); err != nil {
			cmd := redis.NewIntCmd(ctx)
			cmd.SetErr(err)
			return cmd
		}
	}
	return a.deaf.ZRem(ctx, set, members...)
}

// A client of a server that knows the script.
func knowing(t *testing.T) *redis.Client {
	t.Helper()
	client, _ := redistest.Start(t)
	if _, err := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Hour, 1).Limit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	return client
}

// Long enough for several tries of the background.
const several = 500 * time.Millisecond

func TestWhatNeverWentOutIsNotGivenBack(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	away := redis.NewClient(&redis.Options{Addr: listener.Addr().String()})
	defer away.Close()
	closed := redis.NewClient(&redis.Options{Addr: listener.Addr().String()})
	_ = closed.Close()
	for name, client := range map[string]*redis.Client{"away": away, "closed": closed} {
		var count atomic.Int64
		l := slidewindowlimit.NewRedisSlidingWindowLimiter(answering{deaf{client}, nil, &count}, time.Hour, 5)
		for range 3 {
			if limited, err := l.Limit(t.Context(), "a"); !limited || err == nil {
				t.Error(name, limited, err)
			}
		}
		time.Sleep(several)
		if count.Load() != 0 {
			t.Errorf("%s: asked %d times to give back what was never asked for", name, count.Load())
		}
	}
}

type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

func TestWhatWillNotPassIsNotTriedAgain(t *testing.T) {
	client := knowing(t)
	for err, again := range map[error]bool{
		refusal("NOPERM this user has no permissions to run the 'zrem' command"):     false,
		refusal("WRONGTYPE Operation against a key holding the wrong kind of value"): false,
		redis.ErrClosed: false,
		refusal("LOADING Redis is loading the dataset in memory"): true,
		io.EOF: true,
	} {
		var count atomic.Int64
		cmd := answering{deaf{client}, func(string) error { return err }, &count}
		// The short window is as long as the background goes on.
		l := slidewindowlimit.NewRedisSlidingWindowLimiter(cmd, 2*time.Second, 5)
		if _, err := l.Limit(t.Context(), "a"); err == nil {
			t.Error("there was an answer")
		}
		time.Sleep(several)
		if got := count.Load(); got == 0 || (got > 1) != again {
			t.Errorf("%v: tried %d times", err, got)
		}
	}
}

func TestASetThatFailsHoldsUpNoOther(t *testing.T) {
	client := knowing(t)
	var count, failed atomic.Int64
	cmd := answering{deaf{client}, func(set string) error {
		if strings.Contains(set, ":bad") {
			failed.Add(1)
			return io.EOF
		}
		return nil
	}, &count}
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(cmd, time.Hour, 5)
	// From here on the background is at one that fails.
	if _, err := l.Limit(t.Context(), "bad"); !errors.Is(err, errDeaf) {
		t.Fatal(err)
	}
	within(t, "one fails", func() bool { return failed.Load() > 0 })
	begin := time.Now()
	for _, key := range []string{"good", "bad2", "bad3", "good2"} {
		if _, err := l.Limit(t.Context(), key); !errors.Is(err, errDeaf) {
			t.Error(err)
		}
	}
	for _, key := range []string{"good", "good2"} {
		comesTo(t, client, "ceiba:limit:key:"+key+":sliding_window/2:5:3600000000us", 0)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
