package retryable_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ceiba/comm"
	"ceiba/comm/retryable"
)

type args struct{ Subject string }

// script returns one error after the other, then none.
type script struct {
	errs  []error
	takes time.Duration
	at    []time.Duration
	began time.Time
}

func (s *script) Send(ctx context.Context, _ string, _ args, _ ...string) error {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.at = append(s.at, time.Since(s.began))
	time.Sleep(s.takes)
	if len(s.errs) == 0 {
		return nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return err
}

func failures(n int) (errs []error) {
	for i := range n {
		errs = append(errs, fmt.Errorf("failure %d", i+1))
	}
	return errs
}

func TestAttempts(t *testing.T) {
	for _, c := range []struct {
		name      string
		fails     []error
		most      int
		sends     int
		goesWell  bool
		permanent bool
	}{
		{name: "at once", most: 3, sends: 1, goesWell: true},
		{name: "at the last", fails: failures(2), most: 3, sends: 3, goesWell: true},
		{name: "all fail", fails: failures(9), most: 3, sends: 3},
		{name: "one attempt", fails: failures(9), most: 1, sends: 1},
		{name: "no retry can help", fails: []error{comm.Permanent(errors.New("bad number"))}, most: 3, sends: 1},
	} {
		for _, interval := range []func() time.Duration{nil, func() time.Duration { return time.Millisecond }} {
			sender := &script{errs: c.fails}
			var svc comm.Sender[args] = retryable.NewService[args](sender, c.most)
			if interval != nil {
				svc = retryable.NewIntervalService[args](sender, c.most, interval)
			}
			err := svc.Send(t.Context(), "biz", args{}, "a@example.com")
			if (err == nil) != c.goesWell || len(sender.at) != c.sends {
				t.Errorf("%s: %d sends, %v", c.name, len(sender.at), err)
			}
		}
	}
}

func TestTheErrorHoldsEveryAttempt(t *testing.T) {
	errs := failures(3)
	err := retryable.NewService[args](&script{errs: errs}, 3).Send(t.Context(), "", args{})
	for _, one := range errs {
		if !errors.Is(err, one) {
			t.Errorf("%v is not in %v", one, err)
		}
	}
	var failed *retryable.Error
	if !errors.As(err, &failed) || len(failed.Attempts) != 3 {
		t.Errorf("%#v", err)
	}
}

func TestNoAttemptsAreAnErrorThatSaysSo(t *testing.T) {
	for _, most := range []int{0, -1} {
		sender := &script{}
		err := retryable.NewService[args](sender, most).Send(t.Context(), "", args{})
		if !errors.Is(err, retryable.ErrNoAttempts) || len(sender.at) != 0 {
			t.Errorf("%d: %v, %d sends", most, err, len(sender.at))
		}
	}
}

func TestTheWaitStartsAfterTheFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender := &script{errs: failures(2), takes: 400 * time.Millisecond}
		svc := retryable.NewIntervalService[args](sender, 3, func() time.Duration { return time.Second })
		if err := svc.Send(t.Context(), "", args{}); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(sender.at); got != "[0s 1.4s 2.8s]" {
			t.Error(got)
		}
	})
}

func TestCancelledBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sender := &script{errs: failures(9)}
		svc := retryable.NewIntervalService[args](sender, 9, func() time.Duration { return 4 * time.Second })
		time.AfterFunc(5*time.Second, cancel)
		err := svc.Send(ctx, "", args{})
		if !errors.Is(err, context.Canceled) || len(sender.at) != 2 {
			t.Errorf("%v after %d sends", err, len(sender.at))
		}
	})
}

func TestAWaitPastTheDeadlineIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		sender := &script{errs: failures(9)}
		err := retryable.NewIntervalService[args](sender, 9, func() time.Duration { return 4 * time.Second }).Send(ctx, "", args{})
		// It is no timeout of the sender: a failover outside goes on.
		if !errors.Is(err, retryable.ErrNoTime) || errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 8*time.Second || len(sender.at) != 3 {
			t.Errorf("%v after %v and %d sends", err, time.Since(start), len(sender.at))
		}
	})
}

func ExampleNewService() {
	sender := comm.SenderFunc[args](func(context.Context, string, args, ...string) error { return errors.New("busy") })
	svc := retryable.NewService[args](sender, 3)
	fmt.Println(svc.Send(context.Background(), "", args{}, "foo@example.com"))
	// Output: all 3 attempts failed; last: busy
}

func BenchmarkService(b *testing.B) {
	sender := comm.SenderFunc[args](func(context.Context, string, args, ...string) error { return nil })
	svc := retryable.NewService[args](sender, 3)
	for b.Loop() {
		_ = svc.Send(b.Context(), "", args{}, "a")
	}
}
