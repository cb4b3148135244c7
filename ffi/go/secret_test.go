package ceiba

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hunted = "hunter2"

// printed is a value in every form in which it can get into a text or a log.
func printed(t *testing.T, value any) string {
	t.Helper()
	var text bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%20v"} {
		fmt.Fprintf(&text, verb+"\n", value)
		fmt.Fprintf(&text, verb+"\n", []any{value})
		fmt.Fprintf(&text, verb+"\n", map[string]any{"key": value})
	}
	fmt.Fprintln(&text, value)
	slog.New(slog.NewTextHandler(&text, nil)).Info("text", "value", value)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("json", "value", value, slog.Group("group", "value", value),
		"list", []any{value}, "map", map[string]any{"key": value}, "struct", struct{ Value any }{value})
	return text.String()
}

func hides(t *testing.T, value any) string {
	t.Helper()
	text := printed(t, value)
	for _, form := range []string{hunted, fmt.Sprintf("%x", hunted), fmt.Sprintf("%X", hunted)} {
		if strings.Contains(text, form) {
			t.Errorf("%T: %s", value, text)
		}
	}
	return text
}

func TestSecretsDoNotPrint(t *testing.T) {
	watchLeaks(t)
	section := KapokMQ{Topic: "t", SecretKey: SecretText(hunted)}
	config := Config{ID: "seen", Provider: section}
	broker := BrokerConfig{Listen: "127.0.0.1:0", SecretKey: SecretText(hunted), Nodes: []string{"127.0.0.1:1"}}
	running := startBroker(t, broker)
	for _, value := range []any{section.SecretKey, &section.SecretKey, section, &section, config, &config, broker, &broker, running} {
		if text := hides(t, value); !strings.Contains(text, stars) {
			t.Errorf("%T: no stars in %s", value, text)
		}
	}
	// Where fmt calls no methods.
	hides(t, struct {
		section KapokMQ
		broker  BrokerConfig
		running *Broker
	}{section, broker, running})
	hides(t, []KapokMQ{section})
	hides(t, []Config{config})
	hides(t, struct{ Broker BrokerConfig }{broker})
	hides(t, (*BrokerConfig)(nil))
	hides(t, (*Broker)(nil))

	// The rest is shown.
	if text := fmt.Sprintf("%+v", broker); !strings.HasPrefix(text, "{Listen:127.0.0.1:0 SecretKey:*** Delivery: DPMQ:false MNS:<nil> Data: ") {
		t.Error(text)
	}
	if text := fmt.Sprintf("%#v", broker); !strings.HasPrefix(text, `ceiba.BrokerConfig{Listen:"127.0.0.1:0", SecretKey:***`) {
		t.Error(text)
	}
	if text := fmt.Sprint(running); !strings.Contains(text, running.Address()) {
		t.Error(text)
	}
	if running.SecretKey() != hunted || !strings.Contains(running.URL("t"), hunted) {
		t.Error("the broker has another secret")
	}
}

// ofOneself marshals itself, secret and all.
type ofOneself struct{ section KapokMQ }

func (o ofOneself) MarshalJSON() ([]byte, error) { return json.Marshal(o.section) }

func TestASecretIsInTheConfigurationThatTheLibraryGets(t *testing.T) {
	watchLeaks(t)
	section := KapokMQ{Topic: "t", SecretKey: SecretText(hunted)}
	type inner struct {
		Provider any `json:"provider"`
	}
	type own struct {
		inner
		ID    string            `json:"id,omitempty"`
		Left  string            `json:"left,omitempty"`
		Other map[string]Secret `json:"other,omitempty"`
		Count int               `json:"count,string"`
		Out   Secret            `json:"-"`
		out   Secret
		Bytes []byte
	}
	for name, config := range map[string]any{
		"config":   Config{ID: "x", Provider: section},
		"pointers": &Config{ID: "x", Provider: &section},
		"map":      map[string]any{"id": "x", "provider": section},
		"struct":   own{inner: inner{section}, ID: "x", Count: 3, Out: SecretText("out"), out: SecretText("out")},
		"flat":     map[string]any{"id": "x", "provider": map[string]any{"secret_key": section.SecretKey}},
	} {
		text, id, err := configText(config)
		if err != nil || id != "x" || !strings.Contains(text, `"secret_key":"`+hunted+`"`) || strings.Contains(text, stars) {
			t.Error(name, text, id, err)
		}
		for _, shown := range []any{config, []any{config}} {
			if text, err := json.Marshal(shown); err != nil || strings.Contains(string(text), hunted) || !strings.Contains(string(text), stars) {
				t.Error(name, string(text), err)
			}
		}
	}
	text, _, err := configText(own{ID: "x", Other: map[string]Secret{"a": SecretEnv("E"), "b": SecretFile("/f"), "c": {}}, Count: 3, Bytes: []byte("b")})
	if err != nil || text != `{"Bytes":"Yg==","count":"3","id":"x","other":{"a":{"env":"E"},"b":{"file":"/f"},"c":""},"provider":null}` {
		t.Error(text, err)
	}
	// What hides its secret by itself would be opened with the stars.
	_, failure := OpenProducer(background, ofOneself{section}, WithID("x"))
	if e := wantKind(t, failure, ErrInvalidConfig); !strings.Contains(e.Message, "hides the secret") {
		t.Error(e)
	}
	loop := map[string]any{}
	loop["loop"] = []any{loop}
	_, failure = OpenProducer(background, loop, WithID("x"))
	if e := wantKind(t, failure, ErrInvalidConfig); !strings.Contains(e.Message, "nested") {
		t.Error(e)
	}
	_, failure = OpenProducer(background, struct {
		A Secret
		B func()
	}{A: SecretText(hunted)})
	if e := wantKind(t, failure, ErrInvalidConfig); strings.Contains(e.Error(), hunted) {
		t.Error(e)
	}
	shown, failure := json.Marshal(BrokerConfig{SecretKey: SecretText(hunted), Data: "/d"})
	if failure != nil || strings.Contains(string(shown), hunted) || !strings.Contains(string(shown), `"Data":"/d"`) {
		t.Error(string(shown), failure)
	}
}

func TestABrokersSecretComesFromItsPlace(t *testing.T) {
	watchLeaks(t)
	t.Setenv("CEIBA_TEST_SECRET", hunted)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(hunted+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []Secret{SecretText(hunted), SecretEnv("CEIBA_TEST_SECRET"), SecretFile(file)} {
		b := startBroker(t, BrokerConfig{SecretKey: secret})
		if b.SecretKey() != hunted {
			t.Error(b.SecretKey())
		}
		openProducer(t, b.URL("t"), WithID(unique("p")))
	}
	for _, secret := range []Secret{SecretText(""), SecretEnv("CEIBA_TEST_NO_SUCH"), SecretFile(file + "x")} {
		_, err := StartBroker(BrokerConfig{SecretKey: secret})
		wantKind(t, err, ErrInvalidConfig)
	}
}
