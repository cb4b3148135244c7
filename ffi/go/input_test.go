package ceiba

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// Wrong input at every door: an error of the right kind that says what is wrong, and the process lives.
func TestBadInput(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	topic := unique("topic")
	p, c := pair(t, memory(topic), memory(topic))
	closed := openProducer(t, memory(topic), WithID(unique("p")))
	closedConsumer := openConsumer(t, memory(topic), WithID(unique("c")))
	if err := closed.Close(background); err != nil {
		t.Fatal(err)
	}
	if err := closedConsumer.Close(background); err != nil {
		t.Fatal(err)
	}
	open := func(config any, options ...OpenOption) func() error {
		return func() error {
			p, err := OpenProducer(background, config, options...)
			if err == nil {
				p.Close(background)
			}
			return err
		}
	}
	consume := func(config any, options ...OpenOption) func() error {
		return func() error {
			c, err := OpenConsumer(background, config, options...)
			if err == nil {
				c.Close(background)
			}
			return err
		}
	}
	ignore := func(Receipt, error) {}
	for _, bad := range []struct {
		name string
		kind Kind
		text string
		call func() error
	}{
		{"send to an unknown id", ErrUnknownID, "nobody", func() error { _, err := ProducerSend("nobody", nil, 0); return err }},
		{"submit to an unknown id", ErrUnknownID, "nobody", func() error { return ProducerSubmit("nobody", nil, 0, ignore) }},
		{"receive from an unknown id", ErrUnknownID, "nobody", func() error { _, err := ConsumerReceive(background, "nobody"); return err }},
		{"ack to an unknown id", ErrUnknownID, "nobody", func() error { return ConsumerAck("nobody", "x") }},
		{"the id of a consumer as a producer's", ErrUnknownID, c.ID(), func() error { _, err := ProducerSend(c.ID(), nil, 0); return err }},
		{"send to a closed id", ErrUnknownID, closed.ID(), func() error { _, err := ProducerSend(closed.ID(), nil, 0); return err }},
		{"submit to a closed id", ErrUnknownID, closed.ID(), func() error { return ProducerSubmit(closed.ID(), nil, 0, ignore) }},
		{"receive from a closed id", ErrUnknownID, closedConsumer.ID(), func() error { _, err := ConsumerReceive(background, closedConsumer.ID()); return err }},
		{"send with a closed producer", ErrClosed, closed.ID(), func() error { _, err := closed.Send(background, nil); return err }},
		{"receive with a closed consumer", ErrClosed, closedConsumer.ID(), func() error { _, err := closedConsumer.Receive(background, 1); return err }},
		{"an id that is not UTF-8", ErrInvalidArgument, "UTF-8", func() error { _, err := ProducerSend("a\xff", nil, 0); return err }},
		{"open under an id that is not UTF-8", ErrInvalidArgument, "UTF-8", open(memory(topic), WithID("a\xff"))},
		{"a configuration that is not UTF-8", ErrInvalidArgument, "UTF-8", open("{\"id\": \"a\xff\"}", WithID("x"))},
		{"a code that is not UTF-8", ErrInvalidArgument, "UTF-8", func() error { return ConsumerAck(c.ID(), "\xff") }},
		{"codes that are not UTF-8", ErrInvalidArgument, "UTF-8", func() error { return c.Ack(background, Delivery{Code: "a"}, Delivery{Code: "\xff"}) }},
		{"a key that is not UTF-8", ErrInvalidArgument, "UTF-8", func() error { _, err := p.Send(background, nil, WithKey("\xff")); return err }},
		{"an attribute that is not UTF-8", ErrInvalidArgument, "UTF-8", func() error { _, err := p.Send(background, nil, WithAttribute("a", "\xff")); return err }},
		{"arguments that are no JSON", ErrInvalidArgument, "JSON", func() error { _, err := p.Send(background, nil, WithTemplate("t", func() {})); return err }},
		{"an ack with an unknown code", ErrNotFound, "code", func() error { return ConsumerAck(c.ID(), "nothing") }},
		{"no configuration", ErrInvalidConfig, "JSON", open("", WithID("x"))},
		{"broken JSON", ErrInvalidConfig, "line 1", open(`{"id": "x",`)},
		{"a configuration that is no object", ErrInvalidConfig, "", open(17, WithID("x"))},
		{"a nil configuration", ErrInvalidConfig, "", open(nil, WithID("x"))},
		{"a configuration that cannot be JSON", ErrInvalidConfig, "func()", open(map[string]any{"a": func() {}})},
		{"no id", ErrInvalidArgument, "id", open(memory(topic))},
		{"an unknown key", ErrInvalidConfig, "`deadline`", open(`{"id": "x", "provider": {"type": "memory", "topic": "t"}, "dedline": "2s"}`)},
		{"an unknown key of the provider", ErrInvalidConfig, "`topic`", open(map[string]any{"id": "x", "provider": map[string]any{"type": "memory", "topik": "t"}})},
		{"an unknown key in a URL", ErrInvalidConfig, "`window`", open("kapokmq://:s@127.0.0.1:1/t?windw=3", WithID("x"))},
		{"an unknown provider", ErrInvalidConfig, "`kapokmq`", open(`{"id": "x", "provider": {"type": "kapokmk"}}`)},
		{"an unknown scheme", ErrInvalidConfig, "kapokmq", open("kapok://127.0.0.1/t", WithID("x"))},
		{"two ids", ErrInvalidConfig, "id", func() error {
			return cProducerOpenLeak("y", `{"id": "x", "provider": {"type": "memory", "topic": "t"}}`)
		}},
		{"an open id", ErrAlreadyOpen, p.ID(), open(memory(topic), WithID(p.ID()))},
		{"an open consumer's id", ErrAlreadyOpen, c.ID(), consume(memory(topic), WithID(c.ID()))},
		{"strategies of a consumer", ErrInvalidConfig, "strategies", consume(Config{ID: "x", Provider: Memory{Topic: "t"}, Strategies: []any{map[string]string{"type": "retry"}}})},
		{"a producer's key for a consumer", ErrInvalidConfig, "window", consume(b.URL("t")+"?window=5", WithID("x"))},
		{"an empty topic", ErrInvalidConfig, "topic", open(b.URL(""), WithID("x"))},
		{"a wrong secret", ErrAuthentication, "", open(kapokConfig(b.Address(), "wrong"), WithID("x"))},
		{"a wrong secret of a consumer", ErrAuthentication, "", consume(kapokConfig(b.Address(), "wrong"), WithID("x"))},
		{"a host that does not answer", ErrUnavailable, "", open(kapokConfig(deadAddress(t), "s"), WithID("x"))},
		{"a consumer's host that does not answer", ErrUnavailable, "", consume(kapokConfig(deadAddress(t), "s"), WithID("x"))},
		{"a negative delay by id", ErrInvalidArgument, "delay", func() error { _, err := ProducerSend(p.ID(), nil, -1); return err }},
		{"a negative delay of a submit by id", ErrInvalidArgument, "delay", func() error { return ProducerSubmit(p.ID(), nil, math.MinInt64, ignore) }},
		{"a negative delay", ErrInvalidArgument, "delay", func() error { _, err := p.Send(background, nil, WithDelay(-1)); return err }},
		{"a negative delay of a submit", ErrInvalidArgument, "delay", func() error { return p.Submit(nil, ignore, WithDelay(-time.Hour)) }},
		{"a delay past all clocks", ErrInvalidArgument, "delay", func() error { _, err := ProducerSend(p.ID(), nil, math.MaxInt64); return err }},
		{"a negative timeout", ErrInvalidArgument, "timeout", func() error { _, err := p.Send(background, nil, WithTimeout(-1)); return err }},
		{"a submit without a callback", ErrInvalidArgument, "callback", func() error { return p.Submit(nil, nil) }},
		{"a submit of a message without a callback", ErrInvalidArgument, "callback", func() error { return p.SubmitMessage(Message{}, nil) }},
		{"a negative max", ErrInvalidArgument, "-3", func() error { _, err := c.Receive(background, -3); return err }},
		{"no submits at all", ErrInvalidArgument, "submits", open(memory(topic), WithID("x"), WithMaxSubmits(0))},
		{"too many submits", ErrInvalidArgument, "submits", open(memory(topic), WithID("x"), WithMaxSubmits(1<<40))},
		{"no workers", ErrInvalidArgument, "workers", func() error { return SetWorkers(0) }},
		{"too many workers", ErrInvalidArgument, "workers", func() error { return SetWorkers(1 << 40) }},
		{"workers too late", ErrInvalidArgument, "started", func() error { return SetWorkers(2) }},
		{"a broker with an unknown delivery", ErrInvalidConfig, "delivery", func() error { _, err := StartBroker(BrokerConfig{Delivery: "both"}); return err }},
		{"a broker on no address", ErrUnavailable, "nowhere", func() error { _, err := StartBroker(BrokerConfig{Listen: "nowhere"}); return err }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			e := wantKind(t, bad.call(), bad.kind)
			if !strings.Contains(e.Error(), bad.text) {
				t.Errorf("%q does not tell %q", e, bad.text)
			}
			if e.Outcome != NotSent {
				t.Errorf("%v: nothing can have been sent", e)
			}
			if strings.Contains(e.Error(), b.SecretKey()) {
				t.Errorf("%v holds the secret", e)
			}
		})
	}
	// Those that were in the way of others are gone, and what was open still works.
	if _, err := p.Send(background, []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := c.Receive(within(t, 5*time.Second), 1); err != nil {
		t.Error(err)
	}
}

// cProducerOpenLeak opens with an id beside the configuration's own, which the package never does.
func cProducerOpenLeak(id, config string) error {
	e, err := useEngine()
	if err != nil {
		return err
	}
	defer leaveEngine(time.After(closePatience))
	if err := cProducerOpen(id, config, e.queue); err != nil {
		return err
	}
	return errors.New("it opened")
}

func kapokConfig(address, secret string) Config {
	return Config{Provider: KapokMQ{URL: "ws://" + address, Topic: "t", SecretKey: SecretText(secret)}, ConnectTimeout: time.Second}
}

func TestNilContextsAreBackground(t *testing.T) {
	watchLeaks(t)
	topic := unique("topic")
	//lint:ignore SA1012 this is the test
	p, err := OpenProducer(nil, memory(topic), WithID(unique("p"))) //nolint
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Send(nil, []byte("x")); err != nil { //nolint
		t.Error(err)
	}
	if err := p.Flush(nil); err != nil { //nolint
		t.Error(err)
	}
	if err := p.Close(nil); err != nil { //nolint
		t.Error(err)
	}
}

func TestBodiesOfEverySize(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	topic := unique("topic")
	p, c := pair(t, b.URL(topic), b.URL(topic))
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 16 << 20} {
		body := []byte(strings.Repeat("ä", size/2) + strings.Repeat("x", size%2))
		if _, err := p.Send(background, body); err != nil {
			t.Fatal(size, err)
		}
		d, err := ConsumerReceive(within(t, 30*time.Second), c.ID())
		if err != nil || string(d.Body) != string(body) {
			t.Fatal(size, len(d.Body), err)
		}
		if err := d.Ack(); err != nil {
			t.Error(err)
		}
	}
	_, err := p.Send(background, make([]byte, 65<<20))
	if e := wantKind(t, err, ErrTooLarge); e.Outcome != NotSent {
		t.Error(e)
	}
	_, err = p.Send(background, []byte("a\xffb"))
	if e := wantKind(t, err, ErrUnsupported); e.Outcome != NotSent {
		t.Error(e)
	}
	if _, err := p.Send(background, []byte("after")); err != nil {
		t.Error(err)
	}
}
