package ceiba

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestKapokMQEndToEnd(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{SecretKey: SecretText("s ecret/?#%ä")})
	topic := "tö pic?&#%25+" + unique("x")
	p, c := pair(t, b.URL(topic), b.URL(topic))
	const goroutines, each = 20, 100
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range each {
				receipt, err := p.Send(background, fmt.Appendf(nil, "%d-%d", g, i))
				if err != nil || receipt.Provider != "kapokmq" || receipt.Attempts != 1 {
					t.Error(receipt, err)
					return
				}
			}
		})
	}
	seen := map[string]bool{}
	for d, err := range c.All(within(t, time.Minute)) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(d.Body)] || d.Topic != topic {
			t.Errorf("%s came twice, or from %q", d.Body, d.Topic)
		}
		seen[string(d.Body)] = true
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
		if len(seen) == goroutines*each {
			break
		}
	}
	all.Wait()
	_, err := p.Send(background, nil, WithRecipients("x"))
	wantKind(t, err, ErrUnsupported)
}

func TestSubmitsOverKapokMQAllGetTheirReceipt(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	topic := unique("topic")
	p, c := pair(t, b.URL(topic), b.URL(topic))
	const count = 10_000
	var good atomic.Int64
	for i := range count {
		err := p.Submit(fmt.Append(nil, i), func(_ Receipt, err error) {
			if err != nil {
				t.Error(err)
			}
			good.Add(1)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(background); err != nil || good.Load() != count {
		t.Fatal(err, good.Load())
	}
	next := 0
	for next < count {
		deliveries, err := c.Receive(within(t, 20*time.Second), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			if string(d.Body) != fmt.Sprint(next) {
				t.Fatalf("%s in place of %d", d.Body, next)
			}
			next++
		}
		if err := c.Ack(background, deliveries...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsNotAcknowledgedComesAgain(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{RedeliverAfter: time.Second})
	topic := unique("topic")
	p := openProducer(t, b.URL(topic), WithID(unique("p")))
	if _, err := p.Send(background, []byte("x")); err != nil {
		t.Fatal(err)
	}
	first, err := OpenConsumer(background, b.URL(topic), WithID(unique("c")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Receive(within(t, 10*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(background); err != nil {
		t.Error(err)
	}
	second := openConsumer(t, b.URL(topic), WithID(unique("c")))
	for range 2 {
		// Once because the first closed, once because its time passed.
		deliveries, err := second.Receive(within(t, 10*time.Second), 1)
		if err != nil || string(deliveries[0].Body) != "x" {
			t.Fatal(deliveries, err)
		}
	}
}

func TestPublishSubscribeReachesEveryConsumer(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{Delivery: "publish_subscribe"})
	topic := unique("topic")
	p, first := pair(t, b.URL(topic), b.URL(topic))
	second := openConsumer(t, b.URL(topic), WithID(unique("c")))
	if _, err := p.Send(background, []byte("to all")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Consumer{first, second} {
		d, err := ConsumerReceive(within(t, 10*time.Second), c.ID())
		if err != nil || string(d.Body) != "to all" {
			t.Fatal(d, err)
		}
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
	}
}

// The broker goes while goroutines send: every send ends, in time, with a receipt or an error that says
// whether the message was sent.
func TestEverySendEndsWhenTheBrokerGoes(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	p := openProducer(t, b.URL(unique("topic"))+"?deadline=2s", WithID(unique("p")))
	var all sync.WaitGroup
	var good, notSent, unknown, called, accepted atomic.Int64
	count := func(err error) {
		var e *Error
		switch {
		case err == nil:
			good.Add(1)
		case errors.As(err, &e) && e.Outcome == NotSent:
			notSent.Add(1)
		default:
			unknown.Add(1)
		}
	}
	var failed atomic.Bool
	for range 8 {
		all.Go(func() {
			for !failed.Load() {
				err := p.Submit([]byte("s"), func(_ Receipt, err error) { count(err); called.Add(1) })
				if err == nil {
					accepted.Add(1)
				}
				start := time.Now()
				_, err = p.Send(background, []byte("x"))
				count(err)
				if err != nil {
					failed.Store(true)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("a send with a deadline of 2 s took %v", took)
				}
			}
		})
	}
	eventually(t, "some sends", func() bool { return good.Load() > 200 })
	if err := b.Stop(background); err != nil {
		t.Error(err)
	}
	all.Wait()
	_, err := p.Send(within(t, 100*time.Millisecond), []byte("to nobody"))
	if e := wantKind(t, err, ErrTimeout); e.Outcome != NotSent {
		t.Error(e)
	}
	if err := p.Close(background); err != nil && !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	if called.Load() != accepted.Load() {
		t.Errorf("%d submits, %d callbacks", accepted.Load(), called.Load())
	}
	if notSent.Load()+unknown.Load() == 0 {
		t.Error("no send failed")
	}
	t.Logf("%d sent, %d not sent, %d unknown", good.Load(), notSent.Load(), unknown.Load())
}

func TestABrokerTellsItsAddress(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	if !strings.HasPrefix(b.Address(), "127.0.0.1:") || strings.HasSuffix(b.Address(), ":0") || len(b.SecretKey()) < 20 {
		t.Error(b.Address(), len(b.SecretKey()))
	}
	status, err := b.Status()
	if err != nil || !json.Valid(status) {
		t.Error(string(status), err)
	}
	_, err = StartBroker(BrokerConfig{Listen: b.Address()})
	if asError(t, err); err == nil {
		t.Error("two brokers on one address")
	}
	if err := b.Stop(background); err != nil {
		t.Error(err)
	}
	if err := b.Stop(background); err != nil {
		t.Error(err)
	}
	_, err = b.Status()
	wantKind(t, err, ErrClosed)
	_, err = OpenProducer(background, b.URL("t")+"?connect_timeout=200ms", WithID(unique("p")))
	wantKind(t, err, ErrUnavailable)
}

// A cluster's producer asks one broker's registry and sends to all that it names.
func TestAClustersProducerSpreadsOverTheNodes(t *testing.T) {
	watchLeaks(t)
	second := startBroker(t, BrokerConfig{SecretKey: SecretText("shared")})
	first := startBroker(t, BrokerConfig{SecretKey: SecretText("shared"), Nodes: []string{second.Address()}})
	topic := unique("topic")
	p := openProducer(t, Config{Provider: KapokMQ{
		Registry: "http://" + first.Address(), Topic: topic, SecretKey: SecretText("shared"), Spread: "round_robin",
	}}, WithID(unique("p")))
	sendAll(t, p, 20)
	for _, b := range []*Broker{first, second} {
		c := openConsumer(t, b.URL(topic), WithID(unique("c")))
		for range 10 {
			d, err := ConsumerReceive(within(t, 10*time.Second), c.ID())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestABrokersRegistryNamesTheHostThatItAdvertises(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{SecretKey: SecretText("shared"), Advertise: "broker.example"})
	request, err := http.NewRequestWithContext(within(t, 20*time.Second), http.MethodPost, "http://"+b.Address()+"/Registry/GetNodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("secretKey", b.SecretKey())
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	var nodes []struct{ Addr, Port string }
	if err := json.NewDecoder(reply.Body).Decode(&nodes); err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 1 || nodes[0].Addr != "broker.example" || !strings.HasSuffix(b.Address(), ":"+nodes[0].Port) {
		t.Error(nodes)
	}
}

func TestOpeningCanBeCancelled(t *testing.T) {
	watchLeaks(t)
	silent := silentServer(t)
	for name, open := range map[string]func(context.Context) error{
		"producer": func(ctx context.Context) error {
			_, err := OpenProducer(ctx, Config{ID: "silent", ConnectTimeout: 6 * time.Second, Provider: KapokMQ{URL: "ws://" + silent, Topic: "t", SecretKey: SecretText("s")}})
			return err
		},
		"consumer": func(ctx context.Context) error {
			_, err := OpenConsumer(ctx, Config{ID: "silent", ConnectTimeout: 6 * time.Second, Provider: KapokMQ{URL: "ws://" + silent, Topic: "t", SecretKey: SecretText("s")}})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(background)
		time.AfterFunc(50*time.Millisecond, cancel)
		start := time.Now()
		err := open(ctx)
		if wantKind(t, err, ErrCancelled); !errors.Is(err, context.Canceled) || time.Since(start) > 4*time.Second {
			t.Error(name, time.Since(start), err)
		}
		if asError(t, err).Outcome != NotSent {
			t.Error(err)
		}
	}
}

func TestShutdownClosesEverything(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	ended := make(chan error, 1)
	go func() {
		_, err := c.Receive(background, 1)
		ended <- err
	}()
	eventually(t, "it waits", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.line) == 1 })
	called := make(chan error, 1)
	if err := p.Submit([]byte("x"), func(_ Receipt, err error) { called <- err }, WithDelay(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := Shutdown(background); err != nil {
		t.Fatal(err)
	}
	if err := <-called; err != nil {
		t.Error(err)
	}
	wantKind(t, <-ended, ErrClosed)
	_, err := p.Send(background, nil)
	wantKind(t, err, ErrClosed)
	_, err = ProducerSend(p.ID(), nil, 0)
	wantKind(t, err, ErrUnknownID)
	if err := Shutdown(background); err != nil {
		t.Error(err)
	}
	held := stuck(t, Config{})
	if err := held.Submit([]byte("x"), func(_ Receipt, err error) { called <- err }); err != nil {
		t.Fatal(err)
	}
	wantKind(t, Shutdown(within(t, 100*time.Millisecond)), ErrTimeout)
	if e := asError(t, <-called); e.Outcome != NotSent {
		t.Error(e)
	}
	again := openProducer(t, memory(topic), WithID(p.ID()))
	if _, err := again.Send(background, []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestTopicsAreKeptAndDeliveredAsConfigured(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{
		Data: t.TempDir(), Durability: "interval:100ms",
		Topic: TopicConfig{
			MaxAttempts: 2, ExpireAfter: time.Hour, PushEvery: time.Millisecond, PushCount: 100,
			MaxMessages: 2, MaxBytes: 1 << 20, WhenFull: "refuse", Deduplicate: time.Minute, Compat: true,
		},
		Topics: map[string]TopicConfig{"wide": {MaxMessages: 3}},
	})
	for topic, room := range map[string]int{"narrow": 2, "wide": 3} {
		p, c := pair(t, b.URL(topic), b.URL(topic))
		for i := range room + 1 {
			receipt, err := p.Send(background, fmt.Append(nil, i))
			if i == room {
				wantKind(t, err, ErrQueueFull)
			} else if err != nil || receipt.MessageID == "" {
				t.Fatal(topic, receipt, err)
			}
		}
		deliveries, err := c.Receive(within(t, 10*time.Second), 1)
		if err != nil || len(deliveries) != 1 || deliveries[0].Attempt != 1 {
			t.Fatal(deliveries, err)
		}
		if err := deliveries[0].Nack(0); err != nil {
			t.Fatal(err)
		}
	}
	status, err := b.Status()
	if err != nil || !strings.Contains(string(status), `"durability":"interval"`) {
		t.Fatal(string(status), err)
	}
	for _, wrong := range []BrokerConfig{
		{Durability: "sometimes"}, {Durability: "fsync"}, {Durability: "interval:200ms"}, {Topic: TopicConfig{WhenFull: "drop"}}, {Topic: TopicConfig{PushCount: 3}},
		{Topics: map[string]TopicConfig{"a": {PushCount: 3}}},
	} {
		_, err := StartBroker(wrong)
		wantKind(t, err, ErrInvalidConfig)
		if wrong.Durability == "fsync" && !strings.Contains(err.Error(), "needs a folder for the messages: name one in `data`") {
			t.Error(err)
		}
	}
	startBroker(t, BrokerConfig{Durability: "memory"})
}
