package bucketlimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ceiba/limiter"
)

var _ limiter.BucketLimiter = (*Bucket)(nil)

func at(b *Bucket, now *time.Time) *Bucket {
	b.now = func() time.Time { return *now }
	return b
}

func TestTokensAreKeptUpToTheCapacityAndComeAtThePace(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		bucket *Bucket
		full   int
	}{
		{at(NewTokenBucketLimiter(time.Second, 3), &now), 3},
		{at(NewLeakyBucketLimiter(time.Second), &now), 1},
	} {
		for range 3 {
			for i := range c.full + 2 {
				limited, err := c.bucket.Limit(t.Context(), "")
				if err != nil || limited != (i >= c.full) {
					t.Fatalf("%d: %t %v", i, limited, err)
				}
			}
			// Idle for long: no more than the capacity.
			now = now.Add(time.Hour)
		}
		for range c.full {
			_, _ = c.bucket.Limit(t.Context(), "")
		}
		now = now.Add(time.Second - 1)
		if limited, _ := c.bucket.Limit(t.Context(), ""); !limited {
			t.Error("early")
		}
		now = now.Add(1)
		if limited, _ := c.bucket.Limit(t.Context(), ""); limited {
			t.Error("late")
		}
	}
}

func TestNoSpanHasMoreThanBurstAndPace(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 5))
	now := time.Unix(1000, 0)
	b := at(NewTokenBucketLimiter(10*time.Millisecond, 4), &now)
	var granted []time.Time
	for range 300_000 {
		now = now.Add(time.Duration(random.Int64N(int64(12 * time.Millisecond))))
		if limited, _ := b.Limit(t.Context(), ""); limited {
			continue
		}
		granted = append(granted, now)
		for back := 5; back < min(20, len(granted)); back++ {
			least := time.Duration(back-4) * 10 * time.Millisecond
			if span := now.Sub(granted[len(granted)-1-back]); span < least {
				t.Fatalf("%d in %v", back+1, span)
			}
		}
	}
}

func TestAWaitEndsWithATokenItsContextOrTheBucket(t *testing.T) {
	b := NewLeakyBucketLimiter(20 * time.Millisecond)
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if limited, err := b.BlockLimit(t.Context(), ""); limited || err != nil {
				t.Error(limited, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took < 60*time.Millisecond {
		t.Errorf("four began within %v", took)
	}

	slow := NewLeakyBucketLimiter(time.Hour)
	_, _ = slow.Limit(t.Context(), "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if limited, err := slow.BlockLimit(ctx, ""); !limited || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(limited, err)
	}
	ended := make(chan error)
	go func() {
		_, err := slow.BlockLimit(context.WithoutCancel(ctx), "")
		ended <- err
	}()
	put := make(chan struct{})
	go func() {
		slow.Put()
		close(put)
	}()
	time.Sleep(10 * time.Millisecond)
	slow.Close()
	slow.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	<-put
	if limited, err := slow.Limit(context.WithoutCancel(ctx), ""); !limited || !errors.Is(err, ErrClosed) {
		t.Error(limited, err)
	}
}

func TestHugeBucketsDoNotOverflow(t *testing.T) {
	b := NewTokenBucketLimiter(24*365*time.Hour, 1<<62)
	for range 100 {
		if limited, err := b.Limit(t.Context(), ""); limited || err != nil {
			t.Fatal(limited, err)
		}
	}
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("taken")
		}
	}()
	NewTokenBucketLimiter(time.Second, 0)
}
