package ceiba

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func sendAll(t testing.TB, p *Producer, count int) {
	t.Helper()
	for i := range count {
		if _, err := p.Send(background, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReceiveWaitsForADelivery(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	time.AfterFunc(50*time.Millisecond, func() {
		if _, err := p.Send(background, []byte("late")); err != nil {
			t.Error(err)
		}
	})
	deliveries, err := c.Receive(background, 5)
	if err != nil || len(deliveries) != 1 || string(deliveries[0].Body) != "late" {
		t.Fatal(deliveries, err)
	}
	start := time.Now()
	deliveries, err = c.Receive(within(t, 50*time.Millisecond), 5)
	if wantKind(t, err, ErrTimeout); !errors.Is(err, context.DeadlineExceeded) || deliveries != nil || time.Since(start) < 50*time.Millisecond {
		t.Error(deliveries, err)
	}
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = c.Receive(ctx, 1)
	if wantKind(t, err, ErrCancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_, err = c.Receive(background, 0)
	wantKind(t, err, ErrInvalidArgument)
}

// What comes for a goroutine that stopped waiting is not lost: the next Receive gets it.
func TestADeliveryForAGoroutineThatLeftIsKept(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	ctx, cancel := context.WithCancel(background)
	left := make(chan error, 1)
	go func() {
		_, err := c.Receive(ctx, 1)
		left <- err
	}()
	eventually(t, "the call in the library waits for it", func() bool {
		c.mu.Lock()
		waits := len(c.line) == 1
		c.mu.Unlock()
		_, stacks := goroutines()
		return waits && strings.Contains(stacks, "_Cfunc_shim_consumer_receive")
	})
	cancel()
	wantKind(t, <-left, ErrCancelled)
	// The call in the library still waits, and takes this one.
	if _, err := p.Send(background, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	// Or the time of the call was up before, on a slow machine.
	eventually(t, "it is held", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.held) == 1 || c.fetching == nil
	})
	deliveries, err := c.Receive(background, 1)
	if err != nil || string(deliveries[0].Body) != "kept" {
		t.Fatal(deliveries, err)
	}
	if err := deliveries[0].Ack(); err != nil {
		t.Error(err)
	}
	eventually(t, "the call in the library ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.fetching == nil
	})
}

func TestManyGoroutinesReceiveEachDeliveryOnce(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	const count = 5000
	var seen [count]atomic.Int32
	var received atomic.Int32
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var all sync.WaitGroup
	for g := range 60 {
		all.Go(func() {
			for {
				deliveries, err := c.Receive(ctx, 1+g%7)
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil || len(deliveries) == 0 || len(deliveries) > 1+g%7 {
					t.Error(len(deliveries), err)
					return
				}
				for _, d := range deliveries {
					var i int
					fmt.Sscan(string(d.Body), &i)
					seen[i].Add(1)
					if err := d.Ack(); err != nil {
						t.Error(err)
					}
					if received.Add(1) == count {
						cancel()
					}
				}
			}
		})
	}
	sendAll(t, p, count)
	all.Wait()
	for i := range seen {
		if seen[i].Load() != 1 {
			t.Fatalf("%d came %d times", i, seen[i].Load())
		}
	}
}

func TestIterationStopsAndKeepsWhatItDidNotYield(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	sendAll(t, p, 100)
	next := 0
	for round := range 4 {
		for d, err := range c.All(within(t, 5*time.Second)) {
			if err != nil {
				t.Fatal(err)
			}
			if string(d.Body) != fmt.Sprint(next) {
				t.Fatalf("%s in place of %d", d.Body, next)
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
			if next++; next == 25*(round+1) {
				break
			}
		}
	}
	if next != 100 {
		t.Fatalf("%d of 100", next)
	}
	yields := 0
	for _, err := range c.All(within(t, 30*time.Millisecond)) {
		yields++
		wantKind(t, err, ErrTimeout)
	}
	time.AfterFunc(20*time.Millisecond, func() { c.Close(background) })
	for _, err := range c.All(background) {
		yields++
		wantKind(t, err, ErrClosed)
	}
	if yields != 2 {
		t.Errorf("an iteration yields its error once; there were %d yields in two", yields)
	}
}

func TestNackBringsADeliveryBack(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	sendAll(t, p, 3)
	deliveries, err := c.Receive(background, 3)
	if err != nil || len(deliveries) != 3 {
		t.Fatal(deliveries, err)
	}
	start := time.Now()
	if err := deliveries[0].Nack(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.Nack(background, 0, deliveries[1:]...); err != nil {
		t.Fatal(err)
	}
	wantKind(t, deliveries[0].Nack(-1), ErrInvalidArgument)
	wantKind(t, c.Nack(background, -1, deliveries...), ErrInvalidArgument)
	for _, want := range []string{"1", "2", "0"} {
		d, err := ConsumerReceive(within(t, 20*time.Second), c.ID())
		if err != nil || string(d.Body) != want || d.Attempt != 2 {
			t.Fatal(want, d, err)
		}
		if want == "0" && time.Since(start) < 3*time.Second {
			t.Error("it came back early")
		}
		if err := ConsumerAck(c.ID(), d.Code); err != nil {
			t.Error(err)
		}
	}
	// All that can be settled is, and the first failure is told.
	sendAll(t, p, 2)
	deliveries, err = c.Receive(background, 2)
	if err != nil || len(deliveries) != 2 {
		t.Fatal(deliveries, err)
	}
	wantKind(t, c.Ack(background, deliveries[0], Delivery{Code: "none"}, deliveries[1]), ErrNotFound)
	status, err := c.Status()
	if err != nil || field(t, status, "unacked") != 0 {
		t.Error(string(status), err)
	}
	if err := c.Ack(background); err != nil {
		t.Error(err)
	}
	wantKind(t, Delivery{}.Ack(), ErrInvalidArgument)
	wantKind(t, Delivery{}.Nack(0), ErrInvalidArgument)
}

func TestCloseEndsReceivesAndGivesBackWhatIsNotAcknowledged(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p := openProducer(t, memory(topic), WithID(unique("p")))
	first, err := OpenConsumer(background, memory(topic), WithID(unique("c")))
	if err != nil {
		t.Fatal(err)
	}
	sendAll(t, p, 1)
	unacked, err := first.Receive(background, 1)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := first.Receive(background, 1)
			ended <- err
		}()
	}
	eventually(t, "all wait", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		return len(first.line) == 10
	})
	start := time.Now()
	if err := first.Close(background); err != nil {
		t.Error(err)
	}
	for range 10 {
		wantKind(t, <-ended, ErrClosed)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	wantKind(t, first.Close(background), ErrClosed)
	wantKind(t, unacked[0].Ack(), ErrClosed)
	_, err = first.Receive(background, 1)
	wantKind(t, err, ErrClosed)
	_, err = first.Status()
	wantKind(t, err, ErrClosed)
	second := openConsumer(t, memory(topic), WithID(first.ID()))
	again, err := second.Receive(within(t, 5*time.Second), 1)
	if err != nil || string(again[0].Body) != "0" || again[0].Attempt != 2 {
		t.Fatal(again, err)
	}
}
