package ceiba

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// recorder keeps what it is told.
type recorder struct {
	mu      sync.Mutex
	least   slog.Level
	records []slog.Record
}

func (r *recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= r.least }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler               { return r }
func (r *recorder) WithGroup(string) slog.Handler                    { return r }
func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
	return nil
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

// noise has the library log: a broker starts, a client logs in with a wrong key, and all ends.
func noise(t *testing.T, secret string) {
	t.Helper()
	b := startBroker(t, BrokerConfig{SecretKey: SecretText(secret)})
	p, err := OpenProducer(background, b.URL(unique("topic")), WithID(unique("p")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenProducer(background, kapokConfig(b.Address(), "wrong-"+secret), WithID(unique("p"))); err == nil {
		t.Error("a wrong key was taken")
	}
	if err := p.Close(background); err != nil {
		t.Error(err)
	}
	if err := b.Stop(background); err != nil {
		t.Error(err)
	}
}

func TestTheLogReachesSlog(t *testing.T) {
	watchLeaks(t)
	t.Cleanup(func() { SetLogger(nil) })
	all := &recorder{least: levelTrace}
	if err := SetLogger(slog.New(all)); err != nil {
		t.Fatal(err)
	}
	noise(t, "hunter2")
	eventually(t, "records", func() bool { return all.count() > 0 })
	all.mu.Lock()
	for _, record := range all.records {
		target := ""
		record.Attrs(func(attr slog.Attr) bool {
			if attr.Key == "target" {
				target = attr.Value.String()
			}
			return true
		})
		if target == "" || record.Message == "" {
			t.Errorf("a record without target or message: %+v", record)
		}
		if strings.Contains(record.Message, "hunter2") {
			t.Errorf("a record holds the secret: %s", record.Message)
		}
	}
	all.mu.Unlock()

	// Another logger takes its place, and gets only its own levels.
	errorsOnly := &recorder{least: slog.LevelError}
	if err := SetLogger(slog.New(errorsOnly)); err != nil {
		t.Fatal(err)
	}
	noise(t, "hunter3")
	for _, record := range errorsOnly.records {
		if record.Level < slog.LevelError {
			t.Errorf("a record below its level: %+v", record)
		}
	}
	if err := SetLogger(nil); err != nil {
		t.Fatal(err)
	}
	before := all.count()
	noise(t, "hunter4")
	if all.count() != before {
		t.Error("a logger that was replaced is still called")
	}
}
