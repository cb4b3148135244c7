package ceiba

import (
	"context"
	"time"
)

// gate bounds how many calls may block in the library at once, because each holds a thread.
type gate chan struct{}

var (
	// opening is for opening and closing.
	opening = make(gate, 32)
	// settling is for acknowledgements, flushes and the like.
	settling = make(gate, 32)
)

// run makes a call that may block in the library. When the context ends first it returns at once; a call
// that was begun goes on behind, and late is told its result in place of the caller.
func (g gate) run(ctx context.Context, call func() *Error, late func(*Error)) (err *Error, behind bool) {
	cancelled := ctx.Done()
	if cancelled == nil {
		g <- struct{}{}
		defer func() { <-g }()
		return call(), false
	}
	if ctx.Err() != nil {
		return contextError(ctx), false
	}
	select {
	case g <- struct{}{}:
	case <-cancelled:
		return contextError(ctx), false
	}
	result := make(chan *Error)
	go func() {
		err := call()
		<-g
		select {
		case result <- err:
		case <-cancelled:
			// Both may be ready: whoever waits still is told, one way or the other.
			select {
			case result <- err:
			default:
				late(err)
			}
		}
	}()
	select {
	case err := <-result:
		return err, false
	case <-cancelled:
		select {
		case err := <-result:
			return err, false
		default:
			return endedBy(ctx.Err(), Unknown), true
		}
	}
}

// patience is the time left for a call as milliseconds for the library: the context's deadline, or -1
// for the client's own.
func patience(ctx context.Context) int64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return -1
	}
	return max(milliseconds(time.Until(deadline)), 0)
}

// nothingLate is for calls whose late result means nothing to anyone.
func nothingLate(*Error) {}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
