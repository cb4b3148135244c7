package ceiba

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"sync/atomic"
)

// byID finds open clients. Reading takes no lock: each change makes a new map.
type byID[T comparable] struct {
	mu   sync.Mutex
	open atomic.Pointer[map[string]T]
}

// lastProducer is the one that was found last: mostly it is the next one too.
var lastProducer atomic.Pointer[Producer]

func producerOf(id string) *Producer {
	if p := lastProducer.Load(); p != nil && p.id == id && !p.closed.Load() {
		return p
	}
	p := producers.get(id)
	if p != nil {
		lastProducer.Store(p)
	}
	return p
}

var (
	producers byID[*Producer]
	consumers byID[*Consumer]
)

func (b *byID[T]) get(id string) (client T) {
	if open := b.open.Load(); open != nil {
		client = (*open)[id]
	}
	return client
}

func (b *byID[T]) change(change func(map[string]T)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := map[string]T{}
	if before := b.open.Load(); before != nil {
		open = maps.Clone(*before)
	}
	change(open)
	b.open.Store(&open)
}

func (b *byID[T]) set(id string, client T) {
	b.change(func(open map[string]T) { open[id] = client })
}

// remove takes a client out, unless its id has been opened again since.
func (b *byID[T]) remove(id string, client T) {
	b.change(func(open map[string]T) {
		if open[id] == client {
			delete(open, id)
		}
	})
}

func (b *byID[T]) all() []T {
	var all []T
	if open := b.open.Load(); open != nil {
		for _, client := range *open {
			all = append(all, client)
		}
	}
	return all
}

// ProducerSend sends a message with the producer of this id and waits for its receipt, until the client's
// deadline. The delay is in whole seconds.
//
// The id may also be one that other code of this process opened with the same library: such a call holds
// a thread while it waits, and at most 32 of them run at once.
func ProducerSend(id string, body []byte, delay int64) (Receipt, error) {
	p := producerOf(id)
	if p == nil {
		var receipt Receipt
		err, _ := settling.run(context.Background(), func() (err *Error) {
			receipt, err = cProducerSend(id, body, delay)
			return err
		}, nothingLate)
		return receipt, orNil(err)
	}
	receipt, err := p.send(context.Background(), &order{body: body, seconds: delay, timeout: -1})
	return receipt, orNil(err)
}

// ProducerSubmit submits a message to the producer of this id, which this package opened. It returns
// without waiting, and done is called exactly once when it returned nil; see [Producer.Submit]. The delay
// is in whole seconds.
func ProducerSubmit(id string, body []byte, delay int64, done func(Receipt, error)) error {
	p := producerOf(id)
	if p == nil {
		return unknown("producer", id, cProducerStatus)
	}
	return orNil(p.submit(&order{body: body, seconds: delay, timeout: -1}, done))
}

// ProducerControl changes the live state of a strategy of the producer of this id; see [Producer.Control].
func ProducerControl(id string, command any) (json.RawMessage, error) {
	return control(id, command)
}

// ConsumerReceive waits for one delivery of the consumer of this id, which this package opened, until
// the context ends.
func ConsumerReceive(ctx context.Context, id string) (Delivery, error) {
	c := consumers.get(id)
	if c == nil {
		return Delivery{}, unknown("consumer", id, cConsumerStatus)
	}
	deliveries, err := c.receive(orBackground(ctx), 1, 1)
	if err != nil {
		return Delivery{}, err
	}
	return deliveries[0], nil
}

// ConsumerAck acknowledges a delivery of the consumer of this id by its code.
func ConsumerAck(id, code string) error {
	c := consumers.get(id)
	if c == nil {
		return unknown("consumer", id, cConsumerStatus)
	}
	return orNil(c.settle(context.Background(), []string{code}, true, 0))
}

// unknown is the library's own error for an id that is not open.
func unknown(role, id string, status func(string) (string, *Error)) error {
	if _, err := status(id); err != nil {
		return err
	}
	return errorf(ErrUnknownID, "the %s `%s` was not opened by this package", role, id)
}
