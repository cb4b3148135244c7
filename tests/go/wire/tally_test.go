package wire

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"ceiba.test/wire/plain"
)

// tally counts what consumers received, by body; every body is sent once.
type tally struct {
	sync.Mutex
	codes   map[string]string
	order   []string
	by      map[string]int // bodies first seen by each consumer
	again   int            // deliveries of a code seen before
	unasked []string       // what must not happen, in words
	changed chan struct{}  // holds one when something new came
}

func newTally() *tally {
	return &tally{codes: map[string]string{}, by: map[string]int{}, changed: make(chan struct{}, 1)}
}

func (a *tally) add(consumer, topic string, d plain.Delivery) {
	a.Lock()
	defer a.Unlock()
	code, seen := a.codes[d.MessageData]
	switch {
	case d.Topic != topic:
		a.unasked = append(a.unasked, fmt.Sprintf("%q has topic %q", d.MessageData, d.Topic))
	case !seen:
		a.codes[d.MessageData] = d.MessageCode
		a.order = append(a.order, d.MessageData)
		a.by[consumer]++
	case code != d.MessageCode:
		a.unasked = append(a.unasked, fmt.Sprintf("%q came twice with different codes", d.MessageData))
	default:
		a.again++
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// wait returns when want different bodies have come; it gives up after 20 s without a new one.
func (a *tally) wait(t *testing.T, want int) {
	t.Helper()
	for {
		a.Lock()
		got := len(a.codes)
		a.Unlock()
		if got >= want {
			return
		}
		select {
		case <-a.changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("received %d of %d messages, then nothing for 20 s", got, want)
		}
	}
}

// exactly fails unless the bodies are the wanted ones, each pushed the given number of times.
func (a *tally) exactly(t *testing.T, bodies []string) {
	t.Helper()
	a.complete(t, bodies)
	a.Lock()
	defer a.Unlock()
	if a.again > 0 && !original { // the original was started with a re-push after seconds
		t.Errorf("%d messages were pushed again though they were acked", a.again)
	}
}

// complete fails unless the bodies are the wanted ones; a re-push is allowed.
func (a *tally) complete(t *testing.T, bodies []string) {
	t.Helper()
	a.Lock()
	defer a.Unlock()
	lost := 0
	for _, body := range bodies {
		if _, ok := a.codes[body]; !ok {
			lost++
		}
	}
	if lost > 0 || len(a.codes) != len(bodies) {
		t.Errorf("sent %d, received %d, lost %d", len(bodies), len(a.codes), lost)
	}
	for _, wrong := range a.unasked {
		t.Error(wrong)
	}
}

// worker is a consumer that receives until it is stopped.
type worker struct {
	consumer *plain.Consumer
	done     chan struct{}
}

// work starts a consumer that counts what it receives and acks it at once.
func work(t *testing.T, o plain.Options, a *tally) *worker {
	t.Helper()
	c := consumer(t, o)
	w := &worker{consumer: c, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			d, err := c.Receive()
			if err != nil {
				return
			}
			a.add(o.ID, o.Topic, d)
			if err := c.Ack(d.MessageCode); err != nil {
				return
			}
		}
	}()
	t.Cleanup(w.stop)
	return w
}

func (w *worker) stop() {
	_ = w.consumer.Drop()
	<-w.done
}

func options(t *testing.T, kind, topic, id string) plain.Options {
	t.Helper()
	return plain.Options{Addr: server(t, kind), Secret: secret(), Topic: topic, ID: id}
}

func consumer(t *testing.T, o plain.Options) *plain.Consumer {
	t.Helper()
	c, err := plain.OpenConsumer(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func producer(t *testing.T, o plain.Options) *plain.Producer {
	t.Helper()
	p, err := plain.OpenProducer(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	// No test waits for an ack longer than this.
	if err := p.SetAckDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Drop() })
	return p
}

func numbered(prefix string, count int) []string {
	bodies := make([]string, count)
	for i := range bodies {
		bodies[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return bodies
}

// settled waits until no message of the topic waits for an ack.
func settled(t *testing.T, addr, topic string) {
	t.Helper()
	web := plain.Web{Addr: addr, Secret: secret()}
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := web.List(context.Background(), topic, -1)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages of the topic are still unconsumed after 20 s", len(left))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
