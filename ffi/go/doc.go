// Package ceiba sends and receives messages over many systems through the ceiba library.
//
// A producer or a consumer is opened from a configuration and known by an id. Every send ends in a
// [Receipt], or in an [*Error] that says whether the message was not sent or whether that is unknown.
//
//	p, err := ceiba.OpenProducer(ctx, ceiba.Config{ID: "orders", Provider: ceiba.KapokMQ{
//		URL: "ws://127.0.0.1:8011", Topic: "orders", SecretKey: ceiba.SecretEnv("CEIBA_SECRET")}})
//	receipt, err := p.Send(ctx, []byte("hello"), ceiba.WithDelay(5*time.Second))
//	receipt, err = ceiba.ProducerSend("orders", []byte("hello"), 5)
//
// # Goroutines and threads
//
// Every function may be called from any goroutine. A goroutine that waits for a send holds no thread:
// one goroutine of this package reads what has ended and wakes the callers. A consumer on which
// somebody waits holds one thread, however many goroutines wait on it.
// Nothing runs in the background when every client is closed.
//
// # Contexts
//
// A context's deadline becomes the deadline of the call; without one the client's own applies (key
// "deadline", 30 seconds). Cancelling takes back a message that was not written yet, and the error says
// which it was. Errors caused by a context match [context.DeadlineExceeded] or [context.Canceled] as
// well as [ErrTimeout] or [ErrCancelled].
package ceiba
