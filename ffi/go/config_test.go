package ceiba

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every field of the typed configurations is one that the library knows: it refuses unknown keys.
func TestTypedConfigurationsAreUnderstood(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{})
	t.Setenv("CEIBA_TEST_SECRET", b.SecretKey())
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(b.SecretKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	full := Config{
		Deadline: 1500 * time.Microsecond * 1000, ConnectTimeout: 2 * time.Second, FailWhenDisconnected: true,
		MaxPending: 10, MaxPendingBytes: 1000,
	}
	full.Provider = KapokMQ{
		URL: "ws://" + b.Address(), Topic: "t", SecretKey: SecretEnv("CEIBA_TEST_SECRET"), ClientID: "x",
		CheckTime: time.Second, Window: 7, ResendUnacked: true,
	}
	p := openProducer(t, full, WithID(unique("p")))
	if p.deadline != 1500*time.Millisecond {
		t.Errorf("the deadline is %v", p.deadline)
	}
	full.Provider = KapokMQ{
		URL: "ws://" + b.Address(), Topic: "t", SecretKey: SecretFile(file), CheckTime: time.Second,
		Prefetch: 5, PrefetchBytes: 1 << 20,
	}
	openConsumer(t, full, WithID(unique("c")))
	openProducer(t, Config{ID: unique("p"), Provider: Memory{Topic: "t", Capacity: 3, Discard: true}})
	openConsumer(t, &Config{ID: unique("c"), Provider: Memory{Topic: "t", RedeliverAfter: time.Second}})
	_, err := OpenProducer(background, Config{ID: "x", Provider: KapokMQ{Registry: "http://" + deadAddress(t), Topic: "t", Spread: "round_robin", NodeProtocol: "wss", ReconnectBase: 20 * time.Millisecond, ReconnectMax: time.Second, SecretKey: SecretText("s")}, ConnectTimeout: 50 * time.Millisecond})
	if e := asError(t, err); e.Kind == ErrInvalidConfig {
		t.Error(err)
	}
	_, err = OpenProducer(background, Config{ID: "x", Provider: KapokMQ{URL: "wss://" + deadAddress(t), CAFile: "/nowhere.pem", Topic: "t"}})
	if e := asError(t, err); !strings.Contains(e.Message, "nowhere.pem") {
		t.Error(err)
	}
}

func TestAConfigurationMayComeInManyForms(t *testing.T) {
	watchLeaks(t)
	id := unique("many")
	for _, config := range []any{
		fmt.Sprintf(`{"id": %q, "provider": {"type": "memory", "topic": "m"}}`, id),
		[]byte(fmt.Sprintf(` {"id": %q, "provider": {"type": "memory", "topic": "m"}}`, id)),
		json.RawMessage(fmt.Sprintf(`{"id": %q, "provider": {"type": "memory", "topic": "m"}}`, id)),
		"memory://m?id=" + id,
		map[string]any{"id": id, "provider": map[string]any{"type": "memory", "topic": "m"}},
		Config{ID: id, Provider: Memory{Topic: "m"}},
	} {
		p, err := OpenProducer(background, config)
		if err != nil {
			t.Fatalf("%T: %v", config, err)
		}
		if p.ID() != id || producers.get(id) != p {
			t.Errorf("%T: the id is %q", config, p.ID())
		}
		if err := p.Close(background); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenFileOpensAllOrNone(t *testing.T) {
	watchLeaks(t)
	path := filepath.Join(t.TempDir(), "clients.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two := unique("file"), unique("file")
	write(fmt.Sprintf(`{"clients": [{"id": %q, "provider": {"type": "memory", "topic": "f"}},
		{"id": %q, "role": "consumer", "provider": {"type": "memory", "topic": "f"}}]}`, one, two))
	clients, err := OpenFile(background, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ProducerSend(one, []byte("x"), 0); err != nil {
		t.Error(err)
	}
	delivery, err := ConsumerReceive(within(t, 5*time.Second), two)
	if err != nil || string(delivery.Body) != "x" {
		t.Fatal(delivery, err)
	}
	if err := delivery.Ack(); err != nil {
		t.Error(err)
	}
	_, err = OpenFile(background, path)
	wantKind(t, err, ErrAlreadyOpen)
	if err := clients.Close(background); err != nil {
		t.Error(err)
	}
	write(fmt.Sprintf(`{"clients": [{"id": %q, "provider": {"type": "memory", "topic": "f"}}, {"id": "z", "provider": {"type": "nothing"}}]}`, one))
	_, err = OpenFile(background, path)
	if e := wantKind(t, err, ErrInvalidConfig); !strings.Contains(e.Message, "z") {
		t.Error(e)
	}
	_, err = ProducerSend(one, nil, 0)
	wantKind(t, err, ErrUnknownID)
	if _, err = OpenFile(background, path+".none"); err == nil {
		t.Error("a file that is not there was opened")
	}
}
