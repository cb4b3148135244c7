package topic

import (
	"context"
	"errors"
	"sync"

	"ceiba"
	"ceiba/mns/config"
)

// withoutStore ends the id of the producer that publishes while the store is away.
const withoutStore = " without its store"

// shared is what all MNSTopics of one topic have in common.
type shared struct {
	id, topic string
	// One Retry at a time.
	retrying chan struct{}

	// Whoever opens what publishes without the store holds its one place.
	plainly chan struct{}

	// Not held while anything is waited for.
	mu       sync.Mutex
	producer *ceiba.Producer
	as       settings
	// The opening that is under way.
	opening *opening
	// Whether somebody opens it again and again until its store is there, and with what.
	behind   bool
	behindAs settings
	// What publishes while the store is away; nil before it was.
	plain   *ceiba.Producer
	plainAs settings
	// The store that could not be opened last, and why. Messages go without it while somebody opens it behind.
	awayStore string
	away      error

	telling sync.Mutex
	// Who is told: nobody where it is known and nil. In a process without any Retry it is not known.
	known bool
	tell  config.DigestFunc
	// Why the last notice failed.
	failing error
}

var topics struct {
	sync.Mutex
	known map[string]*shared
}

func sharedOf(want settings) *shared {
	id := want.id()
	topics.Lock()
	defer topics.Unlock()
	s := topics.known[id]
	if s == nil {
		s = &shared{id: id, topic: want.topic, retrying: make(chan struct{}, 1), plainly: make(chan struct{}, 1)}
		if topics.known == nil {
			topics.known = map[string]*shared{}
		}
		topics.known[id] = s
	}
	return s
}

// forget lets go of a producer that was closed, by a shutdown of the whole library or by other settings.
func (s *shared) forget(p *ceiba.Producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.producer == p {
		s.producer = nil
	}
	if s.plain == p {
		s.plain = nil
	}
}

// tries is how often a call begins anew whose producer another closed.
const tries = 5

func closed(err error) bool {
	return errors.Is(err, ceiba.ErrClosed) || errors.Is(err, ceiba.ErrUnknownID)
}

// unsent is of a call whose producer another closed before anything was sent.
func unsent(err error) bool {
	var failed *ceiba.Error
	return closed(err) && errors.As(err, &failed) && failed.Outcome == ceiba.NotSent
}

func (s *shared) send(ctx context.Context, want settings, body []byte) (ceiba.Receipt, error) {
	for try := 1; ; try++ {
		p, away, err := s.storing(ctx, want)
		if away != nil {
			return s.sendWithout(ctx, want, body, away)
		}
		if err != nil {
			return ceiba.Receipt{}, err
		}
		receipt, err := p.Send(ctx, body)
		if unsent(err) && try < tries {
			s.forget(p)
			continue
		}
		return receipt, err
	}
}

func (s *shared) retry(ctx context.Context, want settings, tell config.DigestFunc) error {
	select {
	case s.retrying <- struct{}{}:
		defer func() { <-s.retrying }()
	case <-ctx.Done():
		return endedBy(ctx)
	}
	s.tellTo(tell)
	s.notified(nil)
	for try := 1; ; try++ {
		p, err := s.open(ctx, want)
		if err == nil {
			err = listen(p)
		}
		if err == nil {
			_, err = p.Outbox().Drain(ctx)
		}
		if p != nil && closed(err) && try < tries {
			s.forget(p)
			want = s.anew(want)
			continue
		}
		if err == nil && tell != nil {
			err = s.noticed(ctx)
		}
		return err
	}
}
