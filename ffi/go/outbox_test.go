package ceiba

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gateway is a sender that fails while it is down, and keeps what it sent.
type gateway struct {
	down atomic.Bool
	mu   sync.Mutex
	sent []string
}

func (g *gateway) send(_ context.Context, message *Message) (string, error) {
	if g.down.Load() {
		return "", &Error{Kind: ErrUnavailable, Retryable: true, Message: "it is down"}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sent = append(g.sent, string(message.Body))
	return fmt.Sprintf("id-%d", len(g.sent)), nil
}

func (g *gateway) bodies() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(slices.Values(g.sent))
}

// kept opens a producer over a gateway, with an outbox in a file that nothing tries by itself.
func kept(t *testing.T, section OutboxStrategy) (*Producer, *gateway) {
	t.Helper()
	g := &gateway{}
	name := unique("gateway")
	if err := RegisterHost(name, g.send); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := UnregisterHost(name); err != nil {
			t.Error(err)
		}
	})
	if section.File == "" {
		section.File = filepath.Join(t.TempDir(), "outbox.db")
	}
	if section.Backoff == (OutboxBackoff{}) && section.Schedule == "" {
		section.Backoff = OutboxBackoff{Wait: 24 * time.Hour}
	}
	config := Config{ID: unique("kept"), Provider: map[string]any{"type": "callback", "name": name}, Strategies: []any{section}}
	return openProducer(t, config), g
}

func send(t *testing.T, p *Producer, bodies ...string) {
	t.Helper()
	messages := make([]Message, len(bodies))
	for i, body := range bodies {
		messages[i].Body = []byte(body)
	}
	results, err := p.SendBatch(background, messages)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		if result.Err != nil {
			t.Fatal(result.Err)
		}
	}
}

func TestAReceiptSaysWhetherAMessageWasSentOrStored(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{})
	receipt, err := p.Send(background, []byte("through"))
	if err != nil || receipt.Stored || receipt.MessageID != "id-1" {
		t.Fatal(receipt, err)
	}
	g.down.Store(true)
	receipt, err = p.Send(background, []byte("kept"))
	if err != nil || !receipt.Stored || receipt.Attempts != 1 || !strings.Contains(receipt.Warning, "it is down") {
		t.Fatal(receipt, err)
	}
	row, err := p.Outbox().Show(background, receipt.MessageID)
	if err != nil || string(row.Message.Body) != "kept" {
		t.Fatal(row, err)
	}
	results := make(chan Receipt, 1)
	if err := p.Submit([]byte("submitted"), func(receipt Receipt, err error) {
		if err != nil {
			t.Error(err)
		}
		results <- receipt
	}); err != nil {
		t.Fatal(err)
	}
	if receipt = <-results; !receipt.Stored {
		t.Error(receipt)
	}

	always, g := kept(t, OutboxStrategy{Always: true})
	receipt, err = always.Send(background, []byte("first"))
	if err != nil || !receipt.Stored || receipt.Attempts != 0 {
		t.Fatal(receipt, err)
	}
	eventually(t, "it is sent", func() bool { return slices.Equal(g.bodies(), []string{"first"}) })
}

func TestAStoreThatFailsIsAnError(t *testing.T) {
	watchLeaks(t)
	_, err := OpenProducer(background, Config{
		ID: unique("nowhere"), Provider: Memory{Topic: "t"}, Strategies: []any{OutboxStrategy{File: "/dev/null/outbox.db"}},
	})
	wantKind(t, err, ErrStorage)
	_, err = OpenOutbox("sqlite:/dev/null/outbox.db").List(background, ListOptions{})
	wantKind(t, err, ErrStorage)
}

func TestRowsAreShownRetriedAndDropped(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{MaxAttempts: 2, Concurrency: 1})
	box := p.Outbox()
	g.down.Store(true)
	before := time.Now().Add(-time.Second)
	_, err := p.SendMessage(background, Message{
		Body: []byte("\xff\xfe"), Key: "k", Tag: "g", Args: map[string]int{"n": 1}, Template: "t",
		Recipients: []string{"a", "b"}, Attributes: map[string]string{"x": "y"}, ContentType: "text/plain",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"two", "three", "four"} {
		send(t, p, body)
	}
	page, err := box.List(background, ListOptions{})
	if err != nil || len(page.Rows) != 4 || page.Next != "" {
		t.Fatal(page, err)
	}
	first := page.Rows[0]
	if first.Producer != p.ID() || first.State != RowPending || first.Attempts != 0 || first.Size < 2 ||
		first.Created.Before(before) || first.Accepted.Before(before) || time.Until(first.NextAttempt) < 23*time.Hour {
		t.Errorf("%+v", first)
	}
	if e := wantKind(t, first.Err, ErrUnavailable); !strings.Contains(e.Message, "it is down") {
		t.Error(e)
	}
	if page.Rows[1].Short != "two" || first.Message != nil {
		t.Errorf("%+v", page.Rows[1])
	}
	whole, err := box.Show(background, first.ID)
	if err != nil {
		t.Fatal(err)
	}
	m := whole.Message
	if string(m.Body) != "\xff\xfe" || m.Key != "k" || m.Tag != "g" || m.Template != "t" || m.ContentType != "text/plain" ||
		!slices.Equal(m.Recipients, []string{"a", "b"}) || m.Attributes["x"] != "y" || fmt.Sprintf("%s", m.Args) != `{"n":1}` {
		t.Errorf("%+v", m)
	}

	// Two failures make them dead.
	for range 2 {
		if _, err := box.Drain(background); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := box.Stats(background, "")
	if err != nil || stats.Store != "sqlite" || len(stats.Producers) != 1 || stats.Producers[0].Dead != 4 || stats.Producers[0].Producer != p.ID() {
		t.Fatal(stats, err)
	}
	ids := []string{}
	for row, err := range box.Rows(background, ListOptions{State: RowDead, Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if row.Attempts != 2 {
			t.Errorf("%+v", row)
		}
		ids = append(ids, row.ID)
	}
	if len(ids) != 4 {
		t.Fatal(ids)
	}
	g.down.Store(false)
	if retried, err := box.Retry(background, ids[1], "999999"); err != nil || retried != 1 {
		t.Fatal(retried, err)
	}
	eventually(t, "the row is sent", func() bool { return slices.Equal(g.bodies(), []string{"two"}) })
	dropped, err := box.Drop(background, ids[2], "999999")
	if err != nil || dropped.Dropped != 1 || !slices.Equal(dropped.Unknown, []string{"999999"}) || dropped.Leased != nil {
		t.Fatal(dropped, err)
	}
	if retried, err := box.RetryAll(background, ""); err != nil || retried != 2 {
		t.Fatal(retried, err)
	}
	eventually(t, "all are sent", func() bool { return len(g.bodies()) == 3 })
	eventually(t, "no row is left", func() bool {
		page, err := box.List(background, ListOptions{})
		return err == nil && len(page.Rows) == 0
	})
	_, err = box.Show(background, ids[0])
	wantKind(t, err, ErrNotFound)
}

func TestADrainTriesEveryRowOnce(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{MaxAttempts: 2})
	g.down.Store(true)
	send(t, p, "a", "b", "c")
	for _, expected := range []Drained{{Failed: 3}, {Failed: 3, GivenUp: 3}, {}} {
		if drained, err := p.Outbox().Drain(background); err != nil || drained != expected {
			t.Fatal(drained, err, expected)
		}
	}
	send(t, p, "d")
	g.down.Store(false)
	if drained, err := p.Outbox().Drain(background); err != nil || drained != (Drained{Sent: 1}) {
		t.Fatal(drained, err)
	}
	_, err := OpenOutbox("sqlite:" + filepath.Join(t.TempDir(), "o.db")).Drain(background)
	wantKind(t, err, ErrUnsupported)
}

func TestPagingSkipsNoRowWhileRowsAreDeleted(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{})
	g.down.Store(true)
	const count = 500
	bodies := make([]string, count)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
	}
	send(t, p, bodies...)
	seen := map[string]bool{}
	for row, err := range p.Outbox().Rows(background, ListOptions{Limit: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[row.Short] = true
		if _, err := p.Outbox().Drop(background, row.ID); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != count {
		t.Errorf("%d rows of %d were seen", len(seen), count)
	}
	for range p.Outbox().Rows(background, ListOptions{}) {
		t.Error("a row is left")
	}
	// An error ends it.
	errs := 0
	for _, err := range OpenOutbox("nobody").Rows(background, ListOptions{}) {
		wantKind(t, err, ErrUnknownID)
		errs++
	}
	if errs != 1 {
		t.Error(errs, "errors")
	}
}

func TestRowsAreExportedAndImported(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{})
	g.down.Store(true)
	huge := strings.Repeat("x", 2<<20)
	bodies := []string{"line\nfeed", "\x00\xff", huge, huge + "y", huge + "z", huge + "0"}
	for i := range 1100 {
		bodies = append(bodies, fmt.Sprint("body ", i))
	}
	for _, body := range bodies[:6] {
		send(t, p, body)
	}
	send(t, p, bodies[6:]...)
	var file bytes.Buffer
	if count, err := p.Outbox().Export(background, &file, ListOptions{Limit: 1000}); err != nil || count != int64(len(bodies)) {
		t.Fatal(count, err)
	}
	text := file.String()
	if lines := strings.Count(text, "\n"); lines != len(bodies) {
		t.Fatal(lines, "lines")
	}
	other := OpenOutbox("sqlite:" + filepath.Join(t.TempDir(), "other.db"))
	for _, expected := range []Imported{{Imported: int64(len(bodies))}, {Known: int64(len(bodies))}} {
		// The last line may have no end, and lines may end as they do elsewhere.
		text := strings.TrimSuffix(strings.ReplaceAll(text, "\n", "\r\n\n"), "\n")
		if imported, err := other.Import(background, strings.NewReader(text)); err != nil || imported != expected {
			t.Fatal(imported, err)
		}
	}
	// The first ones, which are long or no text, are looked at whole.
	seen := map[string]bool{}
	for row, err := range other.Rows(background, ListOptions{Producer: p.ID(), State: RowPending}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) > 10 {
			seen[row.Short] = true
			continue
		}
		whole, err := other.Show(background, row.ID)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(whole.Message.Body)] = true
	}
	for _, body := range bodies {
		if !seen[body] {
			t.Errorf("%.20q is missing", body)
		}
	}
	stats, err := other.Stats(background, p.ID())
	if err != nil || len(stats.Producers) != 1 || stats.Producers[0].Pending != int64(len(bodies)) {
		t.Error(stats, err)
	}

	_, err = other.Import(background, strings.NewReader(text[:strings.IndexByte(text, '\n')]+"\nnonsense\n"))
	if e := wantKind(t, err, ErrInvalidArgument); !strings.Contains(e.Message, "line 2") {
		t.Error(e)
	}
	broken := errors.New("the disk is full")
	if _, err = p.Outbox().Export(background, writerFunc(func([]byte) (int, error) { return 0, broken }), ListOptions{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err = other.Import(background, readerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestEndedRowsArePurged(t *testing.T) {
	watchLeaks(t)
	p, g := kept(t, OutboxStrategy{MaxAttempts: 1, KeepDone: time.Hour})
	box := p.Outbox()
	g.down.Store(true)
	send(t, p, "dead")
	if _, err := box.Drain(background); err != nil {
		t.Fatal(err)
	}
	send(t, p, "done")
	g.down.Store(false)
	if _, err := box.Drain(background); err != nil {
		t.Fatal(err)
	}
	for _, purge := range []struct {
		options PurgeOptions
		purged  int64
	}{
		{PurgeOptions{Older: time.Hour}, 0},
		{PurgeOptions{}, 1},
		{PurgeOptions{}, 0},
		{PurgeOptions{State: RowDead, Older: time.Hour}, 0},
		{PurgeOptions{State: RowDead, Producer: p.ID()}, 1},
	} {
		// Both times are in whole milliseconds.
		time.Sleep(2 * time.Millisecond)
		if purged, err := box.Purge(background, purge.options); err != nil || purged != purge.purged {
			t.Errorf("%+v: %d %v", purge, purged, err)
		}
	}
	for _, options := range []PurgeOptions{{State: RowPending}, {State: "nothing"}, {Older: -1}, {Producer: "another"}} {
		_, err := box.Purge(background, options)
		wantKind(t, err, ErrInvalidArgument)
	}
}

func TestTheNotifierIsToldOfDeadRows(t *testing.T) {
	watchLeaks(t)
	topic := unique("told")
	notifier := openProducer(t, memory(topic), WithID(unique("notifier")))
	consumer := openConsumer(t, memory(topic), WithID(unique("c")))
	p, g := kept(t, OutboxStrategy{MaxAttempts: 1, Notify: notifier.ID()})
	g.down.Store(true)
	send(t, p, "never comes", "nor this")
	if _, err := p.Outbox().Drain(background); err != nil {
		t.Fatal(err)
	}
	deliveries, err := consumer.Receive(within(t, 10*time.Second), 1)
	if err != nil {
		t.Fatal(err)
	}
	text := string(deliveries[0].Body)
	for _, part := range []string{"2 messages of `" + p.ID() + "`", "1 attempt: unavailable: ", "never comes", "nor this"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %s", part, text)
		}
	}
	wantKind(t, notifier.Close(background), ErrInUse)
}

func TestCallsOnAnOutboxEndWithTheirContext(t *testing.T) {
	watchLeaks(t)
	hold := make(chan struct{})
	name := unique("slow")
	if err := RegisterHost(name, func(ctx context.Context, message *Message) (string, error) {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return "", &Error{Kind: ErrUnavailable, Message: "slow"}
	}); err != nil {
		t.Fatal(err)
	}
	defer UnregisterHost(name)
	p := openProducer(t, Config{
		ID: unique("slow"), Provider: map[string]any{"type": "callback", "name": name}, Deadline: 2 * time.Second,
		Strategies: []any{OutboxStrategy{File: filepath.Join(t.TempDir(), "o.db"), Backoff: OutboxBackoff{Wait: time.Hour}}},
	})
	defer close(hold)
	// What is late is stored, however its deadline was told; what is cancelled is not.
	if receipt, err := p.Send(background, []byte("x"), WithTimeout(10*time.Millisecond)); err != nil || !receipt.Stored {
		t.Fatal(receipt, err)
	}
	if receipt, err := p.Send(within(t, 10*time.Millisecond), []byte("y")); err != nil || !receipt.Stored {
		t.Fatal(receipt, err)
	}
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := p.Send(ctx, []byte("z"))
	wantKind(t, err, ErrCancelled)
	start := time.Now()
	_, err = p.Outbox().Drain(within(t, 50*time.Millisecond))
	if e := wantKind(t, err, ErrTimeout); !errors.Is(e, context.DeadlineExceeded) {
		t.Error(e)
	}
	ctx, cancel = context.WithCancel(background)
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = p.Outbox().Drain(ctx)
	if e := wantKind(t, err, ErrCancelled); !errors.Is(e, context.Canceled) {
		t.Error(e)
	}
	if took := time.Since(start); took > time.Second {
		t.Error("the calls took", took)
	}
	_, err = p.Outbox().List(ctx, ListOptions{})
	wantKind(t, err, ErrCancelled)
	for range p.Outbox().Rows(ctx, ListOptions{}) {
	}
}

func TestWrongCallsOnOutboxesAreTyped(t *testing.T) {
	watchLeaks(t)
	plain := openProducer(t, memory(unique("plain")), WithID(unique("plain")))
	_, err := plain.Outbox().List(background, ListOptions{})
	wantKind(t, err, ErrUnsupported)
	_, err = OpenOutbox("nobody").Stats(background, "")
	wantKind(t, err, ErrUnknownID)
	_, err = OpenOutbox("").Drain(background)
	if err == nil {
		t.Error("a drain of nothing")
	}
	p, _ := kept(t, OutboxStrategy{})
	for _, options := range []ListOptions{{Limit: 1001}, {Limit: -1}, {After: "x"}, {State: "lost"}, {Producer: "another"}} {
		_, err := p.Outbox().List(background, options)
		wantKind(t, err, ErrInvalidArgument)
	}
	_, err = p.Outbox().Show(background, "x")
	wantKind(t, err, ErrInvalidArgument)
	_, err = p.Outbox().Retry(background, "x")
	wantKind(t, err, ErrInvalidArgument)
	if retried, err := p.Outbox().Retry(background); err != nil || retried != 0 {
		t.Error(retried, err)
	}
	for _, section := range []OutboxStrategy{
		{}, {File: "a", URL: SecretText("sqlite:b")}, {File: "a", MaxAttempts: -1}, {File: "a", Schedule: "never"},
	} {
		_, err := OpenProducer(background, Config{ID: "wrong", Provider: Memory{Topic: "t"}, Strategies: []any{section}})
		wantKind(t, err, ErrInvalidConfig)
	}
}

func TestTheAddressOfAStoreIsASecret(t *testing.T) {
	section := OutboxStrategy{URL: SecretText("mongodb://user:" + hunted + "@host/db")}
	config := Config{ID: "kept", Provider: Memory{Topic: "t"}, Strategies: []any{section}}
	for _, value := range []any{section, &section, config, &config} {
		hides(t, value)
	}
	_, err := OpenProducer(background, config)
	if e := asError(t, err); strings.Contains(e.Error(), hunted) {
		t.Error(e)
	}
	key := MNS{URL: "http://host", Topic: "t", AccessKeyID: SecretText(hunted), AccessKeySecret: SecretText(hunted)}
	for _, value := range []any{key, &key, Config{Provider: key}} {
		hides(t, value)
	}
}

func TestEveryKeyOfAnOutboxIsUnderstood(t *testing.T) {
	watchLeaks(t)
	notifier := openProducer(t, memory(unique("n")), WithID(unique("n")))
	full := OutboxStrategy{
		Name: "kept", Always: true, Schedule: "0 */10 * * * *", TimeZone: "Europe/Berlin",
		Backoff: OutboxBackoff{Base: time.Second, Max: time.Minute, Jitter: "equal"}, MaxAttempts: 7, Notify: notifier.ID(),
		StopOnUnknown: true, Ordered: true, DeduplicateKeys: true, Concurrency: 3, Lease: time.Hour, KeepDone: time.Hour,
		KeepDead: time.Hour, StoreTimeout: time.Second, Poll: time.Second,
	}
	p, _ := kept(t, full)
	status, err := p.Status()
	if err != nil || !strings.Contains(string(status), `"max_attempts":7`) || !strings.Contains(string(status), `"when":"always"`) {
		t.Errorf("%s %v", status, err)
	}
}
