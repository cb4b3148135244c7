package ratelimit_test

import (
	"context"
	"errors"
	"testing"

	"ceiba/comm"
	"ceiba/comm/ratelimit"
)

type limiter struct {
	limited bool
	err     error
	asked   []string
}

func (l *limiter) Limit(_ context.Context, key string) (bool, error) {
	l.asked = append(l.asked, key)
	return l.limited, l.err
}

type active struct {
	limiter
	back int
}

func (a *active) Decr(ctx context.Context, _ string) error {
	a.back++
	return ctx.Err()
}

func TestTheLimiterDecides(t *testing.T) {
	broken := errors.New("no connection")
	for _, c := range []struct {
		limiter limiter
		want    error
		sends   int
	}{
		{limiter{}, nil, 1},
		{limiter{limited: true}, ratelimit.ErrLimited, 0},
		{limiter{err: broken}, broken, 0},
		{limiter{limited: true, err: broken}, broken, 0},
	} {
		sends := 0
		sender := comm.SenderFunc[int](func(context.Context, string, int, ...string) error { sends++; return nil })
		err := ratelimit.NewService[int](sender, "email", &c.limiter).Send(t.Context(), "", 1)
		if !errors.Is(err, c.want) || sends != c.sends || c.limiter.asked[0] != "email" {
			t.Errorf("%+v: %v, %d sends", c.limiter, err, sends)
		}
	}
}

func TestALimiterThatFailsIsTold(t *testing.T) {
	for _, broken := range []error{errors.New("no connection"), context.DeadlineExceeded} {
		sends := 0
		sender := comm.SenderFunc[int](func(context.Context, string, int, ...string) error { sends++; return nil })
		err := ratelimit.NewService[int](sender, "email", &limiter{limited: true, err: broken}).Send(t.Context(), "", 1)
		var failed *ratelimit.LimiterError
		if !errors.As(err, &failed) || failed.Key != "email" || failed.Err != broken || sends != 0 {
			t.Errorf("%v, %d sends", err, sends)
		}
		if !errors.Is(err, ratelimit.ErrLimiterFailed) || !errors.Is(err, broken) || errors.Is(err, ratelimit.ErrLimited) {
			t.Error(err)
		}
		if want := "ratelimit: the limiter failed: " + broken.Error(); err.Error() != want {
			t.Error(err)
		}
	}
	limited := ratelimit.NewService[int](nil, "email", &limiter{limited: true}).Send(t.Context(), "", 1)
	if errors.Is(limited, ratelimit.ErrLimiterFailed) {
		t.Error(limited)
	}
}

func TestAPlaceComesBackAlsoWhenTheCallerIsGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	places := &active{}
	sender := comm.SenderFunc[int](func(context.Context, string, int, ...string) error {
		cancel()
		return ctx.Err()
	})
	_ = ratelimit.NewService[int](sender, "email", places).Send(ctx, "", 1)
	places.limited = true
	_ = ratelimit.NewService[int](sender, "email", places).Send(t.Context(), "", 1)
	if places.back != 1 {
		t.Errorf("%d places came back of 1 that was taken", places.back)
	}
}
