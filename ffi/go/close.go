package ceiba

import (
	"context"
	"time"
)

const (
	// closePatience bounds waits that follow a close and normally take no time.
	closePatience = 5 * time.Second
	// closeGrace is what callbacks that wait already have, however little time is left: they may at least
	// be started.
	closeGrace = 100 * time.Millisecond
	// latePatience is how long the caller of a close waits whose context had ended before.
	latePatience = time.Second
	// shutdownTime is how long a shutdown may take that names no time.
	shutdownTime = 30 * time.Second
)

// shutting is for shutdowns: opens and closes that wait hold none of them up.
var shutting = make(gate, 4)

// closeTime is the one deadline of a close, however many steps it has. The zero one leaves it to the
// client.
type closeTime struct{ at time.Time }

// closeBy is the context's deadline or, without one, that of own time from now; own of 0 leaves it to the
// client.
func closeBy(ctx context.Context, own time.Duration) closeTime {
	at, ok := ctx.Deadline()
	switch {
	case ctx.Err() != nil:
		return closeTime{time.Now()}
	case ok:
		return closeTime{at}
	case own > 0:
		return closeTime{time.Now().Add(own)}
	}
	return closeTime{}
}

// timeout is what is left, as milliseconds for the library.
func (c closeTime) timeout() int64 {
	if c.at.IsZero() {
		return -1
	}
	return max(milliseconds(time.Until(c.at)), 0)
}

// last is until when the Go side may wait for what follows once the library has closed. It is asked once
// for all the clients of a call, so that they share it.
func (c closeTime) last() time.Time {
	now := time.Now()
	if c.at.IsZero() {
		return now.Add(closePatience)
	}
	if grace := now.Add(closeGrace); c.at.Before(grace) {
		return grace
	}
	return c.at
}

// briefly is a timer for a wait that normally takes no time.
func briefly(last time.Time) <-chan time.Time {
	return time.After(min(time.Until(last), closePatience))
}

// finish makes a call that closes something, whatever the context does. When the context ends first,
// finish returns at once and the call goes on behind; with one that had ended before, it returns after
// latePatience at most.
func (g gate) finish(ctx context.Context, call func() *Error) *Error {
	ended := ctx.Done()
	if ended == nil {
		g <- struct{}{}
		defer func() { <-g }()
		return call()
	}
	var late <-chan time.Time
	if ctx.Err() != nil {
		ended, late = nil, time.After(latePatience)
	}
	result := make(chan *Error, 1)
	go func() {
		g <- struct{}{}
		err := call()
		<-g
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ended:
	case <-late:
	}
	select {
	case err := <-result:
		return err
	default:
		return endedBy(ctx.Err(), Unknown)
	}
}
