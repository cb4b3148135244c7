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
	// noticePatience is how long a notice may take; a little less than the library waits for it.
	noticePatience = 25 * time.Second
)

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

// tellTo says who is told from now on.
func (s *shared) tellTo(tell config.DigestFunc) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.known, s.tell = true, tell
}

// knows is whether it is known whom to tell.
func (s *shared) knows() bool {
	s.telling.Lock()
	defer s.telling.Unlock()
	return s.known
}

// listen has dead rows told here; until then the outbox leaves that to other processes.
func listen(p *ceiba.Producer) error {
	_, err := p.Control(map[string]any{"strategy": "outbox", "notify": true})
	return err
}

func (s *shared) notified(err error) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.failing = err
}

// noticed is how the last notice went, once a drain has ended.
func (s *shared) noticed(ctx context.Context) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.failing == nil && ctx.Err() != nil {
		return endedBy(ctx)
	}
	return s.failing
}

// told gets what the outbox tells of dead rows.
func (s *shared) told(ctx context.Context, message *ceiba.Message) (string, error) {
	s.telling.Lock()
	tell := s.tell
	s.telling.Unlock()
	if tell == nil {
		return "", nil
	}
	late := time.AfterFunc(noticePatience, func() {
		s.notified(&ceiba.Error{Kind: ceiba.ErrTimeout, Retryable: true, Message: "mns topic: the notice does not return"})
	})
	text := string(message.Body)
	err := tell(config.Digest{Text: text, Failed: s.failed(ctx, text)})
	late.Stop()
	s.notified(err)
	if err != nil {
		return "", &ceiba.Error{
			Kind: ceiba.ErrUnavailable, Retryable: true, RetryAfter: tellAgain, Message: "mns topic: the notice failed: " + err.Error(),
		}
	}
	return "", nil
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
