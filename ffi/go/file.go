package ceiba

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// Clients are those of one file, by their ids.
type Clients struct {
	Producers map[string]*Producer
	Consumers map[string]*Consumer
}

// OpenFile opens every client of a configuration file, {"clients": [{"id": …, "role": …, …}, …]}, or the one
// whose configuration the file is. When one fails none stays open, and the error names it.
func OpenFile(ctx context.Context, path string) (*Clients, error) {
	ctx = orBackground(ctx)
	e, err := useEngine()
	if err != nil {
		return nil, err
	}
	var ids string
	err, behind := opening.run(ctx, func() (err *Error) {
		ids, err = cOpenFile(path, e.queue)
		return err
	}, func(late *Error) {
		if late == nil {
			closeAll(ids)
		}
		leaveEngine(time.After(closePatience))
	})
	if err != nil {
		if !behind {
			leaveEngine(time.After(closePatience))
		}
		err.Outcome = NotSent
		return nil, err
	}
	clients := &Clients{Producers: map[string]*Producer{}, Consumers: map[string]*Consumer{}}
	for _, opened := range listed(ids) {
		if opened.Role == "consumer" {
			clients.Consumers[opened.ID] = adoptConsumer(opened.ID)
			continue
		}
		// Each producer has a use of the engine of its own.
		own, err := useEngine()
		if err != nil {
			closeAll(ids)
			leaveEngine(time.After(closePatience))
			return nil, err
		}
		clients.Producers[opened.ID] = adoptProducer(opened.ID, own, defaultMaxSubmits)
	}
	leaveEngine(time.After(closePatience))
	return clients, nil
}

type listedClient struct {
	Role string `json:"role"`
	ID   string `json:"id"`
}

func listed(ids string) (clients []listedClient) {
	// The library wrote it; what cannot be read opened nothing.
	_ = json.Unmarshal([]byte(ids), &clients)
	return clients
}

func closeAll(ids string) {
	for _, opened := range listed(ids) {
		if opened.Role == "consumer" {
			cConsumerClose(opened.ID, -1)
		} else {
			cProducerClose(opened.ID, -1)
		}
	}
}

// Close closes all of them at the same time and returns the errors joined.
func (c *Clients) Close(ctx context.Context) error {
	var closes []func(context.Context) error
	for _, producer := range c.Producers {
		closes = append(closes, producer.Close)
	}
	for _, consumer := range c.Consumers {
		closes = append(closes, consumer.Close)
	}
	errs := make([]error, len(closes))
	var all sync.WaitGroup
	for i, one := range closes {
		all.Go(func() { errs[i] = one(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}
