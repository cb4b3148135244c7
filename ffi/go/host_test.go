package ceiba

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ceiba/comm"
)

func openHost(t *testing.T, id, name, strategies string) *Producer {
	t.Helper()
	config := fmt.Sprintf(`{"id": %q, "provider": {"type": "callback", "name": %q}, "strategies": [%s], "deadline": "20s"}`, id, name, strategies)
	p, err := OpenProducer(t.Context(), json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func TestAHostsSenderIsAProvider(t *testing.T) {
	name := t.Name()
	var calls atomic.Int32
	err := RegisterHost(name, func(ctx context.Context, m *Message) (string, error) {
		calls.Add(1)
		switch string(m.Body) {
		case "throttled":
			return "", &Error{Kind: ErrThrottled, Retryable: true, Message: "come back", RetryAfter: 5 * time.Millisecond}
		case "panic":
			panic("in the sender")
		case "never":
			<-ctx.Done()
			return "", ctx.Err()
		}
		return strings.Join(m.Recipients, ","), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	if err := RegisterHost(name, func(context.Context, *Message) (string, error) { return "", nil }); !errors.Is(err, ErrAlreadyOpen) {
		t.Error(err)
	}

	p := openHost(t, name, name, `{"type": "retry", "max_attempts": 3}, {"type": "timeout", "after": "300ms"}`)
	receipt, err := p.SendMessage(t.Context(), Message{Body: []byte("x"), Recipients: []string{"a", "b"}})
	if err != nil || receipt.MessageID != "a,b" || receipt.Provider != "callback" {
		t.Error(receipt, err)
	}
	calls.Store(0)
	if _, err := p.Send(t.Context(), []byte("throttled")); !errors.Is(err, ErrThrottled) || calls.Load() != 3 {
		t.Error(err, calls.Load())
	}
	var failed *Error
	if _, err := p.Send(t.Context(), []byte("panic")); !errors.As(err, &failed) || failed.Kind != ErrInternal || !strings.Contains(failed.Message, "in the sender") {
		t.Error(err)
	}
	if _, err := p.Send(t.Context(), []byte("never")); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
}

type welcome struct{ Name string }

func TestASenderOfPackageCommIsAProvider(t *testing.T) {
	name := t.Name()
	got := make(chan string, 1)
	sender := comm.SenderFunc[welcome](func(_ context.Context, biz string, args welcome, to ...string) error {
		got <- fmt.Sprint(biz, " ", args.Name, " ", to)
		return nil
	})
	if err := RegisterSender(name, sender); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	p := openHost(t, name, name, "")
	if _, err := p.SendMessage(t.Context(), Message{Template: "welcome", Args: welcome{"Ada"}, Recipients: []string{"a@example.com"}}); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "welcome Ada [a@example.com]" {
		t.Error(text)
	}
	if _, err := p.SendMessage(t.Context(), Message{Args: 7}); !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
	for word, message := range map[string]Message{
		"delay":       {Args: welcome{}, Delay: time.Minute},
		"body":        {Args: welcome{}, Body: []byte("x")},
		"key":         {Args: welcome{}, Key: "k"},
		"tag":         {Args: welcome{}, Tag: "t"},
		"attributes":  {Args: welcome{}, Attributes: map[string]string{"a": "b"}},
		"attachments": {Args: welcome{}, Attachments: []Attachment{{Name: "a", Body: []byte("x")}}},
	} {
		var refused *Error
		if _, err := p.SendMessage(t.Context(), message); !errors.As(err, &refused) || refused.Kind != ErrUnsupported ||
			refused.Outcome != NotSent || refused.Retryable || !strings.Contains(refused.Message, word) {
			t.Errorf("%s: %v", word, err)
		}
	}
	if len(got) > 0 {
		t.Error("it was sent all the same:", <-got)
	}
}

func TestTheCurrentMemberIsSetByControl(t *testing.T) {
	members := `{"type": "failover", "members": [{"provider": {"type": "memory", "topic": "go-a"}}, {"provider": {"type": "memory", "topic": "go-b"}}]}`
	p, err := OpenProducer(t.Context(), json.RawMessage(fmt.Sprintf(`{"id": %q, "strategies": [%s]}`, t.Name(), members)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(context.Background())
	state, err := p.Control(map[string]any{"strategy": "failover", "current": 1})
	if err != nil || !strings.Contains(string(state), `"current":1`) {
		t.Error(string(state), err)
	}
	if _, err := p.Control(map[string]any{"strategy": "failover", "current": 9}); !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := p.Control("failover"); !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
	state, err = ProducerControl(t.Name(), map[string]any{"strategy": "failover", "current": 0})
	if err != nil || !strings.Contains(string(state), `"current":0`) {
		t.Error(string(state), err)
	}
	if _, err := ProducerControl("nobody", map[string]any{"strategy": "failover"}); !errors.Is(err, ErrUnknownID) {
		t.Error(err)
	}
}

func TestEveryAttemptMemberAndRecipientIsTold(t *testing.T) {
	name := t.Name()
	failed := 0
	err := RegisterHost(name, func(context.Context, *Message) (string, error) {
		if failed++; failed%2 == 1 {
			return "", fmt.Errorf("attempt %d failed", failed)
		}
		return "", comm.Permanent(errors.New("and for good"))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	p := openHost(t, name, name, `{"type": "retry", "max_attempts": 3, "backoff": {"type": "none"}}`)
	_, err = p.Send(t.Context(), []byte("x"))
	var told *Error
	if !errors.As(err, &told) || len(told.Parts) != 2 || told.Attempts != 2 {
		t.Fatalf("%+v", err)
	}
	for i, part := range told.Parts {
		var why *Error
		if part.Of != OfAttempts || part.Name != fmt.Sprint(i+1) || !errors.As(part.Err, &why) || why.Retryable != (i == 0) {
			t.Errorf("%d: %+v", i, part)
		}
	}
	both := `{"type": "fan_out", "members": [{"provider": {"type": "memory", "topic": "go-c"}}, {"provider": {"type": "memory", "topic": "go-d"}}]}`
	all, err := OpenProducer(t.Context(), json.RawMessage(fmt.Sprintf(`{"id": "%s-all", "strategies": [%s]}`, name, both)))
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close(context.Background())
	receipt, err := all.Send(t.Context(), []byte("x"))
	if err != nil || len(receipt.Parts) != 2 {
		t.Fatalf("%+v %v", receipt, err)
	}
	for _, part := range receipt.Parts {
		if part.Of != OfMembers || part.Err != nil || part.Name == "" {
			t.Errorf("%+v", part)
		}
	}
	for _, line := range []string{
		`ceiba_strategy_retries_total{id="TestEveryAttemptMemberAndRecipientIsTold",role="producer",provider="callback",strategy="retry",type="retry",place="0"} 1`,
		`ceiba_member_sent_total{id="TestEveryAttemptMemberAndRecipientIsTold-all",role="producer",provider="memory",member="memory"} 1`,
	} {
		if text := Metrics(); !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not in\n%s", line, text)
		}
	}
	done := make(chan Receipt, 1)
	if err := all.Submit([]byte("y"), func(receipt Receipt, err error) { done <- receipt }); err != nil {
		t.Fatal(err)
	}
	if receipt := <-done; len(receipt.Parts) != 2 {
		t.Errorf("%+v", receipt)
	}
}

// A sender that does not look at its context keeps its place, so that a provider that hangs is bounded.
func TestASenderThatHangsCountsUntilItReturns(t *testing.T) {
	name := t.Name()
	var running, most atomic.Int32
	hold := make(chan struct{})
	err := RegisterHost(name, func(context.Context, *Message) (string, error) {
		now := running.Add(1)
		defer running.Add(-1)
		for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
		}
		<-hold
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	config := fmt.Sprintf(`{"id": %q, "provider": {"type": "callback", "name": %q, "threads": 2}, "deadline": "50ms"}`, name, name)
	p, err := OpenProducer(t.Context(), json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	kinds := ""
	for range 4 {
		_, err := p.Send(t.Context(), []byte("x"))
		var failed *Error
		if !errors.As(err, &failed) {
			t.Fatal(err)
		}
		kinds += fmt.Sprint(failed.Kind, " ")
	}
	if kinds != "timeout timeout queue_full queue_full " || most.Load() != 2 {
		t.Error(kinds, most.Load())
	}

	// The close does not wait for ever, and the id is free when the senders have returned.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	if _, err := OpenProducer(t.Context(), json.RawMessage(config)); !errors.Is(err, ErrAlreadyOpen) {
		t.Error(err)
	}
	close(hold)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p, err := OpenProducer(t.Context(), json.RawMessage(config))
		if err == nil {
			_ = p.Close(context.Background())
			break
		}
		if !errors.Is(err, ErrAlreadyOpen) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestTheContextOfASenderEndsWhenNobodyWaits(t *testing.T) {
	name := t.Name()
	began, ended := make(chan struct{}), make(chan error, 1)
	err := RegisterHost(name, func(ctx context.Context, m *Message) (string, error) {
		close(began)
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-time.After(10 * time.Second):
			ended <- nil
		}
		return "", ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	p := openHost(t, name, name, "")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if _, err := p.Send(ctx, []byte("x")); !errors.Is(err, ErrCancelled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestASenderMayCallTheLibrary(t *testing.T) {
	name := t.Name()
	other, err := OpenProducer(t.Context(), json.RawMessage(fmt.Sprintf(`{"id": "%s-other", "provider": {"type": "memory", "topic": %q}}`, name, name)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	err = RegisterHost(name, func(ctx context.Context, m *Message) (string, error) {
		if _, err := other.Send(ctx, m.Body); err != nil {
			return "", err
		}
		if _, err := ProducerSend(name+"-other", m.Body, 0); err != nil {
			return "", err
		}
		inner, err := OpenProducer(ctx, json.RawMessage(fmt.Sprintf(`{"id": "%s-inner", "provider": {"type": "memory", "topic": %q}}`, name, name)))
		if err != nil {
			return "", err
		}
		return "done", inner.Close(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnregisterHost(name) })
	p := openHost(t, name, name, "")
	if receipt, err := p.Send(t.Context(), []byte("x")); err != nil || receipt.MessageID != "done" {
		t.Error(receipt, err)
	}
}
