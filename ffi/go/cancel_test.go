package ceiba

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestACallWhoseContextEndedIsNotMade(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	cancelled, cancel := context.WithCancel(background)
	cancel()
	past, cancel := context.WithDeadline(background, time.Now().Add(-time.Second))
	defer cancel()
	for ctx, kind := range map[context.Context]Kind{cancelled: ErrCancelled, past: ErrTimeout} {
		for name, call := range map[string]func() error{
			"Send":            func() error { _, err := p.Send(ctx, []byte("x")); return err },
			"Send in 1 s":     func() error { _, err := p.Send(ctx, []byte("x"), WithDelay(time.Second)); return err },
			"SendMessage":     func() error { _, err := p.SendMessage(ctx, Message{Key: "k"}); return err },
			"Flush":           func() error { return p.Flush(ctx) },
			"Receive":         func() error { _, err := c.Receive(ctx, 1); return err },
			"ConsumerReceive": func() error { _, err := ConsumerReceive(ctx, c.ID()); return err },
			"Ack":             func() error { return c.Ack(ctx, Delivery{Code: "x"}) },
			"OpenProducer":    func() error { _, err := OpenProducer(ctx, memory(topic), WithID("never")); return err },
			"OpenConsumer":    func() error { _, err := OpenConsumer(ctx, memory(topic), WithID("never")); return err },
			"OpenFile":        func() error { _, err := OpenFile(ctx, "x"); return err },
		} {
			err := call()
			if e := wantKind(t, err, kind); !errors.Is(err, ctx.Err()) || e.Outcome != NotSent {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	status, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	if held := field(t, status, "held"); held != 0 {
		t.Errorf("%v messages were sent", held)
	}
	_, err = p.Status()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ProducerSend("never", nil, 0)
	wantKind(t, err, ErrUnknownID)
}

func TestCancellingASendEndsItAsCancelled(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{})
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(30*time.Millisecond, cancel)
	start := time.Now()
	_, err := p.Send(ctx, []byte("x"))
	e := wantKind(t, err, ErrCancelled)
	if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || e.Outcome != NotSent {
		t.Error(e)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestADeadlineOfTheContextEndsASend(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{})
	for range 20 {
		start := time.Now()
		_, err := p.Send(within(t, 20*time.Millisecond), []byte("x"))
		e := wantKind(t, err, ErrTimeout)
		if !errors.Is(err, context.DeadlineExceeded) || e.Outcome != NotSent || !e.Retryable {
			t.Error(e)
		}
		if took := time.Since(start); took < 20*time.Millisecond || took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

func TestOtherDeadlinesAreNotTheContexts(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{Deadline: 50 * time.Millisecond})
	_, err := p.Send(background, []byte("x"))
	if wantKind(t, err, ErrTimeout); errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	_, err = p.Send(within(t, time.Minute), []byte("x"), WithTimeout(30*time.Millisecond))
	if wantKind(t, err, ErrTimeout); errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// The context's deadline goes before the client's, in both directions.
	start := time.Now()
	_, err = p.Send(within(t, 200*time.Millisecond), []byte("x"))
	if wantKind(t, err, ErrTimeout); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) < 200*time.Millisecond {
		t.Error(time.Since(start), err)
	}
}

// Contexts that end while the result comes: whichever is first, each call ends once and every waiter
// comes back.
func TestCancellationAgainstCompletion(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	var all sync.WaitGroup
	for g := range 20 {
		all.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithCancel(background)
				if i%3 == 0 {
					ctx, cancel = context.WithTimeout(background, time.Duration((g*300+i)%200)*time.Microsecond)
				} else {
					go cancel()
				}
				_, err := p.Send(ctx, []byte("x"))
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	eventually(t, "no call under way", func() bool { return p.engine.queue.length() == 0 })
	inUse := 0
	for index := range p.engine.size.Load() {
		if p.engine.at(index).state.Load()&phaseMask != idle {
			inUse++
		}
	}
	if inUse != 0 {
		t.Errorf("%d waiters were not given back", inUse)
	}
}

func TestAnAbandonedWaiterIsFreedByThePoller(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	w := p.engine.get()
	token := w.arm(sending, p, nil)
	state := w.state.Load()
	w.state.Store(state&^phaseMask | abandoned)
	if err := cSubmit(p.id, nil, 0, token); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the waiter is free", func() bool { return w.state.Load()&phaseMask == idle })
	if len(w.wake) != 0 {
		t.Error("it was woken")
	}
}

func TestClosingIsNotHeldUpByItsContext(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{Deadline: 6 * time.Second})
	result := make(chan error, 1)
	if err := p.Submit([]byte("x"), func(_ Receipt, err error) { result <- err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	err := p.Close(ctx)
	if wantKind(t, err, ErrCancelled); !errors.Is(err, context.Canceled) || time.Since(start) > 4*time.Second {
		t.Error(time.Since(start), err)
	}
	// It goes on behind.
	if err := <-result; err == nil {
		t.Error("the submit succeeded")
	}
	eventually(t, "the id is free", func() bool {
		_, err := cProducerStatus(p.id)
		return err != nil && err.Kind == ErrUnknownID
	})
}
