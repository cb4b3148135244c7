package topic

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

const (
	// openPatience is how long opening may take: nothing is asked of the service, but the store may be busy.
	openPatience = 30 * time.Second
	// closingPause is the wait for a close that others began.
	closingPause = 20 * time.Millisecond
	// tellAgain is the time between a notice that failed and the next.
	tellAgain = time.Minute
	// noticePatience is how long a Retry waits for the notice, which has 30 seconds itself.
	noticePatience = 35 * time.Second
)

// tellElsewhere is how long a process that cannot tell leaves that to others.
var tellElsewhere = 15 * time.Second

// shared is what all MNSTopics of one topic have in common.
type shared struct {
	id, topic string
	// One Retry at a time.
	retrying chan struct{}

	mu       sync.Mutex
	producer *ceiba.Producer
	as       settings

	telling sync.Mutex
	// Who is told: nobody where it is known and nil. In a process without any Retry it is not known.
	known bool
	tell  config.DigestFunc
	// Who waits for the next notice.
	waiting []chan error
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
		s = &shared{id: id, topic: want.topic, retrying: make(chan struct{}, 1)}
		if topics.known == nil {
			topics.known = map[string]*shared{}
		}
		topics.known[id] = s
	}
	return s
}

// open is the producer, opened if need be, and again where the settings are others.
func (s *shared) open(ctx context.Context, want settings) (*ceiba.Producer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if want.interval == 0 {
		want.interval = s.as.interval
	}
	if want.attempts == 0 {
		want.attempts = s.as.attempts
	}
	if want.attempts == 0 {
		want.attempts = config.DefaultRetryTimes
	}
	if s.producer != nil {
		if want == s.as {
			return s.producer, nil
		}
		// What is under way ends as it would; what cannot in time is stored.
		err := s.producer.Close(ctx)
		s.producer = nil
		if err != nil && !errors.Is(err, ceiba.ErrClosed) && !errors.Is(err, ceiba.ErrTimeout) {
			return nil, err
		}
	}
	notices := "notices of " + s.id
	if want.store != "" {
		if err := s.openNotices(ctx, notices); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(openPatience); ; {
		p, err := ceiba.OpenProducer(ctx, want.client(notices))
		// A shutdown of the whole library may be about to close the one before.
		if errors.Is(err, ceiba.ErrAlreadyOpen) && time.Now().Before(end) && ctx.Err() == nil {
			time.Sleep(closingPause)
			continue
		}
		if err != nil {
			return nil, err
		}
		s.producer, s.as = p, want
		return p, nil
	}
}

// openNotices opens the producer that the outbox tells of dead rows: a function here.
func (s *shared) openNotices(ctx context.Context, id string) error {
	err := ceiba.RegisterHost(id, s.told)
	if err != nil && !errors.Is(err, ceiba.ErrAlreadyOpen) {
		return err
	}
	_, err = ceiba.OpenProducer(ctx, ceiba.Config{ID: id, Provider: map[string]string{"type": "callback", "name": id}})
	if errors.Is(err, ceiba.ErrAlreadyOpen) {
		return nil
	}
	return err
}

// forget lets go of a producer that was closed, by a shutdown of the whole library or by other settings.
func (s *shared) forget(p *ceiba.Producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.producer == p {
		s.producer = nil
	}
}

// tries is how often a call begins anew whose producer another closed.
const tries = 5

func closed(err error) bool {
	return errors.Is(err, ceiba.ErrClosed) || errors.Is(err, ceiba.ErrUnknownID)
}

func (s *shared) send(ctx context.Context, want settings, body []byte) (ceiba.Receipt, error) {
	for try := 1; ; try++ {
		p, err := s.open(ctx, want)
		if err != nil {
			return ceiba.Receipt{}, err
		}
		receipt, err := p.Send(ctx, body)
		var failed *ceiba.Error
		if closed(err) && errors.As(err, &failed) && failed.Outcome == ceiba.NotSent && try < tries {
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
		return ctx.Err()
	}
	s.tellTo(tell)
	for try := 1; ; try++ {
		notice := s.await()
		p, err := s.open(ctx, want)
		if err == nil {
			var drained ceiba.Drained
			drained, err = p.Outbox().Drain(ctx)
			if closed(err) && try < tries {
				s.forget(p)
				s.leave(notice)
				continue
			}
			if err == nil && tell != nil && drained.GivenUp > 0 {
				err = awaited(ctx, notice)
			}
		}
		s.leave(notice)
		return err
	}
}

func (s *shared) tellTo(tell config.DigestFunc) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.known, s.tell = true, tell
}

func (s *shared) await() chan error {
	notice := make(chan error, 1)
	s.telling.Lock()
	defer s.telling.Unlock()
	s.waiting = append(s.waiting, notice)
	return notice
}

func (s *shared) leave(notice chan error) {
	s.telling.Lock()
	defer s.telling.Unlock()
	for i, waiting := range s.waiting {
		if waiting == notice {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

func awaited(ctx context.Context, notice chan error) error {
	timer := time.NewTimer(noticePatience)
	defer timer.Stop()
	select {
	case err := <-notice:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return &ceiba.Error{Kind: ceiba.ErrTimeout, Retryable: true, Message: "mns topic: the notice was not called yet"}
	}
}

// told gets what the outbox tells of dead rows.
func (s *shared) told(ctx context.Context, message *ceiba.Message) (string, error) {
	s.telling.Lock()
	known, tell := s.known, s.tell
	s.telling.Unlock()
	if !known {
		// Another process has to, or this one once it knows.
		return "", later(tellElsewhere, "nobody is to be told here yet")
	}
	var err error
	if tell != nil {
		text := string(message.Body)
		err = tell(config.Digest{Text: text, Failed: s.failed(ctx, text)})
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	for _, notice := range s.waiting {
		notice <- err
	}
	s.waiting = nil
	if err != nil {
		return "", later(tellAgain, "the notice failed: "+err.Error())
	}
	return "", nil
}

func later(wait time.Duration, text string) error {
	return &ceiba.Error{Kind: ceiba.ErrUnavailable, Retryable: true, RetryAfter: wait, Message: "mns topic: " + text}
}

// A row in the outbox's text begins a line with its id.
var rowLine = regexp.MustCompile(`(?m)^([0-9]+)(?: to .*?)?, [0-9]+ attempts?: `)

func (s *shared) failed(ctx context.Context, text string) []config.Failed {
	var failed []config.Failed
	for _, line := range rowLine.FindAllStringSubmatch(text, -1) {
		one := config.Failed{ID: line[1], Topic: s.topic}
		// One that is gone meanwhile stands in the text.
		if row, err := ceiba.OpenOutbox(s.id).Show(ctx, one.ID); err == nil {
			one.Attempts, one.Error, one.Short = row.Attempts, row.Err, short(string(row.Message.Body))
		}
		failed = append(failed, one)
	}
	return failed
}

// short is the begin of a text.
func short(text string) string {
	const most = 200
	at := 0
	for i := range text {
		if at == most {
			return strings.ToValidUTF8(text[:i], "�") + "…"
		}
		at++
	}
	return strings.ToValidUTF8(text, "�")
}
