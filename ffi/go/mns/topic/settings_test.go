package topic

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// Once a store is known to be away each send goes without it at once, whoever looks for it meanwhile.
func TestSendsGoOnWhileAStoreIsLookedFor(t *testing.T) {
	patience, again := openPatience, storeAgain
	defer func() { openPatience, storeAgain = patience, again }()
	openPatience, storeAgain = time.Second, 50*time.Millisecond
	// One that is not there, and one that takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, uri := range []string{
		"mongodb://" + deadAddress(t) + "/db?serverSelectionTimeoutMS=500",
		"mongodb://" + silent.Addr().String() + "/db?serverSelectionTimeoutMS=20000",
	} {
		s := startService(t)
		c := s.config(t)
		c.Store, c.MongoURI = "", uri
		settings, err := settingsOf(c)
		if err != nil {
			t.Fatal(err)
		}
		shared := sharedOf(settings)
		sent := 0
		send := func(ctx context.Context) {
			resp, err := NewMNSTopic(c).SendMessageContext(ctx, "now")
			if err != nil || !strings.Contains(resp.Warning, "its store, which is away") {
				t.Fatal(uri, sent, resp, err)
			}
			sent++
		}
		send(t.Context())
		looks := map[*opening]bool{}
		for end := time.Now().Add(15 * time.Second); len(looks) < 3 && time.Now().Before(end); {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			start := shared.lookedFor()
			send(ctx)
			cancel()
			// An opening that was under way all the time did not hold it up.
			if start != nil && shared.lookedFor() == start {
				looks[start] = true
			}
		}
		if len(looks) < 3 || len(s.got()) != sent {
			t.Error(uri, len(looks), "openings,", sent, len(s.got()))
		}
		shared.stopLooking()
	}
}

func (s *shared) lookedFor() *opening {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opening
}

// stopLooking lets what opens behind find a store.
func (s *shared) stopLooking() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behindAs.store = ""
}

// Who closes the producer may not know what became of what it sent.
func TestWhatMayBePublishedIsNotPublishedAgain(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.Store = "sqlite:/dev/null/mns.db"
	hold := make(chan struct{})
	defer close(hold)
	s.hold.Store(&hold)
	ended := make(chan error)
	go func() {
		_, err := NewMNSTopic(c).SendMessage("once")
		ended <- err
	}()
	eventually(t, "it is sent", func() bool { return s.triesOf("once") == 1 })
	// Another key closes it.
	other := *c
	other.AccessKeyId = "other"
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := NewMNSTopic(&other).SendMessageContext(ctx, "late"); err == nil {
		t.Error("it is not held")
	}
	var failed *ceiba.Error
	if err := <-ended; !errors.As(err, &failed) || failed.Outcome != ceiba.Unknown {
		t.Error(err)
	}
	if tries := s.triesOf("once"); tries != 1 {
		t.Error(tries, "tries")
	}
}

// A send has no say in what is open: not in the number of attempts of a Retry that goes on.
func TestSendsDoNotCloseWhatARetryNeeds(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.RetryIntervalInTimes = 7
	s.down.Store(true)
	if _, err := NewMNSTopic(c).SendMessage("old"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	retried, release := heldRetry(t, s, c, func() bool { return s.triesOf("old") == 2 })
	s.hold.Store(nil)
	before := openOf(t, c)
	if _, err := NewMNSTopic(c).SendMessage("new"); !errors.Is(err, ErrStored) {
		t.Error(err)
	}
	if before == nil || openOf(t, c) != before {
		t.Error("it was closed")
	}
	release()
	if err := <-retried; err != nil {
		t.Error(err)
	}
}

// Other keys count at once; and a Retry that they close goes on with them.
func TestARetryGoesOnWithOtherKeys(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	// More than are tried at once.
	const many = 100
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			if _, err := NewMNSTopic(c).SendMessage("old"); !errors.Is(err, ErrStored) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	retried, release := heldRetry(t, s, c, func() bool { return s.triesOf("old") > many })
	before := openOf(t, c)
	other := *c
	other.AccessKeyId = "other"
	sent := make(chan error)
	go func() {
		_, err := NewMNSTopic(&other).SendMessage("newer")
		sent <- err
	}()
	eventually(t, "it is closed", func() bool { return openOf(t, c) != before })
	s.hold.Store(nil)
	release()
	if err := <-sent; !errors.Is(err, ErrStored) {
		t.Error(err)
	}
	if err := <-retried; err != nil {
		t.Error(err)
	}
	settings, _ := settingsOf(c)
	shared := sharedOf(settings)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.as.keyID != "other" || shared.as.attempts != 5 {
		t.Error(shared.as.keyID, shared.as.attempts)
	}
}

// heldRetry begins a Retry whose attempts wait for their answers, which are held until its release.
func heldRetry(t *testing.T, s *service, c *config.MNSConfig, begun func() bool) (<-chan error, func()) {
	t.Helper()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	s.hold.Store(&hold)
	retried := make(chan error, 1)
	go func() { retried <- NewMNSTopic(c).Retry(5, nil) }()
	eventually(t, "the retry goes on", begun)
	return retried, release
}

// openOf is the producer of a topic, nil where none is open.
func openOf(t *testing.T, c *config.MNSConfig) *ceiba.Producer {
	t.Helper()
	settings, err := settingsOf(c)
	if err != nil {
		t.Fatal(err)
	}
	s := sharedOf(settings)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.producer
}
