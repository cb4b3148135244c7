package ceiba

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ceiba/comm"
	"ceiba/comm/failover"
	"ceiba/comm/ratelimit"
	"ceiba/comm/retryable"
)

func TestWhatASendersErrorTells(t *testing.T) {
	throttled := &Error{Kind: ErrThrottled, Retryable: true, RetryAfter: time.Second, Message: "slow"}
	lost := &Error{Kind: ErrUnavailable, Outcome: Unknown, Retryable: true, Message: "gone"}
	plain := errors.New("busy")
	for _, c := range []struct {
		name      string
		err       error
		kind      Kind
		outcome   Outcome
		retryable bool
	}{
		{"plain", plain, ErrUnavailable, Unknown, true},
		{"an *Error", throttled, ErrThrottled, NotSent, true},
		{"an *Error that no retry helps", &Error{Kind: ErrUnavailable}, ErrUnavailable, NotSent, false},
		{"a permanent *Error", comm.Permanent(lost), ErrUnavailable, Unknown, false},
		{"permanent", comm.Permanent(plain), ErrInvalidArgument, NotSent, false},
		{"permanent, wrapped", fmt.Errorf("sms: %w", comm.Permanent(plain)), ErrInvalidArgument, NotSent, false},
		{"one attempt is unknown", &retryable.Error{Attempts: []error{throttled, lost}}, ErrThrottled, Unknown, true},
		{"one attempt is plain", &retryable.Error{Attempts: []error{throttled, plain}}, ErrThrottled, Unknown, true},
		{"the last is permanent, the first is plain", &retryable.Error{Attempts: []error{plain, comm.Permanent(plain)}}, ErrInvalidArgument, Unknown, false},
		{"no attempt was sent", &retryable.Error{Attempts: []error{throttled, throttled}, Ended: context.Canceled}, ErrThrottled, NotSent, true},
		{"joined", errors.Join(throttled, lost), ErrThrottled, Unknown, true},
		{"joined and wrapped", fmt.Errorf("sms: %w", errors.Join(throttled, throttled)), ErrThrottled, NotSent, true},
		{"a failover's", &failover.AllFailedError{Errors: []error{throttled, ratelimit.ErrLimited}}, ErrThrottled, NotSent, true},
		{"a failover's, one unknown", &failover.AllFailedError{Errors: []error{ratelimit.ErrLimited, plain}}, ErrUnavailable, Unknown, true},
		{"a limiter that failed", &ratelimit.LimiterError{Key: "a", Err: plain}, ErrUnavailable, NotSent, true},
		{"a limiter at the deadline", &ratelimit.LimiterError{Key: "a", Err: context.DeadlineExceeded}, ErrTimeout, NotSent, true},
		{"limited", ratelimit.ErrLimited, ErrLimited, NotSent, true},
		{"no providers", failover.ErrNoServices, ErrInvalidConfig, NotSent, false},
		{"no attempts", retryable.ErrNoAttempts, ErrInvalidConfig, NotSent, false},
		{"late", context.DeadlineExceeded, ErrTimeout, Unknown, true},
		{"cancelled", fmt.Errorf("sms: %w", context.Canceled), ErrCancelled, Unknown, false},
		{"permanently late", comm.Permanent(context.DeadlineExceeded), ErrTimeout, Unknown, false},
	} {
		told := hostError(c.err)
		if told.Kind != c.kind || told.Outcome != c.outcome || told.Retryable != c.retryable {
			t.Errorf("%s: %+v", c.name, told)
		}
	}
	if told := hostError(throttled); told.Message != "slow" || told.RetryAfter != time.Second {
		t.Errorf("%+v", told)
	}
}

func TestARetryOfTheLibraryKnowsWhatASendersErrorTells(t *testing.T) {
	name := t.Name()
	var failure error
	sends := 0
	err := RegisterHost(name, func(context.Context, *Message) (string, error) {
		sends++
		return "", failure
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	p := openHost(t, name, name, `{"type": "retry", "max_attempts": 3, "backoff": {"type": "none"}, "on_unknown": "stop"}`)
	throttled := &Error{Kind: ErrThrottled, Retryable: true}
	for _, c := range []struct {
		name  string
		err   error
		sends int
	}{
		{"a retry may help", throttled, 3},
		{"not sent", ratelimit.ErrLimited, 3},
		{"no retry helps", comm.Permanent(throttled), 1},
		{"nothing to send through", failover.ErrNoServices, 1},
		{"one attempt is unknown", &retryable.Error{Attempts: []error{throttled, errors.New("busy")}}, 1},
	} {
		failure, sends = c.err, 0
		if _, err := p.Send(t.Context(), []byte("x")); err == nil || sends != c.sends {
			t.Errorf("%s: %d sends, %v", c.name, sends, err)
		}
	}
}
