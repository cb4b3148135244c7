package failover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ceiba/comm"
	"ceiba/comm/failover"
)

type provider struct {
	err   atomic.Pointer[error]
	takes time.Duration
	sends atomic.Int32
}

func (p *provider) Send(context.Context, string, int, ...string) error {
	p.sends.Add(1)
	time.Sleep(p.takes)
	if err := p.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *provider) fails(err error) *provider {
	p.err.Store(&err)
	return p
}

func all(providers ...*provider) (svcs []comm.Sender[int]) {
	for _, p := range providers {
		svcs = append(svcs, p)
	}
	return svcs
}

func quiet() failover.Option[int] { return failover.WithLogger[int](slog.New(slog.DiscardHandler)) }

func TestFromTheLastGoodOneOn(t *testing.T) {
	one, two, three := new(provider).fails(errors.New("down")), &provider{}, &provider{}
	svc := failover.NewService(all(one, two, three), quiet())
	for range 5 {
		if err := svc.Send(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
	}
	if one.sends.Load() != 1 || two.sends.Load() != 5 || svc.GetCurrentServiceIndex() != 1 {
		t.Error(one.sends.Load(), two.sends.Load(), svc.GetCurrentServiceIndex())
	}
}

func TestTheErrorOfAllHoldsEach(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	svc := failover.NewService(all(new(provider).fails(first), new(provider).fails(second)), quiet())
	err := svc.Send(t.Context(), "", 0)
	for _, want := range []error{failover.ErrAllServiceFailed, first, second} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not in %v", want, err)
		}
	}
	if svc.GetCurrentServiceIndex() != 0 {
		t.Error("it has gone round once")
	}
}

func TestContextErrorsReturnAtOnce(t *testing.T) {
	for _, ended := range []error{context.DeadlineExceeded, context.Canceled} {
		two := &provider{}
		svc := failover.NewService(all(new(provider).fails(fmt.Errorf("gave up: %w", ended)), two), quiet())
		if err := svc.Send(t.Context(), "", 0); !errors.Is(err, ended) || two.sends.Load() != 0 {
			t.Error(err, two.sends.Load())
		}
		// A provider that takes too long is left; a caller that cancels says nothing of the provider.
		want := map[error]uint32{context.DeadlineExceeded: 1, context.Canceled: 0}[ended]
		if at := svc.GetCurrentServiceIndex(); at != want {
			t.Errorf("%v: the index is %d", ended, at)
		}
	}
}

func TestManyFailuresAtOnceMoveOnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := (&provider{takes: time.Second}).fails(errors.New("down"))
		two, three := &provider{}, &provider{}
		svc := failover.NewService(all(one, two, three), quiet())
		var sends sync.WaitGroup
		for range 100 {
			sends.Go(func() {
				if err := svc.Send(t.Context(), "", 0); err != nil {
					t.Error(err)
				}
			})
		}
		sends.Wait()
		if svc.GetCurrentServiceIndex() != 1 || three.sends.Load() != 0 {
			t.Error(svc.GetCurrentServiceIndex(), three.sends.Load())
		}
	})
}

func TestTheIndexStaysInRange(t *testing.T) {
	down := errors.New("down")
	svc := failover.NewService(all(new(provider).fails(down), new(provider).fails(down), new(provider).fails(down)), quiet())
	for range 1000 {
		_ = svc.Send(t.Context(), "", 0)
		if svc.GetCurrentServiceIndex() > 2 {
			t.Fatal(svc.GetCurrentServiceIndex())
		}
	}
	for set, want := range map[uint32]uint32{0: 0, 2: 2, 3: 0, 1 << 31: 0} {
		svc.SetCurrentServiceIndex(set)
		if got := svc.GetCurrentServiceIndex(); got != want {
			t.Errorf("set %d, got %d", set, got)
		}
	}
}

func TestWithoutProviders(t *testing.T) {
	if err := failover.NewService[int](nil).Send(t.Context(), "", 0); !errors.Is(err, failover.ErrNoServices) {
		t.Error(err)
	}
	if err := failover.NewTimeoutService[int](nil, 3).Send(t.Context(), "", 0); !errors.Is(err, failover.ErrNoServices) {
		t.Error(err)
	}
}

func TestTimeoutsInARowMoveOn(t *testing.T) {
	late, down := context.DeadlineExceeded, errors.New("down")
	for _, c := range []struct {
		name  string
		ends  []error
		moved bool
	}{
		{"three", []error{late, late, late}, true},
		{"two", []error{late, late}, false},
		{"a success between", []error{late, late, nil, late}, false},
		{"another error between", []error{late, down, late, down, late}, true},
		{"other errors", []error{down, down, down, down}, false},
	} {
		one, two := &provider{}, &provider{}
		svc := failover.NewTimeoutService(all(one, two), 3)
		for _, end := range c.ends {
			one.err.Store(nil)
			if end != nil {
				one.fails(end)
			}
			if err := svc.Send(t.Context(), "", 0); !errors.Is(err, end) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		one.err.Store(nil)
		_ = svc.Send(t.Context(), "", 0)
		if moved := two.sends.Load() == 1; moved != c.moved {
			t.Errorf("%s: %d sends at the second", c.name, two.sends.Load())
		}
	}
}

func TestAfterASwitchTheHookMayGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := new(provider).fails(context.DeadlineExceeded), &provider{}
		svc := failover.NewTimeoutService(all(one, two), 2,
			failover.WithSetIdxFunc[int](func(_ context.Context, idx *atomic.Uint32) {
				time.Sleep(30 * time.Minute)
				idx.Store(0)
			}))
		for range 2 {
			_ = svc.Send(t.Context(), "", 0)
		}
		one.err.Store(nil)
		for range 3 {
			_ = svc.Send(t.Context(), "", 0)
		}
		if svc.GetCurrentServiceIndex() != 1 || two.sends.Load() != 3 {
			t.Error(svc.GetCurrentServiceIndex(), two.sends.Load())
		}
		time.Sleep(31 * time.Minute)
		_ = svc.Send(t.Context(), "", 0)
		if svc.GetCurrentServiceIndex() != 0 || one.sends.Load() != 3 {
			t.Error(svc.GetCurrentServiceIndex(), one.sends.Load())
		}
	})
}

func TestARowCountsForItsProviderAlone(t *testing.T) {
	one, two, three := new(provider).fails(context.DeadlineExceeded), &provider{}, &provider{}
	svc := failover.NewTimeoutService(all(one, two, three), 2)
	for range 2 {
		_ = svc.Send(t.Context(), "", 0)
	}
	svc.SetCurrentServiceIndex(1)
	if err := svc.Send(t.Context(), "", 0); err != nil || svc.GetCurrentServiceIndex() != 1 || two.sends.Load() != 1 {
		t.Error(err, svc.GetCurrentServiceIndex())
	}
}

func TestTheHookOfEarlierVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := new(provider).fails(context.DeadlineExceeded)
		svc := failover.NewTimeoutService(all(one, &provider{}), 1,
			failover.WithSetIdxFunc[int](func(_ context.Context, idx *int32) {
				time.Sleep(time.Minute)
				atomic.StoreInt32(idx, 0)
			}))
		_ = svc.Send(t.Context(), "", 0)
		_ = svc.Send(t.Context(), "", 0)
		if at := svc.GetCurrentServiceIndex(); at != 1 {
			t.Error(at)
		}
		time.Sleep(2 * time.Minute)
		if at := svc.GetCurrentServiceIndex(); at != 0 {
			t.Error(at)
		}
	})
}

func TestWhatARetryMayHelp(t *testing.T) {
	busy, never := errors.New("busy"), comm.Permanent(errors.New("never"))
	for _, c := range []struct {
		errs []error
		want bool
	}{{[]error{never, busy}, true}, {[]error{busy, never}, true}, {[]error{never, never}, false}} {
		if err := error(&failover.AllFailedError{Errors: c.errs}); comm.CanRetry(err) != c.want {
			t.Error(c)
		}
	}
}

func TestManyTimeoutsAtOnceMoveOnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := (&provider{takes: time.Second}).fails(context.DeadlineExceeded)
		two, three := &provider{}, &provider{}
		switches := atomic.Int32{}
		svc := failover.NewTimeoutService(all(one, two, three), 3,
			failover.WithSetIdxFunc[int](func(context.Context, *atomic.Uint32) { switches.Add(1) }))
		var sends sync.WaitGroup
		for range 100 {
			sends.Go(func() { _ = svc.Send(t.Context(), "", 0) })
		}
		sends.Wait()
		for range 10 {
			sends.Go(func() { _ = svc.Send(t.Context(), "", 0) })
		}
		sends.Wait()
		synctest.Wait()
		if svc.GetCurrentServiceIndex() != 1 || switches.Load() != 1 {
			t.Error(svc.GetCurrentServiceIndex(), switches.Load())
		}
	})
}

func BenchmarkService(b *testing.B) {
	down := errors.New("down")
	for _, failures := range []int{0, 3} {
		b.Run(fmt.Sprintf("failures=%d", failures), func(b *testing.B) {
			var providers []*provider
			for range failures {
				providers = append(providers, new(provider).fails(down))
			}
			svc := failover.NewService(all(append(providers, &provider{})...), quiet())
			for b.Loop() {
				svc.SetCurrentServiceIndex(0)
				_ = svc.Send(b.Context(), "", 0)
			}
		})
	}
}
