// A first program: send a message, receive it, acknowledge it.
//
//	CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/greetings go run ./first
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ceiba"
)

func main() {
	if err := run(os.Getenv("CEIBA_CONFIG")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(config string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err = ceiba.OpenProducer(ctx, config, ceiba.WithID("p")); err != nil {
		return err
	}
	if _, err = ceiba.OpenConsumer(ctx, config, ceiba.WithID("c")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ceiba.Shutdown(ctx)) }()
	if _, err = ceiba.ProducerSend("p", []byte("hello from Go"), 0); err != nil {
		return err
	}
	delivery, err := ceiba.ConsumerReceive(ctx, "c")
	if err != nil {
		return err
	}
	fmt.Println(string(delivery.Body))
	return delivery.Ack()
}
