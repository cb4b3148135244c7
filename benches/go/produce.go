package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"ceiba"
)

const (
	// outstanding is how many submits one producer may have under way.
	outstanding = 8192
	// burst is how many submits lie between two looks at what has ended.
	burst = 256
	// stalled bounds every wait for the broker.
	stalled = 60 * time.Second
)

var errStalled = errors.New("the broker stalled")

// work is what one producer does.
type work struct {
	until time.Time
	limit int64
	// label stands in front of each body with the message's number; negative: all bodies are the same.
	label int
}

// tracker counts the ends of submits and wakes the goroutine that waits for room.
type tracker struct {
	ended  atomic.Int64
	wanted atomic.Int64
	failed atomic.Pointer[error]
	wake   chan struct{}
}

func (t *tracker) done(_ ceiba.Receipt, err error) {
	if err != nil {
		t.fail(err)
	}
	if t.ended.Add(1) == t.wanted.Load() {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// fail keeps the first error. Apart from done, so that a good end allocates nothing.
//
//go:noinline
func (t *tracker) fail(err error) { t.failed.CompareAndSwap(nil, &err) }

// wait returns when so many have ended.
func (t *tracker) wait(count int64) error {
	t.wanted.Store(count)
	for t.ended.Load() < count {
		select {
		case <-t.wake:
		case <-time.After(stalled):
			return errStalled
		}
	}
	if err := t.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func openProducers(s settings) ([]*ceiba.Producer, error) {
	producers := make([]*ceiba.Producer, s.clients)
	for i := range producers {
		id := ceiba.WithID(fmt.Sprintf("bench-p%d", i))
		p, err := ceiba.OpenProducer(context.Background(), s.broker(), id)
		if err != nil {
			return nil, err
		}
		producers[i] = p
	}
	return producers, nil
}

// run sends until the work ends and every send has its receipt: how many, and when the last came.
func (w work) run(s settings, p *ceiba.Producer) (int64, time.Time, error) {
	t := &tracker{wake: make(chan struct{}, 1)}
	// A method value is made once: each making allocates.
	done := t.done
	body := make([]byte, s.size)
	pad(body, 0)
	var sent int64
	for sent < w.limit && time.Now().Before(w.until) {
		for range min(burst, w.limit-sent) {
			if w.label >= 0 {
				front := fmt.Appendf(body[:0], "%d-%d ", w.label, sent)
				body = front[:max(s.size, len(front))]
				pad(body, len(front))
			}
			if err := p.Submit(body, done); err != nil {
				return sent, time.Time{}, err
			}
			sent++
		}
		if room := outstanding - burst; sent-t.ended.Load() > int64(room) {
			// Half of it, so that the next bursts need not wait.
			if err := t.wait(sent - int64(room)/2); err != nil {
				return sent, time.Time{}, err
			}
		}
	}
	err := t.wait(sent)
	return sent, time.Now(), err
}

func pad(body []byte, from int) {
	for i := from; i < len(body); i++ {
		body[i] = 'x'
	}
}

// produce runs all producers, each on its goroutine: how many messages, and when the last was acknowledged.
func produce(s settings, watch stopwatch, producers []*ceiba.Producer, labelled bool) (int64, time.Time, error) {
	type outcome struct {
		sent int64
		end  time.Time
		err  error
	}
	outcomes := make(chan outcome)
	for i, p := range producers {
		w := work{until: watch.start.Add(s.seconds), limit: 1 << 62, label: -1}
		if s.limit > 0 {
			w.limit = s.limit / int64(s.clients)
		}
		if labelled {
			w.label = i
		}
		go func() {
			sent, end, err := w.run(s, p)
			outcomes <- outcome{sent, end, err}
		}()
	}
	var all outcome
	for range producers {
		o := <-outcomes
		all.sent += o.sent
		if o.end.After(all.end) {
			all.end = o.end
		}
		all.err = errors.Join(all.err, o.err)
	}
	return all.sent, all.end, all.err
}

func acked(s settings) (line, error) {
	producers, err := openProducers(s)
	if err != nil {
		return line{}, err
	}
	watch := startWatch()
	messages, end, err := produce(s, watch, producers, false)
	return watch.line(s, messages, end), err
}
