package ceiba

import (
	"context"
	"time"
)

// order is how one message goes to the library.
type order struct {
	body []byte
	// seconds of delay where they are whole and no other field is set.
	seconds int64
	// message with its fields, nil where body and seconds say all.
	message *Message
	args    []byte
	// timeout in milliseconds, -1 for the client's deadline; and whether it is the context's.
	timeout     int64
	fromContext bool
}

func orderOf(c *call, options []SendOption) (order, *Error) {
	for _, option := range options {
		option(c)
	}
	if c.Delay < 0 {
		return order{}, errorf(ErrInvalidArgument, "a delay is 0 or more, not %v", c.Delay)
	}
	o := order{body: c.Body, timeout: -1}
	if c.hasTimeout {
		if c.timeout < 0 {
			return order{}, errorf(ErrInvalidArgument, "a timeout is 0 or more, not %v", c.timeout)
		}
		o.timeout = milliseconds(c.timeout)
	}
	whole, ok := wholeSeconds(c.Delay)
	if ok && !c.rich {
		o.seconds = whole
		return o, nil
	}
	var err *Error
	if o.args, err = c.args(); err != nil {
		return order{}, err
	}
	o.message = &c.Message
	return o, nil
}

// within bounds the order by the context.
func (o *order) within(ctx context.Context) *Error {
	if ctx.Done() == nil {
		return nil
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left <= 0 {
			return endedBy(context.DeadlineExceeded, NotSent)
		}
		if ms := milliseconds(left); o.timeout < 0 || ms < o.timeout {
			o.timeout, o.fromContext = ms, true
		}
	}
	return nil
}

func (o *order) submit(id string, token uint64) *Error {
	switch {
	case o.message != nil:
		return cSubmitMessage(id, o.message, o.args, o.timeout, token)
	case o.timeout >= 0:
		return cSubmitWithin(id, o.body, o.seconds*1000, o.timeout, token)
	}
	return cSubmit(id, o.body, o.seconds, token)
}
