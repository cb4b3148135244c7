package wire

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ceiba.test/wire/plain"
)

// A delayed message never comes before its time. How late it came is reported, not judged, short of a plain loss.
func TestDelay(t *testing.T) {
	topic := newTopic()
	c := consumer(t, options(t, "", topic, "c"))
	defer c.Drop()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p := producer(t, options(t, "", topic, "p"))
	web := plain.Web{Addr: server(t, ""), Secret: secret()}
	type sent struct {
		delay         time.Duration
		before, after time.Time
	}
	waiting := map[string]sent{}
	note := func(body string, delay int64, send func() error) {
		s := sent{delay: time.Duration(delay) * time.Second, before: time.Now()}
		if err := send(); err != nil {
			t.Fatal(err)
		}
		s.after = time.Now()
		waiting[body] = s
	}
	for round := range 5 {
		for _, delay := range []int64{3, 1, 2, 0, -1} {
			body := fmt.Sprintf("ws %d/%d", delay, round)
			note(body, delay, func() error { return p.Send(body, delay) })
		}
		body := fmt.Sprintf("http 1/%d", round)
		note(body, 1, func() error {
			_, err := web.Send(context.Background(), topic, body, 1)
			return err
		})
		// Different parts of a second: a server that counts in whole seconds is early in some of them.
		time.Sleep(230 * time.Millisecond)
	}
	var latest time.Duration
	for len(waiting) > 0 {
		d, err := c.Receive()
		now := time.Now()
		if err != nil {
			t.Fatalf("%d messages have not come: %v", len(waiting), err)
		}
		if err := c.Ack(d.MessageCode); err != nil {
			t.Fatal(err)
		}
		s, ok := waiting[d.MessageData]
		if !ok {
			t.Fatalf("%q came again, or was never sent", d.MessageData)
		}
		delete(waiting, d.MessageData)
		if early := s.delay - now.Sub(s.before); early > 0 {
			if original {
				t.Logf("%q came %v early", d.MessageData, early)
			} else {
				t.Errorf("%q came %v early", d.MessageData, early)
			}
		}
		if s.delay > 0 {
			latest = max(latest, now.Sub(s.after)-s.delay)
		}
	}
	t.Logf("the latest delayed message came %v after its time", latest)
}

// What a lost consumer had not acked comes to another one, with the same codes; what it had acked does not.
func TestRedelivery(t *testing.T) {
	leave := map[string]func(*plain.Consumer) error{
		"after a goodbye": (*plain.Consumer).Close,
		"after a crash":   (*plain.Consumer).Drop,
	}
	for name, end := range leave {
		t.Run(name, func(t *testing.T) {
			topic := newTopic()
			const count = 100
			first := consumer(t, options(t, "", topic, "first"))
			defer first.Drop()
			if err := producer(t, options(t, "", topic, "p")).SendAll(count, numbered("m", count)); err != nil {
				t.Fatal(err)
			}
			if err := first.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			unacked := map[string]string{}
			for i := range count {
				d, err := first.Receive()
				if err != nil {
					t.Fatal(err)
				}
				if i%2 == 1 {
					unacked[d.MessageData] = d.MessageCode
				} else if err := first.Ack(d.MessageCode); err != nil {
					t.Fatal(err)
				}
			}
			waitUnconsumed(t, topic, len(unacked))
			if err := end(first); err != nil {
				t.Fatal(err)
			}
			a := newTally()
			work(t, options(t, "", topic, "second"), a)
			a.wait(t, len(unacked))
			settled(t, server(t, ""), topic)
			// Whatever else would come had the time to.
			time.Sleep(500 * time.Millisecond)
			if len(a.codes) != len(unacked) {
				t.Errorf("%d messages came back, %d were not acked", len(a.codes), len(unacked))
			}
			for body, code := range unacked {
				if a.codes[body] != code {
					t.Errorf("%q: pushed as %s, then as %q", body, code, a.codes[body])
				}
			}
		})
	}
}

// Another consumer that was there all along takes over, and messages without any consumer wait for one.
func TestTakeOver(t *testing.T) {
	topic := newTopic()
	bodies := numbered("m", 50)
	silent := consumer(t, options(t, "", topic, "silent"))
	if err := producer(t, options(t, "", topic, "p")).SendAll(10, bodies); err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Receive(); err != nil {
		t.Fatal(err)
	}
	a := newTally()
	work(t, options(t, "", topic, "steady"), a)
	if err := silent.Drop(); err != nil {
		t.Fatal(err)
	}
	a.wait(t, len(bodies))
	settled(t, server(t, ""), topic)
	a.complete(t, bodies)
}

func waitUnconsumed(t *testing.T, topic string, want int) {
	t.Helper()
	web := plain.Web{Addr: server(t, ""), Secret: secret()}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := web.List(context.Background(), topic, -1)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are unconsumed, want %d", len(left), want)
		}
	}
}
