package slidewindowlimit_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/limiter/internal/redistest"
	"ceiba/limiter/slidewindowlimit"
)

func comesTo(t *testing.T, client *redis.Client, set string, want int64) {
	t.Helper()
	var got int64
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if got = client.ZCard(t.Context(), set).Val(); got == want {
			return
		}
	}
	t.Fatalf("%d grants count, not %d", got, want)
}

func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("it never came to that: ", what)
		}
	}
}

// How often the server ran a command.
func calls(t *testing.T, client *redis.Client, command string) int {
	t.Helper()
	_, line, _ := strings.Cut(client.Info(t.Context(), "commandstats").Val(), "cmdstat_"+command+":calls=")
	number, _, _ := strings.Cut(line, ",")
	count, _ := strconv.Atoi(number)
	return count
}

func TestACallerWhoGoesAwayTakesNoPlace(t *testing.T) {
	client, _ := redistest.Start(t)
	// Longer than the test holds Redis up: no call ends by itself.
	patient := redis.NewClient(&redis.Options{
		Addr: client.Options().Addr, ReadTimeout: time.Minute, PoolSize: 64, MaxRetries: -1,
	})
	defer patient.Close()
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(patient, time.Hour, 1500)
	if limited, err := l.Limit(t.Context(), "a"); limited || err != nil {
		t.Fatal(limited, err)
	}
	before := calls(t, client, "evalsha")
	if err := client.Do(t.Context(), "CLIENT", "PAUSE", 60_000, "WRITE").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var callers sync.WaitGroup
	for range 40 {
		callers.Go(func() {
			if limited, err := l.Limit(ctx, "a"); !limited || !errors.Is(err, context.Canceled) {
				t.Error(limited, err)
			}
		})
	}
	within(t, "all have asked", func() bool {
		return strings.Count(client.ClientList(t.Context()).Val(), " flags=b ") == 40
	})
	begin := time.Now()
	cancel()
	callers.Wait()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a caller who went away waited %v for Redis", took)
	}
	if err := client.ClientUnpause(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	within(t, "all are granted", func() bool { return calls(t, client, "evalsha") == before+40 })
	comesTo(t, client, "ceiba:limit:key:a:sliding_window/2:1500:3600000000us", 1)
}

// One of go-redis that loses its answers: what it asked was done.
type deaf struct{ redis.Cmdable }

var errDeaf = errors.New("the answer was lost")

func (d deaf) EvalSha(ctx context.Context, hash string, keys []string, args ...any) *redis.Cmd {
	cmd := d.Cmdable.EvalSha(ctx, hash, keys, args...)
	if cmd.Err() == nil {
		cmd.SetErr(errDeaf)
	}
	return cmd
}

func TestThousandsOfLostAnswersAreGivenBackInBoundedRequests(t *testing.T) {
	client, _ := redistest.Start(t)
	const set = "ceiba:limit:key:a:sliding_window/2:5000:3600000000us"
	var hook longest
	client.AddHook(&hook)
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(deaf{client}, time.Hour, 5000)
	// From here on Redis knows the script.
	if _, err := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Hour, 1).Limit(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	hook.hold.Lock()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range 200 {
				// With a context that cannot end the caller asks by himself.
				if _, err := l.Limit(context.Background(), "a"); !errors.Is(err, errDeaf) {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if count := client.ZCard(t.Context(), set).Val(); count != 4000 {
		t.Errorf("only %d were granted", count)
	}
	hook.hold.Unlock()
	comesTo(t, client, set, 0)
	if most := hook.most.Load(); most > 600 {
		t.Errorf("up to %d words in one request", most)
	}
	// The first ones may go before the others are there.
	if requests := hook.requests.Load(); requests < 8 || requests > 9 {
		t.Errorf("%d requests for 4000 grants", requests)
	}
}

// Holds up what is given back, and counts it and its words.
type longest struct {
	hold           sync.Mutex
	most, requests atomic.Int64
}

func (l *longest) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *longest) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *longest) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "zrem" {
			l.hold.Lock()
			l.requests.Add(1)
			l.most.Store(max(l.most.Load(), int64(len(cmd.Args()))))
			l.hold.Unlock()
			// The context of one that was held up has ended.
			ctx = context.WithoutCancel(ctx)
		}
		return next(ctx, cmd)
	}
}

func TestACallThatIsSentAgainCountsOnce(t *testing.T) {
	client, _ := redistest.Start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var armed atomic.Bool
	var cuts atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go cutting(conn, client.Options().Addr, &armed, &cuts)
		}
	}()
	through := redis.NewClient(&redis.Options{Addr: listener.Addr().String()})
	defer through.Close()
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(through, time.Hour, 10)
	for round := range 10 {
		armed.Store(round > 0)
		if limited, err := l.Limit(t.Context(), "a"); limited || err != nil {
			t.Fatal(round, limited, err)
		}
		if cuts.Load() != int64(round) {
			t.Fatal("nothing was cut")
		}
		comesTo(t, client, "ceiba:limit:key:a:sliding_window/2:10:3600000000us", int64(round+1))
	}
}

// Passes all on; when armed it closes the connection in place of the answer to a script.
func cutting(conn net.Conn, addr string, armed *atomic.Bool, cuts *atomic.Int64) {
	defer conn.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	var cut atomic.Bool
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				_ = server.Close()
				return
			}
			if bytes.Contains(bytes.ToUpper(buffer[:n]), []byte("EVALSHA")) && armed.Swap(false) {
				cut.Store(true)
			}
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 4096)
	for {
		n, err := server.Read(buffer)
		if cut.Load() && err == nil {
			cuts.Add(1)
			return
		}
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}
