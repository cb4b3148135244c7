package ceiba

import (
	"context"
	"time"
)

// Delivery is a message that a consumer received. Its memory is Go's: keep it as long as you like.
type Delivery struct {
	// Body is the content.
	Body []byte
	// Code is what acknowledges it, for [ConsumerAck].
	Code string
	// Topic or queue that it came from.
	Topic string
	// Key, Tag, ContentType and Attributes are the sender's, where the wire carries them.
	Key         string
	Tag         string
	ContentType string
	Attributes  map[string]string
	// Created is when the other side accepted it; zero where the wire does not tell.
	Created time.Time
	// Attempt is how often it was delivered, from 1; 0 where the wire does not tell.
	Attempt int

	consumer *Consumer
}

// Ack acknowledges the delivery: nil when the acknowledgement is on its way.
func (d Delivery) Ack() error {
	if d.consumer == nil {
		return errorf(ErrInvalidArgument, "the delivery came from no consumer")
	}
	return orNil(d.consumer.settle(context.Background(), []string{d.Code}, true, 0))
}

// Nack gives the delivery back, to come again after the delay. [ErrUnsupported] where the wire has no
// such thing.
func (d Delivery) Nack(delay time.Duration) error {
	if d.consumer == nil {
		return errorf(ErrInvalidArgument, "the delivery came from no consumer")
	}
	if delay < 0 {
		return errorf(ErrInvalidArgument, "a delay is 0 or more, not %v", delay)
	}
	return orNil(d.consumer.settle(context.Background(), []string{d.Code}, false, milliseconds(delay)))
}
