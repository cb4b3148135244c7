package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ceiba"
)

// batch is how many deliveries are taken at once.
const batch = 1024

type name struct{ label, number int64 }

// tally is what all consumers have received.
type tally struct {
	lock       sync.Mutex
	seen       map[name]struct{}
	duplicates int64
	last       time.Time
	target     int64
	failed     error
	// complete is closed when the target is reached or a consumer failed.
	complete func()
}

func (t *tally) note(names []name) {
	t.lock.Lock()
	defer t.lock.Unlock()
	for _, n := range names {
		if _, again := t.seen[n]; again {
			t.duplicates++
			continue
		}
		t.seen[n] = struct{}{}
	}
	t.last = time.Now()
	t.look()
}

func (t *tally) look() {
	if t.failed != nil || t.target > 0 && int64(len(t.seen)) >= t.target {
		t.complete()
	}
}

func (t *tally) fail(err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.failed == nil {
		t.failed = err
	}
	t.look()
}

func (t *tally) sent(messages int64) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.target = messages
	t.look()
}

func consume(ctx context.Context, c *ceiba.Consumer, t *tally) {
	var names []name
	for {
		deliveries, err := c.Receive(ctx, batch)
		if err == nil {
			err = c.Ack(context.Background(), deliveries...)
		}
		if err != nil {
			if ctx.Err() == nil {
				t.fail(err)
			}
			return
		}
		names = names[:0]
		for _, d := range deliveries {
			n, ok := parse(d.Body)
			if !ok {
				t.fail(fmt.Errorf("a body that was not sent: %.20q", d.Body))
				return
			}
			names = append(names, n)
		}
		t.note(names)
	}
}

// parse reads the "label-number " at the front of a body.
func parse(body []byte) (n name, ok bool) {
	front, _, _ := bytes.Cut(body, []byte{' '})
	label, number, found := bytes.Cut(front, []byte{'-'})
	return name{decimal(label), decimal(number)}, found && len(label) > 0 && len(number) > 0
}

func decimal(digits []byte) (n int64) {
	for _, d := range digits {
		n = n*10 + int64(d-'0')
	}
	return n
}

func endToEnd(s settings) (line, error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan struct{})
	t := &tally{seen: map[name]struct{}{}, complete: sync.OnceFunc(func() { close(done) })}
	for i := range s.clients {
		c, err := ceiba.OpenConsumer(ctx, s.broker(), ceiba.WithID(fmt.Sprintf("bench-c%d", i)))
		if err != nil {
			return line{}, err
		}
		go consume(ctx, c, t)
	}
	producers, err := openProducers(s)
	if err != nil {
		return line{}, err
	}
	watch := startWatch()
	messages, _, err := produce(s, watch, producers, true)
	if err != nil {
		return line{}, err
	}
	t.sent(messages)
	select {
	case <-done:
	case <-time.After(stalled):
		return line{}, errors.New("messages did not arrive within a minute")
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	l := watch.line(s, messages, t.last)
	l.Duplicates = &t.duplicates
	return l, t.failed
}
