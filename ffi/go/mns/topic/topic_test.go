package topic

import (
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"ceiba"
	"ceiba/mns/config"
)

func TestMessagesArePublished(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.Store = ""
	for data, body := range map[any]string{
		"a text": "a text",
		7:        "7",
		struct {
			Task string `json:"task_id"`
		}{"<木>"}: `{"task_id":"\u003c木\u003e"}`,
	} {
		resp, err := NewMNSTopic(c).SendMessage(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.MessageId) != 32 || resp.MessageBodyMD5 != fmt.Sprintf("%X", md5.Sum([]byte(body))) {
			t.Error(resp)
		}
		if got := s.got(); got[len(got)-1] != body {
			t.Errorf("%v became %s", data, got)
		}
	}
	if resp, err := NewMNSTopic(c).SendMessage(map[string]any{"game_id": "123"}); err != nil || s.got()[3] != `{"game_id":"123"}` {
		t.Error(resp, err)
	}
	if !strings.HasPrefix(s.key(0), "MNS id:") {
		t.Error(s.key(0))
	}
}

// Its ancestor ended the process.
func TestAWrongSettingIsAnErrorOfEachCall(t *testing.T) {
	s := startService(t)
	for name, change := range map[string]func(*config.MNSConfig){
		"Endpoint":              func(c *config.MNSConfig) { c.Endpoint = "" },
		"AccessKeyId":           func(c *config.MNSConfig) { c.AccessKeyId = "" },
		"AccessKeySecret":       func(c *config.MNSConfig) { c.AccessKeySecret = "" },
		"TopicName":             func(c *config.MNSConfig) { c.TopicName = "" },
		"http://HOST":           func(c *config.MNSConfig) { c.Endpoint = "xxxx.mns" },
		"both":                  func(c *config.MNSConfig) { c.MongoURI = "mongodb://h/d" },
		"RetryIntervalInSecond": func(c *config.MNSConfig) { c.RetryIntervalInSecond = -1 },
		"`topic`":               func(c *config.MNSConfig) { c.TopicName = "a topic" },
		"must start":            func(c *config.MNSConfig) { c.Endpoint = "ftp://host" },
		"10000":                 func(c *config.MNSConfig) { c.RetryIntervalInTimes = 10001 },
		"sqlite:FILE":           func(c *config.MNSConfig) { c.Store = "redis://host" },
	} {
		c := s.config(t)
		change(c)
		topic := NewMNSTopic(c, nil)
		_, err := topic.SendMessage("x")
		if !errors.Is(err, ceiba.ErrInvalidConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := topic.Retry(3, nil); !errors.Is(err, ceiba.ErrInvalidConfig) && name != "10000" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewMNSTopic(nil).SendMessage("x"); !errors.Is(err, ceiba.ErrInvalidConfig) {
		t.Error(err)
	}
	if _, err := NewMNSTopic(s.config(t)).SendMessage(make(chan int)); !errors.Is(err, ceiba.ErrInvalidArgument) {
		t.Error(err)
	}
	topic := NewMNSTopic(s.config(t))
	if err := topic.Retry(0, nil); !errors.Is(err, ceiba.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := topic.Retry(1, 7); !errors.Is(err, ceiba.ErrInvalidConfig) {
		t.Error(err)
	}
	if _, err := NewMNSTopic(s.config(t), "x").SendMessage("x"); !errors.Is(err, ceiba.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestWithoutAStoreAFailedMessageIsTheCallers(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.Store = ""
	c.Endpoint = "http://" + deadAddress(t)
	resp, err := NewMNSTopic(c).SendMessage("lost")
	var failed *ceiba.Error
	if errors.Is(err, ErrStored) || !errors.As(err, &failed) || failed.Kind != ceiba.ErrUnavailable || resp.MessageId != "" {
		t.Error(resp, err)
	}
	if err := NewMNSTopic(c).Retry(5, nil); !errors.Is(err, ErrNoStore) {
		t.Error(err)
	}
}

// Its ancestor lost the body without a word.
func TestAStoreThatFailsIsToldOf(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.Store = "sqlite:/dev/null/mns.db"
	s.down.Store(true)
	_, err := NewMNSTopic(c).SendMessage("mine still")
	if errors.Is(err, ErrStored) || !errors.Is(err, ceiba.ErrPermission) || !strings.Contains(err.Error(), "nor is it stored: ") {
		t.Error(err)
	}
	// It is needed only for what cannot be published.
	s.down.Store(false)
	resp, err := NewMNSTopic(c).SendMessage("published")
	if err != nil || !strings.Contains(resp.Warning, "its store, which is away") || resp.MessageId == "" {
		t.Error(resp, err)
	}
	if err := NewMNSTopic(c).Retry(5, nil); !errors.Is(err, ceiba.ErrStorage) {
		t.Error(err)
	}
	// What no attempt can help is not stored either.
	_, err = NewMNSTopic(s.config(t)).SendMessage(strings.Repeat("x", 65<<10))
	if errors.Is(err, ErrStored) || !errors.Is(err, ceiba.ErrTooLarge) {
		t.Error(err)
	}
}

func TestAFailedMessageIsStoredAndRetried(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	resp, err := NewMNSTopic(c).SendMessage(map[string]string{"task_id": "7"})
	var stored *StoredError
	if !errors.Is(err, ErrStored) || !errors.As(err, &stored) || resp != (MessageSendResponse{}) {
		t.Fatal(resp, err)
	}
	if stored.Topic != c.TopicName || !strings.Contains(stored.Reason, "AccessDenied") {
		t.Errorf("%+v", stored)
	}
	kept := rows(t, c)
	if len(kept) != 1 || kept[0].ID != stored.ID || kept[0].Short != `{"task_id":"7"}` || kept[0].State != ceiba.RowPending {
		t.Fatal(kept)
	}
	if err := NewMNSTopic(c).Retry(5, nil); err != nil {
		t.Fatal(err)
	}
	if kept = rows(t, c); len(kept) != 1 || kept[0].Attempts != 1 || !errors.Is(kept[0].Err, ceiba.ErrPermission) {
		t.Fatal(kept)
	}
	s.down.Store(false)
	if err := NewMNSTopic(c).Retry(5, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.got(); len(got) != 1 || got[0] != `{"task_id":"7"}` || len(rows(t, c)) != 0 {
		t.Error(got, rows(t, c))
	}
}

// Its ancestor's notifier was not told which.
func TestTheNoticeIsToldWhatFailed(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	for _, body := range []string{"first", strings.Repeat("é", 300)} {
		if _, err := NewMNSTopic(c).SendMessage(body); !errors.Is(err, ErrStored) {
			t.Fatal(err)
		}
	}
	kept := rows(t, c)
	var told []config.Digest
	notice := config.DigestFunc(func(given ...config.Digest) error {
		told = append(told, given...)
		return nil
	})
	for range 4 {
		if err := NewMNSTopic(c).Retry(5, notice); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 0 {
		t.Fatal("told before the last attempt: ", told)
	}
	// The notice is called before Retry returns.
	if err := NewMNSTopic(c).Retry(5, notice); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || len(told[0].Failed) != 2 {
		t.Fatal(told)
	}
	for i, failed := range told[0].Failed {
		if failed.ID != kept[i].ID || failed.Topic != c.TopicName || failed.Attempts != 5 || !errors.Is(failed.Error, ceiba.ErrPermission) {
			t.Errorf("%+v", failed)
		}
	}
	if told[0].Failed[0].Short != "first" || told[0].Failed[1].Short != strings.Repeat("é", 200)+"…" {
		t.Errorf("%+v", told[0].Failed)
	}
	for _, part := range []string{"2 messages of `mns:" + c.TopicName + "@", kept[0].ID, "5 attempts", "AccessDenied", "first"} {
		if !strings.Contains(told[0].Text, part) {
			t.Errorf("no %q in %s", part, told[0].Text)
		}
	}
	// They are dead: nothing is tried any more, and nobody told again.
	tries := s.triesOf("first")
	if err := NewMNSTopic(c).Retry(5, notice); err != nil || s.triesOf("first") != tries || len(told) != 1 {
		t.Error(err, told)
	}
	if tries != 6 {
		t.Error(tries, "tries")
	}
	for _, row := range rows(t, c) {
		if row.State != ceiba.RowDead {
			t.Errorf("%+v", row)
		}
	}
}

// One process may publish, and another retry: what the first gives up the second is told of.
func TestWhatIsGivenUpWhereNobodyIsToldIsToldLater(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.RetryIntervalInTimes = 1
	s.down.Store(true)
	if _, err := NewMNSTopic(c).SendMessage("dies unheard"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	settings, err := settingsOf(c)
	if err != nil {
		t.Fatal(err)
	}
	box := ceiba.OpenOutbox(settings.id())
	if drained, err := box.Drain(t.Context()); err != nil || drained.GivenUp != 1 {
		t.Fatal(drained, err)
	}
	if _, err := NewMNSTopic(c).SendMessage("dies then"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	if count := notNotified(t, c); count != 0 {
		t.Error(count, "notices where nobody is known")
	}
	// Of both before it returns.
	told := map[string]bool{}
	if err := NewMNSTopic(c).Retry(1, func(given ...config.Digest) error {
		for _, failed := range given[0].Failed {
			told[failed.Short] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || !told["dies unheard"] || !told["dies then"] {
		t.Error(told)
	}
}

// Nor does a process that goes on trying keep them from one that only comes to retry.
func TestAProcessThatTellsNobodyLeavesItToOthers(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	c.RetryIntervalInSecond, c.RetryIntervalInTimes = 1, 1
	s.down.Store(true)
	settings, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		body := fmt.Sprint("dies ", i)
		if _, err := NewMNSTopic(c).SendMessage(body); !errors.Is(err, ErrStored) {
			t.Fatal(err)
		}
		eventually(t, "it is dead", func() bool {
			kept := rows(t, c)
			return len(kept) == i+1 && kept[i].State == ceiba.RowDead
		})
		other := exec.Command(os.Args[0])
		other.Env = append(os.Environ(), "CEIBA_TEST_RETRY="+string(settings))
		out, err := other.CombinedOutput()
		if err != nil || strings.Count(string(out), "told: ") != 1 || !strings.Contains(string(out), body) {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// What a notice says of itself counts for the rows that it was told of, not for those of the next Retry.
func TestANoticeThatFailedIsCalledByTheNextRetry(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	refused := errors.New("nobody answers")
	for i, result := range []error{refused, nil, refused} {
		if _, err := NewMNSTopic(c).SendMessage(fmt.Sprint("dies ", i)); !errors.Is(err, ErrStored) {
			t.Fatal(err)
		}
		calls := 0
		err := NewMNSTopic(c).Retry(1, func(...config.Digest) error { calls++; return result })
		if calls != 1 || !errors.Is(err, result) {
			t.Error(i, calls, err)
		}
	}
}

// notNotified counts the notices of a topic that failed.
func notNotified(t *testing.T, c *config.MNSConfig) int {
	t.Helper()
	settings, err := settingsOf(c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sharedOf(settings).producer.Status()
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Strategies []struct {
			NotNotified int `json:"not_notified"`
		} `json:"strategies"`
	}
	if err := json.Unmarshal(text, &status); err != nil || len(status.Strategies) != 1 {
		t.Fatal(string(text), err)
	}
	return status.Strategies[0].NotNotified
}

func TestNoticesOfEveryForm(t *testing.T) {
	s := startService(t)
	s.down.Store(true)
	calls := 0
	plain := func() error { calls++; return nil }
	refused := errors.New("nobody answers")
	for i, notice := range []any{
		plain, config.NoticeFunc(plain), func(...config.Digest) error { calls++; return nil },
		config.DigestFunc(nil), config.NoticeFunc(nil), nil,
		func() error { return refused },
	} {
		c := s.config(t)
		if _, err := NewMNSTopic(c).SendMessage("x"); !errors.Is(err, ErrStored) {
			t.Fatal(err)
		}
		err := NewMNSTopic(c).Retry(1, notice)
		if (i == 6) != errors.Is(err, refused) || i < 6 && err != nil {
			t.Error(i, err)
		}
		if rows(t, c)[0].State != ceiba.RowDead {
			t.Error(i, "is not dead")
		}
	}
	if calls != 3 {
		t.Error(calls, "calls")
	}
}

// Its ancestor stored nothing while a retry went on.
func TestAFirstFailureDuringARetryIsStored(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	topic := NewMNSTopic(c)
	if _, err := topic.SendMessage("old"); !errors.Is(err, ErrStored) {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	s.hold.Store(&hold)
	retried := make(chan error)
	go func() { retried <- topic.Retry(5, nil) }()
	eventually(t, "the retry goes on", func() bool { return s.triesOf("old") == 2 })
	s.hold.Store(nil)
	if _, err := topic.SendMessage("new"); !errors.Is(err, ErrStored) {
		t.Error(err)
	}
	close(hold)
	if err := <-retried; err != nil {
		t.Error(err)
	}
	if kept := rows(t, c); len(kept) != 2 || kept[1].Short != "new" {
		t.Error(kept)
	}
}

// Its ancestor's pages skipped rows while others were deleted, and waited three seconds after each.
func TestARetryTriesEveryRow(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	topic := NewMNSTopic(c)
	const count = 2500
	var all sync.WaitGroup
	for part := range 50 {
		all.Go(func() {
			for i := range count / 50 {
				if _, err := topic.SendMessage(fmt.Sprintf("%d-%d", part, i)); !errors.Is(err, ErrStored) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s.down.Store(false)
	if err := topic.Retry(5, nil); err != nil {
		t.Fatal(err)
	}
	if left := rows(t, c); len(left) != 0 {
		t.Error(len(left), "rows are left")
	}
	once := map[string]int{}
	for _, body := range s.got() {
		once[body]++
	}
	if len(once) != count || len(s.got()) != count {
		t.Errorf("%d messages, %d of them different", len(s.got()), len(once))
	}
}

// Its ancestor sent each row from both.
func TestTwoProcessesNeverTryARowAtOnce(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	s.down.Store(true)
	topic := NewMNSTopic(c)
	const count = 500
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() {
			if _, err := topic.SendMessage(fmt.Sprint(i)); !errors.Is(err, ErrStored) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	settings, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	s.down.Store(false)
	for range 2 {
		all.Go(func() {
			other := exec.Command(os.Args[0])
			other.Env = append(os.Environ(), "CEIBA_TEST_RETRY="+string(settings))
			if out, err := other.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	if err := topic.Retry(5, nil); err != nil {
		t.Error(err)
	}
	all.Wait()
	eventually(t, "all are sent", func() bool { return len(s.got()) >= count })
	for i := range count {
		if tries := s.triesOf(fmt.Sprint(i)); tries != 2 {
			t.Errorf("%d was tried %d times", i, tries)
		}
	}
	if len(s.got()) != count || len(rows(t, c)) != 0 {
		t.Error(len(s.got()), "messages")
	}
}

// retryOnce is what the other processes of these tests do.
func retryOnce() int {
	var c config.MNSConfig
	err := json.Unmarshal([]byte(os.Getenv("CEIBA_TEST_RETRY")), &c)
	if err == nil {
		err = NewMNSTopic(&c).Retry(5, func(given ...config.Digest) error {
			fmt.Println("told: " + given[0].Text)
			return nil
		})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The README of its ancestor makes a new one for each call.
func TestManyShareOneProducer(t *testing.T) {
	s := startService(t)
	c := s.config(t)
	before := strings.Count(ceiba.Metrics(), "\n")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := NewMNSTopic(c).SendMessage("x"); err != nil {
				t.Error(err)
			}
			if err := NewMNSTopic(c).Retry(5, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(s.got()) != 50 {
		t.Error(len(s.got()), "messages")
	}
	one := strings.Count(ceiba.Metrics(), "\n") - before
	if _, err := NewMNSTopic(c).SendMessage("x"); err != nil {
		t.Fatal(err)
	}
	if after := strings.Count(ceiba.Metrics(), "\n") - before; after != one || one <= 0 {
		t.Errorf("%d lines, then %d", one, after)
	}
}
