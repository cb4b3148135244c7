package wire

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"ceiba.test/wire/plain"
)

const many = 10_000

// Ten thousand messages from one producer to one consumer: each acked, received once, in order, and consumed,
// whichever way the producer treats its acks.
func TestTenThousand(t *testing.T) {
	ways := []struct {
		name string
		send func(*plain.Producer, []string) error
	}{
		{"acked one by one", func(p *plain.Producer, bodies []string) error {
			for _, body := range bodies {
				if err := p.Send(body, 0); err != nil {
					return err
				}
			}
			return nil
		}},
		{"pipelined", func(p *plain.Producer, bodies []string) error { return p.SendAll(512, bodies) }},
		{"unacked", func(p *plain.Producer, bodies []string) error {
			var total atomic.Int64
			total.Store(int64(len(bodies)))
			acks := p.ReadAcks(&total)
			for _, body := range bodies {
				if err := p.Write(body, 0); err != nil {
					return err
				}
			}
			r := <-acks
			if r.Err == nil && r.Acked != int64(len(bodies)) {
				return fmt.Errorf("%d acks", r.Acked)
			}
			return r.Err
		}},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			topic := newTopic()
			a, bodies := newTally(), numbered("m", many)
			work(t, options(t, "", topic, "c"), a)
			if err := way.send(producer(t, options(t, "", topic, "p")), bodies); err != nil {
				t.Fatal(err)
			}
			a.wait(t, many)
			settled(t, server(t, ""), topic)
			a.exactly(t, bodies)
			if !slices.Equal(a.order, bodies) {
				t.Error("the messages of one producer came out of order")
			}
		})
	}
}

// Several producers and consumers of one topic: every message goes to one consumer, and no consumer is left out.
func TestWorkQueue(t *testing.T) {
	topic := newTopic()
	a := newTally()
	const consumers, producers = 4, 3
	for i := range consumers {
		work(t, options(t, "", topic, fmt.Sprintf("c%d", i)), a)
	}
	all := sendFrom(t, "", topic, producers, many/producers)
	a.wait(t, len(all))
	settled(t, server(t, ""), topic)
	a.exactly(t, all)
	t.Logf("shares: %v", a.by)
	if len(a.by) != consumers {
		t.Errorf("%d of %d consumers got something: %v", len(a.by), consumers, a.by)
	}
}

// Every consumer of the topic gets every message.
func TestPublishSubscribe(t *testing.T) {
	topic := newTopic()
	const kind = "publish_subscribe"
	tallies := make([]*tally, 3)
	for i := range tallies {
		tallies[i] = newTally()
		work(t, options(t, kind, topic, fmt.Sprintf("c%d", i)), tallies[i])
	}
	elsewhere := newTally()
	work(t, options(t, kind, newTopic(), "elsewhere"), elsewhere)
	all := sendFrom(t, kind, topic, 2, many/2)
	for _, a := range tallies {
		a.wait(t, len(all))
	}
	settled(t, server(t, kind), topic)
	codes := tallies[0].codes
	for _, a := range tallies {
		a.exactly(t, all)
		for body, code := range a.codes {
			if codes[body] != code {
				t.Fatalf("%q has one code for one consumer and another for the next", body)
			}
		}
	}
	elsewhere.exactly(t, nil)
}

// sendFrom sends count messages from each of several producers at once and returns all bodies.
func sendFrom(t *testing.T, kind, topic string, producers, count int) []string {
	t.Helper()
	var all []string
	ended := make(chan error, producers)
	for i := range producers {
		bodies := numbered(fmt.Sprintf("p%d", i), count)
		all = append(all, bodies...)
		p := producer(t, options(t, kind, topic, fmt.Sprintf("p%d", i)))
		go func() { ended <- p.SendAll(256, bodies) }()
	}
	for range producers {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Messages sent over HTTP reach WebSocket consumers with the code that the sender was told.
func TestHTTPSends(t *testing.T) {
	topic := newTopic()
	a, bodies := newTally(), numbered("h", 200)
	work(t, options(t, "", topic, "c"), a)
	web := plain.Web{Addr: server(t, ""), Secret: secret()}
	told := map[string]string{}
	for _, body := range bodies {
		code, err := web.Send(context.Background(), topic, body, 0)
		if err != nil {
			t.Fatal(err)
		}
		told[body] = code
	}
	a.wait(t, len(bodies))
	settled(t, server(t, ""), topic)
	a.exactly(t, bodies)
	for body, code := range told {
		if a.codes[body] != code {
			t.Errorf("%q: told %s, pushed %s", body, code, a.codes[body])
		}
	}
}
