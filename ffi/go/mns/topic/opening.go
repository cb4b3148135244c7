package topic

import (
	"context"
	"errors"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

// openPatience is how long opening may take, and the close of what was open before: nothing is asked of the service, but the store may be busy.
var openPatience = 30 * time.Second

const (
	// closingPause is the wait for a close that others began.
	closingPause = 20 * time.Millisecond
)

// storeAgain is how long a store that is away is not asked for again.
var storeAgain = 5 * time.Second

// opening is one that is under way. Whoever needs it waits for it, and no longer than its own context.
type opening struct {
	as   settings
	done chan struct{}

	// Once done is closed.
	producer *ceiba.Producer
	err      error
}

// open is the producer, opened if need be, and again where the settings are others.
func (s *shared) open(ctx context.Context, want settings) (*ceiba.Producer, error) {
	for {
		p, o := s.current(want)
		if p != nil {
			return p, nil
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, endedBy(ctx)
		}
		// It may have been one with other settings.
		if s.meant(want) == o.as {
			return o.producer, o.err
		}
	}
}

// current is the producer where it is open with these settings, or else the opening that is under way, begun if need be.
func (s *shared) current(want settings) (*ceiba.Producer, *opening) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want = s.filled(want)
	if s.producer != nil && want == s.as {
		return s.producer, nil
	}
	if s.opening == nil {
		o := &opening{as: want, done: make(chan struct{})}
		before := s.producer
		s.producer, s.opening = nil, o
		go s.conduct(o, before)
	}
	return nil, s.opening
}

func (s *shared) meant(want settings) settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filled(want)
}

// filled is what a call wants, and for what it does not insist on, what there is. mu is held.
func (s *shared) filled(want settings) settings {
	if s.as.attempts != 0 && want.insists != onAttempts {
		want.attempts = s.as.attempts
	}
	if s.as.interval != 0 && want.insists != onInterval {
		want.interval = s.as.interval
	}
	if want.attempts == 0 {
		want.attempts = config.DefaultRetryTimes
	}
	want.insists = onNothing
	return want
}

// anew is what a Retry wants whose producer another closed: that other's keys, or each would close that of the other.
func (s *shared) anew(want settings) settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	as := s.as
	if s.opening != nil {
		as = s.opening.as
	}
	if as.store != want.store {
		return want
	}
	as.attempts, as.insists = want.attempts, want.insists
	return as
}

func (s *shared) conduct(o *opening, before *ceiba.Producer) {
	err := ended(before)
	var p *ceiba.Producer
	if err == nil {
		p, err = s.opened(o.as)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening = nil
	switch {
	case err == nil:
		s.producer, s.as, s.away = p, o.as, nil
	case isAway(err) && o.as.store != "":
		s.away, s.awayStore = err, o.as.store
	}
	o.producer, o.err = p, err
	close(o.done)
}

// ended closes the producer that was open before.
func ended(before *ceiba.Producer) error {
	if before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	// What is under way ends as it would; what cannot in time is stored.
	err := before.Close(ctx)
	if errors.Is(err, ceiba.ErrClosed) || errors.Is(err, ceiba.ErrTimeout) {
		return nil
	}
	return err
}

func (s *shared) opened(as settings) (*ceiba.Producer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	notices := "notices of " + s.id
	if as.store != "" {
		if err := s.openNotices(ctx, notices); err != nil {
			return nil, err
		}
	}
	for {
		// Where nobody knows yet whom to tell, others may.
		p, err := ceiba.OpenProducer(ctx, as.client(notices, !s.knows()))
		// A shutdown of the whole library may be about to close the one before.
		if !errors.Is(err, ceiba.ErrAlreadyOpen) || ctx.Err() != nil {
			return p, err
		}
		time.Sleep(closingPause)
	}
}

// endedError is of a call whose context ended.
type endedError struct {
	failed *ceiba.Error
	cause  error
}

func (e *endedError) Error() string { return e.failed.Error() }

func (e *endedError) Unwrap() []error { return []error{e.failed, e.cause} }

func endedBy(ctx context.Context) error {
	err := &ceiba.Error{Kind: ceiba.ErrCancelled, Message: "mns topic: the context was cancelled"}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &ceiba.Error{Kind: ceiba.ErrTimeout, Retryable: true, Message: "mns topic: the context's deadline passed"}
	}
	return &endedError{err, ctx.Err()}
}

// isAway is whether an opening failed because the store cannot be reached, or does not answer.
func isAway(err error) bool {
	return errors.Is(err, ceiba.ErrStorage) || errors.Is(err, ceiba.ErrTimeout)
}

// openBehind opens the producer while nobody waits for it, and again while its store is away.
func (s *shared) openBehind(want settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beginBehind(want)
}

// beginBehind is openBehind. mu is held.
func (s *shared) beginBehind(want settings) {
	if !s.behind || want.insists == onInterval || want.store != s.behindAs.store {
		s.behindAs = want
	}
	if s.behind {
		return
	}
	s.behind = true
	go func() {
		for s.openedBehind() {
			time.Sleep(storeAgain)
		}
	}()
}

// openedBehind opens the producer as it is wanted last; whether it has to be tried again.
func (s *shared) openedBehind() bool {
	for {
		s.mu.Lock()
		want := s.behindAs
		s.mu.Unlock()
		p, err := s.open(context.Background(), want)
		if err == nil && s.knows() {
			// Who finds it closed opens it so.
			_ = listen(p)
		}
		if isAway(err) {
			return true
		}
		s.mu.Lock()
		if s.behindAs == want {
			s.behind = false
			s.mu.Unlock()
			return false
		}
		s.mu.Unlock()
	}
}

// storing is the producer; or why its store is away: once that is known, the store is waited for behind.
func (s *shared) storing(ctx context.Context, want settings) (p *ceiba.Producer, away, err error) {
	s.mu.Lock()
	if s.producer == nil && s.away != nil && s.awayStore == want.store {
		away = s.away
		s.beginBehind(want)
	}
	s.mu.Unlock()
	if away != nil {
		return nil, away, nil
	}
	p, err = s.open(ctx, want)
	if isAway(err) && want.store != "" && ctx.Err() == nil {
		return nil, err, nil
	}
	return p, nil, err
}

// sendWithout publishes while the store is away: it is needed only for what cannot be published.
func (s *shared) sendWithout(ctx context.Context, want settings, body []byte, away error) (ceiba.Receipt, error) {
	want.store, want.interval, want.attempts = "", 0, 0
	for try := 1; ; try++ {
		p, err := s.openPlain(ctx, want)
		if err != nil {
			return ceiba.Receipt{}, err
		}
		receipt, err := p.Send(ctx, body)
		var failed *ceiba.Error
		switch {
		case err == nil:
			receipt.Warning = "it was published without its store, which is away: " + away.Error()
		case unsent(err) && try < tries:
			s.forget(p)
			continue
		case errors.As(err, &failed):
			both := *failed
			both.Message += "; nor is it stored: " + away.Error()
			err = &both
		}
		return receipt, err
	}
}

// openPlain is a producer without a store.
func (s *shared) openPlain(ctx context.Context, want settings) (*ceiba.Producer, error) {
	select {
	case s.plainly <- struct{}{}:
		defer func() { <-s.plainly }()
	case <-ctx.Done():
		return nil, endedBy(ctx)
	}
	s.mu.Lock()
	before, same := s.plain, s.plainAs == want
	s.mu.Unlock()
	if before != nil && same {
		return before, nil
	}
	if before != nil {
		_ = before.Close(ctx)
	}
	client := want.client("", false)
	client.ID = s.id + withoutStore
	p, err := ceiba.OpenProducer(ctx, client)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain, s.plainAs = p, want
	return p, nil
}
