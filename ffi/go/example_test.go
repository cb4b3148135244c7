package ceiba_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"ceiba"
)

// The broker of these examples stands for the one that you run.
func broker() *ceiba.Broker {
	b, err := ceiba.StartBroker(ceiba.BrokerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	return b
}

func Example() {
	ctx := context.Background()
	b := broker()
	defer b.Stop(ctx)
	defer ceiba.Shutdown(ctx)

	if _, err := ceiba.OpenProducer(ctx, b.URL("orders"), ceiba.WithID("orders")); err != nil {
		log.Fatal(err)
	}
	if _, err := ceiba.OpenConsumer(ctx, b.URL("orders"), ceiba.WithID("billing")); err != nil {
		log.Fatal(err)
	}
	receipt, err := ceiba.ProducerSend("orders", []byte("order 7"), 0)
	if err != nil {
		log.Fatal(err)
	}
	delivery, err := ceiba.ConsumerReceive(ctx, "billing")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s over %s\n", delivery.Body, receipt.Provider)
	if err := ceiba.ConsumerAck("billing", delivery.Code); err != nil {
		log.Fatal(err)
	}
	// Output: order 7 over kapokmq
}

func ExampleOpenProducer() {
	ctx := context.Background()
	b := broker()
	defer b.Stop(ctx)
	p, err := ceiba.OpenProducer(ctx, ceiba.Config{
		ID: "orders",
		Provider: ceiba.KapokMQ{
			URL:       "ws://" + b.Address(),
			Topic:     "orders",
			SecretKey: ceiba.SecretText(b.SecretKey()), // better SecretEnv or SecretFile
		},
		Deadline: 10 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	fmt.Println(p.ID())
	// Output: orders
}

func ExampleProducer_Send() {
	ctx := context.Background()
	p, err := ceiba.OpenProducer(ctx, "memory://orders?id=orders")
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)

	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	receipt, err := p.Send(ctx, []byte("hello"), ceiba.WithDelay(5*time.Second), ceiba.WithKey("customer-3"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Provider, receipt.Attempts)

	_, err = p.Send(ctx, []byte("hello"), ceiba.WithRecipients("someone@example.org"))
	var e *ceiba.Error
	if errors.Is(err, ceiba.ErrUnsupported) && errors.As(err, &e) {
		fmt.Println(e.Kind, e.Outcome, e.Retryable)
	}
	// Output:
	// memory 1
	// unsupported not_sent false
}

func ExampleProducer_Submit() {
	ctx := context.Background()
	p, err := ceiba.OpenProducer(ctx, "memory://orders?id=orders&discard=true")
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	sent := 0
	for range 1000 {
		err := p.Submit([]byte("hello"), func(_ ceiba.Receipt, err error) {
			if err == nil {
				sent++ // callbacks of one producer run one at a time
			}
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sent)
	// Output: 1000
}

func ExampleProducer_SendBatch() {
	ctx := context.Background()
	p, err := ceiba.OpenProducer(ctx, "memory://batch?id=orders")
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	results, err := p.SendBatch(ctx, []ceiba.Message{
		{Body: []byte("one")},
		{Body: []byte("two"), Topic: "elsewhere"},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range results {
		fmt.Println(result.Err == nil, errors.Is(result.Err, ceiba.ErrUnsupported))
	}
	// Output:
	// true false
	// false true
}

func ExampleConsumer_All() {
	ctx := context.Background()
	b := broker()
	defer b.Stop(ctx)
	p, err := ceiba.OpenProducer(ctx, b.URL("numbers"), ceiba.WithID("numbers"))
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	c, err := ceiba.OpenConsumer(ctx, b.URL("numbers"), ceiba.WithID("numbers"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	for i := range 3 {
		if _, err := p.Send(ctx, fmt.Append(nil, i)); err != nil {
			log.Fatal(err)
		}
	}
	for delivery, err := range c.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", delivery.Body)
		if err := delivery.Ack(); err != nil {
			log.Fatal(err)
		}
		if string(delivery.Body) == "2" {
			break
		}
	}
	// Output:
	// 0
	// 1
	// 2
}

func ExampleOutbox() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "ceiba")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	p, err := ceiba.OpenProducer(ctx, ceiba.Config{
		ID:         "orders",
		Provider:   ceiba.Memory{Topic: "full", Capacity: 1},
		Strategies: []any{ceiba.OutboxStrategy{File: filepath.Join(folder, "outbox.db"), Schedule: "0 */10 * * * *"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(ctx)
	for _, body := range []string{"first", "second"} {
		receipt, err := p.Send(ctx, []byte(body))
		if err != nil {
			log.Fatal(err) // neither sent nor stored
		}
		fmt.Println(body, "is stored:", receipt.Stored)
	}
	for row, err := range p.Outbox().Rows(ctx, ceiba.ListOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.State, row.Short, errors.Is(row.Err, ceiba.ErrQueueFull))
	}
	// The same without the producer, from any process: ceiba.OpenOutbox("sqlite:outbox.db").
	dropped, err := p.Outbox().Drop(ctx, "12")
	fmt.Println(dropped.Unknown, err)
	// Output:
	// first is stored: false
	// second is stored: true
	// pending second true
	// [12] <nil>
}
