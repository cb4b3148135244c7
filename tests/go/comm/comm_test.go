// Package comm is a program that was written for go-comm, after a change of its imports: every strategy that its
// documentation shows, with a limiter over a real Redis.
package comm

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ceiba/comm"
	"ceiba/comm/failover"
	"ceiba/comm/ratelimit"
	"ceiba/comm/retryable"
	ratelimiter "ceiba/limiter/ratelimit"
)

type mail struct {
	From, Subject, Body string
	IsHTML              bool
}

// gateway answers with its errors in turn, the last one again and again.
type gateway[T any] struct {
	errs  []error
	sends int
	to    []string
}

func (g *gateway[T]) Send(_ context.Context, _ string, _ T, to ...string) error {
	g.sends++
	g.to = to
	if len(g.errs) == 0 {
		return nil
	}
	return g.errs[min(g.sends, len(g.errs))-1]
}

func TestRetry(t *testing.T) {
	down := &gateway[mail]{errs: []error{errors.New("down")}}
	svc := retryable.NewService[mail](down, 3)
	if err := svc.Send(context.Background(), "", mail{}, "foo@example.com"); err == nil || down.sends != 3 {
		t.Error(err, down.sends)
	}
	once := &gateway[mail]{errs: []error{errors.New("once"), nil}}
	interval := retryable.NewIntervalService[mail](once, 3, func() time.Duration {
		return time.Duration(10+rand.Intn(6)) * time.Millisecond
	})
	begin := time.Now()
	if err := interval.Send(context.Background(), "", mail{}, "foo@example.com"); err != nil || once.sends != 2 {
		t.Error(err, once.sends)
	}
	if took := time.Since(begin); took < 10*time.Millisecond {
		t.Error(took)
	}
}

func TestRateLimit(t *testing.T) {
	limiter := ratelimiter.NewRedisSlidingWindowLimiter(server(t), time.Minute, 1)
	ok := &gateway[mail]{}
	sender := ratelimit.NewService[mail](ok, "email", limiter)
	if err := sender.Send(context.Background(), "", mail{}, ""); err != nil {
		t.Fatal(err)
	}
	if err := sender.Send(context.Background(), "", mail{}, ""); !errors.Is(err, ratelimit.ErrLimited) || ok.sends != 1 {
		t.Error(err, ok.sends)
	}
}

func TestALimiterWhoseRedisIsAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	away := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer away.Close()
	ok := &gateway[mail]{}
	sender := ratelimit.NewService[mail](ok, "email", ratelimiter.NewRedisSlidingWindowLimiter(away, time.Minute, 1))
	err = sender.Send(context.Background(), "", mail{}, "")
	var failed *ratelimit.LimiterError
	var network *net.OpError
	if !errors.Is(err, ratelimit.ErrLimiterFailed) || !errors.As(err, &failed) || !errors.As(err, &network) || ok.sends != 0 {
		t.Error(err, ok.sends)
	}
}

func TestFailover(t *testing.T) {
	down := func(name string) *gateway[mail] { return &gateway[mail]{errs: []error{errors.New(name)}} }
	sender := failover.NewService[mail]([]comm.Sender[mail]{down("first"), down("second")})
	err := sender.Send(context.Background(), "", mail{}, "")
	if !errors.Is(err, failover.ErrAllServiceFailed) {
		t.Error(err)
	}
	ok := &gateway[mail]{}
	sender = failover.NewService[mail]([]comm.Sender[mail]{down("first"), ok})
	if err := sender.Send(context.Background(), "", mail{}, ""); err != nil || sender.GetCurrentServiceIndex() != 1 {
		t.Error(err, sender.GetCurrentServiceIndex())
	}
	sender.SetCurrentServiceIndex(0)
	if sender.GetCurrentServiceIndex() != 0 {
		t.Error("the index was not set")
	}
}

func TestTimeoutFailover(t *testing.T) {
	back := make(chan struct{})
	hook := failover.WithSetIdxFunc[mail](func(ctx context.Context, idx *int32) {
		timer := time.NewTimer(10 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			atomic.StoreInt32(idx, 0)
			close(back)
		}
	})
	late := &gateway[mail]{errs: []error{fmt.Errorf("late: %w", context.DeadlineExceeded)}}
	sender := failover.NewTimeoutService[mail]([]comm.Sender[mail]{late, &gateway[mail]{}}, 3, hook)
	for range 3 {
		if err := sender.Send(context.Background(), "", mail{}, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if err := sender.Send(context.Background(), "", mail{}, ""); err != nil || late.sends != 3 {
		t.Error(err, late.sends)
	}
	<-back
	for begin := time.Now(); sender.GetCurrentServiceIndex() != 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("it did not go back to the first")
		}
	}
}

// All of them nested, as they are meant to be.
func TestNested(t *testing.T) {
	flaky := &gateway[mail]{errs: []error{errors.New("down"), nil}}
	limiter := ratelimiter.NewRedisSlidingWindowLimiter(server(t), time.Minute, 10)
	var sender comm.Sender[mail] = failover.NewService[mail]([]comm.Sender[mail]{
		retryable.NewService[mail](ratelimit.NewService[mail](flaky, "email", limiter), 3),
	})
	if err := sender.Send(context.Background(), "welcome", mail{}, "a@example.com", "b@example.com"); err != nil {
		t.Fatal(err)
	}
	if flaky.sends != 2 || len(flaky.to) != 2 {
		t.Error(flaky.sends, flaky.to)
	}
}

// server runs a Redis of the test's own.
func server(t *testing.T) *redis.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	_ = listener.Close()
	process := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(addr.Port), "--save", "", "--dir", t.TempDir())
	if err := process.Start(); err != nil {
		t.Fatalf("redis-server is needed for this test: %v", err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	client := redis.NewClient(&redis.Options{Addr: addr.String()})
	t.Cleanup(func() { _ = client.Close() })
	for range 400 {
		if client.Ping(t.Context()).Err() == nil {
			return client
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("redis-server did not start")
	return nil
}
