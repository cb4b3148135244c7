package ceiba

import (
	"context"
	"errors"
	"testing"
	"time"
)

// held opens producers that each have a callback which returns only after the test.
func held(t *testing.T, count int) []*Producer {
	t.Helper()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	all := make([]*Producer, count)
	for i := range all {
		all[i] = openProducer(t, Config{Deadline: 2 * time.Second, Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("held")))
		began := make(chan struct{})
		if err := all[i].Submit(nil, func(Receipt, error) { close(began); <-release }); err != nil {
			t.Fatal(err)
		}
		<-began
	}
	return all
}

// fillOpening takes all places of those who open and close.
func fillOpening(t *testing.T) {
	t.Helper()
	for range cap(opening) {
		opening <- struct{}{}
	}
	empty := func() {
		for range cap(opening) {
			<-opening
		}
	}
	t.Cleanup(empty)
}

func ended(t *testing.T) context.Context {
	t.Helper()
	ctx := within(t, time.Nanosecond)
	<-ctx.Done()
	return ctx
}

func TestAShutdownHasOneDeadlineForAllItsSteps(t *testing.T) {
	watchLeaks(t)
	held(t, 40)
	openConsumer(t, memory("x"), WithID(unique("c")))
	stuck(t, Config{Deadline: time.Minute})
	start := time.Now()
	wantKind(t, Shutdown(within(t, 300*time.Millisecond)), ErrTimeout)
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	// What goes on behind has the same deadline.
	eventually(t, "all are closed", func() bool { return len(producers.all())+len(consumers.all()) == 0 && len(shutting) == 0 })
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it went on for %v", took)
	}
}

func TestAShutdownWhoseContextEndedIsPrompt(t *testing.T) {
	watchLeaks(t)
	held(t, 40)
	waiting := stuck(t, Config{Deadline: time.Minute})
	result := make(chan error, 1)
	if err := waiting.Submit(nil, func(_ Receipt, err error) { result <- err }); err != nil {
		t.Fatal(err)
	}
	c := openConsumer(t, memory("x"), WithID(unique("c")))
	go c.Receive(background, 1)
	fillOpening(t)
	cancelled, cancel := context.WithCancel(background)
	cancel()
	start := time.Now()
	if e := asError(t, Shutdown(cancelled)); e.Kind != ErrCancelled && e.Kind != ErrTimeout {
		t.Error(e)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	if e := asError(t, <-result); e.Outcome != NotSent {
		t.Error(e)
	}
	eventually(t, "all are closed", func() bool { return len(producers.all())+len(consumers.all()) == 0 })
}

func TestACloseThatGetsNoPlaceGoesOnBehind(t *testing.T) {
	watchLeaks(t)
	for name, begin := range map[string]func(*testing.T) context.Context{
		"soon":   func(t *testing.T) context.Context { return within(t, 50*time.Millisecond) },
		"before": ended,
	} {
		t.Run(name, func(t *testing.T) {
			p, c := pair(t, memory("x"), memory("x"))
			t.Run("full", func(t *testing.T) {
				fillOpening(t)
				ctx := begin(t)
				start := time.Now()
				for _, err := range []error{p.Close(ctx), c.Close(ctx)} {
					if wantKind(t, err, ErrTimeout); !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
				if took := time.Since(start); took > 2*latePatience+2*time.Second {
					t.Errorf("it took %v", took)
				}
			})
			eventually(t, "both are closed", func() bool {
				_, ofProducer := cProducerStatus(p.id)
				_, ofConsumer := cConsumerStatus(c.id)
				return ofProducer != nil && ofConsumer != nil && len(producers.all())+len(consumers.all()) == 0
			})
		})
	}
}

func TestCloseAndFlushWithoutAContextTakeTheClientsDeadlineOnce(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Deadline: 4 * time.Second, Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	release := make(chan struct{})
	defer close(release)
	if err := p.Submit(nil, func(Receipt, error) { <-release }); err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		name string
		call func(context.Context) error
	}{{"flush", p.Flush}, {"close", p.Close}} {
		start := time.Now()
		wantKind(t, call.call(background), ErrTimeout)
		if took := time.Since(start); took < 3900*time.Millisecond || took > 7*time.Second {
			t.Errorf("%s took %v", call.name, took)
		}
	}
}

func TestTheClientsOfAFileCloseTogether(t *testing.T) {
	watchLeaks(t)
	clients := &Clients{Producers: map[string]*Producer{}}
	for _, p := range held(t, 40) {
		clients.Producers[p.ID()] = p
	}
	start := time.Now()
	if err := clients.Close(ended(t)); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
}
