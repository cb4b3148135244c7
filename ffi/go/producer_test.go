package ceiba

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSendReceiveAndAck(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	start := time.Now()
	receipt, err := p.Send(background, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Provider != "memory" || receipt.MessageID == "" || receipt.Attempts != 1 || receipt.Stored || receipt.Warning != "" {
		t.Errorf("%+v", receipt)
	}
	deliveries, err := c.Receive(within(t, 5*time.Second), 10)
	if err != nil || len(deliveries) != 1 {
		t.Fatal(deliveries, err)
	}
	d := deliveries[0]
	if string(d.Body) != "hello" || d.Topic != topic || d.Attempt != 1 || d.Code == "" {
		t.Errorf("%+v", d)
	}
	if d.Created.Before(start.Add(-time.Second)) || d.Created.After(time.Now().Add(time.Second)) {
		t.Errorf("created %v", d.Created)
	}
	if err := d.Ack(); err != nil {
		t.Error(err)
	}
	wantKind(t, d.Ack(), ErrNotFound)
	for _, status := range []func() (json.RawMessage, error){p.Status, c.Status} {
		if text, err := status(); err != nil || !strings.Contains(string(text), topic) {
			t.Error(string(text), err)
		}
	}
}

func TestEveryFieldTravels(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	body := []byte{0, 0xff, 0xfe, 'x', 0}
	if _, err := p.Send(background, body, WithKey("k"), WithTag("g"), WithContentType("a/b"),
		WithAttribute("n", "1"), WithAttribute("m", ""), WithTopic(topic), WithTimeout(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.SendMessage(background, Message{}); err != nil {
		t.Fatal(err)
	}
	deliveries, err := c.Receive(within(t, 5*time.Second), 2)
	if err != nil || len(deliveries) != 2 {
		t.Fatal(deliveries, err)
	}
	d := deliveries[0]
	if !bytes.Equal(d.Body, body) || d.Key != "k" || d.Tag != "g" || d.ContentType != "a/b" ||
		len(d.Attributes) != 2 || d.Attributes["n"] != "1" {
		t.Errorf("%+v", d)
	}
	if d = deliveries[1]; d.Body == nil || len(d.Body) != 0 || d.Key != "" || d.Attributes != nil {
		t.Errorf("%+v", d)
	}
	if err := c.Ack(background, deliveries...); err != nil {
		t.Error(err)
	}
	for name, option := range map[string]SendOption{
		"topic": WithTopic("another"), "template": WithTemplate("x", map[string]int{"a": 1}),
		"recipients": WithRecipients("a", "b"), "attachments": WithAttachment(Attachment{Name: "f", ContentType: "a/b", Body: []byte("x")}),
	} {
		_, err := p.Send(background, []byte("x"), option)
		if e := wantKind(t, err, ErrUnsupported); !strings.Contains(e.Message, name) || e.Provider != "memory" || e.Outcome != NotSent {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestDelaysAreNeverEarly(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	start := time.Now()
	for body, send := range map[string]func() (Receipt, error){
		"30ms":     func() (Receipt, error) { return p.Send(background, []byte("30ms"), WithDelay(30*time.Millisecond-1)) },
		"1s":       func() (Receipt, error) { return p.Send(background, []byte("1s"), WithDelay(time.Second)) },
		"1s by id": func() (Receipt, error) { return ProducerSend(p.ID(), []byte("1s by id"), 1) },
		"1s within": func() (Receipt, error) {
			return p.Send(within(t, time.Minute), []byte("1s within"), WithDelay(time.Second))
		},
	} {
		if _, err := send(); err != nil {
			t.Fatal(body, err)
		}
	}
	for range 4 {
		d, err := ConsumerReceive(within(t, 10*time.Second), c.ID())
		if err != nil {
			t.Fatal(err)
		}
		wait := 30*time.Millisecond - 1
		if strings.HasPrefix(string(d.Body), "1s") {
			wait = time.Second
		}
		if took := time.Since(start); took < wait {
			t.Errorf("%s came after %v", d.Body, took)
		}
	}
}

func TestManyGoroutinesGetTheirOwnResult(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	const goroutines, each = 50, 200
	var all sync.WaitGroup
	var ids sync.Map
	for g := range goroutines {
		all.Go(func() {
			ctx := background
			if g%2 == 1 {
				ctx = within(t, time.Minute)
			}
			for i := range each {
				// Every tenth is refused: its error must not reach another goroutine.
				if i%10 == 9 {
					if _, err := p.Send(ctx, nil, WithTopic("another")); !errors.Is(err, ErrUnsupported) {
						t.Errorf("%d/%d: %v", g, i, err)
					}
					continue
				}
				receipt, err := p.Send(ctx, fmt.Appendf(nil, "%d/%d", g, i))
				if err != nil {
					t.Errorf("%d/%d: %v", g, i, err)
					return
				}
				if _, twice := ids.LoadOrStore(receipt.MessageID, true); twice {
					t.Errorf("two sends got the receipt %s", receipt.MessageID)
				}
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	last := map[string]int{}
	for len(seen) < goroutines*each*9/10 {
		deliveries, err := c.Receive(within(t, 10*time.Second), 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			var g string
			var i int
			parts := strings.Split(string(d.Body), "/")
			g = parts[0]
			fmt.Sscan(parts[1], &i)
			if seen[string(d.Body)] || i < last[g] {
				t.Errorf("%s came twice or out of order", d.Body)
			}
			seen[string(d.Body)], last[g] = true, i
		}
		if err := c.Ack(background, deliveries...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSendBatchGivesAResultForEach(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	messages := make([]Message, batchWindow*2+77)
	for i := range messages {
		messages[i].Body = fmt.Append(nil, i)
	}
	messages[5].Topic = "another"
	messages[batchWindow+1].Delay = -time.Second
	results, err := p.SendBatch(background, messages)
	if err != nil || len(results) != len(messages) {
		t.Fatal(len(results), err)
	}
	for i, result := range results {
		switch i {
		case 5:
			wantKind(t, result.Err, ErrUnsupported)
		case batchWindow + 1:
			wantKind(t, result.Err, ErrInvalidArgument)
		default:
			if result.Err != nil || result.Receipt.MessageID == "" {
				t.Fatalf("%d: %+v", i, result)
			}
		}
	}
	next := 0
	for next < len(messages) {
		deliveries, err := c.Receive(within(t, 5*time.Second), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			for next == 5 || next == batchWindow+1 {
				next++
			}
			if string(d.Body) != fmt.Sprint(next) {
				t.Fatalf("%s came in place of %d", d.Body, next)
			}
			next++
		}
	}
	if results, err := p.SendBatch(background, nil); err != nil || len(results) != 0 {
		t.Error(results, err)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	results, err = p.SendBatch(ctx, messages[:3])
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		wantKind(t, result.Err, ErrCancelled)
	}
}

func TestAFullWindowHoldsSendsBackAndRefusesSubmits(t *testing.T) {
	watchLeaks(t)
	p := stuck(t, Config{MaxPending: 1, Deadline: 5 * time.Second})
	ended := make(chan error, 1)
	if err := p.Submit([]byte("a"), func(_ Receipt, err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	err := p.Submit([]byte("b"), func(Receipt, error) { t.Error("called for a submit that was refused") })
	if e := wantKind(t, err, ErrQueueFull); !e.Retryable || e.Outcome != NotSent {
		t.Error(e)
	}
	start := time.Now()
	_, err = p.Send(within(t, 50*time.Millisecond), []byte("c"))
	if wantKind(t, err, ErrQueueFull); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) < 50*time.Millisecond {
		t.Error(time.Since(start), err)
	}
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = p.Send(ctx, []byte("d"))
	if wantKind(t, err, ErrCancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The first ends at the client's deadline; this one then gets its room, and its own deadline.
	_, err = p.Send(background, []byte("e"))
	if e := asError(t, err); e.Kind != ErrTimeout && e.Kind != ErrQueueFull {
		t.Error(e)
	}
	if wantKind(t, <-ended, ErrTimeout).Outcome != NotSent {
		t.Error("the outcome of what was never written is known")
	}
}

func TestSendsWaitForRoomAndAllGetThrough(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p := openProducer(t, Config{Provider: Memory{Topic: topic, Discard: true}, MaxPending: 2}, WithID(unique("p")))
	var all sync.WaitGroup
	var sent atomic.Int64
	for range 40 {
		all.Go(func() {
			for range 50 {
				if _, err := p.Send(background, []byte("x")); err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
			}
		})
	}
	all.Wait()
	if sent.Load() != 2000 {
		t.Error(sent.Load())
	}
	if p.engine.room.waiting.Load() != 0 {
		t.Error("someone is left waiting for room")
	}
}

func TestProducerSendOfAnIDThatOtherCodeOpened(t *testing.T) {
	watchLeaks(t)
	id, topic := unique("foreign"), unique("topic")
	e, err := useEngine()
	if err != nil {
		t.Fatal(err)
	}
	if err := cProducerOpen(id, "memory://"+topic, e.queue); err != nil {
		t.Fatal(err)
	}
	receipt, failure := ProducerSend(id, []byte("x"), 0)
	if failure != nil || receipt.Provider != "memory" || receipt.MessageID == "" {
		t.Error(receipt, failure)
	}
	wantKind(t, ProducerSubmit(id, nil, 0, func(Receipt, error) {}), ErrUnknownID)
	if err := cProducerClose(id, -1); err != nil {
		t.Error(err)
	}
	leaveEngine(time.After(closePatience))
}
