package wire

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"ceiba.test/wire/plain"
)

// Consumers and producers that come and go while messages flow: nothing is lost, nothing gets a second code,
// and the broker lives. The original ends its process in this.
func TestChurn(t *testing.T) {
	if original {
		t.Skip("the original server crashes when consumers come and go under load")
	}
	topic := newTopic()
	const producers, rounds, batch, churners = 4, 20, 100, 6
	a := newTally()
	stop := make(chan struct{})
	var consumers, senders sync.WaitGroup
	failed := make(chan error, producers+churners)
	for i := range churners {
		o := options(t, "", topic, fmt.Sprintf("c%d", i))
		consumers.Add(1)
		go func() {
			defer consumers.Done()
			chance := rand.New(rand.NewSource(int64(i)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := visit(o, a, chance); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	var all []string
	for i := range producers {
		o := options(t, "", topic, fmt.Sprintf("p%d", i))
		bodies := numbered(o.ID, rounds*batch)
		all = append(all, bodies...)
		senders.Add(1)
		go func() {
			defer senders.Done()
			for r := range rounds {
				if err := burst(o, bodies[r*batch:(r+1)*batch]); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	senders.Wait()
	close(stop)
	consumers.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	work(t, options(t, "", topic, "last"), a)
	a.wait(t, len(all))
	settled(t, server(t, ""), topic)
	a.complete(t, all)
	t.Logf("%d messages, %d of them pushed again after a consumer left", len(all), a.again)
}

// visit is the short life of one consumer: some messages, most of them acked, then a goodbye or a crash.
func visit(o plain.Options, a *tally, chance *rand.Rand) error {
	c, err := plain.OpenConsumer(context.Background(), o)
	if err != nil {
		return err
	}
	defer c.Drop()
	// A quiet topic ends the visit too.
	if err := c.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	for range chance.Intn(60) {
		d, err := c.Receive()
		if err != nil {
			return nil
		}
		a.add(o.ID, o.Topic, d)
		if chance.Intn(10) > 0 {
			if err := c.Ack(d.MessageCode); err != nil {
				return err
			}
		}
	}
	if chance.Intn(2) == 0 {
		_ = c.Close()
	}
	return nil
}

func burst(o plain.Options, bodies []string) error {
	p, err := plain.OpenProducer(context.Background(), o)
	if err != nil {
		return err
	}
	defer p.Drop()
	if err := p.SetAckDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := p.SendAll(32, bodies); err != nil {
		return err
	}
	return p.Close()
}

// A consumer that never reads holds up neither another topic nor another consumer of its own topic,
// and what was pushed to it is not lost. The original stops all topics.
func TestConsumerThatNeverReads(t *testing.T) {
	if original {
		t.Skip("the original server stops every topic when one consumer does not read")
	}
	stuck, free := newTopic(), newTopic()
	deaf := consumer(t, options(t, "", stuck, "deaf"))
	defer deaf.Drop()
	// More than the buffers of both sockets hold.
	const count, size = 640, 64 << 10
	pad := strings.Repeat("x", size)
	bodies := numbered("big", count)
	for i := range bodies {
		bodies[i] += " " + pad
	}
	filled := make(chan error, 1)
	filler := producer(t, options(t, "", stuck, "filler"))
	go func() { filled <- filler.SendAll(16, bodies) }()
	// The other topic is tried while the deaf one fills up, and again when it is full.
	for part := range 2 {
		a := newTally()
		w := work(t, options(t, "", free, fmt.Sprintf("c%d", part)), a)
		small := numbered(fmt.Sprintf("small%d", part), 2000)
		begun := time.Now()
		if err := producer(t, options(t, "", free, "p")).SendAll(64, small); err != nil {
			t.Fatal(err)
		}
		a.wait(t, len(small))
		settled(t, server(t, ""), free)
		a.exactly(t, small)
		w.stop()
		t.Logf("2000 messages of the other topic took %v", time.Since(begun))
		if part == 0 {
			select {
			case err := <-filled:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the producer of the stuck topic is held up")
			}
		}
	}
	a := newTally()
	work(t, options(t, "", stuck, "reader"), a)
	more := numbered("more", 500)
	if err := producer(t, options(t, "", stuck, "p")).SendAll(64, more); err != nil {
		t.Fatal(err)
	}
	// Not all of these: a few may have gone to the deaf one. But its neighbour must not starve.
	a.wait(t, len(more)/4)
	if err := deaf.Drop(); err != nil {
		t.Fatal(err)
	}
	a.wait(t, count+len(more))
	settled(t, server(t, ""), stuck)
	a.complete(t, append(bodies, more...))
}
