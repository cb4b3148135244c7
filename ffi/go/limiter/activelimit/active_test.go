package activelimit

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ceiba/limiter"
	"ceiba/limiter/internal/redistest"
)

var (
	_ limiter.ActiveLimiter = (*LocalActiveLimiter)(nil)
	_ limiter.ActiveLimiter = (*RedisActiveLimiter)(nil)
)

func behaves(t *testing.T, make func(int64) limiter.ActiveLimiter) {
	t.Helper()
	ctx := t.Context()
	l := make(2)
	limits := func(want bool) {
		t.Helper()
		if limited, err := l.Limit(ctx, "a"); limited != want || err != nil {
			t.Fatalf("%t, %v", limited, err)
		}
	}
	ends := func(want error) {
		t.Helper()
		if err := l.Decr(ctx, "a"); !errors.Is(err, want) {
			t.Fatalf("%v", err)
		}
	}
	ends(ErrNotActive)
	limits(false)
	limits(false)
	// Refusals count nothing, however many there are.
	limits(true)
	limits(true)
	ends(nil)
	limits(false)
	limits(true)
	ends(nil)
	ends(nil)
	ends(ErrNotActive)
	limits(false)
	ends(nil)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if limited, err := l.Limit(ended, "a"); !limited || err == nil {
		t.Fatal(limited, err)
	}
	ends(ErrNotActive)

	var now, most, begun atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				limited, err := l.Limit(ctx, "b")
				if err != nil {
					t.Error(err)
					return
				}
				if limited {
					continue
				}
				active := now.Add(1)
				begun.Add(1)
				for seen := most.Load(); active > seen && !most.CompareAndSwap(seen, active); seen = most.Load() {
				}
				now.Add(-1)
				if err := l.Decr(ctx, "b"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 2 || begun.Load() == 0 {
		t.Errorf("%d at once, %d in all", most.Load(), begun.Load())
	}
}

func TestLocal(t *testing.T) {
	behaves(t, func(most int64) limiter.ActiveLimiter { return NewLocalActiveLimiter(most) })
}

func TestRedis(t *testing.T) {
	client, _ := redistest.Start(t)
	behaves(t, func(most int64) limiter.ActiveLimiter { return NewRedisActiveLimiter(client, most) })
}

func TestLeasesAreKeptAndThoseOfTheDeadEnd(t *testing.T) {
	client, _ := redistest.Start(t)
	const lease = 300 * time.Millisecond
	ctx := t.Context()
	alive, other := newLimiter(client, 1, lease), newLimiter(client, 1, lease)
	if limited, err := alive.Limit(ctx, "a"); limited || err != nil {
		t.Fatal(limited, err)
	}
	// A process that died with a request under way: nobody renews it.
	if taken, err := alive.acquire(ctx, "b", "nobody", 0); taken != 1 || err != nil {
		t.Fatal(taken, err)
	}
	for begin := time.Now(); time.Since(begin) < 4*lease; time.Sleep(20 * time.Millisecond) {
		if limited, err := other.Limit(ctx, "a"); !limited || err != nil {
			t.Fatal("a lease was lost", limited, err)
		}
	}
	if limited, err := other.Limit(ctx, "b"); limited || err != nil {
		t.Fatal("a lease outlived its process", limited, err)
	}
	if err := alive.Decr(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if limited, err := other.Limit(ctx, "a"); limited || err != nil {
		t.Fatal("a slot was not given back", limited, err)
	}
	for _, err := range []error{other.Decr(ctx, "a"), other.Decr(ctx, "b")} {
		if err != nil {
			t.Error(err)
		}
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		other.mu.Lock()
		renewing := other.renewing
		other.mu.Unlock()
		if !renewing {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("it renews nothing for ever")
		}
	}
}

func TestARedisThatForgotItsScriptsIsTaughtAgain(t *testing.T) {
	client, _ := redistest.Start(t)
	const lease = 300 * time.Millisecond
	l := newLimiter(client, 10, lease)
	for range 5 {
		if limited, err := l.Limit(t.Context(), "a"); limited || err != nil {
			t.Fatal(limited, err)
		}
	}
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 4*lease; time.Sleep(20 * time.Millisecond) {
		if count := client.ZCard(t.Context(), l.name("a")).Val(); count != 5 {
			t.Fatalf("%d of 5 leases are left", count)
		}
	}
	for range 5 {
		if err := l.Decr(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
}

func TestAnEndThatRedisDidNotHearIsToldLater(t *testing.T) {
	client, _ := redistest.Start(t)
	l := NewRedisActiveLimiter(client, 1)
	if limited, err := l.Limit(t.Context(), "a"); limited || err != nil {
		t.Fatal(limited, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Decr(ended, "a"); err == nil {
		t.Fatal("told though the caller was gone")
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		limited, err := l.Limit(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if !limited {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the slot is lost")
		}
	}
	_ = l.Decr(t.Context(), "a")
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("taken")
		}
	}()
	NewLocalActiveLimiter(0)
}

func TestTheCodeIsTheLibrarys(t *testing.T) {
	library, err := os.ReadFile("../../../../core/src/strategy/rate_limit/store/acquire.lua")
	if err != nil {
		t.Fatal(err)
	}
	if code != string(library) {
		t.Error("the two count differently: they share keys")
	}
}
