package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ceiba.test/wire/plain"
)

// stalled bounds every wait for the server: a longer silence is an error, not a slow result.
const stalled = 60 * time.Second

// share is the part of one producer: a number of messages, or a time to stop (the other is zero).
type share struct {
	count int64
	until time.Time
}

// last tells, before the write of message number n (from 1), whether it is the last one.
func (s share) last(n int64) bool {
	if s.count > 0 {
		return n >= s.count
	}
	// The clock is read once in 16 messages: its cost would show in the rate.
	return n%16 == 0 && !time.Now().Before(s.until)
}

// outcome is what one producer did.
type outcome struct {
	sent    int64
	written time.Time
	acked   time.Time
	err     error
}

func run(s settings) (report, error) {
	ctx := context.Background()
	producers := make([]*plain.Producer, s.Clients)
	for i := range producers {
		p, err := plain.OpenProducer(ctx, plain.Options{Addr: s.Addr, Secret: s.Secret, Topic: s.Topic, ID: fmt.Sprintf("bench-p%d", i)})
		if err != nil {
			return report{}, err
		}
		defer p.Close()
		producers[i] = p
	}
	var sink *sink
	if s.Mode == "e2e" {
		var err error
		if sink, err = openSink(ctx, s); err != nil {
			return report{}, err
		}
		defer sink.close()
	}

	outcomes := make([]outcome, s.Clients)
	cpu, start := cpuSeconds(), time.Now()
	var all sync.WaitGroup
	for i, p := range producers {
		part := share{until: start.Add(time.Duration(s.Seconds * float64(time.Second)))}
		if s.Count > 0 {
			part.count = s.Count / int64(s.Clients)
			if int64(i) < s.Count%int64(s.Clients) {
				part.count++
			}
		}
		all.Add(1)
		go func() {
			defer all.Done()
			outcomes[i] = produce(s, p, i, part)
		}()
	}
	all.Wait()

	r := report{Mode: s.Mode, Clients: s.Clients, Size: s.Size}
	var written, end time.Time
	for _, o := range outcomes {
		if o.err != nil {
			return report{}, o.err
		}
		r.Messages += o.sent
		written, end = later(written, o.written), later(end, o.acked)
	}
	if sink != nil {
		done, err := sink.wait(r.Messages)
		if err != nil {
			return report{}, err
		}
		end = later(end, done)
		r.Duplicates = sink.duplicates.Load()
	}
	r.CPUSeconds = cpuSeconds() - cpu
	r.Seconds = end.Sub(start).Seconds()
	r.WriteSeconds = written.Sub(start).Seconds()
	r.Rate = float64(r.Messages) / r.Seconds
	return r, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// body makes the text of message n: a fixed one where nobody counts duplicates.
func body(s settings, producer int, n int64) string {
	if s.Mode != "e2e" {
		return strings.Repeat("x", s.Size)
	}
	text := fmt.Sprintf("%d-%d ", producer, n)
	if pad := s.Size - len(text); pad > 0 {
		text += strings.Repeat("x", pad)
	}
	return text
}

func produce(s settings, p *plain.Producer, index int, part share) outcome {
	if s.Mode == "acked" {
		return oneByOne(s, p, index, part)
	}
	var o outcome
	var total atomic.Int64
	window := int64(s.Window)
	if s.Mode == "unacked" {
		window = 0
	}
	acks := p.ReadAcks(&total)
	text := body(s, index, 0)
	for {
		n := o.sent + 1
		if s.Mode == "e2e" {
			text = body(s, index, n)
		}
		last := part.last(n)
		if last {
			total.Store(n)
		}
		if n%1024 == 1 {
			if o.err = p.SetWriteDeadline(time.Now().Add(stalled)); o.err != nil {
				return o
			}
			if o.err = p.SetAckDeadline(time.Now().Add(stalled)); o.err != nil {
				return o
			}
		}
		if window > 0 {
			for n-p.Acked() > window {
				time.Sleep(50 * time.Microsecond)
				select {
				case r := <-acks:
					o.err = r.Err
					return o
				default:
				}
			}
		}
		if o.err = p.Write(text, 0); o.err != nil {
			return o
		}
		o.sent = n
		if last {
			break
		}
	}
	o.written = time.Now()
	if o.err = p.SetAckDeadline(o.written.Add(stalled)); o.err != nil {
		return o
	}
	r := <-acks
	o.acked, o.err = r.Last, r.Err
	return o
}

func oneByOne(s settings, p *plain.Producer, index int, part share) outcome {
	var o outcome
	text := body(s, index, 0)
	for {
		n := o.sent + 1
		if n%1024 == 1 {
			if o.err = p.SetAckDeadline(time.Now().Add(stalled)); o.err != nil {
				return o
			}
		}
		last := part.last(n)
		if o.err = p.Write(text, 0); o.err != nil {
			return o
		}
		o.written = time.Now()
		if o.err = p.ReadAck(); o.err != nil {
			return o
		}
		o.sent = n
		if last {
			o.acked = time.Now()
			return o
		}
	}
}

// sink is the consumers' side of e2e.
type sink struct {
	consumers  []*plain.Consumer
	received   atomic.Int64
	duplicates atomic.Int64
	lastAck    atomic.Int64 // unix nanoseconds
	failed     chan error
	seenLock   sync.Mutex
	seen       map[string]struct{}
}

func openSink(ctx context.Context, s settings) (*sink, error) {
	k := &sink{failed: make(chan error, s.Clients), seen: map[string]struct{}{}}
	for i := range s.Clients {
		c, err := plain.OpenConsumer(ctx, plain.Options{Addr: s.Addr, Secret: s.Secret, Topic: s.Topic, ID: fmt.Sprintf("bench-c%d", i)})
		if err != nil {
			k.close()
			return nil, err
		}
		k.consumers = append(k.consumers, c)
	}
	for _, c := range k.consumers {
		go k.consume(c)
	}
	return k, nil
}

func (k *sink) consume(c *plain.Consumer) {
	for {
		d, err := c.Receive()
		if err == nil {
			err = c.Ack(d.MessageCode)
		}
		if err != nil {
			k.failed <- err
			return
		}
		// The number at the front names the message; the padding would only cost memory here.
		name, _, _ := strings.Cut(d.MessageData, " ")
		k.seenLock.Lock()
		_, again := k.seen[name]
		if !again {
			k.seen[name] = struct{}{}
		}
		k.seenLock.Unlock()
		if again {
			k.duplicates.Add(1)
			continue
		}
		k.lastAck.Store(time.Now().UnixNano())
		k.received.Add(1)
	}
}

// wait returns the time of the last ack when want different messages have been acked.
func (k *sink) wait(want int64) (time.Time, error) {
	quiet, before := time.Now(), int64(-1)
	for {
		got := k.received.Load()
		if got >= want {
			return time.Unix(0, k.lastAck.Load()), nil
		}
		if got != before {
			quiet, before = time.Now(), got
		}
		if time.Since(quiet) > stalled {
			return time.Time{}, fmt.Errorf("received %d of %d messages, then nothing for %v", got, want, stalled)
		}
		select {
		case err := <-k.failed:
			return time.Time{}, errors.Join(errors.New("a consumer ended"), err)
		case <-time.After(time.Millisecond):
		}
	}
}

func (k *sink) close() {
	for _, c := range k.consumers {
		_ = c.Drop()
	}
}
