package ceiba

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// sectionKeys are the keys of a section in the core, read from its source.
func sectionKeys(t *testing.T, file string) []string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "..", "core", "src", file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(source), "pub struct Section {")
	if file == "outbox/config.rs" {
		_, rest, found = strings.Cut(string(source), "struct Config {")
	}
	body, _, ended := strings.Cut(rest, "\n}\n")
	if !found || !ended {
		t.Fatal(file, "has no section")
	}
	keys := []string{"type"}
	for _, match := range regexp.MustCompile(`(?m)^    (?:pub(?:\(super\))? )?([a-z_]+):`).FindAllStringSubmatch(body, -1) {
		keys = append(keys, match[1])
	}
	slices.Sort(keys)
	return keys
}

// Each section has all keys that the library knows, and no other.
func TestTypedSectionsAreWhole(t *testing.T) {
	kapok := KapokMQ{"u", "r", "t", SecretText("s"), "c", true, 1, 1, true, "s", "n", 1, 1, "f", 1, 1}
	dpmq := DPMQ{"u", "t", "c", 1, 1, "f", 1, 1, 1, 1}
	mns := MNS{"u", "q", "t", SecretText("i"), SecretText("s"), SecretText("t"), "c", "b", 1, 1, 1, "f", 1, 1, 1, 1, 1}
	outbox := OutboxStrategy{
		"n", "f", Secret{}, true, "s", "z", OutboxBackoff{Wait: 1}, 1, "n", true, true, true, true, 1, 1, 1, 1, 1, 1,
	}
	for file, section := range map[string]any{
		"provider/kapokmq/section.rs": kapok, "provider/dpmq/section.rs": dpmq, "provider/mns/section.rs": mns,
		"outbox/config.rs": outbox,
	} {
		text, err := json.Marshal(section)
		if err != nil {
			t.Fatal(err)
		}
		var written map[string]any
		if err := json.Unmarshal(text, &written); err != nil {
			t.Fatal(err)
		}
		// The one key of a strategy that every strategy has.
		if file == "outbox/config.rs" {
			delete(written, "name")
		}
		if has := slices.Sorted(maps.Keys(written)); !slices.Equal(has, sectionKeys(t, file)) {
			t.Errorf("%T has %v, the library %v", section, has, sectionKeys(t, file))
		}
	}
}

func TestTypedDPMQAndDurable(t *testing.T) {
	watchLeaks(t)
	b := startBroker(t, BrokerConfig{DPMQ: true, Delivery: "publish_subscribe"})
	c := openConsumer(t, Config{ID: unique("c"), Provider: DPMQ{
		URL: "http://" + b.Address(), Topic: "t", ClientID: unique("c"), CheckTime: time.Second, Prefetch: 5,
		PrefetchBytes: 1 << 20, ReconnectBase: 10 * time.Millisecond, ReconnectMax: time.Second,
	}})
	p := openProducer(t, Config{ID: unique("p"), Provider: DPMQ{URL: "http://" + b.Address(), Topic: "t", Connections: 1}})
	if _, err := p.Send(background, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	deliveries, err := c.Receive(within(t, 10*time.Second), 1)
	if err != nil || len(deliveries) != 1 || string(deliveries[0].Body) != "hello" {
		t.Fatal(deliveries, err)
	}
	kept := KapokMQ{URL: "ws://" + b.Address(), Topic: "kept", SecretKey: SecretText(b.SecretKey()), ClientID: unique("c"), Durable: true}
	c = openConsumer(t, Config{ID: unique("c"), Provider: kept})
	if err := c.Close(background); err != nil {
		t.Fatal(err)
	}
	p = openProducer(t, b.URL("kept"), WithID(unique("p")))
	if _, err := p.Send(background, []byte("while away")); err != nil {
		t.Fatal(err)
	}
	c = openConsumer(t, Config{ID: unique("c"), Provider: kept})
	deliveries, err = c.Receive(within(t, 10*time.Second), 1)
	if err != nil || len(deliveries) != 1 || string(deliveries[0].Body) != "while away" {
		t.Fatal(deliveries, err)
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
