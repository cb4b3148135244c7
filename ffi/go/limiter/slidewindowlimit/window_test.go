package slidewindowlimit_test

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ceiba/limiter/internal/redistest"
	"ceiba/limiter/slidewindowlimit"
)

func TestNoSpanHasMoreThanTheRate(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 9))
	now := time.Unix(1000, 0)
	l := slidewindowlimit.NewLocalSlideWindowLimiter(time.Second, 5,
		slidewindowlimit.WithTimeFunc(func() time.Time { return now }))
	var granted []time.Time
	refused := 0
	for range 1_000_000 {
		now = now.Add(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
		limited, err := l.Limit(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if limited {
			refused++
			if first := granted[max(0, len(granted)-5)]; now.Sub(first) >= time.Second {
				t.Fatalf("refused at %v though the window had room", now)
			}
			continue
		}
		granted = append(granted, now)
		if n := len(granted); n > 5 && now.Sub(granted[n-6]) < time.Second {
			t.Fatalf("six in %v", now.Sub(granted[n-6]))
		}
	}
	if refused == 0 || len(granted) == 0 {
		t.Fatal("nothing was tried")
	}
}

func TestAContextThatEndedTakesNoPlace(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	l := slidewindowlimit.NewLocalSlideWindowLimiter(time.Hour, 1)
	if limited, err := l.Limit(ended, ""); !limited || err == nil {
		t.Fatal(limited, err)
	}
	if limited, err := l.Limit(t.Context(), ""); limited || err != nil {
		t.Fatal(limited, err)
	}
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	for _, make := range []func(){
		func() { slidewindowlimit.NewLocalSlideWindowLimiter(time.Second, 0) },
		func() { slidewindowlimit.NewLocalSlideWindowLimiter(0, 1) },
		func() { slidewindowlimit.NewRedisSlidingWindowLimiter(nil, time.Second, -1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("taken")
				}
			}()
			make()
		}()
	}
}

func TestOneKeyOfManyLimitersIsOneWindow(t *testing.T) {
	client, _ := redistest.Start(t)
	var granted atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range 4 {
		l := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Minute, 100)
		for range 4 {
			wg.Go(func() {
				for range 300 {
					limited, err := l.Limit(t.Context(), "a")
					if err != nil {
						t.Error(err)
						return
					}
					if !limited {
						granted.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	if took := time.Since(begin); took < time.Minute && granted.Load() != 100 {
		t.Errorf("%d of 4800 were let through in %v, not 100", granted.Load(), took)
	}
	other := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Minute, 100)
	if limited, err := other.Limit(t.Context(), "b"); limited || err != nil {
		t.Error("another key is limited too:", err)
	}
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	// What a config with this key, rate and period counts too.
	if client.Exists(t.Context(), "ceiba:limit:key:a:sliding_window/2:100:60000000us").Val() != 1 {
		t.Error(keys)
	}
}

func TestTheWindowMovesOn(t *testing.T) {
	client, _ := redistest.Start(t)
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(client, 300*time.Millisecond, 2)
	var granted []time.Time
	for len(granted) < 6 {
		before := time.Now()
		limited, err := l.Limit(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if !limited {
			granted = append(granted, before)
		}
		time.Sleep(time.Millisecond)
	}
	// The server decides between these moments and the ends of the calls.
	for i := 2; i < len(granted); i++ {
		if gap := granted[i].Sub(granted[i-2]); gap < 250*time.Millisecond {
			t.Errorf("three in %v", gap)
		}
	}
}

func TestARedisThatIsAwayIsAnError(t *testing.T) {
	client, server := redistest.Start(t)
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Second, 2)
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if limited, err := l.Limit(ctx, "a"); !limited || err == nil {
		t.Error(limited, err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	_ = server.Process.Signal(syscall.SIGCONT)
	if limited, err := l.Limit(t.Context(), "b"); limited || err != nil {
		t.Error("it came back:", limited, err)
	}
}

func TestTheCodeIsTheLibrarys(t *testing.T) {
	ours, err := os.ReadFile("sliding_window.lua")
	if err != nil {
		t.Fatal(err)
	}
	library, err := os.ReadFile("../../../../core/src/strategy/rate_limit/store/sliding_window.lua")
	if err != nil {
		t.Fatal(err)
	}
	if string(ours) != string(library) {
		t.Error("the two count differently: they share keys")
	}
}

func BenchmarkLocal(b *testing.B) {
	l := slidewindowlimit.NewLocalSlideWindowLimiter(time.Nanosecond*1000, 1<<20)
	for b.Loop() {
		_, _ = l.Limit(b.Context(), "a")
	}
}

func BenchmarkRedis(b *testing.B) {
	client, _ := redistest.Start(b)
	l := slidewindowlimit.NewRedisSlidingWindowLimiter(client, time.Second, 1000)
	for b.Loop() {
		if _, err := l.Limit(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}
