package ceiba

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestEachSubmitIsCalledBackOnceAndInOrder(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	const count = 20_000
	calls := make([]atomic.Int32, count)
	var order []int
	var running atomic.Int32
	for i := range count {
		done := func(receipt Receipt, err error) {
			if running.Add(1) != 1 {
				t.Error("two callbacks of one producer at the same time")
			}
			if (i%100 == 7) != errors.Is(err, ErrUnsupported) || (err == nil) != (receipt.MessageID != "") {
				t.Errorf("%d: %+v %v", i, receipt, err)
			}
			calls[i].Add(1)
			order = append(order, i)
			running.Add(-1)
		}
		var options []SendOption
		if i%100 == 7 {
			options = append(options, WithTopic("another"))
		}
		if err := p.Submit(fmt.Append(nil, i), done, options...); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(background); err != nil {
		t.Fatal(err)
	}
	// Flush promises that every callback has returned.
	for i := range calls {
		if calls[i].Load() != 1 {
			t.Fatalf("%d was called back %d times", i, calls[i].Load())
		}
	}
	if !slices.IsSorted(order) {
		t.Error("callbacks came out of order")
	}
	if p.submits.Load() != 0 {
		t.Errorf("%d submits are counted as under way", p.submits.Load())
	}
	deliveries, err := c.Receive(within(t, 5*time.Second), 3)
	if err != nil || string(deliveries[0].Body) != "0" || string(deliveries[2].Body) != "2" {
		t.Error(deliveries, err)
	}
}

func TestSubmitsAreBoundedUntilTheirCallback(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")), WithMaxSubmits(3))
	release := make(chan struct{})
	var called atomic.Int32
	done := func(Receipt, error) { called.Add(1); <-release }
	for range 3 {
		if err := p.Submit(nil, done); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first callback", func() bool { return called.Load() == 1 })
	wantKind(t, p.Submit(nil, done), ErrQueueFull)
	// A callback that blocks holds up neither the poller nor other calls.
	if _, err := p.Send(background, nil); err != nil {
		t.Error(err)
	}
	close(release)
	eventually(t, "room", func() bool { return p.Submit(nil, done) == nil })
	eventually(t, "all callbacks", func() bool { return called.Load() == 4 })
}

func TestACallbackMaySendAndSubmit(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	result := make(chan error, 2)
	err := p.Submit(nil, func(Receipt, error) {
		_, err := p.Send(background, []byte("from a callback"))
		result <- err
		if err := p.Submit(nil, func(_ Receipt, err error) { result <- err }); err != nil {
			result <- err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

func TestACallbackThatEndsItsGoroutineHoldsUpNothing(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	var called atomic.Int32
	for i := range 100 {
		err := p.Submit(nil, func(Receipt, error) {
			called.Add(1)
			if i%10 == 3 {
				runtime.Goexit()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(background); err != nil || called.Load() != 100 || p.submits.Load() != 0 {
		t.Error(err, called.Load(), p.submits.Load())
	}
}

func TestFlushWaitsForCallbacksUntilItsContextEnds(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	release := make(chan struct{})
	if err := p.Submit(nil, func(Receipt, error) { <-release }); err != nil {
		t.Fatal(err)
	}
	wantKind(t, p.Flush(within(t, 50*time.Millisecond)), ErrTimeout)
	flushed := make(chan error)
	go func() { flushed <- p.Flush(background) }()
	select {
	case err := <-flushed:
		t.Fatal("flushed while a callback runs: ", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-flushed; err != nil {
		t.Error(err)
	}
}

// Whatever is under way when a producer closes ends exactly once: sends by returning, submits by their
// callback.
func TestEveryCallEndsOnceWhenItsProducerCloses(t *testing.T) {
	watchLeaks(t)
	for round := range 30 {
		p, err := OpenProducer(background, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		var accepted, called, sent atomic.Int64
		stop := make(chan struct{})
		for range 4 {
			all.Go(func() {
				for {
					err := p.Submit([]byte("x"), func(_ Receipt, err error) {
						called.Add(1)
						if err != nil && !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
					})
					switch {
					case err == nil:
						accepted.Add(1)
					case errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknownID):
						return
					case !errors.Is(err, ErrQueueFull):
						t.Error(err)
						return
					}
				}
			})
			all.Go(func() {
				for {
					_, err := p.Send(background, []byte("x"))
					if errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknownID) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					sent.Add(1)
				}
			})
		}
		time.Sleep(time.Duration(round%5) * time.Millisecond)
		if err := p.Close(background); err != nil {
			t.Error(err)
		}
		wantKind(t, p.Close(background), ErrClosed)
		close(stop)
		all.Wait()
		eventually(t, fmt.Sprintf("round %d: %d accepted", round, accepted.Load()), func() bool {
			return called.Load() == accepted.Load()
		})
		_, err = p.Send(background, nil)
		wantKind(t, err, ErrClosed)
		wantKind(t, p.Submit(nil, func(Receipt, error) {}), ErrClosed)
		wantKind(t, p.Flush(background), ErrClosed)
		_, err = p.Status()
		wantKind(t, err, ErrClosed)
		_, err = p.SendBatch(background, []Message{{}})
		wantKind(t, err, ErrClosed)
	}
}

func TestCloseEndsWhatItsDeadlineLeavesOver(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{})
	results := make(chan error, 11)
	for range 10 {
		if err := p.Submit([]byte("x"), func(_ Receipt, err error) { results <- err }); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		_, err := p.Send(background, []byte("y"))
		results <- err
	}()
	eventually(t, "all under way", func() bool { return p.engine.queue.length() == 11 })
	start := time.Now()
	wantKind(t, p.Close(within(t, 100*time.Millisecond)), ErrTimeout)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
	for range 11 {
		select {
		case err := <-results:
			if e := asError(t, err); e.Outcome != NotSent {
				t.Error(e)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a call never ended")
		}
	}
}

func TestCloseWithAContextThatEndedStillCloses(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{})
	result := make(chan error, 1)
	if err := p.Submit([]byte("x"), func(_ Receipt, err error) { result <- err }); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Nanosecond)
	<-ctx.Done()
	wantKind(t, p.Close(ctx), ErrTimeout)
	if err := <-result; err == nil {
		t.Error("the submit succeeded")
	}
	again := openProducer(t, memory("x"), WithID(p.ID()))
	if _, err := again.Send(background, nil); err != nil {
		t.Error(err)
	}
}

// Sends by id and by handle go on while the id is closed and opened again, also by the last producer of
// the process: each call still ends, and each accepted submit is called back.
func TestReopeningAnIDLosesNoCall(t *testing.T) {
	watchLeaks(t)
	id := unique("reopened")
	var current atomic.Pointer[Producer]
	var all sync.WaitGroup
	var accepted, called, sent atomic.Int64
	stop := make(chan struct{})
	expected := func(err error) bool {
		return err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknownID) || errors.Is(err, ErrQueueFull)
	}
	for g := range 6 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var err error
				p := current.Load()
				switch {
				case p == nil:
					time.Sleep(50 * time.Microsecond)
				case g%3 == 0:
					_, err = p.Send(background, []byte("x"))
					sent.Add(1)
				case g%3 == 1:
					_, err = ProducerSend(id, []byte("x"), 0)
					sent.Add(1)
				default:
					err = p.Submit([]byte("x"), func(_ Receipt, err error) {
						if !expected(err) {
							t.Error(err)
						}
						called.Add(1)
					})
					if err == nil {
						accepted.Add(1)
					}
				}
				if !expected(err) {
					t.Error(err)
				}
				if err != nil {
					time.Sleep(50 * time.Microsecond)
				}
			}
		})
	}
	for range 100 {
		p, err := OpenProducer(background, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(id))
		if err != nil {
			t.Fatal(err)
		}
		current.Store(p)
		time.Sleep(500 * time.Microsecond)
		if err := p.Close(background); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	eventually(t, "all callbacks", func() bool { return called.Load() == accepted.Load() })
	if sent.Load() == 0 || accepted.Load() == 0 {
		t.Error("nothing was sent")
	}
}

func TestAfterFlushTheWholeRoomIsFree(t *testing.T) {
	watchLeaks(t)
	const room = 100
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")), WithMaxSubmits(room))
	for round := range 200 {
		var called atomic.Int32
		for i := range room {
			if err := p.Submit(nil, func(Receipt, error) { called.Add(1) }); err != nil {
				t.Fatalf("round %d, submit %d: %v", round, i, err)
			}
		}
		if err := p.Flush(background); err != nil || called.Load() != room {
			t.Fatal(err, called.Load())
		}
	}
}

// A flush is not held up by the callback of a submit that was made after it began.
func TestFlushDoesNotWaitForLaterSubmits(t *testing.T) {
	watchLeaks(t)
	p := openProducer(t, Config{Provider: Memory{Topic: "x", Discard: true}}, WithID(unique("p")))
	first, release := make(chan struct{}), make(chan struct{})
	if err := p.Submit(nil, func(Receipt, error) { <-first }); err != nil {
		t.Fatal(err)
	}
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(background) }()
	eventually(t, "the flush waits", p.watched.Load)
	if err := p.Submit(nil, func(Receipt, error) { <-release }); err != nil {
		t.Fatal(err)
	}
	close(first)
	select {
	case err := <-flushed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the flush waits for a later callback")
	}
	close(release)
}
