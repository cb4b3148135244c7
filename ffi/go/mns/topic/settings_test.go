package topic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

func TestATopicMayTryByItself(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.RetryIntervalInSecond, c.RetryIntervalInTimes = 1, 2
	s.down.Store(true)
	var told atomic.Int64
	topic := NewMNSTopic(c, func() error { told.Add(1); return nil })
	if _, err := topic.SendMessage("dies"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	eventually(t, "the notice is called", func() bool { return told.Load() == 1 })
	if kept := rows(t, c); kept[0].State != ceiba.RowDead || kept[0].Attempts != 2 {
		t.Errorf("%+v", kept)
	}
	if _, err := topic.SendMessage("lives"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	s.down.Store(false)
	// One without a notice does not end that.
	if _, err := NewMNSTopic(c).SendMessage("through"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is sent", func() bool { return len(s.got()) == 2 })
	topic.CronRetry()
}

func TestSettingsMayChange(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	if _, err := NewMNSTopic(c).SendMessage("x"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	c.AccessKeyId = "other"
	if _, err := NewMNSTopic(c).SendMessage("y"); !errors.Is(err, ErrStored) || !strings.HasPrefix(s.key(1), "MNS other:") {
		t.Fatal(err, s.key(1))
	}
	for attempts := 1; attempts <= 3; attempts++ {
		if err := NewMNSTopic(c).Retry(10, nil); err != nil {
			t.Fatal(err)
		}
	}
	// With a smaller number there is one more attempt.
	if err := NewMNSTopic(c).Retry(2, nil); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows(t, c) {
		if row.State != ceiba.RowDead || row.Attempts != 4 {
			t.Errorf("%+v", row)
		}
	}
	// After a shutdown of everything.
	s.down.Store(false)
	if err := ceiba.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMNSTopic(c).SendMessage("z"); err != nil {
		t.Error(err)
	}
	if err := NewMNSTopic(c).Retry(2, func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	hold := make(chan struct{})
	s.hold.Store(&hold)
	defer close(hold)
	topic := NewMNSTopic(c)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := topic.SendMessageContext(ctx, "late")
	if !errors.Is(err, ErrStored) {
		t.Error(err)
	}
	if err := topic.RetryContext(ctx, 5, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Error("it took", took)
	}
}

func TestSettingsPrintWithoutTheirSecrets(t *testing.T) {
	c := config.MNSConfig{AccessKeySecret: "hunter2", MongoURI: "mongodb://u:hunter2@h/d", SecurityToken: "hunter2", TopicName: "seen"}
	d := config.DingTalkConfig{Url: "http://h/?token=hunter2", Message: "seen"}
	for _, value := range []any{c, &c, d, &d, []any{c, d}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			text := fmt.Sprintf(verb, value)
			if strings.Contains(text, "hunter2") || !strings.Contains(text, "seen") {
				t.Error(verb, text)
			}
		}
	}
}

func TestSettingsAtTheWrongPlaceAreRefusedUnseen(t *testing.T) {
	for _, c := range []config.MNSConfig{
		{Endpoint: "http://h", Store: "mongodb://user:hunter2@h/db"},
		{Endpoint: "http://user:hunter2@h", Store: "sqlite:f"},
	} {
		c.AccessKeyId, c.AccessKeySecret, c.TopicName = "id", "secret", "t"
		_, err := NewMNSTopic(&c).SendMessage("x")
		seen := fmt.Sprintf("%v %+v %#v %v", c, c, c, err)
		if !errors.Is(err, ceiba.ErrInvalidConfig) || strings.Contains(seen, "hunter2") {
			t.Error(seen)
		}
	}
}

// A store that is away holds up nobody for longer than its context, and nothing that can be published.
func TestMessagesAreNotHeldUpByAStoreThatIsAway(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.Store, c.MongoURI = "", "mongodb://"+deadAddress(t)+"/db?serverSelectionTimeoutMS=3000"
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := NewMNSTopic(c).SendMessageContext(ctx, "too soon"); !errors.Is(err, ceiba.ErrTimeout) {
		t.Error(err)
	}
	const many = 10
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			if resp, err := NewMNSTopic(c).SendMessage("now"); err != nil || resp.Warning == "" {
				t.Error(resp, err)
			}
		})
	}
	all.Wait()
	if got := s.got(); len(got) != many {
		t.Error(got)
	}
}

func TestLongTopicsHaveIDs(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	ids := map[string]bool{}
	for _, end := range []string{"a", "b"} {
		c.TopicName = strings.Repeat("t", 255) + end
		if _, err := NewMNSTopic(c).SendMessage("x"); err != nil {
			t.Fatal(err)
		}
		settings, _ := settingsOf(c)
		ids[settings.id()] = true
	}
	if len(ids) != 2 {
		t.Error(ids)
	}
}
