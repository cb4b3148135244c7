package topic

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

const (
	// tellAgain is the time between a notice that failed and the next.
	tellAgain = time.Minute
	// noticePatience is how long a Retry waits for the notice, which has 30 seconds itself.
	noticePatience = 35 * time.Second
)

// tellElsewhere is how long a process that cannot tell leaves that to others, twice as long each time, up to
// tellElsewhereMost.
var tellElsewhere = 15 * time.Second

const tellElsewhereMost = 4 * time.Minute

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

func (s *shared) tellTo(tell config.DigestFunc) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.known, s.tell, s.left = true, tell, 0
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
		return endedBy(ctx)
	case <-timer.C:
		return &ceiba.Error{Kind: ceiba.ErrTimeout, Retryable: true, Message: "mns topic: the notice was not called yet"}
	}
}

// told gets what the outbox tells of dead rows.
func (s *shared) told(ctx context.Context, message *ceiba.Message) (string, error) {
	s.telling.Lock()
	known, tell := s.known, s.tell
	if !known {
		s.left = min(max(2*s.left, tellElsewhere), tellElsewhereMost)
	}
	left := s.left
	s.telling.Unlock()
	if !known {
		// Another process has to, or this one once it knows.
		return "", later(left, "nobody is to be told here yet")
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
