package ceiba

import (
	"context"
	"encoding/json"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Consumer receives messages. Any goroutine may use it at any time, also while another closes it.
//
// However many goroutines wait, one call of the consumer waits in the library, on one thread; it ends at
// most a second after the last goroutine stopped waiting. What it brought then is kept for the next
// Receive.
type Consumer struct {
	id     string
	closed atomic.Bool

	mu sync.Mutex
	// Goroutines that wait, in their order, and deliveries that came for one that had left.
	line []*taker
	held []Delivery
	// Closed when the fetching goroutine ends; nil while there is none.
	fetching chan struct{}
}

type taker struct {
	max  int
	got  []Delivery
	err  *Error
	wake chan struct{}
}

const (
	// fetchMost is how many deliveries one call of the library may bring.
	fetchMost = 1024
	// fetchTime is how long, in milliseconds, one call waits in the library.
	fetchTime = 1000
	// iterAhead is how many deliveries an iteration takes at once.
	iterAhead = 64
)

// OpenConsumer opens a consumer, as [OpenProducer] opens a producer. Producers and consumers have ids of
// their own: one of each may have the same.
func OpenConsumer(ctx context.Context, config any, options ...OpenOption) (*Consumer, error) {
	ctx = orBackground(ctx)
	o, err := settingsOf(options)
	if err != nil {
		return nil, err
	}
	text, id, err := configText(config)
	if err != nil {
		return nil, err
	}
	if o.id != "" {
		id = o.id
	}
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	err, _ = opening.run(ctx, func() *Error { return cConsumerOpen(id, text) }, func(late *Error) {
		if late == nil {
			cConsumerClose(id, -1)
		}
	})
	if err != nil {
		err.Outcome = NotSent
		return nil, err
	}
	return adoptConsumer(id), nil
}

func adoptConsumer(id string) *Consumer {
	c := &Consumer{id: id}
	consumers.set(id, c)
	return c
}

// ID returns the id that the consumer is open under.
func (c *Consumer) ID() string { return c.id }

// Receive waits for deliveries and returns up to max of them: those that are there, at least one. It
// ends with the context; without a deadline there it waits without end. Receiving acknowledges nothing.
func (c *Consumer) Receive(ctx context.Context, max int) ([]Delivery, error) {
	deliveries, err := c.receive(orBackground(ctx), max, max)
	return deliveries, orNil(err)
}

// All ranges over deliveries until the context ends, the consumer is closed or another error comes,
// which is yielded last. It acknowledges nothing by itself. It takes up to 64 deliveries at a time;
// those that a break leaves over are kept for the next Receive.
func (c *Consumer) All(ctx context.Context) iter.Seq2[Delivery, error] {
	ctx = orBackground(ctx)
	return func(yield func(Delivery, error) bool) {
		for {
			deliveries, err := c.receive(ctx, 1, iterAhead)
			if err != nil {
				yield(Delivery{}, err)
				return
			}
			for _, delivery := range deliveries {
				if !yield(delivery, nil) {
					return
				}
			}
		}
	}
}

// receive returns up to max deliveries, and asks the library for up to ahead.
func (c *Consumer) receive(ctx context.Context, max, ahead int) ([]Delivery, *Error) {
	if max < 1 {
		return nil, errorf(ErrInvalidArgument, "receive takes at least 1 delivery, not %d", max)
	}
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return nil, c.errClosed()
	}
	if len(c.line) == 0 && len(c.held) > 0 {
		got := c.takeHeld(max)
		c.mu.Unlock()
		return got, nil
	}
	busy := len(c.line) > 0 || c.fetching != nil
	c.mu.Unlock()
	if !busy {
		// What is there already costs no goroutine.
		deliveries, err := cConsumerReceive(c.id, min(ahead, fetchMost), 0)
		if err != nil {
			return nil, c.failed(err)
		}
		if len(deliveries) > 0 {
			return c.keepRest(deliveries, max), nil
		}
	}
	t := &taker{max: max, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return nil, c.errClosed()
	}
	c.line = append(c.line, t)
	c.serve()
	if c.fetching == nil && len(c.line) > 0 {
		c.fetching = make(chan struct{})
		go c.fetch(c.fetching)
	}
	c.mu.Unlock()
	select {
	case <-t.wake:
		return t.got, t.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	for i, other := range c.line {
		if other == t {
			c.line = append(c.line[:i], c.line[i+1:]...)
			c.mu.Unlock()
			return nil, contextError(ctx)
		}
	}
	c.mu.Unlock()
	// It was served at that very moment.
	<-t.wake
	return t.got, t.err
}

// fetch waits in the library for those in line, and ends when nobody is.
func (c *Consumer) fetch(ended chan struct{}) {
	defer close(ended)
	for {
		c.mu.Lock()
		want := 0
		for _, t := range c.line {
			want += min(t.max, fetchMost)
		}
		if want == 0 || c.closed.Load() {
			c.fetching = nil
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		deliveries, err := cConsumerReceive(c.id, min(want, fetchMost), fetchTime)
		c.mu.Lock()
		c.held = append(c.held, deliveries...)
		c.serve()
		if err != nil {
			c.fetching = nil
			c.dismiss(c.failed(err))
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// serve gives what is held to those in line. Under the lock.
func (c *Consumer) serve() {
	for len(c.line) > 0 && len(c.held) > 0 {
		t := c.line[0]
		c.line = c.line[1:]
		t.got = c.takeHeld(t.max)
		t.wake <- struct{}{}
	}
}

// dismiss ends all waits with an error. Under the lock.
func (c *Consumer) dismiss(err *Error) {
	for _, t := range c.line {
		t.err = err
		t.wake <- struct{}{}
	}
	c.line = nil
}

func (c *Consumer) takeHeld(max int) []Delivery {
	count := min(max, len(c.held))
	got := c.held[:count:count]
	c.held = c.held[count:]
	if len(c.held) == 0 {
		c.held = nil
	}
	for i := range got {
		got[i].consumer = c
	}
	return got
}

// keepRest returns the first deliveries and keeps the others.
func (c *Consumer) keepRest(deliveries []Delivery, max int) []Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Older ones first, if another goroutine was as fast.
	c.held = append(c.held, deliveries...)
	got := c.takeHeld(max)
	c.serve()
	return got
}

func (c *Consumer) failed(err *Error) *Error {
	if c.closed.Load() && (err.Kind == ErrUnknownID || err.Kind == ErrClosed) {
		return c.errClosed()
	}
	return err
}

func (c *Consumer) errClosed() *Error {
	return errorf(ErrClosed, "the consumer `%s` was closed", c.id)
}

// Ack acknowledges deliveries: nil when the acknowledgements are on their way. The error is that of the
// first that failed; the others are acknowledged all the same.
func (c *Consumer) Ack(ctx context.Context, deliveries ...Delivery) error {
	return c.settleAll(ctx, deliveries, true, 0)
}

// Nack gives deliveries back, to come again after the delay, rounded up to milliseconds.
// [ErrUnsupported] where the wire has no such thing.
func (c *Consumer) Nack(ctx context.Context, delay time.Duration, deliveries ...Delivery) error {
	if delay < 0 {
		return errorf(ErrInvalidArgument, "a delay is 0 or more, not %v", delay)
	}
	return c.settleAll(ctx, deliveries, false, milliseconds(delay))
}

func (c *Consumer) settleAll(ctx context.Context, deliveries []Delivery, ack bool, delay int64) error {
	codes := make([]string, len(deliveries))
	for i := range deliveries {
		codes[i] = deliveries[i].Code
	}
	return orNil(c.settle(orBackground(ctx), codes, ack, delay))
}

func (c *Consumer) settle(ctx context.Context, codes []string, ack bool, delay int64) *Error {
	if c.closed.Load() {
		return c.errClosed()
	}
	err, _ := settling.run(ctx, func() *Error {
		switch {
		case len(codes) == 1 && ack:
			return cConsumerAck(c.id, codes[0])
		case len(codes) == 1:
			return cConsumerNack(c.id, codes[0], delay)
		}
		errs, err := cConsumerSettle(c.id, codes, ack, delay)
		for _, each := range errs {
			if err == nil {
				err = each
			}
		}
		return err
	}, nothingLate)
	if err != nil {
		return c.failed(err)
	}
	return nil
}

// Status returns the consumer's live state as JSON.
func (c *Consumer) Status() (json.RawMessage, error) {
	if c.closed.Load() {
		return nil, c.errClosed()
	}
	text, err := cConsumerStatus(c.id)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

// Close ends every Receive as [ErrClosed], writes acknowledgements that wait until the context's deadline
// (without one, the client's), and frees the id. What was not acknowledged comes again to another
// consumer. A second Close fails as [ErrClosed].
func (c *Consumer) Close(ctx context.Context) error {
	ctx = orBackground(ctx)
	if c.closed.Swap(true) {
		return c.errClosed()
	}
	by := closeBy(ctx, 0)
	return orNil(opening.finish(ctx, func() *Error {
		err := cConsumerClose(c.id, by.timeout())
		return c.bury(err, by.last())
	}))
}

// bury ends the Go side of a consumer that is closed, and passes the close's error on.
func (c *Consumer) bury(err *Error, last time.Time) *Error {
	consumers.remove(c.id, c)
	c.mu.Lock()
	c.held = nil
	c.dismiss(c.errClosed())
	fetching := c.fetching
	c.mu.Unlock()
	if fetching != nil {
		// Its call ends with the close.
		select {
		case <-fetching:
		case <-briefly(last):
		}
	}
	return err
}
